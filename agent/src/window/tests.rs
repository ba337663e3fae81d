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

#[test]
fn what_is_asked_for_again_is_sent_again_in_order_and_told_so_and_new_ones_follow() {
    let now = Instant::now();
    let mut window = Window::new(10);
    for knock in ["a", "b"] {
        window.push(knock, now);
    }
    batch(&mut window, 10);
    window.push("new", now);
    window.ask_again(now);
    assert!(window.begin_due_pass(now));
    assert_eq!(batch(&mut window, 10), (vec![(1, "a"), (2, "b")], true));
    assert_eq!(batch(&mut window, 10), (vec![(3, "new")], false));
    assert_eq!((window.has_unsent(), window.pass_at()), (false, None));
    assert!(!window.begin_due_pass(now + 60 * SECOND), "one asking brings one pass");
}

#[test]
fn a_pass_is_finished_before_the_next_begins_and_passes_keep_their_distance() {
    let now = Instant::now();
    let mut window = Window::new(10);
    for knock in ["a", "b", "c"] {
        window.push(knock, now);
    }
    batch(&mut window, 10);
    window.ask_again(now);
    assert!(window.begin_due_pass(now));
    batch(&mut window, 2);
    window.ask_again(now);
    assert!(!window.begin_due_pass(now + SECOND), "the first pass is under way");
    assert_eq!(batch(&mut window, 10).0, [(3, "c")]);
    assert_eq!(window.pass_at(), Some(now + RESEND_EVERY));
    assert!(!window.begin_due_pass(now + RESEND_EVERY / 2));
    assert!(window.begin_due_pass(now + RESEND_EVERY));
    assert_eq!(batch(&mut window, 10).0.len(), 3);
}

#[test]
fn a_new_stream_knows_nothing_of_what_the_old_one_asked() {
    let now = Instant::now();
    let mut window = Window::new(10);
    window.push("a", now);
    batch(&mut window, 10);
    window.ask_again(now);
    window.rewind(now);
    assert_eq!(batch(&mut window, 10).0.len(), 1);
    assert_eq!(window.pass_at(), None);
    window.ask_again(now);
    assert!(window.begin_due_pass(now), "and its first asking is served at once");
}

/// What happens to a window.
#[derive(Clone, Debug)]
enum Step {
    Push,
    Batch,
    Ask,
    Rewind,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Push),
        4 => Just(Step::Batch),
        4 => Just(Step::Ask),
        1 => Just(Step::Rewind),
        2 => (1_u64..2_000).prop_map(Step::Pass),
    ]
}

proptest! {
    /// However a controller asks and whenever streams change: within a pass counters ascend without a gap beyond what
    /// is too old, what a stream was sent before is marked, and after the last asking everything young is sent.
    #[test]
    fn rewinds_lose_nothing_keep_the_order_and_bring_all_young_ones_again(
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        const AGE: Duration = Duration::from_secs(3);
        let mut now = Instant::now();
        let mut window = Window::new(1_000);
        window.set_age(AGE);
        // When each counter was pushed; what was sent in this pass, and ever.
        let mut pushed: Vec<Instant> = Vec::new();
        let (mut pass, mut ever): (Vec<u64>, u64) = (Vec::new(), 0);
        let mut pass_began = now;
        let mut steps: Vec<_> = steps.into_iter().map(Some).collect();
        // In the end it asks once more, and has all the time it needs.
        steps.extend([Some(Step::Ask), None]);
        for step in steps {
            let end = step.is_none();
            match step {
                Some(Step::Push) => {
                    pushed.push(now);
                    prop_assert_eq!(window.push((), now), pushed.len() as u64);
                }
                Some(Step::Ask) => window.ask_again(now),
                Some(Step::Rewind) => {
                    window.rewind(now);
                    pass_began = now;
                    pass.clear();
                }
                Some(Step::Pass(milliseconds)) => now += Duration::from_millis(milliseconds),
                Some(Step::Batch) | None => {}
            }
            loop {
                if end && let Some(at) = window.pass_at() {
                    now = now.max(at);
                }
                if window.begin_due_pass(now) {
                    pass_began = now;
                    pass.clear();
                }
                let (sent, resent) = batch(&mut window, 3);
                for (counter, ()) in &sent {
                    prop_assert_eq!(resent, *counter <= ever, "{}", counter);
                    // A gap is what is too old to be kept.
                    let expected = pass.last().map_or(1, |last| last + 1);
                    prop_assert!(*counter >= expected, "{:?}, {}", pass, counter);
                    for skipped in expected..*counter {
                        prop_assert!(now - pushed[skipped as usize - 1] > AGE, "{} was lost", skipped);
                    }
                    pass.push(*counter);
                }
                ever = ever.max(pass.last().copied().unwrap_or(0));
                if !end || (!window.has_unsent() && window.pass_at().is_none()) {
                    break;
                }
            }
        }
        let young = (1..=pushed.len() as u64).filter(|counter| pass_began - pushed[*counter as usize - 1] <= AGE);
        prop_assert!(young.clone().all(|counter| pass.contains(&counter)), "{:?}", pass);
    }

    /// A controller that asks without end gets what is new all the same, within two passes.
    #[test]
    fn asking_without_end_starves_nothing_new(kept in 0_usize..200, count_max in 1_usize..20, every in 0_u64..1_000) {
        let mut now = Instant::now();
        let mut window = Window::new(1_000);
        for _ in 0..kept {
            window.push((), now);
        }
        batch(&mut window, kept);
        window.ask_again(now);
        window.begin_due_pass(now);
        let new = window.push((), now);
        let mut batches = 0;
        loop {
            window.ask_again(now);
            window.begin_due_pass(now);
            let (sent, _) = batch(&mut window, count_max);
            if sent.iter().any(|(counter, ())| *counter == new) {
                break;
            }
            batches += usize::from(!sent.is_empty());
            prop_assert!(batches <= 2 * kept.div_ceil(count_max) + 2, "{} batches", batches);
            now += Duration::from_millis(every);
            if sent.is_empty() && let Some(at) = window.pass_at() {
                now = now.max(at);
            }
        }
    }

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
