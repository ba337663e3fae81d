//! Whether a transaction's expectations hold, and what it changes then: the part of the embedded and the memory store
//! that decides. Pure; several transactions can be judged one after another before any of them is durable.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::leases::Leases;
use super::mirror::{Commit, Kept, Picture};
use super::{Change, Changes, Lease, LeaseId, Revision, StoreError, Transaction};

/// Transactions judged in order on top of a picture, none of them carried out yet. The leases are ahead of that: when
/// the commits cannot be made durable, [`Leases::rebind`] sets right what is bound.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    base: &'a Picture,
    leases: &'a mut Leases,
    revision: Revision,
    size: usize,
    /// What the judged transactions made of the keys they touched; `None`: it no longer exists.
    overlay: HashMap<String, Option<Kept>>,
    commits: Vec<Commit>,
}

impl<'a> Batch<'a> {
    /// Nothing judged yet.
    pub(super) fn on(base: &'a Picture, leases: &'a mut Leases) -> Self {
        Self {
            base,
            leases,
            revision: base.revision(),
            size: base.size(),
            overlay: HashMap::new(),
            commits: Vec::new(),
        }
    }

    /// Judges one more transaction. On success what follows sees its changes, and its revision is returned.
    pub(super) fn judge(
        &mut self,
        transaction: Transaction,
        size_max: usize,
    ) -> Result<Revision, StoreError> {
        for expectation in &transaction.expect {
            if self.kept(&expectation.key).map_or(0, |kept| kept.revision) != expectation.revision {
                return Err(StoreError::Conflict);
            }
        }
        let puts = transaction.changes.iter().any(|change| matches!(change, Change::Put { .. }));
        if puts && transaction.lease.is_some_and(|lease| !self.leases.is_held(lease)) {
            return Err(StoreError::LeaseEnded);
        }
        let (mut added, mut removed) = (0, 0);
        let mut changes = transaction.changes;
        changes.retain(|change| {
            let before = self.kept(change.key()).map(|kept| change.key().len() + kept.value.len());
            removed += before.unwrap_or(0);
            if let Change::Put { .. } = change {
                added += change.size();
            }
            // A removal of what does not exist changes nothing: etcd gives it no revision and no event either.
            before.is_some() || matches!(change, Change::Put { .. })
        });
        if changes.is_empty() {
            return Ok(self.revision);
        }
        let size = self.size - removed + added;
        // What shrinks the store is let through even when it is over its bound: it is the way back.
        if size > size_max && added > removed {
            return Err(StoreError::Unavailable(format!(
                "it is full: {} of {size_max} bytes; delete doors, users or audit records that are not needed",
                self.size
            )));
        }
        self.size = size;
        self.carry_out(changes, transaction.lease);
        Ok(self.revision)
    }

    /// A new lease.
    pub(super) fn grant(&mut self, ttl: Duration, at: Instant) -> Result<Lease, StoreError> {
        self.leases.grant(ttl, at)
    }

    /// Begins a lease's time anew; nothing when it has ended.
    pub(super) fn keep_alive(&mut self, lease: LeaseId, at: Instant) -> Option<Lease> {
        self.leases.keep_alive(lease, at)
    }

    /// Ends a lease, with what is bound to it.
    pub(super) fn revoke(&mut self, lease: LeaseId) {
        if self.leases.end(lease) {
            self.delete_orphans();
        }
    }

    /// Ends the leases whose time is up, with what is bound to them.
    pub(super) fn expire(&mut self, at: Instant) {
        if self.leases.expire(at) {
            self.delete_orphans();
        }
    }

    /// Deletes what is bound to leases that are no longer held.
    pub(super) fn delete_orphans(&mut self) {
        let mut changes = Vec::new();
        for key in self.leases.orphans() {
            if let Some(kept) = self.kept(&key) {
                self.size -= key.len() + kept.value.len();
                changes.push(Change::Delete { key });
            }
        }
        if !changes.is_empty() {
            self.carry_out(changes, None);
        }
    }

    /// Of what was judged so far.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// What the successful ones change, in revision order.
    pub(super) fn into_commits(self) -> Vec<Commit> {
        self.commits
    }

    fn carry_out(&mut self, changes: Vec<Change>, lease: Option<LeaseId>) {
        self.revision += 1;
        for change in &changes {
            let kept = match change {
                Change::Delete { .. } => None,
                Change::Put { value, .. } => Some(self.keep(value)),
            };
            self.overlay.insert(change.key().to_owned(), kept);
        }
        self.leases.take_down(&changes, lease);
        self.commits.push(Commit::new(Changes { revision: self.revision, changes }, lease));
    }

    fn keep(&self, value: &Bytes) -> Kept {
        Kept { value: value.clone(), revision: self.revision }
    }

    fn kept(&self, key: &str) -> Option<&Kept> {
        match self.overlay.get(key) {
            Some(overlaid) => overlaid.as_ref(),
            None => self.base.kept(key),
        }
    }
}

#[cfg(test)]
mod tests;
