//! Promise 32: the store is lost, with all doors. A new controller on an empty one takes no guard off; a backup that is
//! restored brings the fleet back, and the knock that opened before opens again.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use fleetknock_e2e::{Family, MIXED, SOON, Three};
use fleetknock_lab::{Fleet, Lab, Monitor, Pki, wait_until};

#[test]
fn and_no_guard_is_lifted_meanwhile() -> Result<()> {
    Lab::scenario("disaster", |lab| {
        let pki = Pki::create(lab, "fleet", "blue")?;
        let three = Three::with(lab, Fleet::start_trusted(lab, &pki)?, MIXED)?;
        three.apply(3)?;
        three.client.knock(None, &three.knock(Family::V4))?;
        three.wait_open(&three.client, None, Family::V4)?;
        three.fleet.cli_ok(&["ban", "198.51.100.7", "--for", "1h"])?;
        let file = lab.directory().join("fleet.backup");
        let path = file.to_string_lossy().into_owned();
        three.fleet.cli_ok(&["backup", "--out", &path])?;
        let text = fs::read_to_string(&file)?;
        ensure!(
            MIXED.ports.iter().all(|port| !text.contains(&port.to_string())),
            "a step lies in the backup"
        );
        three.wait_closed(&three.client, Family::V4, Duration::from_secs(20))?;

        let mut monitors = Vec::new();
        for to in three.opened(Family::V4).into_iter().chain(three.never(Family::V4)) {
            monitors.push(Monitor::for_gaps(&three.stranger, to)?);
        }
        three.fleet.kill_controller()?;
        fs::remove_dir_all(lab.directory().join("store"))?;
        let controller = three.fleet.start_controller()?;
        // Every agent has come, and has been told nothing.
        wait_until("all agents to be turned away", Duration::from_secs(60), || {
            let log = controller.log();
            Ok(three.agents().iter().all(|agent| {
                let name = agent.host().name();
                log.lines().any(|line| line.contains("set up anew") && line.contains(name))
            }))
        })?;
        ensure!(three.fleet.list("doors")?.is_empty() && three.fleet.list("hosts")?.is_empty());

        let dry = three.fleet.cli_ok(&["restore", &path, "--dry-run"])?;
        ensure!(dry.contains("add     door  fleet-ssh"), "{dry}");
        ensure!(three.fleet.list("doors")?.is_empty(), "a dry run changes nothing");
        three.fleet.cli_ok(&["restore", &path])?;
        three.fleet.wait_connected(3)?;
        ensure!(three.fleet.list("bans")?.len() == 1);
        three.client.knock(None, &three.knock(Family::V4))?;
        three.wait_open_within(SOON * 4, &three.client, None, Family::V4)?;
        for monitor in monitors {
            let seen = monitor.finish()?;
            ensure!(seen.open == 0 && seen.closed > 0, "guard was lifted: {seen:?}");
        }
        Ok(())
    })
}
