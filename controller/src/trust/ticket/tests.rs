//! A host's token is good once, whichever controller it is shown to.

use std::{sync::Arc, time::Duration};

use fleetknock_core::{identity::Role, time::Timestamp};
use fleetknock_runtime::log::{Dial, Filter};

use super::*;
use crate::{
    keeper,
    metrics::Metrics,
    record::TokenRecord,
    sessions::FleetWide,
    shared::{Parts, local_now},
    store::{Store, StoreError, memory::MemoryStore},
    trust::{Trust, token::Secret},
};

#[tokio::test]
async fn a_hosts_token_is_good_once() {
    let store = Arc::new(MemoryStore::new());
    let secret = put(&*store, 1, host(), in_an_hour()).await;
    let shared = controller("ctl-1", store).await;
    assert_eq!(judge(&shared, &secret).unwrap().host.as_str(), "db-1", "to judge it does not spend it");
    let ticket = judge(&shared, &secret).unwrap();
    assert_eq!(ticket.host.as_str(), "db-1");
    let revision = shared.store.commit(ticket.spend()).await.unwrap();
    shared.caught_up(revision).await;
    for _ in 0..2 {
        let again = judge(&shared, &secret).unwrap_err();
        assert!(matches!(again, TokenError::Unknown { .. }), "{again}");
        let twice = shared.store.commit(ticket.spend()).await.unwrap_err();
        assert!(matches!(twice, StoreError::Conflict), "{twice}");
    }
}

#[tokio::test]
async fn of_two_agents_with_one_token_one_is_let_in() {
    let store = Arc::new(MemoryStore::new());
    let first = controller("ctl-1", store.clone()).await;
    let second = controller("ctl-2", store.clone()).await;
    for number in 1..=50 {
        let secret = put(&*store, number, host(), in_an_hour()).await;
        for shared in [&first, &second] {
            let id = TokenId::new(number);
            while !shared.state().fleet.tokens().contains_key(&id) {
                tokio::task::yield_now().await;
            }
        }
        // Both have found it good before either spends it.
        let (here, there) = (judge(&first, &secret).unwrap(), judge(&second, &secret).unwrap());
        let spent = [here, there].map(|ticket| first.store.commit(ticket.spend()));
        let spent = futures::future::join_all(spent).await;
        assert_eq!(spent.iter().filter(|spent| spent.is_ok()).count(), 1);
        assert!(spent.iter().any(|spent| matches!(spent, Err(StoreError::Conflict))), "{spent:?}");
    }
}

#[tokio::test]
async fn other_tokens_are_not_spent() {
    let store = Arc::new(MemoryStore::new());
    let user = Holder::User { name: "alice".parse().unwrap(), role: Role::Admin };
    let of_user = put(&*store, 1, user, in_an_hour()).await;
    let ended = put(&*store, 2, host(), local_now().before(Duration::from_millis(1))).await;
    let (elsewhere, _) = Secret::mint(Kind::Host, &TokenId::new(3), &rand::random());
    let (guessed, _) = Secret::mint(Kind::Host, &TokenId::new(2), &rand::random());
    let shared = controller("ctl-1", store).await;
    let said = |text: &str| judge(&shared, text).unwrap_err();
    assert!(matches!(said(&of_user), TokenError::OtherKind { wanted: Kind::Host }));
    assert!(matches!(said(&ended), TokenError::Expired { .. }));
    assert!(matches!(said(elsewhere.reveal()), TokenError::Unknown { .. }));
    assert!(matches!(said(guessed.reveal()), TokenError::Wrong { .. }));
    assert!(matches!(said("fke_"), TokenError::Malformed));
}

fn host() -> Holder {
    Holder::Host("db-1".parse().unwrap())
}

fn in_an_hour() -> Timestamp {
    local_now() + Duration::from_secs(3600)
}

/// Writes a token as one that was made; its text.
async fn put(store: &dyn Store, number: u64, holder: Holder, expires: Timestamp) -> String {
    let id = TokenId::new(number);
    let (secret, hash) = Secret::mint(Kind::of(&holder), &id, &rand::random());
    let created_by = "user a".to_owned();
    let record = TokenRecord { id, holder, hash, created: Timestamp::ZERO, expires, created_by };
    let changes = vec![grant::put(&Key::Token(record.id.clone()), &record).unwrap()];
    store.commit(Transaction { changes, ..Transaction::default() }).await.unwrap();
    secret.reveal().to_owned()
}

/// Its copy follows the store; it is no member, and clears nothing away.
pub(in crate::trust) async fn controller(name: &str, store: Arc<dyn Store>) -> Arc<Shared> {
    let (fleet, watch) = keeper::load_patiently(&*store).await.unwrap();
    let shared = Arc::new(Shared::new(Parts {
        store,
        name: name.parse().unwrap(),
        address: String::new(),
        fleet_name: "blue".to_owned(),
        wide: FleetWide { knock_space: Vec::new(), management: Vec::new() },
        management: Vec::new(),
        ban_for: Duration::from_secs(600),
        trust: Trust::Plain,
        metrics: Metrics::default(),
        log_dial: Dial::new(Filter::detached("info").unwrap(), "info"),
        fleet,
    }));
    tokio::spawn(keeper::run(shared.clone(), watch));
    shared
}
