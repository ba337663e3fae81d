//! How long to wait before trying again: exponential, with jitter, within checked bounds.

use std::time::Duration;

/// Delays that double from `least` to `most`. Each is shortened by a random share of at most `jitter`, so that many
/// clients of one server do not come back in step, and none comes later than `most`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    jitter: f64,
}

impl Backoff {
    /// # Errors
    /// When `least` is zero or above `most`, or `jitter` lies outside 0 to 1.
    pub fn new(least: Duration, most: Duration, jitter: f64) -> Result<Self, BackoffError> {
        if least.is_zero() || least > most {
            return Err(BackoffError::Bounds { least, most });
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(BackoffError::Jitter { jitter });
        }
        Ok(Self { least, most, jitter })
    }

    /// The delay after `failures` failures in a row, 1 being the first. `random` is uniform in 0 to 1; other values are
    /// taken as the nearer end.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.least.saturating_mul(1 << doublings).min(self.most);
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.0 };
        full.mul_f64(1.0 - self.jitter * random)
    }

    /// [`delay`](Self::delay) with a random number of the thread's generator.
    pub fn random_delay(&self, failures: u32) -> Duration {
        self.delay(failures, rand::random())
    }
}

/// Why bounds are not bounds.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BackoffError {
    /// Least and most do not fit.
    #[error("a back-off needs 0 < least <= most, not {least:?} and {most:?}")]
    Bounds {
        /// The first delay.
        least: Duration,
        /// The longest delay.
        most: Duration,
    },
    /// Jitter is a share.
    #[error("the jitter of a back-off is a share from 0 to 1, not {jitter}")]
    Jitter {
        /// What was given.
        jitter: f64,
    },
}

#[cfg(test)]
mod tests;
