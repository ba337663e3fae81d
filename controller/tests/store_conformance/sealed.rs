//! The store that seals what is secret: it keeps every promise of the store underneath, and shows that one nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use fleetknock_controller::seal::{KeyId, Keyring, SECRETS, SealKey, Sealed, reseal};
use fleetknock_controller::store::embedded::EmbeddedStore;
use fleetknock_controller::store::memory::MemoryStore;
use fleetknock_controller::store::{self, Store, StoreSpec};

use crate::support::*;

/// Most of what the suite puts. The rest of it is as large as values may be, and sealed values are larger.
const SUITE: &[&str] = &[
    "b-",
    "b/",
    "case-",
    "code/",
    "counter",
    "d",
    "free",
    "kept",
    "many/",
    "member/",
    "moved",
    "openings/",
    "pair/",
    "task/",
    "users/",
    "writer/",
];

mod over_memory {
    use super::*;

    struct Fixture(Shared);

    impl Fixture {
        #[allow(clippy::unused_async, reason = "as the suite wants it")]
        async fn new() -> Self {
            Self(Arc::new(Sealed::of(Arc::new(MemoryStore::new()), ring(&["a"]), SUITE)))
        }

        fn store(&self) -> &Shared {
            &self.0
        }
    }

    crate::conformance!(Fixture);
}

mod over_embedded {
    use super::*;

    struct Fixture(Shared, #[allow(dead_code, reason = "kept until the end")] tempfile::TempDir);

    impl Fixture {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = EmbeddedStore::open(directory.path().to_owned()).await.unwrap();
            Self(Arc::new(Sealed::of(Arc::new(store), ring(&["a"]), SUITE)), directory)
        }

        fn store(&self) -> &Shared {
            &self.0
        }
    }

    crate::conformance!(Fixture);
}

/// Words that stand in the door below and nowhere else.
const STEPS: [&str; 4] = ["27412", "23981", "51003", "db-secret"];
const DOOR: &str = r#"{"format":1,"record":{"door":{"name":"d","knock":{"sequence":{"steps":[
    {"hosts":{"names":["db-secret"]},"port":"tcp/27412"},{"port":"udp/23981"},{"port":"tcp/51003"}],
    "within":{"secs":15,"nanos":0}}},"opens":{"hosts":{"names":["b"]},"ports":["tcp/22"],"for":{"secs":30,"nanos":0}}},
    "created":0,"updated":0}}"#;

#[tokio::test]
async fn a_store_in_memory_learns_no_step() {
    learns_no_step(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn an_embedded_store_learns_no_step_and_its_files_hold_none() {
    let directory = tempfile::tempdir().unwrap();
    learns_no_step(Arc::new(EmbeddedStore::open(directory.path().to_owned()).await.unwrap())).await;
    assert_eq!(found_in(directory.path(), &STEPS), Vec::<String>::new());
}

#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_learns_no_step() {
    let fixture = crate::etcd::Fixture::new().await;
    learns_no_step(fixture.store.clone()).await;
}

/// redb leaves what was overwritten in pages that it may use again.
#[tokio::test]
async fn after_resealing_the_files_of_an_embedded_store_hold_nothing_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let spec = StoreSpec::Embedded { directory: directory.path().to_owned() };
    let raw = store::open(&spec).await.unwrap();
    for n in 0..20 {
        set(&raw, [put(&format!("doors/d{n}"), DOOR), put(&format!("hosts/h{n}"), "in the clear")]).await;
    }
    drop(raw);
    assert_eq!(found_in(directory.path(), &STEPS).len(), STEPS.len());

    let raw = store::open(&spec).await.unwrap();
    let report = reseal::reseal(&*raw, &ring(&["a"]), SECRETS, |_, _| {}).await.unwrap();
    assert_eq!(report.resealed, 20);
    let before = raw.list("").await.unwrap();
    drop(raw);
    store::scrub(&spec).await.unwrap();
    assert_eq!(found_in(directory.path(), &STEPS), Vec::<String>::new());

    let again = store::open(&spec).await.unwrap();
    assert_eq!(again.list("").await.unwrap(), before);
    // Revisions go on where they were.
    assert!(set(&again, [put("a", "1")]).await > before.revision);
    let sealed = Sealed::new(again, ring(&["a"]));
    assert_eq!(sealed.get("doors/d7").await.unwrap().unwrap().value, DOOR);
}

#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_is_resealed_while_controllers_use_it() {
    let fixture = crate::etcd::Fixture::new().await;
    let raw = fixture.store.clone();
    let serving: Shared = Arc::new(Sealed::new(raw.clone(), ring(&["new", "old"])));
    let before: Shared = Arc::new(Sealed::new(raw.clone(), ring(&["old"])));
    for n in 0..20 {
        set(&before, [put(&format!("doors/d{n}"), n.to_string())]).await;
    }
    let writer = tokio::spawn({
        let serving = serving.clone();
        async move {
            for _ in 0..20 {
                increment(&serving, "doors/d7").await.unwrap();
            }
        }
    });
    let report = reseal::reseal(&*raw, &ring(&["new", "old"]), SECRETS, |_, _| {}).await.unwrap();
    writer.await.unwrap();
    assert_eq!(report.left, []);
    let only_new = Sealed::new(raw, ring(&["new"]));
    for n in 0..20 {
        let value = only_new.get(&format!("doors/d{n}")).await.unwrap().unwrap().value;
        assert_eq!(number(&value), if n == 7 { 27 } else { n }, "doors/d{n}");
    }
}

async fn learns_no_step(raw: Shared) {
    let store: Shared = Arc::new(Sealed::new(raw.clone(), ring(&["a"])));
    let mut watch = raw.watch("", revision(&raw).await).await.unwrap();
    set(&store, [put("doors/d", DOOR), put("hosts/b", "in the clear")]).await;
    assert_eq!(value(&store, "doors/d").await.unwrap(), DOOR);

    let mut seen: Vec<_> = raw.list("").await.unwrap().entries.into_iter().map(|entry| entry.value).collect();
    // A backup takes what lies there, and opens it when it is restored.
    let lies = store.list_as_it_lies("").await.unwrap();
    assert_eq!(lies, raw.list("").await.unwrap());
    for entry in lies.entries {
        let opened = store.open_value(&entry.key, entry.value);
        assert_eq!(store.get(&entry.key).await.unwrap().unwrap().value, opened);
    }
    seen.push(value(&raw, "doors/d").await.unwrap());
    for change in next(&mut watch).await.unwrap().changes {
        if let store::Change::Put { value, .. } = change {
            seen.push(value);
        }
    }
    assert_eq!(seen.len(), 5);
    for value in seen {
        let text = String::from_utf8(value.to_vec()).unwrap();
        assert!(!STEPS.iter().any(|step| text.contains(step)), "{text}");
    }
}

/// Those of the words that stand in any file of a directory.
fn found_in(directory: &Path, words: &[&str]) -> Vec<String> {
    let files = fs::read_dir(directory).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    let files: Vec<_> = files.collect();
    let stands = |word: &&&str| {
        files.iter().any(|file| file.windows(word.len()).any(|window| window == word.as_bytes()))
    };
    words.iter().filter(stands).map(|&word| word.to_owned()).collect()
}

/// Keys of these names, each with bytes of its own.
fn ring(ids: &[&str]) -> Keyring {
    let key = |id: &&str| {
        let id: KeyId = id.parse().unwrap();
        let byte = id.as_str().bytes().fold(1, u8::wrapping_add);
        SealKey::new(id, [byte; 32].into())
    };
    Keyring::new("default", ids.iter().map(key).collect()).unwrap()
}
