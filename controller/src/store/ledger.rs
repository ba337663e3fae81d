//! The rules of the store alone: no task, no lock, no clock. For simulations, which bring their own time and network.
//!
//! Transactions are judged and leases kept by the same code as in the memory and the embedded store.

use std::time::Duration;

use tokio::time::Instant;

use super::bounds::{check_transaction, check_ttl};
use super::judge::Batch;
use super::leases::Leases;
use super::mirror::Picture;
use super::{Changes, Entry, Lease, LeaseId, Listing, Revision, StoreError, Transaction};

/// The most bytes of keys and values it holds; a commit beyond them is refused as unavailable.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Entries, leases, and what was committed since somebody last asked.
#[derive(Debug, Default)]
pub struct Ledger {
    picture: Picture,
    leases: Leases,
    commits: Vec<Changes>,
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries out a transaction, or changes nothing.
    ///
    /// # Errors
    /// As [`Store::commit`](super::Store::commit), but never unavailable unless it is full.
    pub fn commit(&mut self, transaction: Transaction, at: Instant) -> Result<Revision, StoreError> {
        check_transaction(&transaction)?;
        self.change(at, |batch| batch.judge(transaction, BYTES_MAX))
    }

    /// A new lease.
    ///
    /// # Errors
    /// When the time is out of bounds, or there are too many.
    pub fn lease(&mut self, ttl: Duration, at: Instant) -> Result<Lease, StoreError> {
        check_ttl(ttl)?;
        self.change(at, |batch| batch.grant(ttl, at))
    }

    /// Begins a lease's time anew; nothing when it has ended.
    pub fn keep_alive(&mut self, lease: LeaseId, at: Instant) -> Option<Duration> {
        self.change(at, |batch| batch.keep_alive(lease, at)).map(|lease| lease.ttl)
    }

    /// Ends a lease, with what is bound to it.
    pub fn revoke(&mut self, lease: LeaseId, at: Instant) {
        self.change(at, |batch| batch.revoke(lease));
    }

    /// Ends the leases whose time is up.
    pub fn expire(&mut self, at: Instant) {
        self.change(at, |_| {});
    }

    /// Begins all leases anew, also those whose time is up, as an etcd does that elects a leader.
    pub fn renew_all(&mut self, at: Instant) {
        self.leases.renew_all(at);
    }

    /// When the next lease ends, unless it is kept alive.
    pub fn next_end(&self) -> Option<Instant> {
        self.leases.next_end()
    }

    /// One entry.
    pub fn entry(&self, key: &str) -> Option<Entry> {
        let kept = self.picture.kept(key)?;
        Some(Entry { key: key.to_owned(), value: kept.value.clone(), revision: kept.revision })
    }

    /// All entries.
    pub fn list(&self) -> Listing {
        self.picture.list("")
    }

    /// What was committed since this was last asked, in order.
    pub fn take_commits(&mut self) -> Vec<Changes> {
        std::mem::take(&mut self.commits)
    }

    /// Ends what has ended by now, and then does as asked, all at once.
    fn change<T>(&mut self, at: Instant, ask: impl FnOnce(&mut Batch<'_>) -> T) -> T {
        let mut batch = Batch::on(&self.picture, &mut self.leases);
        batch.expire(at);
        let answer = ask(&mut batch);
        for commit in batch.into_commits() {
            self.picture.apply(commit.changes());
            self.commits.push(commit.changes().clone());
        }
        answer
    }
}

#[cfg(test)]
mod tests;
