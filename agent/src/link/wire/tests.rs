//! What a controller says is parsed before it is used.

use std::net::IpAddr;

use fleetknock_core::time::Timestamp;
use fleetknock_proto::Seen;
use proptest::prelude::*;

use super::*;
use crate::{firewall::Count, window::Window};

#[test]
fn a_delta_is_understood() {
    let (delta, refused) = delta(v1::Delta {
        revision: 7,
        guard: Some(v1::Guard {
            ports: vec![tcp(22)],
            knock_space: vec![v1::PortRange { protocol: 1, first: 1, last: 65_535 }],
            icmp: true,
            keep_window_ms: 0,
            management: vec!["192.0.2.0/24".to_owned()],
            observed: vec![tcp(22), tcp(80)],
        }),
        openings: vec![opening("o", "::ffff:203.0.113.5", 22)],
        withdrawn: vec![v1::Withdrawal { id: "w".to_owned(), kill_connections: true }],
        bans: vec![v1::HostBan { source: "2001:db8::1".to_owned(), remaining_ms: 1_500 }],
        unbanned: vec!["203.0.113.9".to_owned()],
    })
    .unwrap();
    assert!(refused.is_empty());
    assert_eq!(delta.revision, 7);
    assert_eq!(delta.openings[0].source.to_string(), "203.0.113.5");
    assert_eq!(delta.openings[0].remaining, Duration::from_secs(9));
    assert_eq!(delta.withdrawn, [("w".into(), true)]);
    assert_eq!(delta.bans[0].1, Duration::from_millis(1_500));
    let guard = delta.guard.unwrap();
    assert_eq!(guard.management.len(), 1);
    assert_eq!(guard.ports, ["tcp/22".parse().unwrap()].into());
    assert_eq!(guard.observed, ["tcp/80".parse().unwrap()].into(), "what is guarded is guarded");
}

#[test]
fn one_bad_opening_is_refused_by_itself() {
    let mut icmp = opening("icmp", "203.0.113.5", 22);
    icmp.ports = vec![v1::Port { protocol: 3, port: 22 }];
    let mut none = opening("none", "203.0.113.5", 22);
    none.ports.clear();
    let bad = [
        opening("address", "here", 22),
        opening("multicast", "224.0.0.1", 22),
        opening("port", "203.0.113.5", 65_536),
        opening("two words", "203.0.113.5", 22),
        icmp,
        none,
    ];
    let openings = bad.into_iter().chain([opening("good", "203.0.113.5", 22)]).collect();
    let (part, refused) = snapshot(v1::Snapshot { openings, ..v1::Snapshot::default() }).unwrap();
    assert_eq!(part.openings.len(), 1);
    assert_eq!(refused.len(), 6);
    assert!(refused.iter().all(|refused| refused.reason.starts_with("opening.")), "{refused:?}");
}

#[test]
fn anything_else_that_is_bad_refuses_the_message() {
    for (message, field) in [
        (v1::Delta { unbanned: vec!["me".to_owned()], ..v1::Delta::default() }, "delta.unbanned"),
        (v1::Delta { bans: vec![v1::HostBan::default()], ..v1::Delta::default() }, "delta.bans.source"),
        (
            v1::Delta { withdrawn: vec![v1::Withdrawal::default()], ..v1::Delta::default() },
            "delta.withdrawn.id",
        ),
        (
            v1::Delta {
                guard: Some(v1::Guard { ports: vec![tcp(0)], ..v1::Guard::default() }),
                ..v1::Delta::default()
            },
            "delta.guard.ports[0].port",
        ),
        (
            v1::Delta {
                guard: Some(v1::Guard { observed: vec![tcp(80); 4_097], ..v1::Guard::default() }),
                ..v1::Delta::default()
            },
            "delta.guard.observed",
        ),
        (
            v1::Delta {
                guard: Some(v1::Guard {
                    observed: vec![v1::Port { protocol: v1::Protocol::Icmp.into(), port: 22 }],
                    ..v1::Guard::default()
                }),
                ..v1::Delta::default()
            },
            "delta.guard.observed",
        ),
        (
            v1::Delta { withdrawn: vec![v1::Withdrawal::default(); 4_097], ..v1::Delta::default() },
            "delta.withdrawn",
        ),
    ] {
        assert_eq!(delta(message).unwrap_err().field, field);
    }
}

#[test]
fn counts_of_the_guard_s_ports_are_reported_and_bounded() {
    let port = |number: u16| Port::new(Protocol::Tcp, number).unwrap();
    let totals: Counts =
        (1..=5_000).map(|n| (port(n), Count { dropped: u64::from(n), observed: 1 })).collect();
    let counts = guard_counts([port(22), port(6_000), port(80)].into_iter(), &totals);
    let said: Vec<_> =
        counts.iter().map(|count| (count.port.as_ref().unwrap().port, count.dropped)).collect();
    assert_eq!(said, [(22, 22), (80, 80)]);
    assert_eq!(guard_counts(totals.keys().copied(), &totals).len(), 4_096);
}

proptest! {
    /// What is sent is what the controller reads.
    #[test]
    fn observations_arrive_as_they_were_seen(address in any::<[u8; 16]>(), number in 1_u16.., time in any::<u64>()) {
        let address = IpAddr::from(address);
        let Ok(source) = fleetknock_core::source::Source::new(address) else { return Ok(()) };
        let port = Port::new(Protocol::Udp, number).unwrap();
        let time = Timestamp::from_micros(time);
        let mut window = Window::new(1);
        window.push(Sighting { source, destination: address, port, time, fingerprint: 9 }, std::time::Instant::now());
        let message = observation(window.next_batch(1).0.next().unwrap());
        let seen = Seen::try_from(&message).unwrap();
        prop_assert_eq!(seen, Seen { counter: 1, time, source, port, fingerprint: 9 });
    }
}

fn tcp(port: u32) -> v1::Port {
    v1::Port { protocol: v1::Protocol::Tcp.into(), port }
}

fn opening(id: &str, source: &str, port: u32) -> v1::HostOpening {
    v1::HostOpening {
        id: id.to_owned(),
        source: source.to_owned(),
        ports: vec![tcp(port)],
        remaining_ms: 9_000,
        generation: 1,
        traceparent: String::new(),
    }
}
