//! How many knocks became what, second by second: what the dashboard draws.
//!
//! Pure. A ring of as many seconds as may be asked for ([`SECONDS_MAX`]), 24 bytes each. Time is the fleet's and may step a
//! little; a knock counts in the second in which it was judged.

use fleetknock_core::time::Timestamp;
use fleetknock_proto::v1 as pb;

#[cfg(test)]
mod tests;

/// Seconds that are kept.
pub const SECONDS_MAX: usize = 900;

/// What knocks became in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Advanced an attempt, the last ones included.
    pub steps: u32,
    /// Completed one.
    pub completed: u32,
    /// Misses.
    pub misses: u32,
    /// Of banned sources.
    pub banned: u32,
    /// Repeats, those that wait, and all that was not taken in.
    pub others: u32,
}

impl Counts {
    /// Of how many knocks had each of the matching's verdicts, by its name.
    pub fn of_verdicts(of: impl Fn(&'static str) -> u64) -> Self {
        let sum = |verdicts: &[&'static str]| {
            let sum = verdicts.iter().map(|verdict| of(verdict)).fold(0, u64::saturating_add);
            u32::try_from(sum).unwrap_or(u32::MAX)
        };
        Self {
            steps: sum(&["advanced", "completed"]),
            completed: sum(&["completed"]),
            misses: sum(&["miss"]),
            banned: sum(&["banned"]),
            others: sum(&["repeat", "waiting", "ignored"]),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            steps: self.steps.saturating_add(more.steps),
            completed: self.completed.saturating_add(more.completed),
            misses: self.misses.saturating_add(more.misses),
            banned: self.banned.saturating_add(more.banned),
            others: self.others.saturating_add(more.others),
        }
    }
}

/// The counts of the last seconds.
#[derive(Clone, Debug)]
pub struct Tally {
    /// By the second modulo their number.
    ring: Vec<(u64, Counts)>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { ring: vec![(0, Counts::default()); SECONDS_MAX] }
    }
}

impl Tally {
    /// Counts knocks that were judged at that time.
    pub fn add(&mut self, at: Timestamp, more: Counts) {
        let second = second(at);
        let (held, counts) = self.place(second);
        if *held < second {
            (*held, *counts) = (second, Counts::default());
        }
        // What is older than the ring is nobody's any more.
        if *held == second {
            *counts = counts.plus(more);
        }
    }

    /// The last so many whole seconds, the oldest first, each with when it began.
    pub fn last(&self, seconds: usize, now: Timestamp) -> Vec<(Timestamp, Counts)> {
        let (end, count) = (second(now), seconds.min(SECONDS_MAX - 1) as u64);
        let of = |second: u64| match self.ring[(second % SECONDS_MAX as u64) as usize] {
            (held, counts) if held == second => counts,
            _ => Counts::default(),
        };
        (end.saturating_sub(count)..end).map(|at| (Timestamp::from_millis(at * 1_000), of(at))).collect()
    }

    fn place(&mut self, second: u64) -> &mut (u64, Counts) {
        &mut self.ring[(second % SECONDS_MAX as u64) as usize]
    }
}

fn second(at: Timestamp) -> u64 {
    at.as_millis() / 1_000
}

/// As it is told.
pub fn told(from: Timestamp, counts: Counts) -> pb::KnockCounts {
    let Counts { steps, completed, misses, banned, others } = counts;
    pb::KnockCounts { from_ms: from.as_millis(), steps, completed, misses, banned, others }
}

/// As it was told.
pub fn heard(told: &pb::KnockCounts) -> Counts {
    let pb::KnockCounts { steps, completed, misses, banned, others, from_ms: _ } = *told;
    Counts { steps, completed, misses, banned, others }
}
