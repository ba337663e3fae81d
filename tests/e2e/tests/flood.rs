//! Promise 10: 50,000 spoofed first knocks a second for ten seconds: memory within the stated bound, real knocks still
//! open. In a program of its own, since it needs the machine for itself.

use std::{
    net::{IpAddr, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use fleetknock_e2e::{Family, MIXED, Three};
use fleetknock_lab::{Lab, flood::flood};

const RATE: u32 = 50_000;
const SECONDS: u32 = 10;
/// What a process may hold in memory, whatever comes: the matcher's stated bound (one million sources of at most 256
/// bytes, design section 10) and as much again for everything else.
const MEMORY_MAX: u64 = 512 << 20;
/// What an agent may: its queues and its window for re-sending.
const AGENT_MEMORY_MAX: u64 = 256 << 20;
/// How long an honest knock may take while the flood lasts.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn a_flood_of_forged_first_knocks_stops_nobody() -> Result<()> {
    Lab::scenario("flood", |lab| {
        let three = Three::guarded(lab, MIXED, 60)?;
        let flooder = lab.client("flooder")?;
        let honest: Vec<_> =
            (0..8).map(|number| lab.client(&format!("honest-{number}"))).collect::<Result<_>>()?;
        let IpAddr::V4(edge) = three.edge.host().v4() else { bail!("no IPv4 address") };
        // The hardware address is known before the flood begins.
        flooder.ok(&["ping", "-c", "1", "-W", "2", &edge.to_string()])?;
        let target = SocketAddrV4::new(edge, three.steps.ports[0]);

        let (flooded, slowest, most) = thread::scope(|scope| -> Result<_> {
            let flooding = scope.spawn(|| flooder.inside(|| flood(target, RATE, SECONDS)));
            let (mut slowest, mut most) = (Duration::ZERO, [0_u64; 2]);
            for client in &honest {
                let start = Instant::now();
                client.knock(None, &three.knock(Family::V4))?;
                loop {
                    let open = three.opened(Family::V4).map(|to| client.reaches(to));
                    most[0] = most[0].max(three.fleet.controller()?.memory()?);
                    most[1] = most[1].max(three.edge.process()?.memory()?);
                    let [one, two] = open;
                    if one? && two? {
                        break;
                    }
                    ensure!(start.elapsed() < PATIENCE, "{} is not let in during the flood", client.name());
                }
                slowest = slowest.max(start.elapsed());
            }
            while !flooding.is_finished() {
                most[0] = most[0].max(three.fleet.controller()?.memory()?);
                most[1] = most[1].max(three.edge.process()?.memory()?);
                thread::sleep(Duration::from_millis(50));
            }
            let flooded = flooding.join().ok().context("the flood panicked")???;
            Ok((flooded, slowest, most))
        })?;
        let wanted = u64::from(RATE) * u64::from(SECONDS);
        ensure!(
            flooded.sent >= wanted * 9 / 10,
            "only {flooded:?} of {wanted}: this machine is too slow for the test"
        );
        ensure!(most[0] < MEMORY_MAX, "the controller took {} bytes", most[0]);
        ensure!(most[1] < AGENT_MEMORY_MAX, "the agent took {} bytes", most[1]);
        ensure!(slowest < PATIENCE, "the slowest honest knock took {slowest:?}");
        ensure!(
            three.fleet.list("openings")?.len() == honest.len(),
            "not one opening for each honest client"
        );
        Ok(())
    })
}
