//! What several controllers share: a small, ordered, watched map with compare-and-commit.
//!
//! Five verbs, leases and a promise. **Promise:** commits are atomic and linearizable; every commit that changes something gets
//! a revision one or more above all before it; a read or listing made after a commit returned sees it; a watch delivers
//! every change after its starting revision, once, in revision order, or ends with [`StoreError::Compacted`].
//! A commit that returned survives the death of any process.
//!
//! Keys are `/`-separated ASCII paths relative to this fleet, such as `doors/bastion-ssh`; the implementation puts its
//! own prefix in front. Values are opaque bytes of at most [`VALUE_MAX`].

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

pub use self::spec::{EtcdOptions, EtcdTls, StoreSpec};

pub mod bounds;
pub mod embedded;
#[cfg(feature = "etcd")]
pub mod etcd;
mod judge;
mod leases;
pub mod ledger;
pub mod memory;
mod mirror;
mod print;
pub mod spec;

/// The largest value in bytes. etcd refuses requests above 1.5 MiB.
pub const VALUE_MAX: usize = 256 * 1024;
/// The most changes in one transaction. etcd's default limit is 128 operations.
pub const CHANGES_MAX: usize = 100;
/// The most bytes of keys and values in one transaction. Stays below etcd's default limit of 1.5 MiB a request.
pub const TRANSACTION_MAX: usize = 1024 * 1024;
/// The longest key in bytes.
pub const KEY_MAX: usize = 1024;
/// The shortest lease. etcd counts in seconds.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// The longest lease.
pub const LEASE_MAX: Duration = Duration::from_secs(3600);

/// A point in the store's history. 0 is before everything.
pub type Revision = u64;

/// A key with its value. `Debug` does not print secret values.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the fleet.
    pub key: String,
    /// Opaque.
    pub value: Bytes,
    /// Of its last change.
    pub revision: Revision,
}

/// All entries under a prefix at one revision, ordered by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Ordered by key.
    pub entries: Vec<Entry>,
    /// The store's revision at which this was so: watch from here.
    pub revision: Revision,
}

/// What must hold for a transaction to be carried out, and what it then does, atomically.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// All must hold. At most [`CHANGES_MAX`].
    pub expect: Vec<Expect>,
    /// At most [`CHANGES_MAX`], each key once.
    pub changes: Vec<Change>,
    /// Everything that is put is deleted by the store when this lease ends; a later put without it unbinds the key.
    /// When the expectations hold and there is something to put, it must not have ended.
    pub lease: Option<LeaseId>,
}

/// Names a lease of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A lease as the store gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How long it lasts from when it was asked for, unless it is kept alive. The store may give more than was asked
    /// for, never less.
    pub ttl: Duration,
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Relative to the fleet.
    pub key: String,
    /// The revision of its last change; 0: it does not exist.
    pub revision: Revision,
}

/// One change of a transaction, or as a watch reports it. `Debug` does not print secret values.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Removes a key; fine when there is none.
    Delete {
        /// Relative to the fleet.
        key: String,
    },
    /// Sets a key.
    Put {
        /// Relative to the fleet.
        key: String,
        /// Opaque.
        value: Bytes,
    },
}

/// The changes of one commit, as far as they lie under a watch's prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The commit's.
    pub revision: Revision,
    /// Never empty.
    pub changes: Vec<Change>,
}

/// Changes as they happen; after an error it ends.
pub type Watch = Pin<Box<dyn Stream<Item = Result<Changes, StoreError>> + Send>>;

/// A place for what several controllers share.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One entry.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All entries whose key begins with the prefix.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// The same with secret values as they lie there: sealed, where there is a key. For backups.
    async fn list_as_it_lies(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.list(prefix).await
    }

    /// A value that lay under a key of such a listing, as [`get`](Self::get) would show it. One that cannot be opened becomes
    /// one that no record's parser takes, and that says why.
    fn open_value(&self, _key: &str, value: Bytes) -> Bytes {
        value
    }

    /// Carries out a transaction, or fails with [`StoreError::Conflict`] and changes nothing. Returns its revision; for
    /// one that changes nothing, the store's.
    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError>;

    /// Every change after `after` to keys that begin with the prefix.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;

    /// Whether the store answers, for readiness.
    async fn probe(&self) -> Result<(), StoreError>;

    /// A lease of at least that long, [`LEASE_MIN`] to [`LEASE_MAX`]. With an etcd it outlives this process by what is
    /// left of it; the other stores' leases end with the process. It may last longer than it should, such as over an
    /// election in etcd, never less.
    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError>;

    /// Begins the lease's time anew: how long it lasts from the moment of asking; nothing when it has ended.
    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError>;

    /// Ends a lease now, with all that is bound to it; fine when it has ended.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;
}

/// Opens the store that a specification names.
///
/// The embedded store is read whole here, and refused when it is broken or another controller has it. For etcd nothing
/// is contacted yet: whether it answers is for [`Store::probe`], so that a controller may start before its etcd.
///
/// # Errors
///
/// [`StoreError::Invalid`] for a specification this build cannot serve, [`StoreError::Unavailable`] when another process
/// has the directory or the disk fails, [`StoreError::Broken`] when the directory holds something else.
pub async fn open(spec: &StoreSpec) -> Result<Arc<dyn Store>, StoreError> {
    match spec {
        StoreSpec::Embedded { directory } => {
            Ok(Arc::new(embedded::EmbeddedStore::open(directory.clone()).await?))
        }
        #[cfg(feature = "etcd")]
        StoreSpec::Etcd(options) => Ok(Arc::new(etcd::EtcdStore::open(options.clone())?)),
        #[cfg(not(feature = "etcd"))]
        StoreSpec::Etcd(_) => Err(StoreError::Invalid(
            "this controller was built without etcd: use embedded:DIR or a build with the feature `etcd`"
                .to_owned(),
        )),
    }
}

/// Makes sure that nothing which a store no longer holds can be read from its files. For etcd that is the operator's to
/// do. Nobody may have the store open.
///
/// # Errors
///
/// As [`open`].
pub async fn scrub(spec: &StoreSpec) -> Result<(), StoreError> {
    match spec {
        StoreSpec::Embedded { directory } => embedded::EmbeddedStore::rewrite(directory.clone()).await,
        StoreSpec::Etcd(_) => Ok(()),
    }
}

/// Why a store could not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The wanted part of the history is gone: list again and watch from there.
    #[error("the history before revision {oldest} is gone")]
    Compacted {
        /// The oldest revision that can be watched from.
        oldest: Revision,
    },
    /// An expectation did not hold. Nothing was changed.
    #[error("somebody else changed the store first")]
    Conflict,
    /// The lease that a transaction binds its keys to has ended. Nothing was changed.
    #[error("the lease has ended")]
    LeaseEnded,
    /// A key, a value or a transaction beyond the bounds. Retrying is of no use.
    #[error("the store refuses this: {0}")]
    Invalid(String),
    /// Cannot be reached or cannot commit now. For a commit it is unknown whether it took place.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// What it holds is broken. Retrying is of no use.
    #[error("the store is broken: {0}")]
    Broken(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
