//! Which key hangs on which lease, and until when: the book-keeping of the memory and the embedded store. Pure; time is
//! an argument.
//!
//! A key whose lease is no longer held is an *orphan*, whatever ended the lease: its time, its holder, or the process
//! that kept this book. The store deletes orphans in a commit of their own, so that watches tell of it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Change, Lease, LeaseId, StoreError};

pub(super) mod timer;

/// The most leases held at a time. A controller holds one.
const LEASES_MAX: usize = 1024;

/// The book.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: BTreeMap<LeaseId, Held>,
    bound: BTreeMap<String, LeaseId>,
    last: i64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    ttl: Duration,
    until: Instant,
}

impl Leases {
    /// A book without leases, and with keys that were bound by the one before it: all of them orphans.
    pub(super) fn of(bound: BTreeMap<String, LeaseId>) -> Self {
        let last = bound.values().map(|lease| lease.0).max().unwrap_or(0).max(0);
        Self { held: BTreeMap::new(), bound, last }
    }

    /// Replaces what is bound, when it turns out to be something else than this book says.
    pub(super) fn rebind(&mut self, bound: BTreeMap<String, LeaseId>) {
        self.last = bound.values().map(|lease| lease.0).max().unwrap_or(0).max(self.last);
        self.bound = bound;
    }

    /// A new lease.
    pub(super) fn grant(&mut self, ttl: Duration, at: Instant) -> Result<Lease, StoreError> {
        if self.held.len() >= LEASES_MAX {
            return Err(StoreError::Unavailable(format!("it holds {LEASES_MAX} leases, and no more")));
        }
        self.last = self.last.saturating_add(1);
        let id = LeaseId(self.last);
        self.held.insert(id, Held { ttl, until: at + ttl });
        Ok(Lease { id, ttl })
    }

    /// Begins a lease's time anew, from when that was asked for. Nothing when it has ended.
    pub(super) fn keep_alive(&mut self, id: LeaseId, at: Instant) -> Option<Lease> {
        let held = self.held.get_mut(&id)?;
        // A request that waited must not shorten what a later one gave.
        held.until = held.until.max(at + held.ttl);
        Some(Lease { id, ttl: held.ttl })
    }

    /// Begins the time of all leases anew, also of those whose time is up.
    pub(super) fn renew_all(&mut self, at: Instant) {
        for held in self.held.values_mut() {
            held.until = held.until.max(at + held.ttl);
        }
    }

    /// Ends a lease; whether there was one.
    pub(super) fn end(&mut self, id: LeaseId) -> bool {
        self.held.remove(&id).is_some()
    }

    /// Ends the leases whose time is up; whether there were any.
    pub(super) fn expire(&mut self, at: Instant) -> bool {
        let before = self.held.len();
        self.held.retain(|_, held| held.until > at);
        self.held.len() < before
    }

    /// When the next lease ends, unless it is kept alive.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.held.values().map(|held| held.until).min()
    }

    /// Whether keys can be bound to it.
    pub(super) fn is_held(&self, id: LeaseId) -> bool {
        self.held.contains_key(&id)
    }

    /// The keys to delete.
    pub(super) fn orphans(&self) -> Vec<String> {
        let orphans = self.bound.iter().filter(|(_, lease)| !self.is_held(**lease));
        orphans.map(|(key, _)| key.clone()).collect()
    }

    /// Takes down what a commit binds and unbinds.
    pub(super) fn take_down(&mut self, changes: &[Change], lease: Option<LeaseId>) {
        for change in changes {
            match (change, lease) {
                (Change::Put { key, .. }, Some(lease)) => drop(self.bound.insert(key.clone(), lease)),
                (Change::Put { key, .. } | Change::Delete { key }, _) => drop(self.bound.remove(key)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
