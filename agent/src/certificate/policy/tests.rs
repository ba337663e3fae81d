//! When a certificate is renewed, over its whole life.

use std::time::UNIX_EPOCH;

use super::*;

const DAY: u64 = 86_400;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn valid(from: u64, until: u64) -> Validity {
    Validity { from: at(from), until: at(until) }
}

#[test]
fn renewal_begins_at_two_thirds_of_the_life_or_a_little_earlier() {
    for (random, due) in [(0.0, 20 * DAY), (0.5, 19 * DAY), (1.0, 18 * DAY), (7.0, 18 * DAY)] {
        let policy = Policy::new(valid(0, 30 * DAY), random).unwrap();
        assert!(!policy.is_due(at(due - 60)), "{random}");
        assert!(policy.is_due(at(due + 60)), "{random}");
        assert!(policy.is_due(at(40 * DAY)), "{random}: one that is over is due as well");
    }
}

#[test]
fn a_failure_is_followed_by_longer_and_longer_pauses() {
    let mut policy = Policy::new(valid(0, 30 * DAY), 0.0).unwrap();
    let mut now = at(21 * DAY);
    let mut pauses = vec![];
    for _ in 0..12 {
        assert!(policy.is_due(now));
        policy.failed(now, 0.0);
        assert!(!policy.is_due(now));
        let begin = now;
        while !policy.is_due(now) {
            now += policy.look_again_in(now);
        }
        pauses.push(now.duration_since(begin).unwrap().as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
}

#[test]
fn a_clock_that_is_set_back_postpones_nothing_for_long() {
    let mut policy = Policy::new(valid(0, 30 * DAY), 0.0).unwrap();
    policy.failed(at(29 * DAY), 0.0);
    assert!(policy.is_due(at(25 * DAY)), "the retry lies days ahead now");
}

#[test]
fn the_end_is_near_when_a_fifth_is_left() {
    let validity = valid(100, 200);
    for (now, near) in [(0, false), (100, false), (180, false), (181, true), (200, true), (300, true)] {
        assert_eq!(validity.is_near_its_end(at(now)), near, "{now}");
    }
}

#[test]
fn nothing_is_slept_through() {
    let policy = Policy::new(valid(0, 90), 0.0).unwrap();
    for (now, wait) in [(0, 60), (50, 10), (59, 1), (60, 12), (71, 1), (72, 60), (500, 60)] {
        assert_eq!(policy.look_again_in(at(now)), Duration::from_secs(wait), "{now}");
    }
}

#[test]
fn what_an_authority_dates_back_is_no_part_of_a_life() {
    let mut certificate = Certificate {
        subject: String::new(),
        issuer: String::new(),
        serial: String::new(),
        uris: vec![],
        dns_names: vec![],
        addresses: vec![],
        not_before: at(1_000),
        not_after: at(1_309),
        is_authority: false,
        purposes: vec![],
        key: String::new(),
    };
    assert_eq!(Validity::of(&certificate), valid(1_300, 1_309));
    certificate.not_after = at(1_200);
    assert_eq!(Validity::of(&certificate), valid(1_000, 1_200), "this one was made by somebody else");
}
