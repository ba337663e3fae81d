//! Virtual time: one true time in microseconds, and every process's own idea of it.

use std::{sync::LazyLock, time::Duration};

use fleetknock_core::time::Timestamp;

/// Microseconds of true time since a run began.
pub(crate) type Micros = u64;

/// What the clocks of a run begin with: only differences matter.
const EPOCH: u64 = 1_800_000_000_000_000;
static BASE: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

pub(crate) const SECOND: Micros = 1_000_000;

pub(crate) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The clocks of one machine: both begin wrong and drift.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) offset: i64,
    pub(crate) ppm: i64,
}

impl Clock {
    /// What the machine says that the time is.
    pub(crate) fn wall(self, now: Micros) -> Timestamp {
        Timestamp::from_micros(EPOCH + self.drifted(now)).shifted(self.offset)
    }

    /// Its monotonic clock.
    pub(crate) fn mono(self, now: Micros) -> Duration {
        Duration::from_micros(self.drifted(now))
    }

    /// The same for those who want an instant.
    pub(crate) fn instant(self, now: Micros) -> std::time::Instant {
        *BASE + self.mono(now)
    }

    /// When an instant of this machine is, in true time: the inverse of `instant`.
    pub(crate) fn when(self, instant: std::time::Instant) -> Micros {
        let drifted = i128::from(micros(instant.duration_since(*BASE)));
        u64::try_from(drifted * 1_000_000 / i128::from(1_000_000 + self.ppm)).unwrap_or(0)
    }

    fn drifted(self, now: Micros) -> u64 {
        let drift = i128::from(now) * i128::from(self.ppm) / 1_000_000;
        u64::try_from(i128::from(now) + drift).unwrap_or(0)
    }
}

/// True time as the wall clock of nobody: what a perfect clock would say.
pub(crate) fn perfect(now: Micros) -> Timestamp {
    Timestamp::from_micros(EPOCH + now)
}

/// True time as the store's instants.
pub(crate) fn store_instant(now: Micros) -> tokio::time::Instant {
    (*BASE + Duration::from_micros(now)).into()
}
