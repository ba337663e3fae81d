//! A controller that has its lease back, and whose watch of the store still lags, loses no step of a knock.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fleetknock_controller::{
    peers::route::Router,
    record::Key,
    store::{
        Entry, Lease, LeaseId, Listing, Revision, Store, StoreError, Transaction, Watch, memory::MemoryStore,
    },
};
use fleetknock_core::host::HostName;
use futures::StreamExt as _;
use tokio::sync::watch;

use crate::{
    several::{connected, controller, until},
    support::{Controller, apply, door},
};

/// Longer than a controller waits for its copy to catch up with what a peer knows.
const LAGS_FOR: Duration = Duration::from_secs(3);
/// Longer than the agents are asked for their windows after a controller joined.
const SETTLES: Duration = Duration::from_millis(1_500);

/// One controller's way to the store: it can be refused a lease, and told late of what changes.
struct Gate {
    store: Arc<MemoryStore>,
    lease: Mutex<Option<LeaseId>>,
    lends: watch::Sender<bool>,
    tells: watch::Sender<bool>,
}

impl Gate {
    fn over(store: Arc<MemoryStore>) -> Self {
        Self {
            store,
            lease: Mutex::default(),
            lends: watch::Sender::new(true),
            tells: watch::Sender::new(true),
        }
    }

    /// Ends the lease, and lends no other.
    async fn take_lease(&self) {
        self.lends.send_replace(false);
        let lease = self.lease.lock().unwrap().take().unwrap();
        self.store.revoke(lease).await.unwrap();
    }
}

#[async_trait::async_trait]
impl Store for Gate {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.store.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        self.store.commit(transaction).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let watch = self.store.watch(prefix, after).await?;
        let tells = self.tells.subscribe();
        Ok(Box::pin(watch.then(move |changes| {
            let mut tells = tells.clone();
            async move {
                let _gone = tells.wait_for(|tells| *tells).await;
                changes
            }
        })))
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.store.probe().await
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        if !*self.lends.borrow() {
            return Err(StoreError::Unavailable("it lends nothing".to_owned()));
        }
        let lease = self.store.lease(ttl).await?;
        *self.lease.lock().unwrap() = Some(lease.id);
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.store.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke(lease).await
    }
}

#[tokio::test]
async fn a_step_seen_while_its_owner_has_a_new_lease_and_an_old_copy_is_followed_in_the_end() {
    let store = Arc::new(MemoryStore::new());
    let gate = Arc::new(Gate::over(store.clone()));
    let returns = Controller::named("ctl-1", gate.clone()).await;
    let stays = Controller::named("ctl-2", store.clone()).await;
    let [mut returned, mut operator] = [returns.operator().await, stays.operator().await];
    operator.apply_door(apply(door())).await.unwrap();
    for operator in [&mut returned, &mut operator] {
        until(async || connected(operator, 2).await.then_some(())).await;
    }
    let mut edge = stays.agent("edge-1", "edge").await;
    let mut db = stays.agent("db-1", "db").await;
    let mut bastion = stays.agent("bastion-1", "bastion").await;

    gate.take_lease().await;
    let left = store.list("").await.unwrap().revision;
    for (name, operator) in [("ctl-1", &mut returned), ("ctl-2", &mut operator)] {
        until(async || (controller(operator, name).await.revision >= left).then_some(())).await;
    }
    gate.tells.send_replace(false);
    gate.lends.send_replace(true);
    let key = Key::Controller("ctl-1".parse().unwrap()).to_string();
    until(async || store.get(&key).await.unwrap()).await;

    // All that the agents are asked for at its return is behind them: what comes now is told once.
    edge.listen(SETTLES).await;
    let client = source_of("ctl-1");
    edge.knock(client, 7412).await;
    edge.listen(LAGS_FOR).await;
    gate.tells.send_replace(true);
    for operator in [&mut returned, &mut operator] {
        until(async || connected(operator, 2).await.then_some(())).await;
    }

    db.knock(client, 23981).await;
    bastion.knock(client, 5103).await;
    let opening = tokio::select! {
        opening = bastion.opening() => opening,
        () = edge.until(|_| None) => unreachable!(),
        () = db.until(|_| None) => unreachable!(),
    };
    assert_eq!(opening.source, client.map(|octet| octet.to_string()).join("."));
}

/// A source that this one of `ctl-1` and `ctl-2` owns.
fn source_of(owner: &str) -> [u8; 4] {
    let name = |name: &str| name.parse::<HostName>().unwrap();
    let mut router = Router::new(name("ctl-1"));
    router.set_members([(name("ctl-1"), 1), (name("ctl-2"), 2)]);
    let owned = |last: &u8| router.owner(format!("203.0.113.{last}").parse().unwrap()) == Some(&name(owner));
    [203, 0, 113, (1..=254).find(owned).unwrap()]
}
