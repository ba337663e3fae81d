//! Delays stay within their bounds.

use std::time::Duration;

use super::{Backoff, BackoffError};

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn doubles_up_to_the_most() {
    let backoff = Backoff::new(MS(100), MS(5_000), 0.5).unwrap();
    let full: Vec<_> = (1..=8).map(|n| backoff.delay(n, 0.0).as_millis()).collect();
    assert_eq!(full, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    assert_eq!(backoff.delay(u32::MAX, 0.0), MS(5_000));
    assert_eq!(backoff.delay(0, 0.0), MS(100));
}

#[test]
fn jitter_only_shortens_and_by_its_share_at_most() {
    let backoff = Backoff::new(MS(100), MS(5_000), 0.25).unwrap();
    assert_eq!(backoff.delay(1, 1.0), MS(75));
    assert_eq!(backoff.delay(1, 7.0), MS(75));
    assert_eq!(backoff.delay(1, -7.0), MS(100));
    assert_eq!(backoff.delay(1, f64::NAN), MS(100));
    for _ in 0..1_000 {
        assert!((MS(75)..=MS(100)).contains(&backoff.random_delay(1)));
    }
}

#[test]
fn refuses_bounds_that_are_none() {
    assert!(matches!(Backoff::new(MS(0), MS(1), 0.0), Err(BackoffError::Bounds { .. })));
    assert!(matches!(Backoff::new(MS(2), MS(1), 0.0), Err(BackoffError::Bounds { .. })));
    assert!(matches!(Backoff::new(MS(1), MS(1), 1.1), Err(BackoffError::Jitter { .. })));
    assert!(matches!(Backoff::new(MS(1), MS(1), f64::NAN), Err(BackoffError::Jitter { .. })));
}
