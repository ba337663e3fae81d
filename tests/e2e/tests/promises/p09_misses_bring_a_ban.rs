//! Promise 9: 10 misses bring a ban on all hosts; management networks are never banned; other sources are unaffected.

use anyhow::{Result, ensure};
use fleetknock_e2e::{Family, MIXED, SOON, Three};
use fleetknock_lab::{Host, Lab, Monitor, Shot, fleet, wait_until};

/// The policy by default.
const MISSES: u16 = 10;

#[test]
fn ten_misses_ban_one_source_on_all_hosts_and_nobody_else() -> Result<()> {
    Lab::scenario("ban", |lab| {
        let three = Three::guarded(lab, MIXED, 120)?;
        let (bad, late) = (lab.client("bad")?, lab.client("late")?);
        for client in [&three.client, &bad] {
            client.knock(None, &three.knock(Family::V4))?;
            three.wait_open(client, None, Family::V4)?;
        }
        let [db, bastion] = three.opened(Family::V4);
        let monitors = [
            Monitor::for_interruptions(&three.client, None, db)?,
            Monitor::for_interruptions(&three.client, None, bastion)?,
        ];
        bad.knock(None, &misses(three.edge.host(), MISSES))?;
        wait_for_ban(&three, &bad)?;
        three.wait_closed(&bad, Family::V4, SOON)?;
        // A right knock is ignored while the ban lasts; somebody else's is not.
        bad.knock(None, &three.knock(Family::V4))?;
        three.witness(&late)?;
        three.all_closed(&bad, None, Family::V4)?;
        for monitor in monitors {
            let seen = monitor.finish()?;
            ensure!(seen.closed == 0 && seen.open > 0, "the other source was disturbed: {seen:?}");
        }
        three.fleet.cli_ok(&["unban", &bad.v4().to_string()])?;
        wait_until("the right knock to open after the ban is lifted", SOON, || {
            bad.knock(None, &three.knock(Family::V4))?;
            bad.reaches(bastion)
        })?;
        three.wait_open(&bad, None, Family::V4)
    })
}

#[test]
fn management_networks_are_never_banned() -> Result<()> {
    Lab::scenario("management", |lab| {
        let three = Three::guarded(lab, MIXED, 120)?;
        let (manager, bad) = (lab.client("manager")?, lab.client("bad")?);
        let apart = lab.host("apart-1")?;
        let network = format!("{}/32", manager.v4());
        let _agent =
            three.fleet.agent_with(&apart, &[], &["--firewall", "auto", "--management", &network])?;
        three.fleet.wait_connected(4)?;
        manager.knock(None, &misses(three.edge.host(), 3 * MISSES))?;
        // Whoever misses afterwards is banned, so the manager's misses have been seen.
        bad.knock(None, &misses(three.edge.host(), MISSES))?;
        wait_for_ban(&three, &bad)?;
        ensure!(!is_banned(&three, &manager)?, "a management address was banned");
        manager.knock(None, &three.knock(Family::V4))?;
        three.wait_open(&manager, None, Family::V4)
    })
}

fn misses(host: &Host, count: u16) -> Vec<Shot> {
    (0..count).map(|number| Shot::Tcp(host.at(9_000 + number * 7))).collect()
}

fn is_banned(three: &Three<'_>, client: &Host) -> Result<bool> {
    let own = client.v4().to_string();
    Ok(three.fleet.list("bans")?.iter().any(|ban| fleet::text(ban, "name") == Some(&own)))
}

fn wait_for_ban(three: &Three<'_>, client: &Host) -> Result<()> {
    wait_until(&format!("{} to be banned", client.name()), SOON, || is_banned(three, client)).map(drop)
}
