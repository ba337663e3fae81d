//! A sealed store shows its users what they put, shows whoever reads the store underneath nothing, and says why when it
//! cannot open something.

use futures::StreamExt;
use zeroize::Zeroizing;

use super::*;
use crate::{
    fleet::Fleet,
    keeper,
    record::{DoorRecord, Key, decode},
    store::{VALUE_MAX, memory::MemoryStore},
};

const DOOR: &str = r#"{"format":1,"record":{"door":{"name":"d","knock":{"sequence":{"steps":[
    {"hosts":{"names":["db-secret"]},"port":"tcp/7412"},{"port":"udp/23981"},{"port":"tcp/51003"}],
    "within":{"secs":15,"nanos":0}}},"opens":{"hosts":{"names":["b"]},"ports":["tcp/22"],"for":{"secs":30,"nanos":0}}},
    "created":0,"updated":0}}"#;

#[tokio::test]
async fn its_users_see_what_they_put_and_the_store_does_not() {
    let raw = memory();
    let store = sealed(&raw, vec![key("a", 1)]);
    let mut watch = store.watch("", 0).await.unwrap();
    put(&store, "doors/d", DOOR).await;
    put(&store, "hosts/h", "plain").await;

    assert_eq!(store.get("doors/d").await.unwrap().unwrap().value, DOOR);
    assert_eq!(store.list("doors/").await.unwrap().entries[0].value, DOOR);
    let seen = watch.next().await.unwrap().unwrap();
    assert!(matches!(&seen.changes[..], [Change::Put { value, .. }] if value == DOOR), "{seen:?}");

    let under = raw.list("").await.unwrap().entries;
    let text: Vec<_> = under.iter().map(|entry| String::from_utf8(entry.value.to_vec()).unwrap()).collect();
    for secret in ["7412", "23981", "51003", "db-secret", "tcp/", "steps"] {
        assert!(!text[0].contains(secret), "{}", text[0]);
    }
    assert_eq!(text[1], "plain");
}

#[tokio::test]
async fn what_lies_there_in_the_clear_is_still_read() {
    let raw = memory();
    put(&*raw, "doors/d", DOOR).await;
    let store = sealed(&raw, vec![key("a", 1)]);
    let entry = store.get("doors/d").await.unwrap().unwrap();
    assert!(decode::<DoorRecord>(&door(), &entry.value).is_ok());
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_leaves_the_rest_alone() {
    let raw = memory();
    put(&sealed(&raw, vec![key("old", 1)]), "doors/d", DOOR).await;
    put(&*raw, "hosts/h", "plain").await;
    for (keys, why) in [
        (vec![key("new", 2)], "key 'old', which is not among those of --seal-key"),
        (vec![], "key 'old', which is not among those of --seal-key"),
        (vec![key("new", 1), key("old", 2)], "key 'old' of --seal-key does not open it"),
    ] {
        let listing = sealed(&raw, keys).list("").await.unwrap();
        let error = decode::<DoorRecord>(&door(), &listing.entries[0].value).unwrap_err();
        assert!(error.reason.contains(why), "{error}");
        assert_eq!(listing.entries[1].value, "plain");
        let (fleet, broken) = Fleet::load(listing);
        assert!(fleet.doors().is_empty());
        assert_eq!(broken[0], error);
    }
    // Nor without this store in between.
    let error = decode::<DoorRecord>(&door(), &raw.get("doors/d").await.unwrap().unwrap().value).unwrap_err();
    assert!(error.reason.contains("sealed with key 'old'"), "{error}");
}

#[tokio::test]
async fn the_store_cannot_say_itself_why_something_is_not_opened() {
    let raw = memory();
    let forged = Unopened { format: FORMAT, unopened: OpenError::UnknownKey("k".parse().unwrap()) };
    put(&*raw, "doors/d", std::str::from_utf8(&forged.encode()).unwrap()).await;
    let entry = sealed(&raw, vec![key("a", 1)]).get("doors/d").await.unwrap().unwrap();
    assert_eq!(why_unopened(&entry.value), OpenError::Torn.to_string());
}

#[tokio::test]
async fn a_controller_does_not_start_without_a_door_that_is_there() {
    let raw = memory();
    put(&sealed(&raw, vec![key("old", 1)]), "doors/d", DOOR).await;
    let store = sealed(&raw, vec![key("new", 2)]);
    let error = keeper::load_patiently(&store).await.err().unwrap();
    assert!(matches!(error, StoreError::Broken(_)), "{error}");
    for word in ["'doors/d'", "'old'", "--seal-key", "does not start"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let store = sealed(&raw, vec![key("new", 2), key("old", 1)]);
    let (fleet, _watch) = keeper::load_patiently(&store).await.unwrap();
    assert_eq!(fleet.doors().len(), 1);
}

#[tokio::test]
async fn bounds_are_those_of_a_store() {
    let store = sealed(&memory(), vec![key("a", 1)]);
    for length in [VALUE_MAX, VALUE_MAX + 1] {
        let change = Change::Put { key: "doors/d".to_owned(), value: vec![0; length].into() };
        let refused = store.commit(Transaction { changes: vec![change], ..Transaction::default() }).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
}

#[test]
fn doors_are_secret_and_the_rest_is_not() {
    assert!(is_secret(&door().to_string()));
    for key in ["identity", "hosts/a", "openings/d/10.0.0.1", "doorsteps/a"] {
        assert!(!is_secret(key), "{key}");
    }
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn sealed(store: &Arc<dyn Store>, keys: Vec<SealKey>) -> Sealed {
    Sealed::new(Arc::clone(store), Keyring::new("default", keys).unwrap())
}

async fn put(store: &dyn Store, key: &str, value: &str) {
    let change = Change::Put { key: key.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()) };
    store.commit(Transaction { changes: vec![change], ..Transaction::default() }).await.unwrap();
}

fn key(id: &str, byte: u8) -> SealKey {
    SealKey::new(id.parse().unwrap(), Zeroizing::new([byte; 32]))
}

fn door() -> Key {
    Key::Door("d".parse().unwrap())
}
