//! A store that forgets: for tests of what stands on a store, and for trying things out.

use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::bounds::{check_key, check_prefix, check_transaction, check_ttl};
use super::judge::Batch;
use super::leases::Leases;
use super::leases::timer::{self, NextEnd};
use super::mirror::{HISTORY_CHANGES_MAX, Mirror, Picture};
use super::{Entry, Lease, LeaseId, Listing, Revision, Store, StoreError, Transaction, Watch};

/// The most bytes of keys and values it holds; a commit beyond them is refused as unavailable.
pub const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Keeps every promise of [`Store`] but the last: it ends with the process.
///
/// Leases are of tokio's clock. A timer ends them; it begins with the first lease, in the runtime that asks for it.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    timer: Once,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::with_history(HISTORY_CHANGES_MAX)
    }

    /// An empty one whose watches can fall only so many changes behind.
    pub fn with_history(changes_max: usize) -> Self {
        let shared = Shared {
            mirror: Mirror::new(Picture::default(), changes_max),
            leases: Mutex::default(),
            next_end: NextEnd::new(None),
        };
        Self { shared: Arc::new(shared), timer: Once::new() }
    }

    fn start_timer(&self) {
        let (ends, shared) = (self.shared.next_end.subscribe(), Arc::downgrade(&self.shared));
        // Ends with the store, which holds the sender.
        tokio::spawn(timer::run(ends, move |now| {
            if let Some(shared) = shared.upgrade() {
                shared.change(now, |_| {});
            }
        }));
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.shared.mirror.close();
    }
}

#[derive(Debug)]
struct Shared {
    mirror: Arc<Mirror>,
    /// Held while commits are judged and applied: one at a time.
    leases: Mutex<Leases>,
    next_end: NextEnd,
}

impl Shared {
    /// Ends what has ended by now, and then does as asked, all at once.
    fn change<T>(&self, now: Instant, ask: impl FnOnce(&mut Batch<'_>) -> T) -> T {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, commits) = self.mirror.with_picture(|picture| {
            let mut batch = Batch::on(picture, &mut leases);
            batch.expire(now);
            let answer = ask(&mut batch);
            (answer, batch.into_commits())
        });
        if !commits.is_empty() {
            self.mirror.apply(commits);
        }
        timer::set(&self.next_end, leases.next_end());
        answer
    }

    /// What is there now, also when the timer has not come to it yet.
    fn current(&self) -> &Arc<Mirror> {
        self.change(Instant::now(), |_| {});
        &self.mirror
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        Ok(self.shared.current().entry(key))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        check_prefix(prefix)?;
        Ok(self.shared.current().list(prefix))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        check_transaction(&transaction)?;
        self.shared.change(Instant::now(), |batch| batch.judge(transaction, MEMORY_BYTES_MAX))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        check_prefix(prefix)?;
        self.shared.mirror.watch(prefix, after)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        check_ttl(ttl)?;
        self.timer.call_once(|| self.start_timer());
        let now = Instant::now();
        self.shared.change(now, |batch| batch.grant(ttl, now))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        let now = Instant::now();
        Ok(self.shared.change(now, |batch| batch.keep_alive(lease, now)).map(|lease| lease.ttl))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.change(Instant::now(), |batch| batch.revoke(lease));
        Ok(())
    }
}
