//! Promise 25: 10,000 half-open TLS connections, one after the other with 2,000 held at a time, from eight addresses;
//! watchers and an agent that never read; and 10,000 calls that are taken back at once: a knock opens all the while, the
//! controller grows by no more than [`GROWTH_MAX`], and whoever does not read is cut off and counted.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{Family, MIXED, SOON, Three};
use fleetknock_lab::{Fleet, Lab, Pki, Resets, Unread, fleet::PORT, half_open, wait_until};

const HALF_OPEN: usize = 10_000;
const AT_ONCE: usize = 2_000;
const TAKEN_BACK: usize = 10_000;
/// What the controller may grow by, in bytes: 512 handshakes, 16 unread streams and the allocator's slack.
const GROWTH_MAX: u64 = 64 << 20;
/// Watchers that one user may have; some more are asked for.
const WATCHERS_OF_ONE: usize = 16;

#[test]
fn while_they_last() -> Result<()> {
    Lab::scenario("abuse", |lab| {
        let pki = Pki::create(lab, "fleet", "blue")?;
        let three = Three::with(lab, Fleet::start_trusted(lab, &pki)?, MIXED)?;
        three.apply(60)?;
        let controller = &three.fleet.controllers()[0];
        let mut clients = 0;
        let mut opens = |when: &str| -> Result<()> {
            clients += 1;
            let client = lab.client(&format!("user-{clients}"))?;
            client.knock(None, &three.knock(Family::V4))?;
            three.wait_open(&client, None, Family::V4).with_context(|| format!("a knock while {when}"))
        };
        opens("nobody does any harm")?;
        let process = controller.process()?;
        let before = process.memory()?;
        let attacker = lab.client("attacker")?;

        // Streams that are not read, from here to the end.
        let mallory = pki.user("mallory", "viewer")?;
        let (mut unread, refused) = Unread::watchers(&attacker, controller, &mallory, WATCHERS_OF_ONE + 4)?;
        ensure!(refused.len() == 4, "{} watchers of one user were refused", refused.len());
        for status in refused {
            ensure!(status.message().contains("user mallory has 16 watchers"), "{status}");
        }
        let _deaf = Unread::agent(&attacker, controller, &pki.host("deaf")?, "deaf")?;
        for number in 0..100 {
            let source = format!("198.51.100.{number}");
            three.fleet.cli_ok(&["ban", &source])?;
        }
        opens("nobody reads")?;

        let sources: Vec<IpAddr> = (1..=8).map(|last| Ipv4Addr::new(10, 77, 240, last).into()).collect();
        attacker.add_addresses(sources.iter().copied())?;
        let (to, enough) = (controller.host().at(PORT), AtomicBool::new(false));
        let opened = thread::scope(|scope| {
            let flood = scope.spawn(|| half_open(&attacker, &sources, to, (HALF_OPEN, AT_ONCE), &enough));
            let knocked = (0..3).try_for_each(|_| opens("connections are half open"));
            let asked = three.fleet.list("openings");
            enough.store(true, Ordering::Relaxed);
            let opened = flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
            knocked?;
            asked.context("an operator is held up")?;
            anyhow::Ok(opened)
        })?;
        ensure!(opened >= HALF_OPEN, "only {opened} connections were opened");
        let crowded = controller.metric("tls_handshakes_total", "outcome=\"crowded\"")?;
        ensure!(crowded > 0, "no half-open connection made room");

        let resets = Resets::new(&attacker, controller, &mallory)?;
        thread::scope(|scope| {
            let taken_back = scope.spawn(|| resets.send(TAKEN_BACK));
            opens("calls are taken back")?;
            taken_back.join().map_err(|_| anyhow::anyhow!("the resets panicked"))?.map(drop)
        })?;
        opens("after all that")?;

        wait_until("the watchers that do not read to be cut off", SOON * 10, || {
            let slow = controller.metric("calls_limited_total", "slow_watcher")?;
            Ok(slow >= WATCHERS_OF_ONE as u64)
        })?;
        for end in unread.read_on(SOON * 4) {
            let status = end.context("a watcher's stream was not ended")?;
            // Whoever comes back in time hears why; the connection of whoever does not is gone.
            ensure!(status.code() != tonic::Code::Ok, "{status}");
        }
        three.fleet.wait_connected(3)?;
        let growth = process.memory()?.saturating_sub(before);
        ensure!(growth <= GROWTH_MAX, "the controller grew by {growth} bytes");
        opens("it is over")
    })
}
