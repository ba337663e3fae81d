//! Promise 12: the same on a real etcd. A knock over three hosts opens the door; the controller killed and restarted
//! knows doors, openings and bans; without etcd what is open runs on, a knock opens nothing as long and that is said, and all
//! works again by itself when etcd is back.

use anyhow::{Result, ensure};
use fleetknock_e2e::{DOOR, Family, MIXED, SOON, Three};
use fleetknock_lab::{Fleet, Lab, Reach, etcd::Etcd, wait_until};

#[test]
fn through_restarts_and_an_etcd_that_stops_answering() -> Result<()> {
    Lab::scenario("etcd", |lab| {
        let etcd = Etcd::start(&[lab.host("etcd-1")?], lab.directory())?;
        let three = Three::with(lab, Fleet::start_with(lab, lab.host("control")?, etcd.store())?, MIXED)?;
        three.apply(120)?;
        three.client.knock(None, &three.knock(Family::V4))?;
        three.wait_open(&three.client, None, Family::V4)?;
        three.fleet.cli_ok(&["ban", "198.51.100.7"])?;

        three.fleet.kill_controller()?;
        three.fleet.start_controller()?;
        three.fleet.wait_connected(3)?;
        ensure!(three.fleet.list("openings")?.len() == 1, "the opening was forgotten");
        ensure!(three.fleet.list("bans")?.len() == 1, "the ban was forgotten");
        three.wait_open(&three.client, None, Family::V4)?;

        etcd.pause()?;
        let latecomer = lab.client("latecomer")?;
        latecomer.knock(None, &three.knock(Family::V4))?;
        let controller = three.fleet.controller()?;
        wait_until("the controller to say that a knock waits for the store", SOON * 4, || {
            Ok(controller.log().contains("a complete knock waits"))
        })?;
        for to in three.opened(Family::V4) {
            ensure!(three.client.reach(to)? == Reach::Open, "{to} closed without etcd");
        }
        three.all_closed(&latecomer, None, Family::V4)?;
        etcd.resume()?;
        wait_until("a knock to open again", SOON * 6, || {
            latecomer.knock(None, &three.knock(Family::V4))?;
            Ok(three.wait_open(&latecomer, None, Family::V4).is_ok())
        })?;
        let openings = three.fleet.list_with("openings", &["--door", DOOR])?;
        ensure!(openings.len() == 2, "{openings:?}");
        Ok(())
    })
}
