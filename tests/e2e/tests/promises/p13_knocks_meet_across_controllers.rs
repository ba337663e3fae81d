//! Promise 13: knocks at hosts that are connected to three different controllers open the door, over IPv4 and IPv6, once;
//! and each controller shows the opening, and what both hosts said of it.

use anyhow::{Result, ensure};
use fleetknock_e2e::{Family, MIXED, Placement, SOON, Several, address};
use fleetknock_lab::{Lab, wait_until};

#[test]
fn of_hosts_at_three_different_controllers() -> Result<()> {
    Lab::scenario("across", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Pinned, 120)?;
        let three = &several.three;
        for (agent, controller) in three.agents().into_iter().zip(several.controllers()) {
            let at = three.fleet.controller_of(agent.host())?.name();
            ensure!(at == controller.name(), "{} is at {at}", agent.host().name());
            for other in several.controllers() {
                let text = other.operator().cli_ok(&["describe", "host", agent.host().name()])?;
                ensure!(
                    text.contains(controller.name()),
                    "{} does not say where it is: {text}",
                    other.name()
                );
            }
        }
        for family in [Family::V4, Family::V6] {
            let client = several.client()?;
            three.all_closed(&client, None, family)?;
            client.knock(None, &three.knock(family))?;
            three.wait_open(&client, None, family)?;
            three.opens_nowhere_else(&client, family)?;
            three.all_closed(&three.stranger, None, family)?;
        }
        // Several users, so that each controller owns some of them and none of them owns all.
        let mut owners = Vec::new();
        for family in [Family::V4, Family::V6].repeat(3) {
            let (client, knock) = (several.client()?, three.knock(family));
            let own = address(&client, family);
            client.knock(None, &knock[..1])?;
            owners.push(three.fleet.owner_of(own)?.name());
            client.knock(None, &knock[1..])?;
            three.wait_open(&client, None, family)?;
            several.has_opened(own, 1)?;
            for controller in several.controllers() {
                let through = controller.operator();
                wait_until(&format!("{} to show both hosts' reports", controller.name()), SOON, || {
                    let opening = through.opening_of(&own.to_string(), SOON)?;
                    Ok(opening.to_string().to_lowercase().matches("applied").count() >= 2)
                })?;
            }
        }
        owners.sort_unstable();
        owners.dedup();
        ensure!(owners.len() > 1, "one controller owned all six sources");
        Ok(())
    })
}
