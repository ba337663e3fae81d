//! The store in etcd when its past is gone: compacted, lost with its data, or replaced by a backup.

use fleetknock_controller::store::{Changes, Revision, StoreError};

use crate::etcd::Fixture;
use crate::support::*;

#[tokio::test]
async fn a_watch_from_before_a_compaction_is_told_so() {
    let mut fixture = Fixture::new().await;
    let store = fixture.store().clone();
    set(&store, [put("a", "1")]).await;
    let compacted = set(&store, [delete("a")]).await;
    let last = set(&store, [put("b", "1")]).await;
    compact(&mut fixture, compacted);

    let mut late = store.watch("", compacted - 1).await.unwrap();
    let ended = next(&mut late).await;
    assert!(matches!(ended, Err(StoreError::Compacted { oldest }) if oldest == compacted), "{ended:?}");
    let mut just_in_time = store.watch("", compacted).await.unwrap();
    assert_eq!(
        next(&mut just_in_time).await.unwrap(),
        Changes { revision: last, changes: vec![put("b", "1")] }
    );
    assert_eq!(store.list("").await.unwrap().revision, last);
}

#[tokio::test]
async fn a_watch_that_was_cut_off_over_a_compaction_is_told_so() {
    let mut fixture = Fixture::new().await;
    let store = fixture.store().clone();
    let start = set(&store, [put("a", "0")]).await;
    let mut watch = store.watch("", start).await.unwrap();
    fixture.server().kill();
    fixture.server().restart();
    // A read finds the broken connection; a blind put on it would be of unknown outcome.
    store.probe().await.unwrap();
    let mut last = 0;
    for turn in 0..5 {
        last = set(&store, [put("a", turn.to_string())]).await;
    }
    compact(&mut fixture, last);
    let ended = next(&mut watch).await;
    assert!(matches!(ended, Err(StoreError::Compacted { oldest }) if oldest == last), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_lost_its_data_ends_watches_and_is_followed_from_a_new_listing() {
    for other_cluster in [false, true] {
        let mut fixture = Fixture::new().await;
        let store = fixture.store().clone();
        let mut last = 0;
        for turn in 0..10 {
            last = set(&store, [put("a", turn.to_string())]).await;
        }
        let mut watch = store.watch("", last).await.unwrap();
        is_quiet(&mut watch).await;
        fixture.server().kill();
        fixture.server().wipe();
        if other_cluster {
            fixture.server().become_another_cluster();
        }
        fixture.server().restart();
        if other_cluster {
            // Its revision passes the one that is watched from; "eA==" is an x, which is nobody's.
            for _ in 0..30 {
                fixture.server().call("/v3/kv/put", r#"{"key":"eA=="}"#);
            }
        }
        // Nobody asks anything: the watch finds out by itself.
        let ended = next(&mut watch).await;
        assert!(matches!(ended, Err(StoreError::Compacted { .. })), "{ended:?}");

        let listing = store.list("").await.unwrap();
        assert_eq!(listing.entries, []);
        let mut watch = store.watch("", listing.revision).await.unwrap();
        let first = commit(&store, [expect("a", 0)], [put("a", "new")]).await.unwrap();
        assert!(other_cluster || first < last);
        assert_eq!(
            next(&mut watch).await.unwrap(),
            Changes { revision: first, changes: vec![put("a", "new")] }
        );
        is_quiet(&mut watch).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_restored_from_a_backup_ends_watches_and_fences_what_it_forgot() {
    let mut fixture = Fixture::new().await;
    let store = fixture.store().clone();
    let kept = set(&store, [put("a", "kept")]).await;
    fixture.server().kill();
    fixture.server().back_up();
    fixture.server().restart();
    store.probe().await.unwrap();
    let forgotten = set(&store, [put("member/a", "forgotten")]).await;
    let last = set(&store, [put("b", "forgotten")]).await;
    let (mut one, mut other) =
        (store.watch("a", last).await.unwrap(), store.watch("", forgotten).await.unwrap());
    assert_eq!(next(&mut other).await.unwrap().revision, last);
    fixture.server().kill();
    fixture.server().restore();
    fixture.server().restart();

    // The first to notice tells all; a decision that was fenced by what is forgotten is refused.
    store.probe().await.unwrap();
    for watch in [&mut one, &mut other] {
        let ended = next(watch).await;
        assert!(matches!(ended, Err(StoreError::Compacted { oldest }) if oldest == kept), "{ended:?}");
    }
    let fenced = commit(&store, [expect("member/a", forgotten)], [put("c", "1")]).await;
    assert!(matches!(fenced, Err(StoreError::Conflict)), "{fenced:?}");
    // A watch from a revision that is no longer there is not left waiting either.
    let ended = next(&mut store.watch("", last).await.unwrap()).await;
    assert!(matches!(ended, Err(StoreError::Compacted { .. })), "{ended:?}");
    let listing = store.list("").await.unwrap();
    assert_eq!((listing.revision, listing.entries.len()), (kept, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_to_another_history_is_not_taken_for_one_of_the_known() {
    let mut fixture = Fixture::new().await;
    let store = fixture.store().clone();
    for turn in 0..10 {
        set(&store, [put("a", turn.to_string())]).await;
    }
    fixture.server().kill();
    fixture.server().wipe();
    fixture.server().restart();
    // Safe to send again, so the broken connection does not hide what comes after it.
    let unknown = commit(&store, [expect("code", 0)], [put("code", "used")]).await;
    assert!(
        matches!(&unknown, Err(StoreError::Unavailable(why)) if why.contains("went back")),
        "{unknown:?}"
    );
    assert_eq!(set(&store, [put("a", "1")]).await, revision(&store).await);
}

fn compact(fixture: &mut Fixture, revision: Revision) {
    let answer = fixture
        .server()
        .call("/v3/kv/compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#));
    assert!(answer.contains("revision"), "{answer}");
}
