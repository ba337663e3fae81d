//! The store that forgets.

use std::sync::Arc;
use std::time::Duration;

use fleetknock_controller::store::StoreError;
use fleetknock_controller::store::memory::MemoryStore;
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
