//! A knock that is complete while the store does not answer is answered when it does, if that is soon.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fleetknock_controller::store::{
    Entry, Lease, LeaseId, Listing, Revision, Store, StoreError, Transaction, Watch, memory::MemoryStore,
};
use fleetknock_proto::v1 as pb;

use crate::support::{Controller, apply, door};

/// A store that takes no transaction while it is away; leases are kept alive all the same.
#[derive(Default)]
pub(crate) struct Away {
    store: MemoryStore,
    pub(crate) away: AtomicBool,
}

impl Away {
    pub(crate) fn leave(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    pub(crate) fn come_back(&self) {
        self.away.store(false, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Store for Away {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.store.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("it is away".to_owned()));
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

#[tokio::test]
async fn a_knock_that_is_complete_while_the_store_is_away_opens_when_it_is_back() {
    let store = Arc::new(Away::default());
    let controller = Controller::over(store.clone()).await;
    let mut operator = controller.operator().await;
    operator.apply_door(apply(door())).await.unwrap();
    let mut edge = controller.agent("edge-1", "edge").await;
    let mut db = controller.agent("db-1", "db").await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    let mut events = operator.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();

    store.leave();
    let client = [203, 0, 113, 5];
    edge.knock(client, 7412).await;
    db.knock(client, 23981).await;
    bastion.knock(client, 5103).await;
    let said = async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if event.message.contains("a complete knock waits") {
                return event;
            }
        }
    };
    let event = tokio::time::timeout(Duration::from_secs(20), said).await.unwrap();
    assert!(event.message.contains("it is away"), "{event:?}");

    store.come_back();
    let opening = bastion.opening().await;
    assert_eq!(opening.source, "203.0.113.5");
}
