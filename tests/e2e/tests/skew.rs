//! Promises between two versions: the previous one, whose programs lie in the folder FLEETKNOCK_PREVIOUS, and this one. Run
//! by `make test-skew`, one at a time: which program is of which version is chosen for the whole process.

#![cfg(test)]

use std::{
    env,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{DOOR, Family, IN_TIME, MIXED, Placement, SOON, Several, Three};
use fleetknock_lab::{Controller, Lab, Monitor, programs, wait_until};

const AGENT: &str = "fleetknock-agent";
const CONTROLLER: &str = "fleetknock-controller";
const CLI: &str = "fleetknock";
/// What `fleetknock` exits with when the controller does not know a call.
const REFUSED: i32 = 1;

/// One at a time, whatever the test program is told.
static ONE: Mutex<()> = Mutex::new(());

#[test]
fn an_old_agent_works_with_a_new_controller() -> Result<()> {
    let mix = Mix::new(&[AGENT])?;
    mix.scenario("old-agent", knocks_open_and_close)
}

#[test]
fn a_new_agent_works_with_an_old_controller() -> Result<()> {
    let mix = Mix::new(&[CONTROLLER])?;
    mix.scenario("old-controller", |lab| {
        knocks_open_and_close(lab)?;
        Ok(())
    })
}

#[test]
fn an_old_command_works_with_a_new_controller() -> Result<()> {
    let mix = Mix::new(&[CLI])?;
    mix.scenario("old-cli", |lab| operates(&Three::guarded(lab, MIXED, 60)?))
}

#[test]
fn a_new_command_works_with_an_old_controller() -> Result<()> {
    let mix = Mix::new(&[CONTROLLER, AGENT])?;
    mix.scenario("new-cli", |lab| {
        let three = Three::guarded(lab, MIXED, 60)?;
        operates(&three)?;
        // What the old one cannot is said, and nothing breaks.
        let output = three.fleet.cli(&["backup", "--out", "/nonexistent/x"])?;
        ensure!([REFUSED, 0, 74].contains(&output.code), "{output:?}");
        Ok(())
    })
}

/// The embedded store and the agents' state are read by the other version, forth and back.
#[test]
fn an_upgrade_in_place_and_back_keeps_guard_and_openings() -> Result<()> {
    let mix = Mix::new(&[AGENT, CONTROLLER, CLI])?;
    mix.scenario("in-place", |lab| {
        let three = Three::guarded(lab, MIXED, 300)?;
        three.fleet.cli_ok(&["ban", "198.51.100.7", "--for", "1h"])?;
        three.client.knock(None, &three.knock(Family::V4))?;
        three.wait_open(&three.client, None, Family::V4)?;
        let mut monitors = Vec::new();
        for to in three.opened(Family::V4) {
            monitors.push((true, Monitor::for_interruptions(&three.client, None, to)?));
            monitors.push((false, Monitor::for_gaps(&three.stranger, to)?));
        }
        for (turn, old) in [("new", &[][..]), ("old", &[AGENT, CONTROLLER, CLI][..])] {
            mix.choose(old);
            three.fleet.kill_controller()?;
            three.fleet.start_controller()?;
            three.fleet.wait_connected(3)?;
            for agent in three.agents() {
                agent.kill()?;
                agent.start()?;
            }
            three.fleet.wait_connected(3)?;
            ensure!(three.fleet.list("bans")?.len() == 1, "the ban is gone with the {turn} version");
            let other = lab.client(&format!("{turn}-comer"))?;
            other.knock(None, &three.knock(Family::V4))?;
            three.wait_open_within(IN_TIME, &other, None, Family::V4).with_context(|| turn.to_owned())?;
        }
        for (should_be_open, monitor) in monitors {
            let seen = monitor.finish()?;
            let flaps = if should_be_open { seen.closed } else { seen.open };
            ensure!(flaps == 0, "should be open: {should_be_open}; seen: {seen:?}");
        }
        Ok(())
    })
}

#[test]
fn three_controllers_are_upgraded_one_by_one_and_back_while_somebody_knocks() -> Result<()> {
    let mix = Mix::new(&[AGENT, CONTROLLER, CLI])?;
    mix.scenario("rolling", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Spread, 3)?;
        let three = &several.three;
        let mut monitors = Vec::new();
        for to in three.opened(Family::V4) {
            monitors.push(Monitor::for_gaps(&three.stranger, to)?);
        }
        let (stop, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
        let rolled = thread::scope(|scope| {
            let user = scope.spawn(|| -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    three.client.knock(None, &three.knock(Family::V4))?;
                    three.wait_open_within(IN_TIME, &three.client, None, Family::V4)?;
                    opened.fetch_add(1, Ordering::Relaxed);
                    three.wait_closed(&three.client, Family::V4, IN_TIME)?;
                }
                Ok(())
            });
            let again = |what: &str| {
                let target = opened.load(Ordering::Relaxed) + 2;
                let what = format!("two knocks to open {what}");
                wait_until(&what, Duration::from_secs(90), || {
                    ensure!(!user.is_finished(), "the user has given up");
                    Ok(opened.load(Ordering::Relaxed) >= target)
                })
            };
            let roll = || -> Result<()> {
                again("before")?;
                for old in [&[AGENT][..], &[AGENT, CONTROLLER, CLI][..]] {
                    mix.choose(old);
                    for controller in several.controllers() {
                        restart(controller)?;
                        again(&format!("after {} was restarted", controller.name()))?;
                    }
                    several.wait_whole()?;
                }
                Ok(())
            };
            let rolled = roll();
            stop.store(true, Ordering::Relaxed);
            let knocked = user.join().map_err(|_| anyhow::anyhow!("the user panicked"))?;
            rolled.and(knocked)
        });
        rolled?;
        for monitor in monitors {
            let seen = monitor.finish()?;
            ensure!(seen.open == 0, "guard was lifted: {seen:?}");
        }
        Ok(())
    })
}

