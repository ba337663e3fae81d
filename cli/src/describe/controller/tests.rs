//! A controller as operators read it, and the remedies for what is wrong.

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_361_411_500);

fn peer(controller: &str, state: v1::PeerState, reason: &str) -> v1::Peer {
    v1::Peer {
        controller: controller.into(),
        state: state.into(),
        since_ms: 1_795_361_400_000,
        reason: reason.into(),
        forwarded: 120,
        dropped: 0,
    }
}

fn controller() -> v1::Controller {
    v1::Controller {
        name: "ctl-1".into(),
        address: "http://10.0.0.1:7600".into(),
        version: "0.1.0".into(),
        state: v1::ControllerState::Serving.into(),
        epoch: 12,
        started_ms: 1_795_361_400_000,
        agents: 40,
        sources_in_flight: 7,
        sources_limit: 1_000_000,
        revision: 77,
        clock_leader: "ctl-1".into(),
        peers: vec![peer("ctl-2", v1::PeerState::Up, ""), peer("ctl-3", v1::PeerState::Connecting, "")],
        knocks: 5_000,
        refused: 1,
        lease_until_ms: 1_795_361_415_000,
        ..v1::Controller::default()
    }
}

#[test]
fn a_controller_that_does_well_has_nothing_to_do() {
    assert_eq!(
        describe(&controller(), NOW),
        "Name:      ctl-1
Address:   http://10.0.0.1:7600
Version:   0.1.0
State:     serving
Started:   2026-11-22T15:30:00.000Z (11s ago)
Epoch:     12
Lease:     until 2026-11-22T15:30:15.000Z (4s left)
Clock:     leads the fleet's time
Agents:    40
Sources:   7 in flight, at most 1000000
Knocks:    5000 judged
Refused:   1 complete knocks opened nothing
Revision:  77
Peers:     2
  NAME   STATE       FOR  FORWARDED  DROPPED  REASON
  ctl-2  up          11s  120        0
  ctl-3  connecting  11s  120        0
"
    );
}

#[test]
fn what_is_wrong_comes_with_its_remedy() {
    let hints = |controller: v1::Controller| hints(&controller, NOW);
    assert_eq!(hints(controller()), [""; 0]);

    let suspended = v1::Controller { state: v1::ControllerState::Suspended.into(), ..controller() };
    assert_eq!(
        hints(suspended),
        [
            "ctl-1 cannot renew its lease: check that it reaches the store (etcd), and the store's health; it goes on by \
          itself once it can"
        ]
    );

    let peers = vec![
        peer("ctl-2", v1::PeerState::Cut, "no answer for 3s"),
        peer("ctl-3", v1::PeerState::Dead, "connection refused"),
    ];
    assert_eq!(
        hints(v1::Controller { peers, ..controller() }),
        [
            "ctl-1 has had no answer from ctl-2 for 11s (no answer for 3s): check the network and firewalls between them, \
             and that ctl-2 is not frozen; until then its knocks go round through another controller",
            "ctl-3 has not run at its address for 11s (connection refused): start it, or check its --advertise; until \
             then the others follow its sources",
        ]
    );

    let off = |clock_offset_us| {
        hints(v1::Controller { clock_offset_us, clock_leader: "ctl-2".into(), ..controller() })
    };
    assert_eq!(off(1_000_000), [""; 0]);
    assert!(off(2_500_000)[0].contains("ctl-1 is 2.5s ahead of the fleet's time: let NTP"));
    assert!(off(-2_500_000)[0].contains("ctl-1 is 2.5s behind the fleet's time"));
}

#[test]
fn of_one_that_does_not_answer_only_the_store_tells() {
    let controller = v1::Controller {
        state: v1::ControllerState::Unreachable.into(),
        agents: 0,
        peers: Vec::new(),
        ..controller()
    };
    let text = describe(&controller, NOW);
    for line in [
        "State:     unreachable: the controller that was asked cannot reach it",
        "Epoch:     12",
        "Agents:    -",
        "Clock:     -",
        "Peers:     -",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    }
    assert!(text.contains("or ask it itself with --controller http://10.0.0.1:7600"), "{text}");
}

#[test]
fn the_clock_says_whom_it_follows() {
    let clock = |offset, leader: &str| {
        clock(&v1::Controller {
            clock_offset_us: offset,
            clock_uncertainty_us: offset.unsigned_abs() / 2,
            clock_leader: leader.into(),
            ..controller()
        })
    };
    assert_eq!(clock(-1_200, "ctl-2"), "-1.2ms ±0.6ms from the fleet's time, led by ctl-2");
    assert_eq!(clock(0, "ctl-2"), "not measured yet");
    // The clock that it followed before it had to lead.
    assert_eq!(clock(800, "ctl-1"), "leads the fleet's time, +0.8ms ±0.4ms from it itself");
}
