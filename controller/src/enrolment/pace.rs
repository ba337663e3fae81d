//! How often a host gets its next certificate. Pure: the time is an argument.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use fleetknock_core::host::HostName;

#[cfg(test)]
mod tests;

/// Hosts that are remembered; of more, those that come while it is full wait as if they had just been there.
const HOSTS_MAX: usize = 65_536;

/// When each host got its last one, as long as that matters.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: HashMap<HostName, Instant>,
}

impl Pace {
    /// This host got none after all.
    pub(super) fn forget(&mut self, host: &HostName) {
        self.last.remove(host);
    }

    /// Whether this host gets one now, which is remembered.
    ///
    /// # Errors
    /// How long it waits.
    pub(super) fn take(&mut self, host: &HostName, now: Instant, every: Duration) -> Result<(), Duration> {
        let waits = |last: &Instant| {
            every.checked_sub(now.saturating_duration_since(*last)).filter(|wait| !wait.is_zero())
        };
        if let Some(wait) = self.last.get(host).and_then(waits) {
            return Err(wait);
        }
        if self.last.len() >= HOSTS_MAX {
            self.last.retain(|_, last| waits(last).is_some());
        }
        if self.last.len() >= HOSTS_MAX && !self.last.contains_key(host) {
            return Err(every);
        }
        self.last.insert(host.clone(), now);
        Ok(())
    }
}
