//! Promise 4: the opening closes at its time with agent and controller killed the moment after it opened. An established
//! connection lives on; a new one is refused.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fleetknock_e2e::{Family, MIXED, Three};
use fleetknock_lab::{Lab, Monitor, Reach, wait_until};

const OPEN_FOR: Duration = Duration::from_secs(7);
/// Kernel timers, the store's rounding and this machine's load.
const SLACK: Duration = Duration::from_millis(1500);

#[test]
fn over_ipv4() -> Result<()> {
    closes(Family::V4)
}

#[test]
fn over_ipv6() -> Result<()> {
    closes(Family::V6)
}

fn closes(family: Family) -> Result<()> {
    Lab::scenario("closing", |lab| {
        let three = Three::guarded(lab, MIXED, 7)?;
        let start = Instant::now();
        three.client.knock(None, &three.knock(family))?;
        three.wait_open(&three.client, None, family)?;
        three.fleet.kill_controller()?;
        for agent in three.agents() {
            agent.kill()?;
        }
        let [db, bastion] = three.opened(family);
        let mut held = [three.client.hold(None, db)?, three.client.hold(None, bastion)?];
        let monitors = [
            Monitor::for_interruptions(&three.client, None, db)?,
            Monitor::for_interruptions(&three.client, None, bastion)?,
        ];
        for (to, monitor) in [db, bastion].into_iter().zip(monitors) {
            wait_until("the kernel to close the port", OPEN_FOR + SLACK, || Ok(monitor.so_far().closed > 0))?;
            let took = start.elapsed();
            ensure!(took + SLACK > OPEN_FOR, "{to} closed after {took:?}, before its time");
            ensure!(took < OPEN_FOR + SLACK, "{to} closed after {took:?}, too late");
            ensure!(monitor.finish()?.open > 0, "the monitor never saw it open");
            ensure!(three.client.reach(to)? == Reach::Filtered, "{to} is open again");
        }
        for connection in &mut held {
            connection.echoes()?;
        }
        three.all_closed(&three.client, None, family)
    })
}
