//! Resealing leaves every secret record as it was, sealed with the first key; what cannot be opened is left and said.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use zeroize::Zeroizing;

use super::*;
use crate::{
    seal::{SECRETS, SealKey, Sealed},
    store::{Lease, LeaseId, Listing, Watch, memory::MemoryStore},
};

#[tokio::test]
async fn everything_is_sealed_with_the_first_key_and_says_the_same() {
    let raw = Arc::new(MemoryStore::new());
    let doors = |n: u32| (format!("doors/d{n}"), format!(r#"{{"format":1,"record":{n}}}"#));
    for n in 0..3 {
        put(&*raw, doors(n)).await;
    }
    let (old, new) = (|| key("old", 1), || key("new", 2));
    let before = Sealed::new(raw.clone(), ring(vec![old()]));
    for n in 3..5 {
        put(&before, doors(n)).await;
    }
    put(&*raw, ("hosts/h".to_owned(), "x".to_owned())).await;

    let mut seen = Vec::new();
    let both = ring(vec![new(), old()]);
    let report = reseal(&*raw, &both, SECRETS, |done, count| seen.push((done, count))).await.unwrap();
    assert_eq!(report.before.to_string(), "2 sealed with 'old', 3 in the clear");
    assert_eq!(report.after.to_string(), "5 sealed with 'new'");
    assert_eq!((report.resealed, report.left.len()), (5, 0));
    assert_eq!(seen, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);

    let after = Sealed::new(raw.clone(), ring(vec![new()]));
    let listing = after.list("").await.unwrap();
    for (n, entry) in (0..5).zip(&listing.entries) {
        assert_eq!((entry.key.clone(), entry.value.clone()), (doors(n).0, Bytes::from(doors(n).1)));
    }
    assert_eq!(listing.entries[5].value, "x");

    // Once more changes nothing.
    let again = reseal(&*raw, &both, SECRETS, |_, _| {}).await.unwrap();
    assert_eq!(again.resealed, 0);
    assert_eq!(after.list("").await.unwrap(), listing);
}

#[tokio::test]
async fn what_cannot_be_opened_is_left_as_it_is() {
    let raw = Arc::new(MemoryStore::new());
    put(&Sealed::new(raw.clone(), ring(vec![key("lost", 9)])), door("a")).await;
    put(&Sealed::new(raw.clone(), ring(vec![key("new", 8)])), door("b")).await;
    put(&*raw, ("doors/c".to_owned(), "garbage".to_owned())).await;
    put(&*raw, door("d")).await;
    let kept = raw.list("doors/").await.unwrap().entries;

    let report = reseal(&*raw, &ring(vec![key("new", 2)]), SECRETS, |_, _| {}).await.unwrap();
    assert_eq!(report.after.to_string(), "1 sealed with 'lost', 2 sealed with 'new', 1 that cannot be read");
    let left: Vec<_> = report.left.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(left, ["doors/a", "doors/b", "doors/c"]);
    assert!(report.left[0].1.contains("'lost', which is not among"), "{report:?}");
    // Of the right name and yet another key.
    assert!(report.left[1].1.contains("'new' of --seal-key does not open it"), "{report:?}");
    assert_eq!(raw.list("doors/").await.unwrap().entries[..3], kept[..3]);
}

#[tokio::test]
async fn a_door_that_is_applied_meanwhile_is_not_lost() {
    let raw = Arc::new(MemoryStore::new());
    put(&*raw, door("a")).await;
    // Two races are lost, to a controller that still seals with the old key.
    let racing = Racing { store: raw.clone(), races: AtomicU32::new(2) };
    let report =
        reseal(&racing, &ring(vec![key("new", 2), key("old", 1)]), SECRETS, |_, _| {}).await.unwrap();
    assert_eq!(report.after.to_string(), "1 sealed with 'new'");
    let value = Sealed::new(raw, ring(vec![key("new", 2)])).get("doors/a").await.unwrap().unwrap().value;
    assert_eq!(value, r#"{"format":1,"record":"raced"}"#);
}

#[tokio::test]
async fn there_must_be_a_key() {
    let refused = reseal(&MemoryStore::new(), &ring(vec![]), SECRETS, |_, _| {}).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
}

#[test]
fn an_empty_census_says_so() {
    assert_eq!(Census::default().to_string(), "no secret records");
    assert!(Census::default().is_all_of(&"a".parse().unwrap()));
}

/// Before each of the first commits, somebody else changes the record.
struct Racing {
    store: Arc<MemoryStore>,
    races: AtomicU32,
}

#[async_trait]
impl Store for Racing {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.store.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        if self.races.load(Ordering::Relaxed) > 0 {
            self.races.fetch_sub(1, Ordering::Relaxed);
            let other = Sealed::new(self.store.clone(), ring(vec![key("old", 1)]));
            put(&other, ("doors/a".to_owned(), r#"{"format":1,"record":"raced"}"#.to_owned())).await;
        }
        self.store.commit(transaction).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.store.watch(prefix, after).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.store.probe().await
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.store.lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.store.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke(lease).await
    }
}

async fn put(store: &dyn Store, (key, value): (String, String)) {
    let changes = vec![Change::Put { key, value: value.into() }];
    store.commit(Transaction { changes, ..Transaction::default() }).await.unwrap();
}

fn door(name: &str) -> (String, String) {
    (format!("doors/{name}"), format!(r#"{{"format":1,"record":"{name}"}}"#))
}

fn ring(keys: Vec<SealKey>) -> Keyring {
    Keyring::new("default", keys).unwrap()
}

fn key(id: &str, byte: u8) -> SealKey {
    SealKey::new(id.parse().unwrap(), Zeroizing::new([byte; 32]))
}
