//! Promise 6: `nft flush` or `iptables -F` by hand is repaired within the reconcile interval, and said.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleetknock_e2e::{Family, MIXED, Three};
use fleetknock_lab::{Agent, Lab, Reach, fleet, wait_until};

/// The agents' reconcile interval, 10 seconds by default, with what a busy machine adds.
const INTERVAL: Duration = Duration::from_secs(15);

#[test]
fn rules_flushed_by_hand_come_back_and_it_is_said() -> Result<()> {
    Lab::scenario("flush", |lab| {
        let three = Three::guarded(lab, MIXED, 120)?;
        three.client.knock(None, &three.knock(Family::V4))?;
        three.wait_open(&three.client, None, Family::V4)?;
        let before = [repairs(&three, &three.db)?, repairs(&three, &three.bastion)?];

        three.bastion.host().ok(&["nft", "flush", "ruleset"])?;
        for table in ["raw", "mangle", "nat", "filter"] {
            for program in ["iptables", "ip6tables"] {
                three.db.host().ok(&[program, "-t", table, "-F"])?;
            }
        }
        for (number, agent) in [&three.db, &three.bastion].into_iter().enumerate() {
            for family in [Family::V4, Family::V6] {
                let to = three.opened(family)[number];
                wait_until(&format!("{to} to be guarded again"), INTERVAL, || {
                    Ok(three.stranger.reach(to)? == Reach::Filtered)
                })?;
            }
            wait_until("the repair to be reported", INTERVAL, || {
                Ok(repairs(&three, agent)? > before[number])
            })?;
        }
        // The opening was restored with the guard.
        three.wait_open(&three.client, None, Family::V4)?;
        three.all_closed(&three.stranger, None, Family::V4)
    })
}

fn repairs(three: &Three<'_>, agent: &Agent) -> Result<u64> {
    let hosts = three.fleet.list("hosts")?;
    let own = hosts.iter().find(|host| fleet::text(host, "name") == Some(agent.host().name()));
    let Some(own) = own else { anyhow::bail!("{} is not in the list of hosts", agent.host().name()) };
    let count = fleet::number(own, "repairs").unwrap_or_default();
    let said = fleet::text(own, "last_repair").unwrap_or_default();
    ensure!(count == 0 || !said.is_empty(), "repairs are counted, but not said: {own}");
    Ok(count)
}
