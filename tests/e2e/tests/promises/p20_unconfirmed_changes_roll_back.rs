//! Promise 20: a door that is applied with `--confirm-within` shuts its port at once, and opens it to everybody again by
//! itself when nobody confirms it in time. Confirmed, it stays shut.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleetknock_lab::{Fleet, Lab, Reach, wait_until};

const PORT: u16 = 22;
const DOOR: &str = "apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: bastion-ssh}
spec:
  knock: {sequence: [{port: tcp/7412}, {port: udp/23981}, {port: tcp/51003}], within: 15s}
  opens: {hosts: {names: [bastion-1]}, ports: [tcp/22], for: 10s}
";
/// The shortest that is allowed.
const WITHIN: Duration = Duration::from_secs(5);
/// A look at the deadlines, the way to the agent, and this machine's load.
const SLACK: Duration = Duration::from_secs(15);

#[test]
fn what_nobody_confirms_is_undone() -> Result<()> {
    Lab::scenario("confirm", |lab| {
        let fleet = Fleet::start(lab)?;
        let bastion = fleet.agent("bastion-1", &[])?;
        bastion.host().serve(&[PORT], &[])?;
        let stranger = lab.client("stranger")?;
        fleet.wait_connected(1)?;
        let port = bastion.host().at(PORT);
        let wait = |what: &str, wanted: Reach| {
            wait_until(what, WITHIN + SLACK, || Ok(stranger.reach(port)? == wanted))
        };
        wait("the port to be open at first", Reach::Open)?;

        let file = lab.directory().join("door.yaml");
        std::fs::write(&file, DOOR).context("cannot write the door")?;
        let file = file.to_string_lossy().into_owned();
        let apply = ["apply", "-f", &file, "--confirm-within", "5s"];
        fleet.cli_ok(&apply)?;
        wait("the port to be shut", Reach::Filtered)?;
        wait("the port to be open again by itself", Reach::Open)?;
        wait_until("the door to be gone", SLACK, || Ok(fleet.list("doors")?.is_empty()))?;
        let late = fleet.cli(&["confirm", "bastion-ssh"])?;
        ensure!(late.success().is_err(), "what is rolled back cannot be confirmed");

        fleet.cli_ok(&apply)?;
        wait("the port to be shut again", Reach::Filtered)?;
        fleet.cli_ok(&["confirm", "bastion-ssh"])?;
        std::thread::sleep(WITHIN + Duration::from_secs(2));
        ensure!(stranger.reach(port)? == Reach::Filtered, "a confirmed door was rolled back");
        ensure!(fleet.list("doors")?.len() == 1, "a confirmed door is gone");
        Ok(())
    })
}
