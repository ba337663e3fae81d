//! Recognises the second copy of a packet that the kernel shows on two interfaces, such as a VLAN and its parent.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::packet::Identity;

/// Copies of one packet follow each other within microseconds; this leaves room for a delayed thread of the kernel.
pub const WINDOW: Duration = Duration::from_millis(50);

/// At most this many packets are remembered; the oldest is forgotten first.
pub const PACKETS_MAX: usize = 1_024;

/// The packets of the last moment and where they were seen first.
#[derive(Debug, Default)]
pub struct Repeats {
    seen: HashMap<Identity, (u32, Duration)>,
    order: VecDeque<(Identity, Duration)>,
}

impl Repeats {
    /// Whether this packet was seen within [`WINDOW`] on another interface. The same packet on the same interface is
    /// no copy: its sender has repeated it. `now` counts from any start and never falls.
    pub fn is_copy(&mut self, identity: Identity, interface: u32, now: Duration) -> bool {
        self.forget(now);
        if let Some((first, _)) = self.seen.get(&identity) {
            return *first != interface;
        }
        if self.order.len() == PACKETS_MAX {
            self.forget_oldest();
        }
        self.seen.insert(identity, (interface, now));
        self.order.push_back((identity, now));
        false
    }

    fn forget(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(_, at)| now.saturating_sub(*at) > WINDOW) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((identity, _)) = self.order.pop_front() {
            self.seen.remove(&identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_on_another_interface_is_recognised_within_the_window_only() {
        let mut repeats = Repeats::default();
        assert!(!repeats.is_copy(identity(1), 1, Duration::ZERO));
        assert!(!repeats.is_copy(identity(1), 1, Duration::ZERO), "a repeat by the sender");
        assert!(repeats.is_copy(identity(1), 2, WINDOW));
        assert!(!repeats.is_copy(identity(2), 2, WINDOW), "another packet");
        assert!(!repeats.is_copy(identity(1), 2, WINDOW + Duration::from_micros(1)));
        assert!(repeats.is_copy(identity(1), 1, WINDOW + Duration::from_micros(2)));
    }

    #[test]
    fn the_table_never_grows_past_its_bound() {
        let mut repeats = Repeats::default();
        for mark in 0..5_000 {
            assert!(!repeats.is_copy(identity(mark), 1, Duration::ZERO));
            assert!(repeats.seen.len() <= PACKETS_MAX && repeats.order.len() == repeats.seen.len());
        }
        assert!(repeats.is_copy(identity(4_999), 2, Duration::ZERO));
        assert!(!repeats.is_copy(identity(0), 2, Duration::ZERO), "forgotten");
    }

    fn identity(mark: u32) -> Identity {
        Identity {
            source: [192, 0, 2, 1].into(),
            destination: [192, 0, 2, 2].into(),
            port: "tcp/1".parse().unwrap(),
            peer: 1,
            marks: [mark, 0],
        }
    }
}
