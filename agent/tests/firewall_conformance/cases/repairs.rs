//! Reconciling.

use std::time::{Duration, Instant};

use fleetknock_agent::firewall::{Desired, Repairs};

use crate::lab::{CLIENT, CLIENT6, Lab, OTHER, OTHER6, guard, later, observing, opening, serve_tcp, shell};

pub(crate) fn what_was_flushed_or_deleted_is_put_back(lab: &Lab) {
    serve_tcp(7000);
    let (desired, start) = (desired(), Instant::now());
    let mut firewall = lab.firewall();
    firewall.reconcile(&later(&desired, start)).unwrap();
    let whole = stable(&lab.driver.everything());
    assert_eq!(firewall.reconcile(&later(&desired, start)).unwrap(), Repairs::default());
    for commands in lab.driver.flushes() {
        for command in *commands {
            meddle(command);
        }
        let repairs = firewall.reconcile(&later(&desired, start)).unwrap();
        assert!(!repairs.said.is_empty(), "{commands:?}");
        assert_eq!(stable(&lab.driver.everything()), whole, "{commands:?}: {repairs:?}");
        assert_eq!(firewall.reconcile(&later(&desired, start)).unwrap(), Repairs::default(), "{commands:?}");
    }
    lab.open(CLIENT, "10.9.0.1:7000");
    lab.open(CLIENT6, "[fd09::1]:7000");
    lab.closed(OTHER, "10.9.0.1:7000");
}

pub(crate) fn what_is_not_ours_is_removed(lab: &Lab) {
    serve_tcp(7000);
    let (desired, start) = (desired(), Instant::now());
    let mut firewall = lab.firewall();
    firewall.reconcile(&later(&desired, start)).unwrap();
    let whole = stable(&lab.driver.everything());
    for command in lab.driver.intrusions() {
        meddle(command);
        let repairs = firewall.reconcile(&later(&desired, start)).unwrap();
        assert_eq!(stable(&lab.driver.everything()), whole, "{command}: {repairs:?}");
        assert_eq!(firewall.reconcile(&later(&desired, start)).unwrap(), Repairs::default(), "{command}");
        lab.closed(OTHER, "10.9.0.1:7000");
    }
    lab.open(CLIENT, "10.9.0.1:7000");
}

pub(crate) fn of_wrong_times(lab: &Lab) {
    let mut desired = desired();
    let mut firewall = lab.firewall();
    firewall.reconcile(&desired).unwrap();
    for (seconds, mended) in [(595, true), (594, false), (2_000_000, true), (600, true)] {
        for remaining in desired.openings.values_mut() {
            *remaining = Duration::from_secs(seconds);
        }
        let said = firewall.reconcile(&desired).unwrap().said;
        let expected: &[&str] =
            if mended { &["2 openings had a wrong time left, which is mended"] } else { &[] };
        assert_eq!(said, expected, "{seconds}");
    }
    assert_eq!((lab.driver.count("open4"), lab.driver.count("open6")), (1, 1));
}

pub(crate) fn of_ten_thousand_openings(lab: &Lab) {
    let mut desired = desired();
    for number in 0..5_000 {
        let (high, low) = (number / 250, 1 + number % 250);
        desired.openings.extend([
            opening(&format!("10.2.{high}.{low}"), "tcp/7000", 600),
            opening(&format!("fd02::{high:x}:{low:x}"), "udp/7001", 600),
        ]);
    }
    let mut firewall = lab.firewall();
    let begin = Instant::now();
    firewall.reconcile(&desired).unwrap();
    let filled = begin.elapsed();
    assert_eq!((lab.driver.count("open4"), lab.driver.count("open6")), (5_001, 5_001));
    let start = Instant::now();
    assert_eq!(firewall.reconcile(&later(&desired, begin)).unwrap(), Repairs::default());
    println!("{:?}: 10,002 openings filled in {filled:?}, compared in {:?}", lab.driver, start.elapsed());
    // A driver that starts anew finds the same.
    let mut firewall = lab.firewall();
    firewall.set_guard(&desired.guard).unwrap();
    assert_eq!(firewall.reconcile(&later(&desired, begin)).unwrap(), Repairs::default());
    let elements: Vec<_> = desired.openings.keys().copied().collect();
    firewall.close(&elements).unwrap();
    assert_eq!((lab.driver.count("open4"), lab.driver.count("open6")), (0, 0));
}

fn desired() -> Desired {
    let mut desired = Desired {
        guard: observing(
            &["tcp/7003", "udp/7000"],
            guard(&["tcp/7000", "udp/7001"], &["192.0.2.0/24", "2001:db8::/32"]),
        ),
        ..Desired::default()
    };
    desired.openings.extend([opening(CLIENT, "tcp/7000", 600), opening(CLIENT6, "tcp/7000", 600)]);
    desired.bans.insert("192.0.2.77".parse().unwrap(), Duration::from_secs(600));
    desired.bans.insert(OTHER6.parse().unwrap(), Duration::from_secs(600));
    desired
}

fn meddle(command: &str) {
    let (program, arguments) = command.split_once(' ').unwrap();
    shell(program, arguments);
}

/// A listing without what changes by itself: times, counters; in one order.
fn stable(listing: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for line in listing.lines() {
        // Elements that the rules make themselves.
        let counted = line.contains("counter packets") && !line.trim_start().starts_with("counter");
        if counted || line.starts_with("add fk-dropped-") || line.starts_with("add fk-noticed-") {
            continue;
        }
        let line: Vec<&str> = line
            .split_whitespace()
            .map(|word| word.trim_end_matches(','))
            .filter(|word| {
                !word.chars().next().is_some_and(|first| first.is_ascii_digit())
                    || word.contains(['.', ':', '/'])
            })
            .collect();
        words.push(line.join(" "));
    }
    words.sort_unstable();
    words.join("\n")
}
