//! Promise 16: a controller that is cut off from etcd, though not from agents and peers, decides nothing once its lease
//! is gone. Its agents move; each knock opens once, through another controller; after healing it takes part again. One that
//! is frozen and wakes up after its lease decides nothing of what it then finds waiting either.

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{Family, IN_TIME, MIXED, Placement, SOON, Several};
use fleetknock_lab::{Cut, Lab, fleet, wait_until};

#[test]
fn and_takes_part_again_when_it_is_back() -> Result<()> {
    Lab::scenario("stale", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Spread, 120)?;
        let three = &several.three;
        let knock = three.knock(Family::V4);
        // Not the first, which the operator asks.
        let stale = &several.controllers()[2];
        let (client, _) = several.begun(|owner| owner.name() == stale.name())?;
        let granted = stale.metric("openings_total", "")?;
        let cut = Cut::off(stale.host(), several.etcd.members().iter().map(|member| member.host()))?;

        // The stale controller's own source goes on at once, when nobody can know yet that it is stale.
        client.knock(None, &knock[1..])?;
        several.opens_once(&client).context("the knock that was under way")?;

        several.wait_state(stale, "suspended")?;
        for agent in three.agents() {
            wait_until(&format!("{} to be elsewhere", agent.host().name()), IN_TIME, || {
                Ok(three.fleet.controller_of(agent.host())?.name() != stale.name())
            })?;
        }
        for _ in 0..4 {
            let client = several.client()?;
            client.knock(None, &knock)?;
            several.opens_once(&client)?;
        }
        let since = stale.metric("openings_total", "")? - granted;
        ensure!(since == 0, "{} granted {since} openings without etcd", stale.name());

        cut.heal()?;
        several.wait_whole()?;
        let (client, _) = several.begun(|owner| owner.name() == stale.name())?;
        client.knock(None, &knock[1..])?;
        several.opens_once(&client)
    })
}

#[test]
fn nor_does_one_that_wakes_up_after_its_lease() -> Result<()> {
    Lab::scenario("frozen", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Spread, 120)?;
        let knock = several.three.knock(Family::V4);
        // Not the first, which the operator asks.
        let (client, frozen) = several.begun(|owner| owner.name() != several.controllers()[0].name())?;
        let granted = frozen.metric("openings_total", "")?;
        frozen.pause()?;
        client.knock(None, &knock[1..])?;
        several.opens_once(&client).context("the knock that was under way")?;
        wait_until("the frozen controller's lease to end", IN_TIME, || {
            Ok(several.three.fleet.list("controllers")?.len() == several.controllers().len() - 1)
        })?;
        frozen.resume()?;
        several.wait_whole()?;
        several.has_opened(client.v4(), 1)?;
        let opening = several.three.fleet.opening_of(&client.v4().to_string(), SOON)?;
        ensure!(fleet::number(&opening, "generation") == Some(1), "it was refreshed: {opening}");
        let since = frozen.metric("openings_total", "")? - granted;
        ensure!(since == 0, "{} granted {since} openings when it woke up", frozen.name());
        let (client, _) = several.begun(|owner| owner.name() == frozen.name())?;
        client.knock(None, &knock[1..])?;
        several.opens_once(&client)
    })
}
