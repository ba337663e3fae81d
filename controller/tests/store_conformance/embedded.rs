//! The store in a directory: durability, damage, and who may have it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, io, process};

use fleetknock_controller::store::embedded::EmbeddedStore;
use fleetknock_controller::store::{StoreError, StoreSpec};
use tempfile::TempDir;

use crate::support::*;

/// Tells the test below that it is the child, and where to write.
const CHILD_DIRECTORY: &str = "FLEETKNOCK_TEST_STORE_DIRECTORY";

struct Fixture {
    store: Shared,
    _directory: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: open(directory.path()).await, _directory: directory }
    }

    fn store(&self) -> &Shared {
        &self.store
    }
}

crate::conformance!(Fixture);

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    set(&store, [put("a", "1"), put("b", "1")]).await;
    set(&store, [delete("b")]).await;
    let last = set(&store, [put("c", vec![0, 255])]).await;
    let before = store.list("").await.unwrap();
    drop(store);

    let store = open(directory.path()).await;
    assert_eq!(store.list("").await.unwrap(), before);
    let forgotten = store.watch("", last - 1).await.err();
    assert!(matches!(forgotten, Some(StoreError::Compacted { oldest }) if oldest == last), "{forgotten:?}");
    let mut watch = store.watch("", last).await.unwrap();
    assert_eq!(set(&store, [put("d", "1")]).await, last + 1);
    assert_eq!(next(&mut watch).await.unwrap().revision, last + 1);
}

#[tokio::test]
async fn what_hung_on_a_lease_of_another_process_is_gone_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let lease = store.lease(Duration::from_secs(600)).await.unwrap().id;
    bind(&store, lease, [], [put("member/a", "1"), put("member/b", "1"), put("unbound", "1")]).await.unwrap();
    let last = set(&store, [put("unbound", "2"), put("free", "1")]).await;
    drop(store);

    let store = open(directory.path()).await;
    let listing = store.list("").await.unwrap();
    assert_eq!(listing.revision, last + 1, "the deletion is a commit of its own");
    assert_eq!(keys(&store, "").await, ["free", "unbound"]);
    assert_eq!(store.keep_alive(lease).await.unwrap(), None);
    // And once only.
    drop(store);
    assert_eq!(open(directory.path()).await.list("").await.unwrap(), listing);
}

#[tokio::test]
async fn a_file_from_before_leases_is_taken_over() {
    const ENTRIES: redb::TableDefinition<'_, &str, (u64, &[u8])> = redb::TableDefinition::new("entries");
    const NUMBERS: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("fleetknock");
    let directory = tempfile::tempdir().unwrap();
    let write = |format: u64| {
        let file = redb::Database::create(directory.path().join("store.redb")).unwrap();
        let transaction = file.begin_write().unwrap();
        transaction.open_table(ENTRIES).unwrap().insert("a", (3, b"old".as_slice())).unwrap();
        let mut numbers = transaction.open_table(NUMBERS).unwrap();
        numbers.insert("format", format).unwrap();
        numbers.insert("revision", 4).unwrap();
        drop(numbers);
        transaction.commit().unwrap();
    };
    write(1);
    let store = open(directory.path()).await;
    assert_eq!(value(&store, "a").await.unwrap(), "old");
    let lease = store.lease(Duration::from_secs(600)).await.unwrap().id;
    assert_eq!(bind(&store, lease, [], [put("member/a", "1")]).await.unwrap(), 5);
    drop(store);
    let store = open(directory.path()).await;
    assert_eq!(keys(&store, "").await, ["a"]);
    drop(store);

    // One from the future is left alone.
    write(3);
    let refused = EmbeddedStore::open(directory.path().to_owned()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Broken(why) if why.contains("format 3")), "{refused}");
}

/// Is its own child: run again with a directory in the environment, it commits until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_commit_survives_kill_9() {
    if let Ok(directory) = env::var(CHILD_DIRECTORY) {
        return commit_for_ever(&open(Path::new(&directory)).await).await;
    }
    for round in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let acknowledged = kill_after(&directory, 50 + 150 * round).await;
        let store = open(directory.path()).await;
        let mut later = 0;
        for (task, known) in acknowledged.into_iter().enumerate() {
            let found =
                store.get(&format!("task/{task}")).await.unwrap().map_or(0, |entry| number(&entry.value));
            assert!(found >= known, "task {task}: {known} acknowledged and {found} found");
            assert!(found <= known + 1, "task {task}: one commit may be under way, not {}", found - known);
            later += found;
        }
        assert!(later > 0);
        // Both keys of the pair were always written together.
        assert_eq!(value(&store, "task/0").await, value(&store, "twin/0").await);
    }
}

