//! What the driver needs of a capture, and how the real one gives it.

use fleetknock_core::port::PortRange;

use crate::capture::{CaptureHandle, KnockSpace, judge::Reason};

/// What the driver needs of a capture.
pub trait Ears: Send {
    /// Makes other ports count.
    fn set_space(&self, space: KnockSpace);
    /// Totals so far.
    fn totals(&self) -> Heard;
    /// Ports at which nothing is a knock, because this host's services have them; at most `limit` ranges.
    fn in_use(&self, limit: usize) -> Vec<PortRange>;
}

/// What a capture has seen and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Knocks.
    pub captured: u64,
    /// Packets that passed the kernel filter and were lost before they were read.
    pub kernel: u64,
    /// Knocks lost because the queue was full.
    pub queue: u64,
    /// Packets that could not be parsed.
    pub malformed: u64,
    /// Knocks beyond what one source may send.
    pub source_limit: u64,
    /// Packets that passed the kernel filter and were read.
    pub packets: u64,
    /// How often the kernel was asked which socket a packet belongs to.
    pub lookups: u64,
    /// How often the kernel filter was replaced.
    pub filter_swaps: u64,
    /// Packets that were no knocks, by the number of the reason.
    pub not_knocks: [u64; Reason::ALL.len()],
}

impl Ears for CaptureHandle {
    fn set_space(&self, space: KnockSpace) {
        Self::set_space(self, space);
    }

    fn in_use(&self, limit: usize) -> Vec<PortRange> {
        Self::in_use(self, limit)
    }

    fn totals(&self) -> Heard {
        let counters = self.counters();
        Heard {
            captured: counters.captured.value(),
            kernel: counters.kernel_drops.value(),
            queue: counters.queue_drops.value(),
            malformed: counters.malformed.value(),
            source_limit: counters.source_limit(),
            packets: counters.packets.value(),
            lookups: counters.lookups.value(),
            filter_swaps: counters.filter_swaps.value(),
            not_knocks: Reason::ALL.map(|reason| counters.not_knocks(reason).value()),
        }
    }
}
