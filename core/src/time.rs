//! Points in time as numbers that mean the same on every machine.

use std::{fmt, ops::Add, time::Duration};

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch. Fits the years 1970 to 586,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// From milliseconds since the Unix epoch, saturating.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// How much later this is than `earlier`, or zero when it is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This much earlier, not before the epoch.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// Moved by a signed number of microseconds, saturating: how a clock is corrected by its measured offset.
    #[must_use]
    pub const fn shifted(self, micros: i64) -> Self {
        Self(self.0.saturating_add_signed(micros))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = std::time::UNIX_EPOCH.checked_add(Duration::from_micros(self.0));
        match at {
            Some(at) if self.0 < MAX_PRINTABLE => humantime::format_rfc3339_millis(at).fmt(f),
            _ => write!(f, "{} us", self.0),
        }
    }
}

/// The end of the year 9999: what RFC 3339 can write.
const MAX_PRINTABLE: u64 = 253_402_300_800_000_000;

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        let max = Timestamp::from_micros(u64::MAX);
        assert_eq!(max + Duration::MAX, max);
        assert_eq!(Timestamp::ZERO.before(Duration::MAX), Timestamp::ZERO);
        assert_eq!(Timestamp::ZERO.shifted(i64::MIN), Timestamp::ZERO);
        assert_eq!(Timestamp::ZERO.since(max), Duration::ZERO);
        assert_eq!(max.to_string(), "18446744073709551615 us");
    }

    #[test]
    fn prints_as_rfc_3339() {
        assert_eq!(Timestamp::from_millis(1_795_361_411_250).to_string(), "2026-11-22T15:30:11.250Z");
    }
}
