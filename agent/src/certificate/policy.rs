//! When a certificate is renewed, and when its end is near enough to say so. Pure: times and random numbers are
//! arguments.

use std::time::{Duration, SystemTime};

use fleetknock_runtime::{
    backoff::{Backoff, BackoffError},
    tls::{Certificate, authority::BACKDATED},
};

#[cfg(test)]
mod tests;

/// Renewal begins when this share of the lifetime is over at the latest,
const SHARE_LATEST: f64 = 2.0 / 3.0;
/// and up to this share of the lifetime earlier: hosts that were enrolled together do not come back together.
const SHARE_SPREAD: f64 = 1.0 / 15.0;
/// An end is near when less than this share of the lifetime is left.
const SHARE_NEAR: f64 = 1.0 / 5.0;
/// After a failure.
const RETRY_LEAST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(600);
/// Certificates follow the clock on the wall, which may be set: it is looked at again after this at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// From when until when a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    from: SystemTime,
    until: SystemTime,
}

/// What becomes of one certificate.
#[derive(Clone, Debug)]
pub struct Policy {
    validity: Validity,
    due: SystemTime,
    failures: u32,
    retry: Option<SystemTime>,
    backoff: Backoff,
}

impl Validity {
    /// Of a certificate. It begins when it was made: our authorities date it back a little for clocks that are behind,
    /// which would be most of a short life.
    pub fn of(certificate: &Certificate) -> Self {
        let until = certificate.not_after;
        let made = certificate.not_before + BACKDATED;
        Self { from: if made < until { made } else { certificate.not_before }, until }
    }

    fn lifetime(self) -> Duration {
        self.until.duration_since(self.from).unwrap_or_default()
    }

    /// Until when it counts.
    pub fn until(self) -> SystemTime {
        self.until
    }

    /// Whether less than a fifth of its life is left.
    pub fn is_near_its_end(self, now: SystemTime) -> bool {
        let left = self.until.duration_since(now).unwrap_or_default();
        left < self.lifetime().mul_f64(SHARE_NEAR)
    }
}

impl Policy {
    /// For a certificate. `random`, uniform in 0 to 1, spreads renewals.
    ///
    /// # Errors
    /// When the retry times are no back-off, which a test excludes.
    pub fn new(validity: Validity, random: f64) -> Result<Self, BackoffError> {
        let share = SHARE_LATEST - SHARE_SPREAD * random.clamp(0.0, 1.0);
        let due = validity.from + validity.lifetime().mul_f64(share);
        let backoff = Backoff::new(RETRY_LEAST, RETRY_MOST, 0.5)?;
        Ok(Self { validity, due, failures: 0, retry: None, backoff })
    }

    /// Whose this is.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether to ask for the next one now.
    pub fn is_due(&self, now: SystemTime) -> bool {
        // A retry that is farther off than any can be was planned before the clock was set back.
        let waits = |retry: SystemTime| now < retry && retry <= now + RETRY_MOST;
        now >= self.due && !self.retry.is_some_and(waits)
    }

    /// It was asked for in vain.
    pub fn failed(&mut self, now: SystemTime, random: f64) {
        self.failures = self.failures.saturating_add(1);
        self.retry = Some(now + self.backoff.delay(self.failures, random));
    }

    /// How long to wait before looking again.
    pub fn look_again_in(&self, now: SystemTime) -> Duration {
        let next = self.retry.unwrap_or(self.due).max(self.due);
        let near = self.validity.until - self.validity.lifetime().mul_f64(SHARE_NEAR);
        let wait = |at: SystemTime| at.duration_since(now).ok().filter(|wait| !wait.is_zero());
        [wait(next), wait(near)].into_iter().flatten().min().unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)
    }
}
