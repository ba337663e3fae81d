//! How many knocks one source may have reported, so that a noisy one cannot fill the queue.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use fleetknock_core::source::Source;

/// One source's knocks that are passed on within [`WINDOW`]. A ban takes ten misses; this leaves plenty.
pub const KNOCKS_MAX: u32 = 128;

/// Over what time they are counted, from a source's first knock on.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Sources that are followed at a time. In a table of 1 MiB each has four places; when all four are taken, the one
/// with the fewest knocks gives way, so that a flood of forged sources does not hide a noisy one.
pub const SOURCES_MAX: usize = BUCKETS * WAYS;

const BUCKETS: usize = 16_384;
const WAYS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    tag: u64,
    since_ms: u32,
    knocks: u32,
}

/// Counts knocks per source.
#[derive(Debug)]
pub struct SourceLimit {
    /// Keyed so that nobody can choose sources that share a bucket.
    hasher: RandomState,
    table: Vec<[Entry; WAYS]>,
}

impl SourceLimit {
    /// An empty table, hashed with this key.
    pub fn new(hasher: RandomState) -> Self {
        Self { hasher, table: vec![[Entry::default(); WAYS]; BUCKETS] }
    }

    /// Whether this source may have another knock reported. `now` counts from any start and never falls.
    pub fn admits(&mut self, source: Source, now: Duration) -> bool {
        let tag = self.hasher.hash_one(source);
        let now_ms = u32::try_from(now.as_millis() % (1 << 32)).unwrap_or(0);
        let window_ms = u32::try_from(WINDOW.as_millis()).unwrap_or(u32::MAX);
        let bucket = usize::try_from(tag % BUCKETS as u64).unwrap_or(0);
        let bucket = &mut self.table[bucket];
        for entry in bucket.iter_mut() {
            if now_ms.wrapping_sub(entry.since_ms) >= window_ms {
                *entry = Entry::default();
                entry.since_ms = now_ms;
            }
        }
        if let Some(entry) = bucket.iter_mut().find(|entry| entry.knocks > 0 && entry.tag == tag) {
            entry.knocks = entry.knocks.saturating_add(1);
            return entry.knocks <= KNOCKS_MAX;
        }
        if let Some(entry) = bucket.iter_mut().min_by_key(|entry| entry.knocks) {
            *entry = Entry { tag, since_ms: now_ms, knocks: 1 };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_source_is_limited_and_begins_anew_after_the_window() {
        let mut limit = SourceLimit::new(RandomState::new());
        let start = Duration::from_secs(100);
        let admitted =
            (0..1_000).filter(|i| limit.admits(source(1), start + Duration::from_millis(*i))).count();
        assert_eq!(admitted, KNOCKS_MAX as usize);
        assert!(limit.admits(source(2), start + Duration::from_secs(1)), "others are not touched");
        assert!(!limit.admits(source(1), start + WINDOW - Duration::from_millis(1)));
        assert!(limit.admits(source(1), start + WINDOW));
    }

    #[test]
    fn a_flood_of_other_sources_does_not_free_a_noisy_one() {
        let mut limit = SourceLimit::new(RandomState::new());
        let now = Duration::from_secs(1);
        (0..1_000).for_each(|_| {
            limit.admits(source(0), now);
        });
        let others = (1..200_000).filter(|i| limit.admits(source(*i), now)).count();
        assert_eq!(others, 199_999);
        assert!(!limit.admits(source(0), now));
    }

    fn source(i: u32) -> Source {
        Source::new(Ipv4Addr::from(0x0a00_0000 + i).into()).unwrap()
    }
}
