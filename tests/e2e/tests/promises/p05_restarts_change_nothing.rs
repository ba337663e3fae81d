//! Promise 5: controller killed and restarted: doors, openings and bans are as before; agents reconnect and nothing
//! flaps. Agent killed and restarted: guard never opens in between, the kernel state is reconciled, rules of others are
//! untouched.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use fleetknock_e2e::{DOOR, Family, MIXED, SOON, Three};
use fleetknock_lab::{Host, Lab, Monitor, Reach, fleet, wait_until};

#[test]
fn a_killed_controller_comes_back_with_everything_and_nothing_flaps() -> Result<()> {
    Lab::scenario("controller", |lab| {
        let three = Three::guarded(lab, MIXED, 120)?;
        let (newcomer, withdrawn) = (lab.client("newcomer")?, lab.client("withdrawn")?);
        three.fleet.cli_ok(&["ban", "198.51.100.7"])?;
        for family in [Family::V4, Family::V6] {
            three.client.knock(None, &three.knock(family))?;
            three.wait_open(&three.client, None, family)?;
        }
        // One more is opened and taken back: what the agents send again after the restart must not bring it back.
        withdrawn.knock(None, &three.knock(Family::V4))?;
        three.wait_open(&withdrawn, None, Family::V4)?;
        three.fleet.cli_ok(&["close", "--source", &withdrawn.v4().to_string()])?;
        three.wait_closed(&withdrawn, Family::V4, SOON)?;
        wait_until("two openings", SOON, || Ok(three.fleet.list("openings")?.len() == 2))?;
        let before = picture(&three)?;

        let mut monitors = Vec::new();
        for family in [Family::V4, Family::V6] {
            for to in three.opened(family) {
                monitors.push((true, Monitor::for_interruptions(&three.client, None, to)?));
                monitors.push((false, Monitor::for_gaps(&three.stranger, to)?));
            }
        }
        three.fleet.kill_controller()?;
        three.fleet.start_controller()?;
        three.fleet.wait_connected(3)?;
        // What the agents send again has been followed when somebody else's knock opens.
        three.witness(&newcomer)?;
        three.all_closed(&withdrawn, None, Family::V4)?;
        let mut after = picture(&three)?;
        after.retain(|line| !line.contains(&newcomer.v4().to_string()));
        ensure!(before == after, "before: {before:#?}\nafter: {after:#?}");
        for (should_be_open, monitor) in monitors {
            let seen = monitor.finish()?;
            let flaps = if should_be_open { seen.closed } else { seen.open };
            ensure!(flaps == 0, "should be open: {should_be_open}; seen: {seen:?}");
        }
        Ok(())
    })
}

#[test]
fn a_killed_agent_comes_back_without_a_gap_in_the_guard() -> Result<()> {
    Lab::scenario("agents", |lab| {
        let three = Three::guarded(lab, MIXED, 120)?;
        let (withdrawn, added) = (lab.client("withdrawn")?, lab.client("added")?);
        for agent in [&three.db, &three.bastion] {
            add_foreign_rules(agent.host())?;
        }
        for client in [&three.client, &withdrawn] {
            client.knock(None, &three.knock(Family::V4))?;
            three.wait_open(client, None, Family::V4)?;
        }
        let foreign = [foreign_rules(three.db.host())?, foreign_rules(three.bastion.host())?];
        let mut monitors = Vec::new();
        for to in three.opened(Family::V4) {
            monitors.push((true, Monitor::for_interruptions(&three.client, None, to)?));
            monitors.push((false, Monitor::for_gaps(&three.stranger, to)?));
        }
        for agent in [&three.db, &three.bastion] {
            agent.kill()?;
        }
        three.fleet.wait_connected(1)?;
        // While they are away, one opening is withdrawn and another is made.
        three.fleet.cli_ok(&["close", "--source", &withdrawn.v4().to_string()])?;
        three.fleet.cli_ok(&["open", DOOR, "--source", &added.v4().to_string()])?;
        for agent in [&three.db, &three.bastion] {
            agent.start()?;
        }
        three.fleet.wait_connected(3)?;
        three.wait_open(&added, None, Family::V4)?;
        three.wait_closed(&withdrawn, Family::V4, SOON)?;
        for (should_be_open, monitor) in monitors {
            let seen = monitor.finish()?;
            let flaps = if should_be_open { seen.closed } else { seen.open };
            ensure!(flaps == 0, "should be open: {should_be_open}; seen: {seen:?}");
        }
        let after = [foreign_rules(three.db.host())?, foreign_rules(three.bastion.host())?];
        ensure!(foreign == after, "rules of others changed: {foreign:#?} {after:#?}");
        for to in three.opened(Family::V4) {
            ensure!(three.stranger.reach(to)? == Reach::Filtered, "{to} is open for the stranger");
        }
        Ok(())
    })
}

/// What must survive, without what may change (when it was last looked at).
fn picture(three: &Three<'_>) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for (kind, fields) in [
        ("doors", &["name", "revision", "created", "updated"][..]),
        ("openings", &["name", "door", "source", "opened", "expires", "generation"]),
        ("bans", &["name", "since", "expires", "reason"]),
    ] {
        for item in three.fleet.list(kind)? {
            let values: Vec<_> =
                fields.iter().map(|name| format!("{name}={:?}", fleet::field(&item, name))).collect();
            ensure!(
                values.iter().any(|value| !value.ends_with("None")),
                "{kind} shows none of {fields:?}: {item}"
            );
            all.insert(format!("{kind}: {}", values.join(" ")));
        }
    }
    Ok(all)
}

fn add_foreign_rules(host: &Host) -> Result<()> {
    host.ok(&[
        "nft",
        "add table inet foreign; add chain inet foreign in { type filter hook input priority 5; }",
    ])?;
    host.ok(&["nft", "add rule inet foreign in tcp dport 9999 drop"])?;
    host.ok(&["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9998", "-j", "DROP"])?;
    host.ok(&[
        "iptables",
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-p",
        "tcp",
        "--dport",
        "9997",
        "-j",
        "REDIRECT",
    ])?;
    host.ok(&["ipset", "create", "foreign", "hash:ip"])?;
    host.ok(&["ipset", "add", "foreign", "192.0.2.1"])?;
    Ok(())
}

/// Everything there that has nothing to do with Fleetknock.
fn foreign_rules(host: &Host) -> Result<Vec<String>> {
    let mut text = host.ok(&["nft", "list", "table", "inet", "foreign"])?;
    text += &host.ok(&["iptables-save"])?;
    text += &host.ok(&["ipset", "save", "foreign"])?;
    Ok(text
        .lines()
        .filter(|line| line.contains("999") || line.contains("foreign"))
        .map(str::to_owned)
        .collect())
}
