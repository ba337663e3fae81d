//! Promise 34: when controllers have joined, agents move to them until all have about as many, and not one knock fails
//! meanwhile.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{Family, MIXED, Placement, Several};
use fleetknock_lab::{Lab, fleet, wait_until};

/// Hosts beside the three of the door, so that there is something to spread.
const MORE: usize = 9;
const ALL: u64 = MORE as u64 + 3;
/// What is fair, and one more, which is not worth a move.
const FAIR_ENOUGH: u64 = ALL.div_ceil(3) + 1;
/// How long it may take: half a minute must have passed without a change of controllers, and few move at once.
const SPREAD_WITHIN: Duration = Duration::from_secs(180);
/// A person who knocks; so that agents move between two packets of a knock as well.
const BETWEEN_KNOCKS: Duration = Duration::from_millis(200);

#[test]
fn when_controllers_have_joined() -> Result<()> {
    Lab::scenario("balance", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Anywhere, 120)?;
        let fleet = &several.three.fleet;
        let [stays, others @ ..] = several.controllers() else { anyhow::bail!("no controllers") };
        for controller in others {
            controller.tell_to_stop()?;
            controller.wait_stopped()?;
        }
        let mut agents = Vec::new();
        for number in 1..=MORE {
            agents.push(fleet.agent(&format!("more-{number}"), &["role=more"])?);
        }
        wait_until("one controller to have all agents", SPREAD_WITHIN, || {
            Ok(counts(&several)? == [(stays.name().to_owned(), ALL)])
        })?;

        for controller in others {
            controller.spawn()?;
            controller.wait_ready()?;
        }
        let (start, mut knocks) = (Instant::now(), 0);
        loop {
            let client = several.client()?;
            for shot in several.three.knock(Family::V4) {
                client.knock(None, &[shot])?;
                thread::sleep(BETWEEN_KNOCKS);
            }
            several.opens_once(&client).with_context(|| format!("after {knocks} knocks"))?;
            knocks += 1;
            let counts = counts(&several)?;
            let all: u64 = counts.iter().map(|(_, agents)| agents).sum();
            if counts.len() == 3 && all == ALL && counts.iter().all(|(_, agents)| *agents <= FAIR_ENOUGH) {
                break;
            }
            ensure!(start.elapsed() < SPREAD_WITHIN, "still {counts:?} after {knocks} knocks");
        }
        let moved = stays.metric("agents_moved_total", "")?;
        ensure!(moved >= ALL - FAIR_ENOUGH, "{} asked {moved} agents to move", stays.name());
        Ok(())
    })
}

/// How many agents each controller has.
fn counts(several: &Several<'_>) -> Result<Vec<(String, u64)>> {
    let controllers = several.three.fleet.list("controllers")?;
    let counts = controllers.iter().map(|controller| {
        let name = fleet::text(controller, "name").context("a controller without a name")?;
        // What is zero is left out.
        Ok((name.to_owned(), fleet::number(controller, "agents").unwrap_or(0)))
    });
    counts.collect()
}
