//! Promise 21: an agent that was started as root is an ordinary user with two capabilities and few system calls, in all
//! of its threads, and does all of its work.
//!
//! In a user namespace that has no other user than root (`tests/scripts/in-lab` for those who are not root) it stays
//! root there, and says so; all else holds.

use std::{fs, os::unix::fs::MetadataExt as _, time::Duration};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{Family, MIXED, SSH, Three};
use fleetknock_lab::{Agent, Lab, Reach, wait_until};

/// CAP_NET_ADMIN (12) and CAP_NET_RAW (13), as proc(5) writes them.
const TWO: &str = "0000000000003000";
const NONE: &str = "0000000000000000";
/// The agents' reconcile interval, 10 seconds by default, with what a busy machine adds.
const INTERVAL: Duration = Duration::from_secs(20);
/// The runtime's, capture's two, the firewall's.
const THREADS_MIN: usize = 4;

#[test]
fn two_capabilities_and_few_calls_are_enough() -> Result<()> {
    Lab::scenario("hardened", |lab| {
        let three = Three::guarded(lab, MIXED, 120)?;
        three.client.knock(None, &three.knock(Family::V4))?;
        three.wait_open(&three.client, None, Family::V4)?;
        // What was found out while it worked: all threads are there.
        is_confined(&three.bastion, NONE)?;
        is_confined(&three.edge, NONE)?;
        // iptables is given the two.
        is_confined(&three.db, TWO)?;
        for agent in three.agents() {
            let picture = lab.directory().join(format!("state-{}/picture.json", agent.host().name()));
            wait_until("the picture to be remembered", INTERVAL, || Ok(picture.exists()))?;
            ensure!(
                (fs::metadata(&picture)?.uid() == 0) != has_users()?,
                "{} has another owner",
                picture.display()
            );
        }

        three.bastion.host().ok(&["nft", "flush", "ruleset"])?;
        for program in ["iptables", "ip6tables"] {
            three.db.host().ok(&[program, "-t", "mangle", "-F"])?;
        }
        for to in three.opened(Family::V4) {
            wait_until(&format!("{to} to be guarded again"), INTERVAL, || {
                Ok(three.stranger.reach(to)? == Reach::Filtered)
            })?;
        }

        for agent in [&three.db, &three.bastion] {
            agent.host().ok(&["ip", "link", "set", "eth0", "down"])?;
            agent.host().ok(&["ip", "link", "set", "eth0", "up"])?;
        }
        three.fleet.wait_connected(3)?;
        let late = lab.client("late")?;
        wait_until("a knock after the interfaces came back to open", INTERVAL, || {
            late.knock(None, &three.knock(Family::V4))?;
            Ok(three.wait_open_within(Duration::from_secs(3), &late, None, Family::V4).is_ok())
        })?;
        three.all_closed(&three.stranger, None, Family::V4)?;
        for agent in three.agents() {
            ensure!(agent.process()?.is_running(), "the agent on {} has ended", agent.host().name());
        }
        Ok(())
    })
}

#[test]
fn a_restarted_agent_reads_what_it_remembered_and_off_is_said() -> Result<()> {
    Lab::scenario("hardened-again", |lab| {
        let three = Three::guarded(lab, MIXED, 120)?;
        let state = lab.directory().join("state-bastion-1");
        wait_until("the picture to be remembered", INTERVAL, || Ok(state.join("picture.json").exists()))?;
        three.bastion.kill()?;
        let to = three.bastion.host().at(SSH);
        three.bastion.host().ok(&["nft", "flush", "ruleset"])?;
        three.fleet.kill_controller()?;
        let again = three.bastion.start()?;
        wait_until("the remembered guard to stand", INTERVAL, || {
            Ok(again.log().contains("the remembered guard stands")
                && three.stranger.reach(to)? == Reach::Filtered)
        })?;

        let host = lab.host("required")?;
        let agent = three.fleet.agent_with(&host, &[], &["--firewall", "nftables", "--harden", "require"])?;
        let process = agent.process()?;
        if has_users()? {
            wait_until("it to be hardened", INTERVAL, || Ok(process.log().contains("hardened")))?;
            is_confined(&agent, NONE)?;
        } else {
            let status = process.wait(INTERVAL)?;
            ensure!(status.code() == Some(69), "{status}: {}", process.log());
            ensure!(process.log().contains("--harden require: it stays root"), "{}", process.log());
        }
        let host = lab.host("soft")?;
        let agent = three.fleet.agent_with(&host, &[], &["--firewall", "nftables", "--harden", "off"])?;
        let process = agent.process()?;
        wait_until("it to be said", INTERVAL, || Ok(process.log().contains("NOT HARDENED")))?;
        Ok(())
    })
}

/// Whether there is any user but root here: not in a user namespace for one.
fn has_users() -> Result<bool> {
    let map = fs::read_to_string("/proc/self/uid_map")?;
    Ok(map.split_whitespace().nth(2) != Some("1"))
}

/// Looks at every thread of an agent, proc(5); programs inherit these capabilities of it.
fn is_confined(agent: &Agent, inherited: &str) -> Result<()> {
    let process = agent.process()?;
    let name = agent.host().name();
    // It confines itself before it begins its work, and the threads are made for that.
    wait_until(&format!("the threads of {name} to be there"), INTERVAL, || {
        ensure!(process.is_running(), "{}", process.log());
        Ok(fs::read_dir(format!("/proc/{}/task", process.pid()))?.count() >= THREADS_MIN)
    })?;
    for thread in fs::read_dir(format!("/proc/{}/task", process.pid()))? {
        // A thread may end meanwhile: one that runs iptables does.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).with_context(|| format!("no {name} in {status}"))
        };
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            ensure!(field(set)? == TWO, "{set} of {name} is {}: {status}", field(set)?);
        }
        for set in ["CapInh", "CapAmb"] {
            ensure!(field(set)? == inherited, "{set} of {name} is {}: {status}", field(set)?);
        }
        ensure!(field("NoNewPrivs")? == "1" && field("Seccomp")? == "2", "{name}: {status}");
        for ids in ["Uid", "Gid"] {
            let root = field(ids)?.split_whitespace().any(|id| id == "0");
            ensure!(root != has_users()?, "{ids} of {name}: {status}");
        }
    }
    let log = process.log();
    ensure!(
        log.contains("hardened in part") != has_users()? && log.contains("hardened"),
        "{name} says {log}"
    );
    Ok(())
}
