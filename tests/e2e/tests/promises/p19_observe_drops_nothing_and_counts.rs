//! Promise 19: a door that only observes drops nothing, and its hosts say what guard would have dropped; enforced, it is
//! shut and opened by its knock.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::SOON;
use fleetknock_lab::{Fleet, Host, Lab, Reach, Shot, wait_until};

/// What the door would guard.
const WEB: u16 = 8443;
/// Agents report every 30 seconds, and a machine may be busy.
const REPORTED: Duration = Duration::from_secs(60);

#[test]
fn with_nftables() -> Result<()> {
    observed_then_enforced("nftables")
}

#[test]
fn with_iptables() -> Result<()> {
    observed_then_enforced("iptables")
}

fn observed_then_enforced(firewall: &str) -> Result<()> {
    Lab::scenario("observe", |lab| {
        let fleet = Fleet::start(lab)?;
        let (web, client, stranger) = (lab.host("web-1")?, lab.client("client")?, lab.client("stranger")?);
        web.serve(&[WEB], &[])?;
        let agent = fleet.agent_with(&web, &[], &["--firewall", firewall])?;
        fleet.wait_connected(1)?;
        fleet.apply(&door("observe"))?;
        let doors = fleet.list("doors")?;
        ensure!(doors[0]["spec"]["mode"] == "observe", "{}", doors[0]);
        let ports = [web.at(WEB), web.at6(WEB)];
        wait_until("the stranger's connections to be counted and told", REPORTED, || {
            for to in ports {
                ensure!(stranger.reach(to)? == Reach::Open, "{to} is not open for a stranger");
            }
            Ok(counted(&fleet)?.1 > 0)
        })?;
        let (dropped, observed) = counted(&fleet)?;
        ensure!(dropped == 0, "{dropped} packets were dropped for a door that only observes");
        let said = fleet.cli_ok(&["describe", "door", "web"])?;
        ensure!(said.contains("observe, ") && said.contains("would have been dropped"), "{said}");
        let said = fleet.cli_ok(&["describe", "host", "web-1"])?;
        ensure!(said.contains("passed and would have been dropped"), "{said}");

        let said = fleet.apply(&door("enforce"))?;
        ensure!(said.contains("spec.mode: observe -> enforce"), "{said}");
        fleet.wait_guarded(&stranger, &ports)?;
        for (to, knock) in ports.into_iter().zip([Host::at as fn(&Host, u16) -> _, Host::at6]) {
            let shots = [51_003, 7_412, 23_981].map(|port| Shot::Tcp(knock(agent.host(), port)));
            client.knock(None, &shots)?;
            wait_until(&format!("{to} to open"), SOON, || client.reaches(to))?;
            ensure!(stranger.reach(to)? == Reach::Filtered, "{to} is open for the stranger");
        }
        wait_until("what was dropped to be told", REPORTED, || Ok(counted(&fleet)?.0 > 0))?;
        ensure!(counted(&fleet)?.1 >= observed, "what was observed is forgotten");

        fleet.apply(&door("observe"))?;
        for to in ports {
            wait_until(&format!("{to} to be open for everybody again"), SOON, || stranger.reaches(to))?;
        }
        Ok(())
    })
}

/// Dropped and observed on the port, as the fleet's hosts say.
fn counted(fleet: &Fleet<'_>) -> Result<(u64, u64)> {
    let hosts = fleet.list("hosts")?;
    let counts = hosts[0]["status"]["guardCounts"].as_array().context("no counts in the list of hosts")?;
    let port = format!("tcp/{WEB}");
    let own = counts.iter().find(|count| count["port"] == port.as_str());
    let number = |name: &str| own.and_then(|count| count[name].as_u64()).unwrap_or_default();
    Ok((number("dropped"), number("observed")))
}

fn door(mode: &str) -> String {
    format!(
        "apiVersion: fleetknock.io/v1
kind: Door
metadata: {{name: web}}
spec:
  mode: {mode}
  knock:
    sequence:
      - {{port: tcp/51003}}
      - {{port: tcp/7412}}
      - {{port: tcp/23981}}
    within: 20s
  opens: {{hosts: {{}}, ports: [tcp/{WEB}], for: 60s}}
"
    )
}
