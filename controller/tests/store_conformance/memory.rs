//! The store that forgets.

use std::sync::Arc;
use std::time::Duration;

use fleetknock_controller::metrics::store::{Metered, StoreMetrics};
use fleetknock_controller::store::memory::MemoryStore;
use fleetknock_controller::store::{Expect, StoreError, Transaction};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::time;

use crate::support::*;

struct Fixture(Shared);

impl Fixture {
    #[allow(clippy::unused_async, reason = "other stores' fixtures wait for something")]
    async fn new() -> Self {
        Self(Arc::new(MemoryStore::new()))
    }

    fn store(&self) -> &Shared {
        &self.0
    }
}

crate::conformance!(Fixture);

mod timed_and_counted {
    use super::*;

    struct Fixture(Shared);

    impl Fixture {
        #[allow(clippy::unused_async, reason = "other stores' fixtures wait for something")]
        async fn new() -> Self {
            Self(Arc::new(Metered::new(Arc::new(MemoryStore::new()), StoreMetrics::default())))
        }

        fn store(&self) -> &Shared {
            &self.0
        }
    }

    crate::conformance!(Fixture);
}

#[tokio::test]
async fn what_the_store_says_is_counted_by_kind() {
    let metrics = StoreMetrics::default();
    let store: Shared = Arc::new(Metered::new(Arc::new(MemoryStore::with_history(1)), metrics.clone()));
    let last = set(&store, [put("a", "1")]).await;
    assert_eq!(metrics.committed(), last);
    let lost = store.commit(Transaction {
        expect: vec![Expect { key: "a".to_owned(), revision: last + 1 }],
        changes: vec![put("a", "2")],
        lease: None,
    });
    assert!(matches!(lost.await, Err(StoreError::Conflict)));
    let mut watch = store.watch("", last).await.unwrap();
    for _ in 0..4 {
        set(&store, [put("a", "3")]).await;
    }
    assert!(next(&mut watch).await.is_err(), "the history is too short for this");
    assert_eq!((metrics.errors("conflict"), metrics.errors("compacted")), (1, 1));
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("store_operation_seconds_count{operation=\"commit\"} 6\n"), "{text}");
}

#[tokio::test]
async fn a_slow_watch_is_told_that_it_missed_something() {
    let store: Shared = Arc::new(MemoryStore::with_history(10));
    let mut slow = store.watch("", 0).await.unwrap();
    for turn in 0..11 {
        set(&store, [put("a", turn.to_string())]).await;
    }
    let ended = next(&mut slow).await;
    assert!(matches!(ended, Err(StoreError::Compacted { oldest: 1 })), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn leases_follow_the_clock_of_the_test() {
    let store: Shared = Arc::new(MemoryStore::new());
    let ttl = Duration::from_secs(5);
    let lease = store.lease(ttl).await.unwrap().id;
    let bound = bind(&store, lease, [], [put("member/a", "1")]).await.unwrap();
    let mut watch = store.watch("", bound).await.unwrap();
    for _ in 0..10 {
        time::sleep(Duration::from_millis(4900)).await;
        assert_eq!(store.keep_alive(lease).await.unwrap(), Some(ttl));
    }
    let kept = time::Instant::now();
    assert_eq!(next(&mut watch).await.unwrap().changes, [delete("member/a")]);
    let lasted = kept.elapsed();
    assert!((ttl..ttl + Duration::from_millis(2)).contains(&lasted), "{lasted:?}");

    // The clock may jump past an end before the timer runs.
    let lease = store.lease(ttl).await.unwrap().id;
    bind(&store, lease, [], [put("member/b", "1")]).await.unwrap();
    time::advance(ttl).await;
    assert_eq!(store.get("member/b").await.unwrap(), None);
    assert_eq!(next(&mut watch).await.unwrap().changes, [put("member/b", "1")]);
    assert_eq!(next(&mut watch).await.unwrap().changes, [delete("member/b")]);
}
