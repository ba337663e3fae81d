//! What is kept for re-sending, by count and by age.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_is_pushed_is_sent_once_in_order_with_rising_counters() {
    let now = Instant::now();
    let mut window = Window::new(10);
    for knock in ["a", "b", "c"] {
        window.push(knock, now);
    }
    assert!(window.has_unsent());
    assert_eq!(batch(&mut window, 2), (vec![(1, "a"), (2, "b")], false));
    assert_eq!(batch(&mut window, 2), (vec![(3, "c")], false));
    assert!(!window.has_unsent());
    assert_eq!(batch(&mut window, 2), (vec![], false));
}

#[test]
fn a_new_stream_is_sent_what_is_young_again_and_told_so() {
    let now = Instant::now();
    let mut window = Window::new(10);
    window.set_age(5 * SECOND);
    window.push("old", now);
    window.push("young", now + 3 * SECOND);
    batch(&mut window, 10);
    window.acknowledge(2);
    window.push("not sent", now + 4 * SECOND);
    window.rewind(now + 6 * SECOND);
    assert_eq!(batch(&mut window, 10), (vec![(2, "young")], true));
    assert_eq!(batch(&mut window, 10), (vec![(3, "not sent")], false));
}

#[test]
fn an_acknowledgement_forgets_nothing_that_is_young() {
    let now = Instant::now();
    let mut window = Window::new(10);
    window.push("a", now);
    batch(&mut window, 10);
    window.acknowledge(u64::MAX);
    window.push("b", now);
    window.rewind(now);
    assert_eq!(batch(&mut window, 10).0, [(1, "a")]);
}

#[test]
fn when_full_the_oldest_goes_and_is_counted_if_nobody_was_sent_it() {
    let now = Instant::now();
    let mut window = Window::new(2);
    window.push("a", now);
    batch(&mut window, 10);
    window.push("b", now);
    window.push("c", now);
    assert_eq!(window.lost(), 0);
    window.push("d", now);
    assert_eq!(window.lost(), 1);
    assert_eq!(batch(&mut window, 10), (vec![(3, "c"), (4, "d")], false));
    window.push("e", now);
    window.forget(now + AGE_DEFAULT + SECOND);
    assert_eq!((window.len(), window.lost()), (0, 2));
}

proptest! {
    /// Whatever happens, a stream is sent ascending counters, and all that a long enough window holds.
    #[test]
    fn every_stream_gets_ascending_counters(events in proptest::collection::vec(0_u8..4, 1..200)) {
        let now = Instant::now();
        let mut window = Window::new(1_000);
        let mut this_stream: Vec<u64> = Vec::new();
        for (pushed, event) in events.into_iter().enumerate() {
            match event {
                0 | 1 => { window.push(pushed, now); }
                2 => this_stream.extend(batch(&mut window, 3).0.iter().map(|(counter, _)| *counter)),
                _ => { window.rewind(now); this_stream.clear(); }
            }
        }
        while window.has_unsent() {
            this_stream.extend(batch(&mut window, 3).0.iter().map(|(counter, _)| *counter));
        }
        let last = window.len() as u64;
        prop_assert!(this_stream.iter().copied().eq(1..=last), "{this_stream:?}, {last}");
    }
}

fn batch<T: Clone>(window: &mut Window<T>, count_max: usize) -> (Vec<(u64, T)>, bool) {
    let (kept, resent) = window.next_batch(count_max);
    (kept.map(|kept| (kept.counter, kept.seen.clone())).collect(), resent)
}
