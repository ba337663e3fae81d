//! Handshakes under way, at most so many: whoever comes when it is full takes the place of the oldest of those who hold
//! most.
//!
//! A good handshake takes milliseconds, a half-open one lasts until its time is up. So of a crowd, the oldest are the
//! idle ones; and somebody who opens thousands from one address pushes out their own first.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// The places. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct Crowd {
    most: usize,
    places: Arc<Mutex<Places>>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    held: usize,
    by_network: HashMap<IpAddr, BTreeSet<u64>>,
    tokens: HashMap<u64, CancellationToken>,
}

/// A place in the crowd, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    network: IpAddr,
    number: u64,
    /// Cancelled when somebody else was given the place.
    pub(super) taken: CancellationToken,
}

impl Crowd {
    /// With this many places, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), places: Arc::default() }
    }

    /// A place for somebody of this address.
    pub(super) fn enter(&self, address: IpAddr) -> Place {
        let network = network(address);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.held >= self.most {
            places.take_one();
        }
        let number = places.next;
        places.next += 1;
        places.held += 1;
        places.by_network.entry(network).or_default().insert(number);
        let taken = CancellationToken::new();
        places.tokens.insert(number, taken.clone());
        Place { crowd: self.clone(), network, number, taken }
    }

    /// Takes a place from somebody, when the system itself is out of room.
    pub(super) fn shrink(&self) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).take_one();
    }

    /// How many places are held.
    pub(super) fn held(&self) -> usize {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).held
    }
}

impl Places {
    fn take_one(&mut self) {
        let oldest = |numbers: &BTreeSet<u64>| numbers.first().copied();
        // Among equals the oldest of all.
        let loser = self.by_network.iter().filter_map(|(network, numbers)| {
            let number = oldest(numbers)?;
            Some((numbers.len(), std::cmp::Reverse(number), *network))
        });
        if let Some((_, std::cmp::Reverse(number), network)) = loser.max() {
            self.leave(network, number).inspect(CancellationToken::cancel);
        }
    }

    fn leave(&mut self, network: IpAddr, number: u64) -> Option<CancellationToken> {
        let token = self.tokens.remove(&number)?;
        self.held -= 1;
        if let Some(numbers) = self.by_network.get_mut(&network) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_network.remove(&network);
            }
        }
        Some(token)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.crowd.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.leave(self.network, self.number);
    }
}

/// What one customer usually has: an IPv4 address, a /64 of IPv6 (RFC 6177 gives sites no less).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(prefix).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_those_with_most_makes_room() {
        let crowd = Crowd::new(4);
        let many: Vec<_> = (0..3).map(|_| crowd.enter("198.51.100.1".parse().unwrap())).collect();
        let lone = crowd.enter("192.0.2.7".parse().unwrap());
        assert_eq!(crowd.held(), 4);
        let next = crowd.enter("192.0.2.8".parse().unwrap());
        assert_eq!(crowd.held(), 4);
        let taken: Vec<_> = many.iter().map(|place| place.taken.is_cancelled()).collect();
        assert_eq!(taken, [true, false, false]);
        drop(many);
        assert_eq!(crowd.held(), 2);
        drop(next);
        assert!(!lone.taken.is_cancelled());
        drop(lone);
        assert_eq!(crowd.held(), 0);
        let places = crowd.places.lock().unwrap();
        assert!(places.by_network.is_empty() && places.tokens.is_empty());
    }

    #[test]
    fn a_network_counts_as_one() {
        let crowd = Crowd::new(3);
        let lone = crowd.enter("2001:db8:1::1".parse().unwrap());
        let first = crowd.enter("2001:db8::1".parse().unwrap());
        let second = crowd.enter("2001:db8::ffff:2".parse().unwrap());
        let _third = crowd.enter("192.0.2.1".parse().unwrap());
        assert!(first.taken.is_cancelled());
        assert!(!second.taken.is_cancelled() && !lone.taken.is_cancelled());
        crowd.shrink();
        assert!(lone.taken.is_cancelled(), "among equals the oldest");
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), network("192.0.2.1".parse().unwrap()));
    }
}
