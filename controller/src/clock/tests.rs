//! The true offset always lies within the stated uncertainty, and a clock that is set is noticed.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn the_true_offset_lies_within_the_uncertainty(
        offset in -10_000_000i64..10_000_000,
        trips in prop::collection::vec((0u64..50_000, 0u64..1_000, 0u64..50_000), 1..40),
    ) {
        let mut estimate = Estimate::default();
        let mut now = 1_795_361_411_000_000u64;
        for (there, dwell, back) in trips {
            estimate.add(probe(now, offset, there, dwell, back));
            now += there + dwell + back + 5_000_000;
            let found = estimate.offset(Timestamp::from_micros(now)).unwrap();
            let error = u128::from(found.micros.abs_diff(offset));
            prop_assert!(error <= found.uncertainty.as_micros(), "{error} {found:?}");
        }
    }
}

#[test]
fn a_quick_answer_counts_for_more_than_a_slow_one() {
    let mut estimate = Estimate::default();
    estimate.add(probe(1_000_000, 500, 10, 0, 10));
    estimate.add(probe(2_000_000, 500, 40_000, 0, 0));
    let found = estimate.offset(Timestamp::from_micros(2_100_000)).unwrap();
    assert_eq!(found.micros, 500);
    assert!(found.uncertainty < Duration::from_millis(1), "{found:?}");
}

#[test]
fn a_clock_that_is_set_is_followed_at_once() {
    let mut estimate = Estimate::default();
    estimate.add(probe(1_000_000, 0, 100, 0, 100));
    estimate.add(probe(6_000_000, 3_000_000, 5_000, 0, 5_000));
    assert_eq!(estimate.offset(Timestamp::from_micros(6_100_000)).unwrap().micros, 3_000_000);
}

#[test]
fn answers_that_make_no_sense_are_left_out() {
    let mut estimate = Estimate::default();
    estimate.add(Probe { sent: 10, heard: 5, answered: 4, received: 20 });
    estimate.add(Probe { sent: 10, heard: 5, answered: 6, received: 9 });
    estimate.add(Probe { sent: 10, heard: 0, answered: 100, received: 20 });
    assert_eq!(estimate.offset(Timestamp::from_micros(30)), None);
}

#[test]
fn a_corrected_time_is_the_controllers() {
    let offset = Offset { micros: -250, uncertainty: Duration::ZERO };
    assert_eq!(offset.correct(Timestamp::from_micros(1_000)), Timestamp::from_micros(1_250));
}

#[test]
fn an_offset_moves_with_the_clock_that_it_is_against() {
    // The agent is 300 us ahead of this machine, and the fleet's time 100 us.
    let offset = Offset { micros: 300, uncertainty: Duration::from_micros(7) }.against(100);
    assert_eq!(offset, Offset { micros: 200, uncertainty: Duration::from_micros(7) });
    assert_eq!(offset.correct(Timestamp::from_micros(1_300)), Timestamp::from_micros(1_100));
}

fn probe(sent: u64, offset: i64, there: u64, dwell: u64, back: u64) -> Probe {
    let heard = (sent + there).saturating_add_signed(offset);
    Probe { sent, heard, answered: heard + dwell, received: sent + there + dwell + back }
}
