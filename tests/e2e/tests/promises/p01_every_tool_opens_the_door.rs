//! Promise 1: a door with steps on three hosts opens from Debian's `knock`, `hping3`, `nmap`, `nc` and `fleetknock
//! knock`, over IPv4 and IPv6; only the named hosts, only the named ports, only that source.

use anyhow::{Context as _, Result, ensure};
use fleetknock_e2e::{Family, MIXED, SOON, Three, address};
use fleetknock_lab::{Lab, Tool, fleet, wait_until};

#[test]
fn over_ipv4() -> Result<()> {
    every_tool_opens(Family::V4)
}

#[test]
fn over_ipv6() -> Result<()> {
    // hping3 knows no IPv6; nmap and nc stand in for it.
    every_tool_opens(Family::V6)
}

fn every_tool_opens(family: Family) -> Result<()> {
    Lab::scenario("tools", |lab| {
        let three = Three::guarded(lab, MIXED, 60)?;
        for tool in [Tool::Knock, Tool::Hping3, Tool::Nmap, Tool::Netcat, Tool::Fleetknock] {
            let client = lab.client(&format!("{tool:?}").to_lowercase())?;
            let own = address(&client, family);
            if !tool.can(own) {
                continue;
            }
            three.all_closed(&client, None, family)?;
            client.knock_with(tool, &three.knock(family))?;
            three.wait_open(&client, None, family)?;
            three.opens_nowhere_else(&client, family).with_context(|| format!("after {tool:?} knocked"))?;
            three.all_closed(&three.stranger, None, family)?;
            let opening = three.fleet.opening_of(&own.to_string(), SOON)?;
            ensure!(
                fleet::text(&opening, "door") == Some(fleetknock_e2e::DOOR),
                "not this door's: {opening}"
            );
            wait_until("both hosts to report the opening", SOON, || {
                let opening = three.fleet.opening_of(&own.to_string(), SOON)?;
                Ok(opening.to_string().to_lowercase().matches("applied").count() >= 2)
            })?;
        }
        Ok(())
    })
}
