//! How far an agent's clock is off, measured over its stream.
//!
//! Pure. Each probe gives four time stamps, as in NTP (RFC 5905 section 8): when the controller asked, when the agent
//! heard it, when the agent answered, when the controller heard the answer. The true offset lies within half of the
//! time spent on the way, whichever way was slower.

pub mod fleet;

use std::{collections::VecDeque, time::Duration};

use fleetknock_core::time::Timestamp;

/// Samples kept. With a probe every five seconds this looks back 80 seconds.
const SAMPLES_MAX: usize = 16;

/// How fast two clocks may drift apart: 100 parts per million, what a cheap quartz does, added for a sample's age.
const DRIFT_PPM: u64 = 100;

/// Added to every uncertainty: time stamps taken by two kernels on capture and by two programs on a probe are not
/// taken at the very same point.
const FLOOR_US: u64 = 50;

/// An uncertainty is never said to be larger than this: beyond it, order across hosts means nothing anyway.
const UNCERTAINTY_MAX_US: u64 = 60_000_000;

/// Beyond these a clock is called drifting: the offset in microseconds, and within what it is certain.
const OFF_MAX_US: u64 = 500_000;
const UNCERTAIN_MAX: Duration = Duration::from_millis(100);

/// One answered probe. All times in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Controller's clock, when it asked.
    pub sent: u64,
    /// Agent's clock, when it heard that.
    pub heard: u64,
    /// Agent's clock, when it answered.
    pub answered: u64,
    /// Controller's clock, when it heard the answer.
    pub received: u64,
}

/// Agent clock minus controller clock, and within what it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Positive when the agent's clock is ahead.
    pub micros: i64,
    /// The true offset lies within plus or minus this.
    pub uncertainty: Duration,
}

impl Offset {
    /// A time of the agent's clock, by the controller's clock.
    pub fn correct(self, agent: Timestamp) -> Timestamp {
        agent.shifted(self.micros.saturating_neg())
    }

    /// Whether the clock is so far off, or so uncertain, that somebody should look at it.
    pub fn is_drifting(self) -> bool {
        self.micros.unsigned_abs() > OFF_MAX_US || self.uncertainty > UNCERTAIN_MAX
    }

    /// The same clock measured against one that is so many microseconds ahead of the one it was measured against.
    #[must_use]
    pub fn against(self, ahead: i64) -> Self {
        Self { micros: self.micros.saturating_sub(ahead), ..self }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: u64,
    offset: i64,
    half_trip: u64,
}

impl Sample {
    fn uncertainty(&self, now: u64) -> u64 {
        let drift = now.saturating_sub(self.at).saturating_mul(DRIFT_PPM) / 1_000_000;
        self.half_trip.saturating_add(drift).saturating_add(FLOOR_US).min(UNCERTAINTY_MAX_US)
    }
}

/// The estimate of one agent's clock: the best of the last probes.
#[derive(Clone, Debug, Default)]
pub struct Estimate {
    samples: VecDeque<Sample>,
}

impl Estimate {
    /// Takes in an answered probe. One whose times make no sense (an answer before the question) is left out.
    pub fn add(&mut self, probe: Probe) {
        let (Some(trip), Some(dwell)) =
            (probe.received.checked_sub(probe.sent), probe.answered.checked_sub(probe.heard))
        else {
            return;
        };
        let Some(way) = trip.checked_sub(dwell) else {
            return;
        };
        let difference = |agent: u64, controller: u64| i128::from(agent) - i128::from(controller);
        let twice = difference(probe.heard, probe.sent) + difference(probe.answered, probe.received);
        let Ok(offset) = i64::try_from(twice / 2) else {
            return;
        };
        let sample = Sample { at: probe.received, offset, half_trip: way / 2 };

        // A clock that was set contradicts what was measured before: only the new measurements count then.
        self.samples.retain(|old| {
            let apart = old.offset.abs_diff(offset);
            apart <= old.uncertainty(sample.at).saturating_add(sample.uncertainty(sample.at))
        });
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The best estimate at that time of the controller's clock; nothing before the first probe.
    pub fn offset(&self, now: Timestamp) -> Option<Offset> {
        let now = now.as_micros();
        let best = self.samples.iter().min_by_key(|sample| sample.uncertainty(now))?;
        let uncertainty = Duration::from_micros(best.uncertainty(now));
        Some(Offset { micros: best.offset, uncertainty })
    }
}

#[cfg(test)]
mod tests;
