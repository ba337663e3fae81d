//! A controller stops deciding before its lease can have ended, whatever order things happen in.

use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(5);
const LEASE: LeaseId = LeaseId(7);

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn member() -> Tenure {
    let mut tenure = Tenure::new();
    tenure.leased(LEASE, TTL, at(0));
    tenure.joined(40, at(10));
    tenure
}

#[test]
fn it_asks_joins_and_renews_in_time() {
    let mut tenure = Tenure::new();
    assert_eq!(tenure.next(), (Step::Ask, at(0)));
    assert_eq!(tenure.epoch(at(0)), None);
    tenure.leased(LEASE, TTL, at(0));
    assert_eq!(tenure.next(), (Step::Join(LEASE), at(0)));
    assert_eq!(tenure.epoch(at(1)), None, "a lease alone is no membership");
    tenure.joined(40, at(10));
    assert_eq!(tenure.epoch(at(10)), Some(40));
    assert_eq!(tenure.next(), (Step::Renew(LEASE), at(10)));
    tenure.renewed(TTL, at(20));
    assert_eq!(tenure.next(), (Step::Renew(LEASE), at(20) + TTL / 3));
    assert_eq!(tenure.epoch(at(4_500)), Some(40));
}

#[test]
fn a_renewal_that_was_asked_early_and_answered_late_counts_from_the_asking() {
    let mut tenure = member();
    tenure.renewed(TTL, at(1_000));
    tenure.renewed(TTL, at(500));
    assert_eq!(tenure.until(), Some(at(5_500)));
    assert_eq!(tenure.epoch(at(5_499)), Some(40));
    assert_eq!(tenure.epoch(at(5_500)), None);
}

#[test]
fn without_a_renewal_it_is_over_before_the_store_can_end_it() {
    let mut tenure = member();
    tenure.failed(at(4_000));
    assert_eq!(tenure.epoch(at(4_499)), Some(40));
    assert_eq!(tenure.epoch(at(4_500)), None, "a tenth earlier than the store");
    assert!(tenure.expire(at(4_500)));
    assert!(!tenure.expire(at(4_500)));
    assert_eq!(tenure.next(), (Step::Ask, at(4_500)));
}

#[test]
fn what_the_store_ended_begins_anew() {
    let mut tenure = member();
    tenure.lost(at(100));
    assert_eq!(tenure.epoch(at(100)), None);
    assert_eq!(tenure.next(), (Step::Ask, at(100)));
    tenure.renewed(TTL, at(90));
    tenure.joined(41, at(110));
    assert_eq!(tenure.epoch(at(110)), None, "answers to what was asked before it was lost");
}

proptest! {
    /// Against a store that ends leases exactly when it may.
    #[test]
    fn it_never_decides_when_the_store_may_have_ended_the_lease(
        steps in proptest::collection::vec((0_u64..3_000, 0_u64..2_000, 0_u8..4), 1..60),
    ) {
        let mut tenure = Tenure::new();
        let (mut now, mut ends) = (at(0), at(0));
        for (wait, trip, kind) in steps {
            now += at(wait);
            tenure.expire(now);
            let (step, asked) = (tenure.next().0, now);
            let arrives = now + at(trip / 2);
            now += at(trip);
            match (step, kind) {
                (_, 0) => tenure.failed(now),
                (Step::Ask, _) => {
                    // The store counts from when it hears of it.
                    ends = arrives + TTL;
                    tenure.leased(LEASE, TTL, asked);
                }
                (Step::Join(_), _) if arrives < ends => tenure.joined(1, now),
                (Step::Renew(_), _) if arrives < ends => {
                    ends = arrives + TTL;
                    // An answer may get lost; the store has renewed all the same.
                    if kind > 1 { tenure.renewed(TTL, asked) } else { tenure.failed(now) }
                }
                _ => tenure.lost(now),
            }
            for later in [0, 500, 1_000, 4_000, 6_000] {
                let then = now + at(later);
                prop_assert!(tenure.epoch(then).is_none() || then < ends);
            }
        }
    }
}
