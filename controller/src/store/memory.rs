//! A store that forgets: for tests of what stands on a store, and for trying things out.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::bounds::{check_key, check_prefix, check_transaction};
use super::judge::Batch;
use super::mirror::{HISTORY_CHANGES_MAX, Mirror, Picture};
use super::{Entry, Listing, Revision, Store, StoreError, Transaction, Watch};

/// The most bytes of keys and values it holds; a commit beyond them is refused as unavailable.
pub const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Keeps every promise of [`Store`] but the last: it ends with the process.
#[derive(Debug)]
pub struct MemoryStore {
    mirror: Arc<Mirror>,
    /// Commits are judged and applied one at a time.
    writing: Mutex<()>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::with_history(HISTORY_CHANGES_MAX)
    }

    /// An empty one whose watches can fall only so many changes behind.
    pub fn with_history(changes_max: usize) -> Self {
        Self { mirror: Mirror::new(Picture::default(), changes_max), writing: Mutex::new(()) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.mirror.close();
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        Ok(self.mirror.entry(key))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        check_prefix(prefix)?;
        Ok(self.mirror.list(prefix))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        check_transaction(&transaction)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, commits) = self.mirror.with_picture(|picture| {
            let mut batch = Batch::on(picture);
            let revision = batch.judge(transaction, MEMORY_BYTES_MAX)?;
            Ok::<_, StoreError>((revision, batch.into_commits()))
        })?;
        self.mirror.apply(commits);
        Ok(revision)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        check_prefix(prefix)?;
        self.mirror.watch(prefix, after)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn lease(&self, _: std::time::Duration) -> Result<super::Lease, StoreError> {
        Err(StoreError::Unavailable("no leases yet".to_owned()))
    }

    async fn keep_alive(&self, _: super::LeaseId) -> Result<Option<std::time::Duration>, StoreError> {
        Ok(None)
    }

    async fn revoke(&self, _: super::LeaseId) -> Result<(), StoreError> {
        Ok(())
    }
}