fn restart(controller: &Controller) -> Result<()> {
    controller.tell_to_stop()?;
    controller.wait_stopped()?;
    controller.spawn()?;
    controller.wait_ready()
}

fn knocks_open_and_close(lab: &Lab) -> Result<()> {
    let three = Three::guarded(lab, MIXED, 3)?;
    for family in [Family::V4, Family::V6] {
        three.all_closed(&three.client, None, family)?;
        three.client.knock(None, &three.knock(family))?;
        three.wait_open(&three.client, None, family)?;
        three.opens_nowhere_else(&three.client, family)?;
        three.wait_closed(&three.client, family, IN_TIME)?;
    }
    three.fleet.kill_controller()?;
    three.fleet.start_controller()?;
    three.fleet.wait_connected(3)?;
    three.witness(&three.client)
}

/// What an operator does all day.
fn operates(three: &Three<'_>) -> Result<()> {
    let fleet = &three.fleet;
    let source = three.client.v4().to_string();
    fleet.cli_ok(&["open", DOOR, "--source", &source, "--for", "60s"])?;
    three.wait_open(&three.client, None, Family::V4)?;
    for kind in ["doors", "hosts", "openings", "bans", "attempts", "controllers", "events"] {
        let listed = fleet.list(kind)?;
        ensure!(["bans", "attempts"].contains(&kind) || !listed.is_empty(), "no {kind}");
        fleet.cli_ok(&["get", kind, "-o", "wide"])?;
    }
    fleet.cli_ok(&["describe", "door", DOOR])?;
    fleet.cli_ok(&["describe", "host", "db-1"])?;
    fleet.cli_ok(&["explain", "--source", &source])?;
    fleet.cli_ok(&["close", "--source", &source])?;
    three.wait_closed(&three.client, Family::V4, SOON)?;
    fleet.cli_ok(&["ban", "198.51.100.7"])?;
    fleet.cli_ok(&["unban", "198.51.100.7"])?;
    fleet.cli_ok(&["delete", "door", DOOR])?;
    ensure!(fleet.list("doors")?.len() == 1);
    Ok(())
}

/// Which programs are of the previous version; all of this one again when it is dropped.
struct Mix {
    previous: PathBuf,
    _one: MutexGuard<'static, ()>,
}

impl Mix {
    fn new(old: &[&str]) -> Result<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = env::var_os("FLEETKNOCK_PREVIOUS");
        let previous =
            previous.context("FLEETKNOCK_PREVIOUS names no folder; run make test-skew PREVIOUS=...")?;
        let mix = Self { previous: previous.into(), _one: one };
        mix.choose(old);
        Ok(mix)
    }

    fn choose(&self, old: &[&str]) {
        for program in [AGENT, CONTROLLER, CLI] {
            programs::choose(program, old.contains(&program).then_some(self.previous.as_path()));
        }
    }

    fn scenario(&self, name: &str, play: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
        Lab::scenario(name, play)
    }
}

impl Drop for Mix {
    fn drop(&mut self) {
        self.choose(&[]);
    }
}
