//! Counts of knocks by the second.

use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

fn misses(misses: u32) -> Counts {
    Counts { misses, ..Counts::default() }
}

#[test]
fn each_second_has_what_was_judged_in_it_and_the_one_that_runs_is_not_told() {
    let mut tally = Tally::default();
    for (time, count) in [(0, 1), (999, 2), (1_000, 4), (3_500, 8)] {
        tally.add(at(time), misses(count));
    }
    let told = tally.last(4, at(3_999));
    assert_eq!(told.iter().map(|(_, counts)| counts.misses).collect::<Vec<_>>(), [0, 3, 4, 0]);
    assert_eq!(told[3].0, at(2_000));
    let told = tally.last(1, at(4_000));
    assert_eq!(told, [(at(3_000), misses(8))]);
}

#[test]
fn what_is_older_than_the_ring_is_forgotten_and_never_counted_again() {
    let mut tally = Tally::default();
    tally.add(at(0), misses(1));
    let round = SECONDS_MAX as u64 * 1_000;
    assert_eq!(tally.last(1, at(round + 1_000)), [(at(round), Counts::default())]);
    tally.add(at(round), misses(5));
    tally.add(at(0), misses(7));
    assert_eq!(tally.last(1, at(round + 1_000)), [(at(round), misses(5))]);
    assert_eq!(tally.last(usize::MAX, at(round)).len(), SECONDS_MAX - 1);
}

#[test]
fn a_clock_that_steps_back_a_little_loses_nothing_and_no_count_overflows() {
    let mut tally = Tally::default();
    tally.add(at(2_000), misses(1));
    tally.add(at(1_000), misses(u32::MAX));
    tally.add(at(1_000), misses(1));
    assert_eq!(tally.last(2, at(3_000)), [(at(1_000), misses(u32::MAX)), (at(2_000), misses(1))]);
    assert!(tally.last(5, Timestamp::ZERO).is_empty());
}
