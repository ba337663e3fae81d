//! A store that is timed and counted: what it does is what the store underneath does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::store::{Entry, Lease, LeaseId, Listing, Revision, Store, StoreError, Transaction, Watch};

/// A commit of the embedded store takes tenths of a millisecond, one of a healthy etcd a few milliseconds, and one
/// during an election of it seconds.
const SECONDS: [f64; 11] = [250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 500e-3, 2.5, 10.0];

type OneLabel = [(&'static str, &'static str); 1];

/// What is known of the store. Cloning shares it.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    seconds: Family<OneLabel, Histogram>,
    errors: Family<OneLabel, Counter>,
    committed: Arc<AtomicU64>,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            errors: Family::default(),
            committed: Arc::default(),
        }
    }
}

impl StoreMetrics {
    /// Adds them to a registry; a prefix is the caller's.
    pub fn register(&self, registry: &mut Registry) {
        for kind in ["broken", "compacted", "conflict", "invalid", "lease_ended", "unavailable"] {
            drop(self.errors.get_or_create(&[("kind", kind)]));
        }
        let help = "How long the store took to answer, by operation";
        registry.register_with_unit("store_operation", help, Unit::Seconds, self.seconds.clone());
        let help = "Answers of the store that were errors, by kind; conflicts are races that somebody lost";
        registry.register("store_errors", help, self.errors.clone());
    }

    /// The revision of the last change that was committed through this controller; 0 before there is one.
    pub fn committed(&self) -> Revision {
        self.committed.load(Ordering::Relaxed)
    }

    /// Errors of that kind so far.
    pub fn errors(&self, kind: &'static str) -> u64 {
        self.errors.get(&[("kind", kind)]).map_or(0, |counter| counter.get())
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let since = Instant::now();
        let answer = asked.await;
        self.seconds.get_or_create(&[("operation", operation)]).observe(since.elapsed().as_secs_f64());
        answer.inspect_err(|error| self.count(error))
    }

    fn count(&self, error: &StoreError) {
        let kind = match error {
            StoreError::Compacted { .. } => "compacted",
            StoreError::Conflict => "conflict",
            StoreError::LeaseEnded => "lease_ended",
            StoreError::Invalid(_) => "invalid",
            StoreError::Unavailable(_) => "unavailable",
            StoreError::Broken(_) => "broken",
        };
        self.errors.get_or_create(&[("kind", kind)]).inc();
    }
}

/// A store whose answers are timed and counted.
pub struct Metered {
    store: Arc<dyn Store>,
    metrics: StoreMetrics,
}

impl Metered {
    /// Around this store.
    pub fn new(store: Arc<dyn Store>, metrics: StoreMetrics) -> Self {
        Self { store, metrics }
    }
}

#[async_trait]
impl Store for Metered {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.metrics.timed("get", self.store.get(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.metrics.timed("list", self.store.list(prefix)).await
    }

    async fn list_as_it_lies(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.metrics.timed("list", self.store.list_as_it_lies(prefix)).await
    }

    fn open_value(&self, key: &str, value: Bytes) -> Bytes {
        self.store.open_value(key, value)
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        let changes = !transaction.changes.is_empty();
        let revision = self.metrics.timed("commit", self.store.commit(transaction)).await?;
        if changes {
            self.metrics.committed.fetch_max(revision, Ordering::Relaxed);
        }
        Ok(revision)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let watch = self.metrics.timed("watch", self.store.watch(prefix, after)).await?;
        let metrics = self.metrics.clone();
        Ok(Box::pin(watch.inspect(move |next| {
            if let Err(error) = next {
                metrics.count(error);
            }
        })))
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.metrics.timed("probe", self.store.probe()).await
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.metrics.timed("lease", self.store.lease(ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.metrics.timed("keep_alive", self.store.keep_alive(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.metrics.timed("revoke", self.store.revoke(lease)).await
    }
}
