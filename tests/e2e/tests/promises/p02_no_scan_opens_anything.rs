//! Promise 2: scans in every order over all hosts, at full speed and slow, also of exactly the range that holds the
//! ports, open nothing; nor do two sources that knock half each.
//!
//! A ban would hide whether the matcher withstands a scan. So every scan also comes from a source that is never banned:
//! it lies in the management network of a host that the door has nothing to do with.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{Family, NEAR, SOON, Three};
use fleetknock_lab::{Host, Lab, Shot, fleet, knock::shoot, wait_until};

/// The range that holds the ports, and little more.
const RANGE: std::ops::RangeInclusive<u16> = 7_400..=7_420;
const SCAN_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn scans_of_every_shape_open_nothing() -> Result<()> {
    Lab::scenario("scans", |lab| {
        let three = Three::guarded(lab, NEAR, 30)?;
        let (banned, unbannable) = (lab.client("banned")?, lab.client("unbannable")?);
        let apart = lab.host("apart-1")?;
        let management = [format!("{}/32", unbannable.v4()), format!("{}/128", unbannable.v6())];
        let flags = ["--firewall", "auto", "--management", &management[0], "--management", &management[1]];
        let _apart = three.fleet.agent_with(&apart, &["role=apart"], &flags)?;
        three.fleet.wait_connected(4)?;
        for scanner in [&unbannable, &banned] {
            for family in [Family::V4, Family::V6] {
                sweep_every_way(scanner, &three, family)?;
                nmap_every_way(scanner, &three, family)?;
                three.all_closed(scanner, None, family)?;
            }
        }
        wait_until("the scanner to be banned", SOON, || {
            let bans = three.fleet.list("bans")?;
            Ok(bans.iter().any(|ban| fleet::text(ban, "name") == Some(&banned.v4().to_string())))
        })?;
        three.witness(&three.client)?;
        for scanner in [&banned, &unbannable] {
            for family in [Family::V4, Family::V6] {
                let source = fleetknock_e2e::address(scanner, family);
                ensure!(three.openings_ever(Some(source))? == 0, "a scan opened the door for {source}");
            }
        }
        // The source that was not banned still can knock: the scans were followed, not ignored.
        unbannable.knock(None, &three.knock(Family::V4))?;
        three.wait_open(&unbannable, None, Family::V4)
    })
}

#[test]
fn two_sources_that_knock_half_each_open_nothing() -> Result<()> {
    Lab::scenario("halves", |lab| {
        let three = Three::guarded(lab, NEAR, 30)?;
        let (one, two) = (lab.client("one")?, lab.client("two")?);
        for family in [Family::V4, Family::V6] {
            let knock = three.knock(family);
            for split in 1..knock.len() {
                one.knock(None, &knock[..split])?;
                two.knock(None, &knock[split..])?;
            }
        }
        three.witness(&three.client)?;
        for family in [Family::V4, Family::V6] {
            three.all_closed(&one, None, family)?;
            three.all_closed(&two, None, family)?;
        }
        ensure!(three.openings_ever(None)? == 1, "there is another opening than the witness's");
        Ok(())
    })
}

/// Every order of the hosts, ports up and down, host by host and port by port, without a pause.
fn sweep_every_way(scanner: &Host, three: &Three<'_>, family: Family) -> Result<()> {
    let hosts = three.agents().map(|agent| fleetknock_e2e::address(agent.host(), family));
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mut shots = Vec::new();
    for order in orders {
        for up in [true, false] {
            let mut ports: Vec<u16> = RANGE.collect();
            if !up {
                ports.reverse();
            }
            for host in order {
                shots.extend(ports.iter().map(|port| SocketAddr::new(hosts[host], *port)));
            }
            for port in &ports {
                shots.extend(order.iter().map(|host| SocketAddr::new(hosts[*host], *port)));
            }
        }
    }
    scanner.inside(|| shots.into_iter().try_for_each(|to| shoot(None, Shot::Tcp(to))))?
}

fn nmap_every_way(scanner: &Host, three: &Three<'_>, family: Family) -> Result<()> {
    let hosts: Vec<_> = three
        .agents()
        .iter()
        .map(|agent| fleetknock_e2e::address(agent.host(), family).to_string())
        .collect();
    let range = format!("{}-{}", RANGE.start(), RANGE.end());
    let mut scans: Vec<Vec<&str>> = vec![
        // In order, one host after the other; the hosts also the other way round.
        vec!["-sS", "-r", "--max-hostgroup", "1", "-p", &range],
        // Stirred, all hosts at once, several times.
        vec!["-sS", "-T5", "-p", &range],
        vec!["-sS", "-T5", "-p", &range],
        vec!["-sT", "-T5", "-p", &range],
        // Slow: all steps fit into the door's 20 seconds, each half a second after the other.
        vec!["-sS", "-r", "--scan-delay", "100ms", "--max-retries", "0", "-p", "7404-7413"],
        vec!["-sU", "-T5", "--max-retries", "0", "-p", &range],
    ];
    if family == Family::V4 {
        // Everything, as fast as it goes.
        scans.push(vec!["-sS", "-T5", "--min-rate", "20000", "--max-retries", "0", "-p-"]);
    }
    for scan in scans {
        for reversed in [false, true] {
            if reversed && (scan.contains(&"-p-") || scan.contains(&"--scan-delay")) {
                continue;
            }
            let mut command = vec!["nmap", "-n", "-Pn"];
            if family == Family::V6 {
                command.push("-6");
            }
            command.extend(&scan);
            command.extend(hosts.iter().map(String::as_str));
            if reversed {
                let end = command.len();
                command[end - hosts.len()..].reverse();
            }
            scanner.run_with(&command, None, SCAN_TIMEOUT)?.success().context("nmap failed")?;
        }
    }
    Ok(())
}
