//! The store of a single controller: one file in one directory, durable when a commit returns.
//!
//! ```text
//!  commit ──▶ queue ──▶ writer thread: judge all that waits, one disk transaction, one fsync ──▶ mirror ──▶ replies
//!  get, list, watch ─────────────────────────────────────────────────────────────────────────────▲
//! ```
//!
//! While one fsync runs, the commits that arrive wait in the queue and go into the next one together; a commit that
//! finds the writer idle is written at once. The mirror shows only what is on disk. After a restart the history before
//! it counts as compacted.
//!
//! The writer keeps the leases too, in memory; on disk is only which keys are bound. So leases end with the process:
//! whoever opens the directory next begins by deleting what was bound.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::task;
use tokio::time::Instant;

use self::directory::Directory;
use self::disk::RedbFile;
use self::writer::{Demand, Disk, Outcome, Request, Writer};
use super::bounds::{check_key, check_prefix, check_transaction, check_ttl};
use super::judge::Batch;
use super::leases::{Leases, timer};
use super::mirror::{HISTORY_CHANGES_MAX, Mirror, Picture};
use super::{Entry, Lease, LeaseId, Listing, Revision, Store, StoreError, Transaction, Watch};

mod directory;
mod disk;
mod writer;

/// How many commits wait while one is written; the next caller waits for a place.
const QUEUE_MAX: usize = 1024;
/// The most bytes of keys and values it holds, all of them in memory too; a commit beyond them is refused as
/// unavailable. etcd's own default quota is 2 GiB with history, so this is no less roomy.
pub const EMBEDDED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// One directory of this machine, held by one controller at a time.
#[derive(Debug)]
pub struct EmbeddedStore {
    path: PathBuf,
    mirror: Arc<Mirror>,
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens the store in a directory, or makes both. A directory that is made here has mode 0700, the files 0600.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when another process has it or the disk fails; [`StoreError::Broken`] when the file
    /// is damaged or something else's. Both name the directory and what to do.
    pub async fn open(directory: PathBuf) -> Result<Self, StoreError> {
        let path = directory.clone();
        let (held, disk, picture) = task::spawn_blocking(move || Self::open_blocking(&directory))
            .await
            .map_err(|error| disk::broken(&path, &format!("reading it failed: {error}")))??;
        let mirror = Mirror::new(picture, HISTORY_CHANGES_MAX);
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let (next_end, ends) = watch::channel(None);
        let shown = Arc::clone(&mirror);
        let writer = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                Writer::new(disk, &shown, next_end, EMBEDDED_BYTES_MAX).run(queue);
                // Only now, with the file closed, may somebody else have the directory.
                drop(held);
            })
            .map_err(|error| StoreError::Unavailable(format!("cannot start the writer thread: {error}")))?;
        let queue = requests.downgrade();
        // Ends with the writer, which has the sender. It must not hold on to the queue in between, or the writer would
        // not end; and when the queue is full it rings again.
        tokio::spawn(timer::run(ends, move |now| {
            if let Some(queue) = queue.upgrade() {
                let _ = queue.try_send(Request::new(Demand::Nothing, now).0);
            }
        }));
        Ok(Self { path, mirror, requests: Some(requests), writer: Some(writer) })
    }

    /// Writes the file of a directory anew, with what it holds and nothing that it no longer does.
    ///
    /// # Errors
    ///
    /// As [`EmbeddedStore::open`]; the file is then as it was.
    pub async fn rewrite(directory: PathBuf) -> Result<(), StoreError> {
        let path = directory.clone();
        let rewritten = task::spawn_blocking(move || {
            let _held = Directory::hold(&directory)?;
            disk::rewrite(&directory)
        });
        rewritten.await.map_err(|error| disk::broken(&path, &format!("rewriting it failed: {error}")))?
    }

    fn open_blocking(directory: &Path) -> Result<(Directory, RedbFile, Picture), StoreError> {
        let held = Directory::hold(directory)?;
        let mut disk = RedbFile::open(directory)?;
        let mut found = disk.read()?;
        let mut leases = Leases::of(found.bound);
        let mut batch = Batch::on(&found.picture, &mut leases);
        batch.delete_orphans();
        let commits = batch.into_commits();
        if !commits.is_empty() {
            disk.write(&commits)?;
            commits.iter().for_each(|commit| found.picture.apply(commit.changes()));
        }
        Ok((held, disk, found.picture))
    }

    /// Carried out even when the caller stops waiting.
    async fn ask(&self, demand: Demand) -> Result<Outcome, StoreError> {
        let requests = self.requests.as_ref().ok_or_else(|| self.stopped())?;
        let (request, verdict) = Request::new(demand, Instant::now());
        requests.send(request).await.map_err(|_| self.stopped())?;
        verdict.await.map_err(|_| self.stopped())?
    }

    fn stopped(&self) -> StoreError {
        StoreError::Unavailable(format!(
            "the writer of {} has stopped; restart the controller",
            self.path.display()
        ))
    }
}

/// Waits for the commits that are under way, so that the directory is free afterwards.
impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to wait for, and its panic was reported when it happened.
            let _ = writer.join();
        }
        self.mirror.close();
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        Ok(self.mirror.entry(key))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        check_prefix(prefix)?;
        Ok(self.mirror.list(prefix))
    }

    /// Carries the transaction out even when the caller stops waiting.
    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        check_transaction(&transaction)?;
        Ok(self.ask(Demand::Commit(transaction)).await?.revision)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        check_prefix(prefix)?;
        self.mirror.watch(prefix, after)
    }

    /// Also makes the writer look at the disk again after it failed.
    async fn probe(&self) -> Result<(), StoreError> {
        self.commit(Transaction::default()).await.map(drop)
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        check_ttl(ttl)?;
        self.ask(Demand::Lease(ttl)).await?.lease.ok_or_else(|| self.stopped())
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        Ok(self.ask(Demand::KeepAlive(lease)).await?.lease.map(|lease| lease.ttl))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(Demand::Revoke(lease)).await.map(drop)
    }
}