async fn commit_for_ever(store: &Shared) {
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for turn in 1_u64.. {
                    let keys = [format!("task/{task}"), format!("twin/{task}")];
                    set(&store, keys.map(|key| put(&key, turn.to_string()))).await;
                    let mut out = io::stdout().lock();
                    writeln!(out, "\nacknowledged {task} {turn}").unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Starts the child, lets it acknowledge so many commits, kills it, and returns the last of each task.
async fn kill_after(directory: &TempDir, count: u64) -> [u64; 4] {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "embedded::every_acknowledged_commit_survives_kill_9", "--nocapture"])
        .env(CHILD_DIRECTORY, directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    tokio::task::spawn_blocking(move || {
        let mut last = [0; 4];
        let mut seen = 0;
        // What the pipe still holds after the kill was acknowledged too.
        for line in lines.map_while(Result::ok) {
            let Some(rest) = line.strip_prefix("acknowledged ") else { continue };
            let (task, turn) = rest.split_once(' ').unwrap();
            last[task.parse::<usize>().unwrap()] = turn.parse().unwrap();
            seen += 1;
            if seen == count {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= count, "the child stopped by itself after {seen}");
        last
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_second_controller_is_refused_and_told_who_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let refused = EmbeddedStore::open(directory.path().to_owned()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    let message = refused.to_string();
    assert!(message.contains(directory.path().to_str().unwrap()), "{message}");
    assert!(message.contains(&format!("process {}", process::id())), "{message}");
    drop(store);
    open(directory.path()).await;
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    for content in [b"".as_slice(), b"x", &[0; 4096], &[0x5a; 100_000]] {
        fs::write(&file, content).unwrap();
        is_broken(directory.path()).await;
        assert_eq!(fs::read(&file).unwrap(), content);
    }
    fs::remove_file(&file).unwrap();
    const OTHER: redb::TableDefinition<'_, &str, &str> = redb::TableDefinition::new("other");
    let other = redb::Database::create(&file).unwrap();
    let transaction = other.begin_write().unwrap();
    transaction.open_table(OTHER).unwrap().insert("a", "b").unwrap();
    transaction.commit().unwrap();
    drop(other);
    is_broken(directory.path()).await;
}

#[tokio::test]
async fn damage_is_found_when_the_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let file = filled(directory.path()).await;
    let whole = fs::read(&file).unwrap();

    // Cut short, as a copy that did not finish.
    for part in [whole.len() / 2, 4096, 100] {
        fs::write(&file, &whole[..part]).unwrap();
        is_broken(directory.path()).await;
    }
    // A value that rotted.
    let mut rotten = whole.clone();
    let at = whole.windows(8).position(|window| window == b"PAYLOAD!").unwrap();
    rotten[at] ^= 1;
    fs::write(&file, &rotten).unwrap();
    is_broken(directory.path()).await;

    fs::write(&file, &whole).unwrap();
    assert_eq!(keys(&open(directory.path()).await, "").await.len(), 200);
}

#[tokio::test]
async fn a_store_that_was_being_made_when_the_power_went_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("store.redb.new"), b"half").unwrap();
    let store = open(directory.path()).await;
    set(&store, [put("a", "1")]).await;
}

#[tokio::test]
async fn its_files_are_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("made/here");
    let spec: StoreSpec = format!("embedded:{}", directory.display()).parse().unwrap();
    let store = fleetknock_controller::store::open(&spec).await.unwrap();
    set(&store, [put("a", "1")]).await;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for name in ["store.redb", "lock"] {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_slow_watch_is_told_that_it_missed_something() {
    let fixture = Fixture::new().await;
    let store = fixture.store();
    let mut slow = store.watch("", 0).await.unwrap();
    for turn in 0..20 {
        // 20 MiB in all, beyond the 16 MiB of history.
        let changes = ["a", "b", "c", "d"].map(|key| put(&format!("{key}/{turn}"), vec![0; 255 * 1024]));
        set(store, changes).await;
    }
    let ended = next(&mut slow).await;
    assert!(matches!(ended, Err(StoreError::Compacted { oldest }) if oldest > 0), "{ended:?}");
}

#[tokio::test]
async fn watches_end_when_the_store_is_closed() {
    let fixture = Fixture::new().await;
    let mut watch = fixture.store().watch("", 0).await.unwrap();
    drop(fixture);
    let ended = next(&mut watch).await;
    assert!(matches!(ended, Err(StoreError::Unavailable(_))), "{ended:?}");
}

async fn open(directory: &Path) -> Shared {
    Arc::new(EmbeddedStore::open(directory.to_owned()).await.unwrap())
}

async fn filled(directory: &Path) -> PathBuf {
    let store = open(directory).await;
    for index in 0..200 {
        set(&store, [put(&format!("key/{index}"), format!("PAYLOAD!{index}").repeat(50))]).await;
    }
    drop(store);
    directory.join("store.redb")
}

async fn is_broken(directory: &Path) {
    let broken = EmbeddedStore::open(directory.to_owned()).await.unwrap_err();
    assert!(matches!(broken, StoreError::Broken(_)), "{broken}");
    let message = broken.to_string();
    assert!(message.contains(directory.to_str().unwrap()) && message.contains("backup"), "{message}");
}
