//! Tests of the room above: `hold`.

use fleetknock_core::time::Timestamp;

use super::*;

#[test]
fn an_unsure_sighting_is_a_knock_unless_its_port_was_just_closed() {
    for (closed_at, peer, fate) in [
        (None, None, Fate::Knock),
        (Some(1), None, Fate::Answer),
        (Some(1), Some("192.0.2.1"), Fate::Answer),
        (Some(1), Some("::ffff:192.0.2.1"), Fate::Answer),
        (Some(1), Some("192.0.2.99"), Fate::Knock),
    ] {
        let (mut hold, mut closed) = (Hold::default(), ClosedPorts::default());
        let start = Duration::from_secs(10);
        assert!(hold.keep(sighting(1, 40_000), true, start));
        if let Some(after) = closed_at {
            closed.note(
                40_000,
                peer.map(|text: &str| text.parse().unwrap()),
                start + Duration::from_millis(after),
            );
            closed.note(40_001, None, start);
        }
        assert_eq!(hold.release(start + WAIT_MIN - Duration::from_nanos(1), &closed), None);
        assert_eq!(hold.release(start + WAIT_MIN, &closed), Some((sighting(1, 40_000), fate)));
    }
}

#[test]
fn a_port_closed_long_ago_explains_nothing() {
    let mut closed = ClosedPorts::default();
    let start = Duration::from_secs(10);
    closed.note(40_000, None, start);
    let source = sighting(1, 40_000).source;
    assert!(closed.explain(source, 40_000, start + CLOSED_MEMORY));
    assert!(!closed.explain(source, 40_000, start + CLOSED_MEMORY + Duration::from_micros(1)));
    closed.forget(start + CLOSED_MEMORY * 2);
    assert!(closed.ports.is_empty());
}

#[test]
fn what_the_same_source_sends_meanwhile_keeps_its_place() {
    let (mut hold, closed) = (Hold::default(), ClosedPorts::default());
    let start = Duration::from_secs(1);
    assert!(!hold.must_wait(sighting(1, 1).source));
    assert!(hold.keep(sighting(1, 40_000), true, start));
    assert!(hold.must_wait(sighting(1, 1).source) && !hold.must_wait(sighting(2, 1).source));
    assert!(hold.keep(sighting(1, 7), false, start + WAIT_MIN / 2));
    let mut released = Vec::new();
    while let Some((sighting, fate)) = hold.release(start + WAIT_MIN, &closed) {
        released.push((sighting.port.number(), fate));
    }
    assert_eq!(released, [(40_000, Fate::Knock), (7, Fate::Waited)]);
    assert!(!hold.must_wait(sighting(1, 1).source) && hold.sources.is_empty());
}

#[test]
fn a_word_that_comes_too_late_makes_the_wait_longer_for_a_while() {
    let (mut hold, closed) = (Hold::default(), ClosedPorts::default());
    let mut now = Duration::from_secs(1);
    let late = |hold: &mut Hold, now: &mut Duration| {
        assert!(hold.keep(sighting(1, 40_000), true, *now));
        let deadline = hold.deadline().unwrap();
        let waited = deadline - *now;
        *now = deadline;
        assert_eq!(hold.release(*now, &closed).map(|(_, fate)| fate), Some(Fate::Knock));
        waited
    };
    for expected in [2, 4, 8, 16, 20, 20] {
        assert_eq!(late(&mut hold, &mut now), Duration::from_millis(expected));
        hold.learn(40_001, None, now);
        hold.learn(40_000, Some([192, 0, 2, 77].into()), now);
        hold.learn(40_000, Some([192, 0, 2, 1].into()), now);
    }
    // Once is enough for one late word, and an old release has nothing to do with a new word.
    hold.learn(40_000, None, now);
    for expected in [20_000, 10_000, 5_000, 2_500, 2_000, 2_000] {
        assert_eq!(late(&mut hold, &mut now), Duration::from_micros(expected));
        now += WAIT_DECAY;
        hold.learn(40_000, None, now);
    }
}

#[test]
fn no_more_than_the_bound_are_held() {
    let mut hold = Hold::default();
    for i in 0..HELD_MAX {
        assert!(hold.keep(sighting(u8::try_from(i % 200).unwrap() + 1, 40_000), true, Duration::ZERO));
    }
    assert!(!hold.keep(sighting(1, 40_000), true, Duration::ZERO));
}

fn sighting(source: u8, port: u16) -> Sighting {
    Sighting {
        source: Source::new([192, 0, 2, source].into()).unwrap(),
        destination: [192, 0, 2, 200].into(),
        port: fleetknock_core::port::Port::new(fleetknock_core::port::Protocol::Udp, port).unwrap(),
        time: Timestamp::ZERO,
        fingerprint: 0,
    }
}
