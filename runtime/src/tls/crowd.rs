//! Places, at most so many: whoever comes when it is full takes the place of the oldest of those who hold most.
//!
//! For handshakes: a good one takes milliseconds, a half-open one lasts until its time is up. So of a crowd, the oldest
//! are the idle ones; and somebody who opens thousands from one address pushes out their own first. For connections:
//! nobody holds more than a few, and a stolen certificate that opens thousands pushes out its own.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use super::sessions::Ended;

/// The places, by who holds them. Cloning shares them.
#[derive(Debug)]
pub(super) struct Crowd<K: Holder> {
    most: usize,
    most_each: usize,
    places: Arc<Mutex<Places<K>>>,
}

/// Who can hold places.
pub(super) trait Holder: Clone + Eq + Hash + Send {}

impl<K: Clone + Eq + Hash + Send> Holder for K {}

#[derive(Debug)]
struct Places<K> {
    next: u64,
    held: usize,
    by_holder: HashMap<K, BTreeMap<u64, Ended>>,
}

/// A place in the crowd, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place<K: Holder> {
    crowd: Crowd<K>,
    holder: K,
    number: u64,
}

impl<K: Holder> Crowd<K> {
    /// With this many places, and this many for one holder; at least one.
    pub(super) fn new(most: usize, most_each: usize) -> Self {
        let places = Places { next: 0, held: 0, by_holder: HashMap::new() };
        Self { most: most.max(1), most_each: most_each.max(1), places: Arc::new(Mutex::new(places)) }
    }

    /// A place for this one, who is told when it is given to another one.
    pub(super) fn enter(&self, holder: K, ended: Ended) -> Place<K> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.by_holder.get(&holder).is_some_and(|held| held.len() >= self.most_each) {
            places.take_from(&holder);
        } else if places.held >= self.most {
            places.take_one();
        }
        let number = places.next;
        places.next += 1;
        places.held += 1;
        places.by_holder.entry(holder.clone()).or_default().insert(number, ended);
        Place { crowd: self.clone(), holder, number }
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

impl<K: Holder> Clone for Crowd<K> {
    fn clone(&self) -> Self {
        Self { most: self.most, most_each: self.most_each, places: self.places.clone() }
    }
}

impl<K: Holder> Places<K> {
    fn take_one(&mut self) {
        // Among equals the oldest of all.
        let rank = |held: &BTreeMap<u64, Ended>| (held.len(), held.keys().next().copied().map(Reverse));
        let loser =
            self.by_holder.iter().max_by_key(|(_, held)| rank(held)).map(|(holder, _)| holder.clone());
        if let Some(holder) = loser {
            self.take_from(&holder);
        }
    }

    fn take_from(&mut self, holder: &K) {
        let oldest = self.by_holder.get(holder).and_then(|held| held.keys().next().copied());
        if let Some(ended) = oldest.and_then(|number| self.leave(holder, number)) {
            ended.end("there are too many connections like it".to_owned());
        }
    }

    fn leave(&mut self, holder: &K, number: u64) -> Option<Ended> {
        let held = self.by_holder.get_mut(holder)?;
        let ended = held.remove(&number)?;
        if held.is_empty() {
            self.by_holder.remove(holder);
        }
        self.held -= 1;
        Some(ended)
    }
}

impl<K: Holder> Drop for Place<K> {
    fn drop(&mut self) {
        let mut places = self.crowd.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.leave(&self.holder, self.number);
    }
}

/// What one customer usually has: an IPv4 address, a /64 of IPv6 (RFC 6177 gives sites no less).
pub fn network(address: IpAddr) -> IpAddr {
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

    fn enter(crowd: &Crowd<IpAddr>, address: &str) -> (Place<IpAddr>, Ended) {
        let ended = Ended::default();
        (crowd.enter(network(address.parse().unwrap()), ended.clone()), ended)
    }

    #[test]
    fn the_oldest_of_those_with_most_makes_room() {
        let crowd = Crowd::new(4, 4);
        let many: Vec<_> = (0..3).map(|_| enter(&crowd, "198.51.100.1")).collect();
        let lone = enter(&crowd, "192.0.2.7");
        assert_eq!(crowd.held(), 4);
        let next = enter(&crowd, "192.0.2.8");
        assert_eq!(crowd.held(), 4);
        let taken: Vec<_> = many.iter().map(|(_, ended)| ended.token.is_cancelled()).collect();
        assert_eq!(taken, [true, false, false]);
        drop(many);
        assert_eq!(crowd.held(), 2);
        drop(next);
        assert!(!lone.1.token.is_cancelled());
        drop(lone);
        assert_eq!(crowd.held(), 0);
        assert!(crowd.places.lock().unwrap().by_holder.is_empty());
    }

    #[test]
    fn a_network_counts_as_one() {
        let crowd = Crowd::new(3, 3);
        let lone = enter(&crowd, "2001:db8:1::1");
        let first = enter(&crowd, "2001:db8::1");
        let second = enter(&crowd, "2001:db8::ffff:2");
        let _third = enter(&crowd, "192.0.2.1");
        assert!(first.1.token.is_cancelled());
        assert!(!second.1.token.is_cancelled() && !lone.1.token.is_cancelled());
        crowd.shrink();
        assert!(lone.1.token.is_cancelled(), "among equals the oldest");
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), network("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn one_holder_has_no_more_than_a_few() {
        let crowd = Crowd::new(100, 2);
        let held: Vec<_> = (0..5).map(|_| enter(&crowd, "192.0.2.1")).collect();
        let other = enter(&crowd, "192.0.2.2");
        let taken: Vec<_> = held.iter().map(|(_, ended)| ended.token.is_cancelled()).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        assert_eq!(held[0].1.reason(), "there are too many connections like it");
        assert_eq!((crowd.held(), other.1.token.is_cancelled()), (3, false));
    }
}
