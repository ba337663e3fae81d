//! What is counted of doors is bounded and goes with them.

use fleetknock_core::door::DoorName;

use super::{Counts, DOORS_MAX, Doors};

#[test]
fn what_was_counted_of_a_door_goes_with_it() {
    let (doors, kept, gone) = (Doors::default(), name(1), name(2));
    doors.count(&kept, |counts| counts.granted += 1);
    doors.count(&gone, |counts| counts.granted += 1);
    let one = Counts { granted: 1, ..Counts::default() };
    assert_eq!(doors.of([&kept, &gone]), [(kept.clone(), one), (gone.clone(), one)]);
    assert_eq!(doors.of([&kept]), [(kept.clone(), one)]);
    assert_eq!(doors.of([&kept, &gone]), [(kept, one), (gone, Counts::default())]);
}

#[test]
fn no_more_than_so_many_doors_are_counted() {
    let doors = Doors::default();
    for number in 0..DOORS_MAX + 10 {
        doors.count(&name(number), |counts| counts.failed += 1);
    }
    assert_eq!(doors.lock().len(), DOORS_MAX);
    doors.of([]);
    assert_eq!(doors.lock().len(), 0);
}

fn name(number: usize) -> DoorName {
    format!("door-{number}").parse().unwrap()
}
