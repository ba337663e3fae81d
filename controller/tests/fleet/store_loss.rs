//! A store that lost everything takes no guard away; one that comes back is taken in again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fleetknock_controller::store::{
    Entry, Lease, LeaseId, Listing, Revision, Store, StoreError, Transaction, Watch, memory::MemoryStore,
};
use fleetknock_proto::v1 as pb;

use crate::support::{Controller, apply, door, tcp};

/// A store behind which another one can be put, as somebody who sets up etcd anew does.
struct Replaceable(Mutex<Arc<MemoryStore>>);

impl Replaceable {
    fn now(&self) -> Arc<MemoryStore> {
        self.0.lock().unwrap().clone()
    }

    fn put(&self, store: Arc<MemoryStore>) -> Arc<MemoryStore> {
        std::mem::replace(&mut *self.0.lock().unwrap(), store)
    }
}

#[async_trait::async_trait]
impl Store for Replaceable {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.now().get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.now().list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        self.now().commit(transaction).await
    }

    /// Ends when the store behind it changes: nobody else holds the watched one then.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.now().watch(prefix, after).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.now().probe().await
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.now().lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.now().keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.now().revoke(lease).await
    }
}

#[tokio::test]
async fn a_store_that_was_set_up_anew_takes_no_guard_away_until_the_controllers_are_restarted() {
    let store = Arc::new(Replaceable(Mutex::new(Arc::new(MemoryStore::new()))));
    let controller = Controller::over(store.clone()).await;
    let mut operator = controller.operator().await;
    operator.apply_door(apply(door())).await.unwrap();
    let bastion = controller.agent("bastion-1", "bastion").await;
    assert_eq!(bastion.snapshot.guard.as_ref().unwrap().ports, [tcp(22)]);
    let mut events = operator.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();

    // The old one ends with its last holder, and its watches with it.
    drop(store.put(Arc::new(MemoryStore::new())));
    let said = async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if event.message.contains("set up anew") {
                return event;
            }
        }
    };
    let event = tokio::time::timeout(Duration::from_secs(20), said).await.unwrap();
    assert!(event.message.contains("restore the store from a backup"), "{event:?}");
    assert_eq!(
        operator.list_doors(pb::ListDoorsRequest::default()).await.unwrap().into_inner().doors.len(),
        1
    );

    // It lets its agents go, having no lease there; one that has nowhere else comes back, and keeps its guard.
    let again = controller.agent_without_choice("bastion-1", "bastion").await;
    assert_eq!(again.snapshot.guard.as_ref().unwrap().ports, [tcp(22)]);

    // A controller that is started now takes the new store as it is.
    let fresh = Controller::named("fresh", store).await;
    let mut operator = fresh.operator().await;
    let doors = operator.list_doors(pb::ListDoorsRequest::default()).await.unwrap().into_inner().doors;
    assert!(doors.is_empty());
}
