//! A host as operators read it, connected and not.

use super::*;

fn host() -> v1::Host {
    v1::Host {
        name: "edge-1".into(),
        labels: [("role".to_owned(), "edge".to_owned())].into(),
        addresses: vec!["10.0.0.5".into(), "2001:db8::5".into()],
        version: "0.1.0".into(),
        firewall: "nftables".into(),
        guarded: vec![v1::Port { protocol: 1, port: 22 }, v1::Port { protocol: 1, port: 443 }],
        doors: vec!["bastion-ssh".into(), "web".into()],
        ..v1::Host::default()
    }
}

#[test]
fn a_connected_host_says_where_and_how_it_does() {
    let host = v1::Host {
        connected: true,
        in_use: vec![
            v1::PortRange { protocol: 1, first: 80, last: 80 },
            v1::PortRange { protocol: 2, first: 1_000, last: 1_010 },
        ],
        controller: "ctl-2".into(),
        connected_since_ms: 1_795_361_400_000,
        last_seen_ms: 1_795_361_410_500,
        clock_offset_us: 1_200,
        clock_uncertainty_us: 400,
        drops_kernel: 10,
        drops_queue: 2,
        observations: 5_000,
        repairs: 1,
        last_repair: "the table was gone".into(),
        revision: 77,
        warnings: vec!["the forward policy\u{1b}[2J swallows openings".into()],
        ..host()
    };
    assert_eq!(
        describe(&host, Timestamp::from_millis(1_795_361_411_500)),
        "Name:         edge-1
Labels:       role=edge
State:        connected
Controller:   ctl-2, since 2026-11-22T15:30:00.000Z (11s ago)
Last seen:    2026-11-22T15:30:10.500Z (1s ago)
Addresses:    10.0.0.5, 2001:db8::5
Version:      0.1.0
Firewall:     nftables
Guards:       tcp/22, tcp/443
Observes:     -
In use:       tcp/80, udp/1000-1010
For doors:    bastion-ssh, web
Picture:      revision 77
Clock:        +1.2ms ±0.4ms from the fleet's time
Knocks seen:  5000
Repairs:      1, the last: the table was gone
Dropped:      12
  10  in the kernel: more came than the agent could read
  2   in the agent: its queue was full
  0   over the limit of one source
  0   malformed
Warnings:
  the forward policy\u{fffd}[2J swallows openings
"
    );
}

#[test]
fn a_host_that_is_not_connected_shows_what_was_last_known_and_invents_nothing() {
    let now = Timestamp::from_millis(1_795_361_411_500);
    let text = describe(&host(), now);
    assert_eq!(
        text,
        "Name:         edge-1
Labels:       role=edge
State:        not connected: what follows is the last known; its guard stays, and its openings end by their time
Controller:   -
Last seen:    not since the controllers that answered started
Addresses:    10.0.0.5, 2001:db8::5
Version:      0.1.0
Firewall:     nftables
Guards:       tcp/22, tcp/443
Observes:     -
In use:       -
For doors:    bastion-ssh, web
Picture:      -
Clock:        -
Knocks seen:  -
Repairs:      -
Dropped:      -
"
    );
    let seen = v1::Host { last_seen_ms: 1_795_361_400_000, drops_queue: 3, ..host() };
    let text = describe(&seen, now);
    assert!(text.contains("Last seen:    2026-11-22T15:30:00.000Z (11s ago)\n"), "{text}");
    assert!(text.contains("Dropped:      3\n"), "{text}");
}

#[test]
fn what_came_without_an_opening_is_shown_by_port() {
    let count = |number, dropped, observed| v1::GuardCount {
        port: Some(v1::Port { protocol: 1, port: number }),
        dropped,
        observed,
    };
    let host = v1::Host {
        observed: vec![v1::Port { protocol: 1, port: 8080 }],
        guard_counts: vec![count(22, 3, 0), count(8080, 0, 12), count(443, 1, 2)],
        ..host()
    };
    let text = describe(&host, Timestamp::from_millis(1_795_361_411_500));
    assert!(text.contains("Observes:     tcp/8080\n"), "{text}");
    let shown = "Came without an opening:
  tcp/22    3 dropped
  tcp/8080  12 passed and would have been dropped
  tcp/443   1 dropped, 2 passed and would have been dropped
";
    assert!(text.ends_with(shown), "{text}");
}
