//! Promise 14: whichever controller ends after whichever step, the user just knocks on: the sequence completes, and opens
//! the door exactly once. The controller that follows the knock is killed, or told to stop; or that of the step's agent is
//! killed.

use anyhow::{Result, ensure};
use fleetknock_e2e::{Family, MIXED, Placement, Several};
use fleetknock_lab::{Controller, Host, Lab};

#[test]
fn when_its_owner_is_killed_after_any_step() -> Result<()> {
    Lab::scenario("owner-killed", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Spread, 120)?;
        for step in 1..=3 {
            let (client, owner) = several.begun(|_| true)?;
            ends_after(&several, step, &client, owner, Controller::kill)?;
            several.mend()?;
        }
        opened_once_each(&several, 3)
    })
}

#[test]
fn when_its_owner_is_told_to_stop_after_any_step() -> Result<()> {
    Lab::scenario("owner-stopped", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Spread, 120)?;
        for step in 1..=3 {
            let (client, owner) = several.begun(|_| true)?;
            ends_after(&several, step, &client, owner, Controller::tell_to_stop)?;
            owner.wait_stopped()?;
            several.mend()?;
        }
        opened_once_each(&several, 3)
    })
}

#[test]
fn when_the_agents_own_controller_is_killed_after_its_step() -> Result<()> {
    Lab::scenario("agent's-killed", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Spread, 120)?;
        for step in 1..=3 {
            let agent = several.three.agents()[step - 1];
            let own = several.three.fleet.controller_of(agent.host())?;
            let (client, _) = several.begun(|owner| owner.name() != own.name())?;
            ends_after(&several, step, &client, own, Controller::kill)?;
            let now = several.three.fleet.controller_of(agent.host())?;
            ensure!(now.name() != own.name(), "{} is still at {}", agent.host().name(), own.name());
            several.mend()?;
        }
        opened_once_each(&several, 3)
    })
}

/// A client that has knocked the first step knocks on; right after `step`, a controller ends.
fn ends_after(
    several: &Several<'_>,
    step: usize,
    client: &Host,
    controller: &Controller,
    end: impl Fn(&Controller) -> Result<()>,
) -> Result<()> {
    let knock = several.three.knock(Family::V4);
    client.knock(None, &knock[1..step])?;
    end(controller)?;
    client.knock(None, &knock[step..])?;
    several.opens_once(client)
}

/// What agents sent again after each change has made nothing new.
fn opened_once_each(several: &Several<'_>, knocks: usize) -> Result<()> {
    several.three.witness(&several.three.client)?;
    let ever = several.three.openings_ever(None)?;
    ensure!(ever == knocks + 1, "{ever} openings after {knocks} knocks and a witness's");
    Ok(())
}
