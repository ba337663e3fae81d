//! How a matcher behaves, how much it may hold, and what it says about what it holds.

use std::time::Duration;

use super::{verdict::FailReason, window::RECORDS_MAX};

/// How far in the future a knock may lie, beyond its uncertainty: more is a broken clock.
pub const FUTURE_MAX: Duration = Duration::from_secs(10);

/// At how many observations [`Matcher::read_ahead`](super::Matcher::read_ahead) looks: more than a processor can wait
/// for at once, and few enough to stay in its nearest cache.
pub const READ_AHEAD: usize = 32;

/// How a matcher behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What it may hold.
    pub limits: Limits,
    /// When misses lead to a ban; `None`: never.
    pub bans: Option<MissPolicy>,
    /// How long after a knock the reports of earlier ones may still come in, before it counts as a miss.
    pub settle: Duration,
}

impl Default for Config {
    /// Default limits and bans, reports up to 2 s late.
    fn default() -> Self {
        Self { limits: Limits::default(), bans: Some(MissPolicy::default()), settle: Duration::from_secs(2) }
    }
}

/// Bounds on what the matcher holds. What happens at each is said beside it.
///
/// Memory: a source with one knock costs at most 128 bytes, hash tables and prefix included; one with two knocks 224
/// bytes. Each further knock costs 40 bytes, up to half as much again in slack, and a source that has completed a door,
/// or has had to drop knocks, 72 bytes, and 8 for each further door. With the defaults that is at most 134 MB for the
/// sources, 185 MB for their records and 76 MB for what few need. All of it grows as needed and is reused; it is given
/// back when no source is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sources in flight. When reached, a newcomer takes the place of the source of the lowest class, not above its
    /// own, that has been silent for longest; when there is none it is refused.
    pub sources: u32,
    /// Knocks kept of one source, 2 to 64; other values are taken to the nearest of these. When reached, the oldest
    /// by packet time is dropped, and no chain may use what is not certainly after it.
    pub records_per_source: u32,
    /// Sources of one prefix ([`Source::prefix`](crate::source::Source::prefix)). When reached, the rule for
    /// `sources` is applied within the prefix.
    pub sources_per_prefix: u32,
    /// Knocks kept of all sources that have sent more than one, counted by the room taken. When reached, sources are
    /// evicted by the rule for `sources`; when that frees nothing, the knocking source itself is forgotten, so that
    /// no wrong knock is overlooked.
    pub records: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sources: 1 << 20, records_per_source: 64, sources_per_prefix: 256, records: 1 << 22 }
    }
}

impl Limits {
    /// The nearest limits that the matcher can keep.
    pub(super) fn clamped(self) -> Self {
        Self {
            sources: self.sources.clamp(1, u32::MAX / 2),
            records_per_source: self.records_per_source.clamp(2, RECORDS_MAX as u32),
            sources_per_prefix: self.sources_per_prefix.max(1),
            records: self.records.max(2 * RECORDS_MAX as u32),
        }
    }
}

/// How many misses in which time lead to a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissPolicy {
    /// This many, at least 1. More than [`Limits::records_per_source`] are never seen together, so a larger number
    /// is taken as that.
    pub misses: u32,
    /// Within this time, by packet time, before now.
    pub window: Duration,
}

impl Default for MissPolicy {
    /// 10 misses in 60 s.
    fn default() -> Self {
        Self { misses: 10, window: Duration::from_secs(60) }
    }
}

/// What the matcher holds and has had to give up, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sources in flight: the sum of the next three.
    pub sources: u32,
    /// Sources that have no progress at any door.
    pub noise: u32,
    /// Sources that are at the first step of a door.
    pub first: u32,
    /// Sources that are at a later step.
    pub progressed: u32,
    /// [`Limits::sources`].
    pub limit: u32,
    /// Sources without progress that were evicted.
    pub evicted_noise: u64,
    /// Sources at a first step that were evicted.
    pub evicted_first: u64,
    /// Knocks of sources that could not be taken in.
    pub refused: u64,
    /// Bytes held, allocator overhead estimated.
    pub memory: usize,
    /// How attempts began and ended.
    pub attempts: Attempts,
}

/// Attempts that reached the second step of a door, or its last: counted when they did and when they ended. What is in
/// neither of the ends is under way. The first steps alone are not counted: every scan hits some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// That began.
    pub started: u64,
    /// That opened a door.
    pub completed: u64,
    failed: [u64; FailReason::ALL.len()],
}

impl Attempts {
    /// That failed for this reason.
    pub fn failed(&self, reason: FailReason) -> u64 {
        self.failed[reason as usize]
    }

    pub(super) fn fail(&mut self, reason: FailReason) {
        self.failed[reason as usize] += 1;
    }
}
