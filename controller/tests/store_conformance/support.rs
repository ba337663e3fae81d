//! Short words for what the tests do to a store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetknock_controller::store::{
    Change, Changes, Expect, LeaseId, Revision, Store, StoreError, Transaction, Watch,
};
use futures::StreamExt;
use tokio::time;

/// Any of them.
pub(crate) type Shared = Arc<dyn Store>;

/// How long a change may take to reach a watch. Generous: two cores are shared by everything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn put(key: &str, value: impl Into<Bytes>) -> Change {
    Change::Put { key: key.to_owned(), value: value.into() }
}

pub(crate) fn delete(key: &str) -> Change {
    Change::Delete { key: key.to_owned() }
}

pub(crate) fn expect(key: &str, revision: Revision) -> Expect {
    Expect { key: key.to_owned(), revision }
}

pub(crate) async fn commit(
    store: &Shared,
    expect: impl Into<Vec<Expect>>,
    changes: impl Into<Vec<Change>>,
) -> Result<Revision, StoreError> {
    store.commit(Transaction { expect: expect.into(), changes: changes.into(), lease: None }).await
}

/// Commits, and binds what is put to a lease.
pub(crate) async fn bind(
    store: &Shared,
    lease: LeaseId,
    expect: impl Into<Vec<Expect>>,
    changes: impl Into<Vec<Change>>,
) -> Result<Revision, StoreError> {
    let transaction = Transaction { expect: expect.into(), changes: changes.into(), lease: Some(lease) };
    store.commit(transaction).await
}

/// Commits without expectations.
pub(crate) async fn set(store: &Shared, changes: impl Into<Vec<Change>>) -> Revision {
    commit(store, [], changes).await.unwrap()
}

pub(crate) async fn keys(store: &Shared, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().entries.into_iter().map(|entry| entry.key).collect()
}

pub(crate) async fn value(store: &Shared, key: &str) -> Option<Bytes> {
    store.get(key).await.unwrap().map(|entry| entry.value)
}

pub(crate) async fn revision(store: &Shared) -> Revision {
    store.list("").await.unwrap().revision
}

/// The next commit that a watch tells of.
pub(crate) async fn next(watch: &mut Watch) -> Result<Changes, StoreError> {
    let next = time::timeout(PATIENCE, watch.next()).await.expect("a watch says nothing");
    next.expect("a watch ended without an error")
}

/// The next so many.
pub(crate) async fn take(watch: &mut Watch, count: usize) -> Vec<Changes> {
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        taken.push(next(watch).await.unwrap());
    }
    taken
}

/// That a watch has nothing to tell.
pub(crate) async fn is_quiet(watch: &mut Watch) {
    let said = time::timeout(Duration::from_millis(200), watch.next()).await;
    assert!(said.is_err(), "a watch that should be quiet says {said:?}");
}

/// Adds one to the number under a key, however often it takes. Returns how often it lost the race.
pub(crate) async fn increment(store: &Shared, key: &str) -> Result<u32, StoreError> {
    let mut lost = 0;
    loop {
        let before = store.get(key).await?;
        let (number, seen) = before.map_or((0, 0), |entry| (number(&entry.value), entry.revision));
        match commit(store, [expect(key, seen)], [put(key, (number + 1).to_string())]).await {
            Ok(_) => return Ok(lost),
            Err(StoreError::Conflict) => lost += 1,
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn number(value: &Bytes) -> u64 {
    str::from_utf8(value).unwrap().parse().unwrap()
}
