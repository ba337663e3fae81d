//! The store that forgets.

use std::sync::Arc;

use fleetknock_controller::store::StoreError;
use fleetknock_controller::store::memory::MemoryStore;

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
