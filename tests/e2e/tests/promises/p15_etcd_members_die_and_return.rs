//! Promise 15: an etcd member killed in mid-sequence, the leader too, loses no knock. With the majority cut off, what is
//! open runs to its end, new knocks open nothing and that is said (metric, event, log), and all works again by itself when
//! the majority returns.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleetknock_e2e::{Family, IN_TIME, MIXED, Placement, SOON, Several};
use fleetknock_lab::{Cut, Host, Lab, Reach, wait_until};

/// How long the door is open: longer than it takes to cut etcd off and to look.
const OPEN_FOR: u32 = 15;
const REFUSED: &str = "a complete knock opened nothing";

#[test]
fn one_member_and_the_leader_in_mid_sequence() -> Result<()> {
    Lab::scenario("members", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Spread, 120)?;
        let knock = several.three.knock(Family::V4);
        for leads in [false, true] {
            let member = if leads { several.etcd.leader()? } else { several.etcd.follower()? };
            let client = several.client()?;
            client.knock(None, &knock[..1])?;
            member.kill()?;
            client.knock(None, &knock[1..])?;
            several.opens_once(&client)?;
            member.restart()?;
            several.etcd.wait_healthy()?;
            several.wait_whole()?;
        }
        Ok(())
    })
}

#[test]
fn the_majority_cut_off_and_back() -> Result<()> {
    Lab::scenario("majority", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Spread, OPEN_FOR)?;
        let three = &several.three;
        let knock = three.knock(Family::V4);
        let (early, late, again) = (several.client()?, several.client()?, several.client()?);
        let watches = several
            .controllers()
            .iter()
            .map(|controller| controller.operator().watch())
            .collect::<Result<Vec<_>>>()?;
        three.client.knock(None, &knock)?;
        three.wait_open(&three.client, None, Family::V4)?;

        let cut = majority_off(&several)?;
        // One knock while the leases still hold, one after they are gone.
        early.knock(None, &knock)?;
        for to in three.opened(Family::V4) {
            ensure!(three.client.reach(to)? == Reach::Open, "{to} closed early without etcd");
        }
        for controller in several.controllers() {
            several.wait_state(controller, "suspended")?;
        }
        late.knock(None, &knock)?;
        for client in [&early, &late] {
            let source = client.v4().to_string();
            wait_until(&format!("an event that says that {source} opened nothing"), IN_TIME * 2, || {
                Ok(watches.iter().any(|watch| {
                    watch.log().lines().any(|line| line.contains(&source) && line.contains(REFUSED))
                }))
            })?;
        }
        let mut refused = 0;
        for controller in several.controllers() {
            refused += controller.metric("refused_total", "")?;
        }
        ensure!(refused >= 2, "the metric says {refused} refused knocks, not 2");
        let mut logs = 0;
        for controller in several.controllers() {
            logs += controller.process()?.log().matches(REFUSED).count();
        }
        ensure!(logs >= 2, "the logs tell of {logs} refused knocks, not 2");
        three.wait_closed(&three.client, Family::V4, Duration::from_secs(OPEN_FOR.into()) + SOON)?;
        for client in [&early, &late] {
            three.all_closed(client, None, Family::V4)?;
        }

        cut.heal()?;
        several.wait_whole()?;
        again.knock(None, &knock)?;
        several.opens_once(&again)?;
        for client in [&early, &late] {
            several.has_opened(client.v4(), 0)?;
        }
        Ok(())
    })
}

/// Cuts two of the three members off from everybody; they reach only each other.
fn majority_off(several: &Several<'_>) -> Result<Cut> {
    let members: Vec<&Host> = several.etcd.members().iter().map(|member| member.host()).collect();
    let controllers = || several.controllers().iter().map(|controller| controller.host());
    let off = |member: &Host| Cut::off(member, controllers().chain([members[2]]));
    Ok(off(members[0])?.and(off(members[1])?))
}
