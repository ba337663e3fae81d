//! All controllers end with the clock of the eldest, and it goes on when the eldest leaves.

use super::*;

fn name(text: &str) -> HostName {
    text.parse().unwrap()
}

fn offset(micros: i64, uncertainty_us: u64) -> Offset {
    Offset { micros, uncertainty: Duration::from_micros(uncertainty_us) }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

#[test]
fn the_eldest_member_that_is_measured_leads() {
    let (a, b, c) = (name("a"), name("b"), name("c"));
    let members = [(&a, 30), (&b, 10), (&c, 20)];
    let mut clock = FleetClock::new();
    clock.measured(c.clone(), offset(2_000, 100), at(100));
    clock.follow(members, Some(30), at(100));
    assert_eq!((clock.leader(), clock.offset(at(100)).micros), (Some(&c), 2_000));
    clock.measured(b.clone(), offset(1_900, 50), at(100));
    clock.follow(members, Some(30), at(100));
    assert_eq!((clock.leader(), clock.offset(at(100)).micros), (Some(&b), 1_900));
    // Nobody follows a younger one.
    let mut eldest = FleetClock::new();
    eldest.measured(a.clone(), offset(9, 9), at(100));
    eldest.follow(members, Some(10), at(100));
    assert_eq!((eldest.leader(), eldest.offset(at(100))), (None, offset(0, 0)));
}

#[test]
fn when_the_leader_leaves_its_time_goes_on() {
    let (a, b) = (name("a"), name("b"));
    let mut clock = FleetClock::new();
    clock.measured(a.clone(), offset(-5_000, 80), at(100));
    clock.follow([(&a, 1), (&b, 2)], Some(2), at(100));
    clock.follow([(&b, 2)], Some(2), at(200));
    assert_eq!((clock.leader(), clock.offset(at(200))), (None, offset(-5_000, 0)));
}

#[test]
fn before_joining_everybody_is_older() {
    let a = name("a");
    let mut clock = FleetClock::new();
    clock.measured(a.clone(), offset(7, 1), at(1));
    clock.follow([(&a, 99)], None, at(1));
    assert_eq!(clock.leader(), Some(&a));
}

#[test]
fn a_leader_out_of_reach_leaves_its_offset_and_grows_uncertain() {
    let (a, b) = (name("a"), name("b"));
    let mut clock = FleetClock::new();
    clock.measured(a.clone(), offset(400, 100), at(100));
    clock.follow([(&a, 1), (&b, 2)], Some(2), at(100));
    clock.follow([(&a, 1), (&b, 2)], Some(2), at(200));
    let then = clock.offset(at(200));
    assert_eq!(then.micros, 400);
    assert_eq!(then.uncertainty, Duration::from_micros(100 + 100 * 100), "100 ppm of 100 s");
}

#[test]
fn a_controller_that_has_measured_nobody_before_it_is_not_certain_of_the_time() {
    let (a, b) = (name("a"), name("b"));
    let mut clock = FleetClock::new();
    clock.follow([(&a, 1), (&b, 2)], Some(2), at(100));
    assert_eq!(clock.offset(at(100)), Offset { micros: 0, uncertainty: UNMEASURED });
    // The one before it leaves: it leads.
    clock.follow([(&b, 2)], Some(2), at(101));
    assert_eq!(clock.offset(at(101)), offset(0, 0));
    // It led, joined anew, and knows the others from before.
    clock.measured(a.clone(), offset(30, 20), at(102));
    clock.follow([(&a, 3), (&b, 2)], Some(2), at(102));
    assert_eq!(clock.leader(), None);
    clock.follow([(&a, 3), (&b, 4)], Some(4), at(102));
    assert_eq!((clock.leader(), clock.offset(at(102))), (Some(&a), offset(30, 20)));
}
