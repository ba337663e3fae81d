//! What the capture path has seen, dropped and ignored.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::judge::Reason;

/// Rising numbers since the start of this capture, read at any time by anyone.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets that passed the kernel filter and were read. Each ends in exactly one of the numbers below except
    /// `kernel_drops`, or waits to be released for some milliseconds.
    pub packets: Counter,
    /// Sightings handed to the queue.
    pub captured: Counter,
    /// Packets that passed the kernel filter while the socket's receive buffer was full. Brought up to date once a
    /// second and on stopping.
    pub kernel_drops: Counter,
    /// Sightings dropped because the queue was full.
    pub queue_drops: Counter,
    /// Packets that a correct host does not send, or that reach beyond what is captured of a packet.
    pub malformed: Counter,
    not_knocks: [Counter; Reason::ALL.len()],
    /// How often the kernel filter was replaced.
    pub filter_swaps: Counter,
    /// How often the kernel was asked which socket a packet belongs to.
    pub lookups: Counter,
}

impl Counters {
    /// Packets that were no knocks for this reason.
    pub fn not_knocks(&self, reason: Reason) -> &Counter {
        &self.not_knocks[reason as usize]
    }

    /// Packets that were no knocks for any reason.
    pub fn not_knocks_total(&self) -> u64 {
        self.not_knocks.iter().map(Counter::value).sum()
    }

    /// Knocks beyond what one source may send.
    pub fn source_limit(&self) -> u64 {
        self.not_knocks(Reason::SourceLimit).value()
    }
}

/// One rising number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub(super) fn increment(&self) {
        self.add(1);
    }
}
