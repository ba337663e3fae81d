//! What guard dropped and what it would have dropped, by port.
//!
//! Pure: the kernel's counts go in, and begin anew when somebody flushes them; totals that never fall come out.

use std::collections::BTreeMap;

use fleetknock_core::port::Port;

/// Packets to one port that came without an opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets that were dropped.
    pub dropped: u64,
    /// Packets that passed and would have been dropped if the port were guarded.
    pub observed: u64,
}

impl Count {
    /// Both, added to those of another.
    pub fn plus(self, other: Self) -> Self {
        Self {
            dropped: self.dropped.saturating_add(other.dropped),
            observed: self.observed.saturating_add(other.observed),
        }
    }

    /// What was counted since `before`. A count that is lower than before began anew meanwhile.
    fn since(self, before: Self) -> Self {
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self { dropped: since(self.dropped, before.dropped), observed: since(self.observed, before.observed) }
    }
}

/// One for each port on which something was counted: at most 131,070, every TCP and UDP port there is.
pub type Counts = BTreeMap<Port, Count>;

/// Counts of two kinds as one.
pub(super) fn joined(dropped: Vec<(Port, u64)>, observed: Vec<(Port, u64)>) -> Counts {
    let dropped = dropped.into_iter().map(|(port, dropped)| (port, Count { dropped, observed: 0 }));
    let observed = observed.into_iter().map(|(port, observed)| (port, Count { dropped: 0, observed }));
    let mut counts = Counts::new();
    for (port, count) in dropped.chain(observed) {
        let held = counts.entry(port).or_default();
        *held = held.plus(count);
    }
    counts
}

/// Totals over everything that the kernel has said, which never fall.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    last: Counts,
    totals: Counts,
}

impl Tally {
    /// Takes in what the kernel says now.
    pub fn take(&mut self, now: Counts) {
        for (port, count) in &now {
            let before = self.last.get(port).copied().unwrap_or_default();
            let total = self.totals.entry(*port).or_default();
            *total = total.plus(count.since(before));
        }
        self.last = now;
    }

    /// So far, by port.
    pub fn totals(&self) -> &Counts {
        &self.totals
    }

    /// So far, of all ports together.
    pub fn sum(&self) -> Count {
        self.totals.values().fold(Count::default(), |sum, count| sum.plus(*count))
    }
}

#[cfg(test)]
mod tests;
