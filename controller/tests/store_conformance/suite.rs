//! The promises of every store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fleetknock_controller::store::{CHANGES_MAX, Changes, KEY_MAX, StoreError, TRANSACTION_MAX, VALUE_MAX};
use tokio::time;

use crate::support::*;

pub(crate) use crate::leases::*;
pub(crate) use crate::model::random_transactions_agree_with_a_map;

pub(crate) async fn reads_and_listings_show_what_was_put(store: &Shared) {
    assert_eq!(store.get("doors/a").await.unwrap(), None);
    let first = set(store, [put("doors/a", "one")]).await;
    let second = set(store, [put("doors/b", "two")]).await;

    let entry = store.get("doors/a").await.unwrap().unwrap();
    assert_eq!(
        (entry.key.as_str(), entry.value.as_ref(), entry.revision),
        ("doors/a", b"one".as_slice(), first)
    );
    let listing = store.list("doors/").await.unwrap();
    let listed: Vec<_> = listing.entries.iter().map(|entry| (entry.key.as_str(), entry.revision)).collect();
    assert_eq!(listed, [("doors/a", first), ("doors/b", second)]);
    assert_eq!(listing.entries[0], entry);
    assert_eq!(listing.revision, second);
    store.probe().await.unwrap();
}

pub(crate) async fn listings_are_ordered_and_keep_to_the_prefix(store: &Shared) {
    for key in ["b/2", "a/x", "b/10", "c", "b", "b/1", "b-b/1", "B/1", "b/~"] {
        set(store, [put(key, key.to_owned())]).await;
    }
    assert_eq!(keys(store, "b/").await, ["b/1", "b/10", "b/2", "b/~"]);
    assert_eq!(keys(store, "b").await, ["b", "b-b/1", "b/1", "b/10", "b/2", "b/~"]);
    assert_eq!(keys(store, "").await, ["B/1", "a/x", "b", "b-b/1", "b/1", "b/10", "b/2", "b/~", "c"]);
    assert_eq!(keys(store, "d").await, Vec::<String>::new());
}

pub(crate) async fn a_listing_may_be_long_and_large(store: &Shared) {
    for block in 0..4 {
        let changes: Vec<_> =
            (0..CHANGES_MAX).map(|index| put(&format!("many/{block}{index:02}"), "x")).collect();
        set(store, changes).await;
    }
    let large = Bytes::from(vec![b'x'; VALUE_MAX]);
    for index in 0..24 {
        set(store, [put(&format!("large/{index:02}"), large.clone())]).await;
    }
    let many = keys(store, "many/").await;
    assert_eq!(many.len(), 400);
    assert!(many.is_sorted());
    let listing = store.list("large/").await.unwrap();
    assert_eq!(listing.entries.len(), 24);
    assert!(listing.entries.iter().all(|entry| entry.value == large));
}

pub(crate) async fn a_key_is_created_once(store: &Shared) {
    commit(store, [expect("code/1", 0)], [put("code/1", "a")]).await.unwrap();
    let again = commit(store, [expect("code/1", 0)], [put("code/1", "b")]).await;
    assert!(matches!(again, Err(StoreError::Conflict)), "{again:?}");
    assert_eq!(value(store, "code/1").await.unwrap(), "a");
}

pub(crate) async fn a_replacement_needs_the_revision_it_saw(store: &Shared) {
    let first = set(store, [put("a", "1")]).await;
    let second = commit(store, [expect("a", first)], [put("a", "2")]).await.unwrap();
    for stale in [first, 0, second + 1] {
        let lost = commit(store, [expect("a", stale)], [put("a", "3")]).await;
        assert!(matches!(lost, Err(StoreError::Conflict)), "{stale}: {lost:?}");
    }
    // The revision of another key's change is not this key's.
    let other = set(store, [put("b", "1")]).await;
    let lost = commit(store, [expect("a", other)], [put("a", "3")]).await;
    assert!(matches!(lost, Err(StoreError::Conflict)), "{lost:?}");
    assert_eq!(value(store, "a").await.unwrap(), "2");
}

pub(crate) async fn a_deletion_needs_the_revision_it_saw(store: &Shared) {
    let first = set(store, [put("a", "1")]).await;
    let second = set(store, [put("a", "2")]).await;
    let lost = commit(store, [expect("a", first)], [delete("a")]).await;
    assert!(matches!(lost, Err(StoreError::Conflict)), "{lost:?}");
    commit(store, [expect("a", second)], [delete("a")]).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    // Gone is gone: it can be created again, and its old revisions hold no longer.
    let lost = commit(store, [expect("a", second)], [put("a", "3")]).await;
    assert!(matches!(lost, Err(StoreError::Conflict)), "{lost:?}");
    commit(store, [expect("a", 0)], [put("a", "3")]).await.unwrap();
}

pub(crate) async fn a_conflict_changes_nothing(store: &Shared) {
    let revision = set(store, [put("a", "1"), put("b", "1")]).await;
    let before = store.list("").await.unwrap();
    let mut watch = store.watch("", revision).await.unwrap();
    let lost =
        commit(store, [expect("a", revision), expect("c", 7)], [put("a", "2"), delete("b"), put("d", "1")])
            .await;
    assert!(matches!(lost, Err(StoreError::Conflict)), "{lost:?}");
    assert_eq!(store.list("").await.unwrap(), before);
    is_quiet(&mut watch).await;
}

pub(crate) async fn revisions_rise_and_nothing_changes_none(store: &Shared) {
    let mut last = revision(store).await;
    for turn in 0..20 {
        let next = set(store, [put("a", turn.to_string()), put(&format!("b/{turn}"), "")]).await;
        assert!(next > last, "{next} after {last}");
        assert_eq!(revision(store).await, next);
        last = next;
    }
    assert_eq!(set(store, [delete("not/there")]).await, last);
    assert_eq!(set(store, []).await, last);
    // The same value again is a change all the same.
    let same = set(store, [put("a", "19")]).await;
    assert!(same > last);
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, same);
}

pub(crate) async fn a_check_without_changes_is_judged(store: &Shared) {
    let revision = set(store, [put("a", "1")]).await;
    assert_eq!(commit(store, [expect("a", revision), expect("b", 0)], []).await.unwrap(), revision);
    let lost = commit(store, [expect("a", revision), expect("b", 1)], []).await;
    assert!(matches!(lost, Err(StoreError::Conflict)), "{lost:?}");
}

pub(crate) async fn nobody_sees_half_a_commit(store: &Shared) {
    let start = revision(store).await;
    let mut watch = store.watch("pair/", start).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, done) = (store.clone(), done.clone());
        async move {
            let mut listings = 0;
            while !done.load(Ordering::Relaxed) {
                let listing = store.list("pair/").await.unwrap();
                let seen: Vec<_> =
                    listing.entries.iter().map(|entry| (&entry.value, entry.revision)).collect();
                assert!(
                    seen.is_empty() || (seen.len() == 3 && seen.windows(2).all(|two| two[0] == two[1])),
                    "{seen:?}"
                );
                listings += 1;
            }
            listings
        }
    });
    for turn in 0..100 {
        let turn = turn.to_string();
        set(store, ["pair/a", "pair/b", "pair/c"].map(|key| put(key, turn.clone()))).await;
        // A store that never waits would leave the reader no turn.
        time::sleep(Duration::from_micros(100)).await;
    }
    done.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 1);
    for (turn, changes) in take(&mut watch, 100).await.into_iter().enumerate() {
        let turn = turn.to_string();
        assert_eq!(changes.changes, ["pair/a", "pair/b", "pair/c"].map(|key| put(key, turn.clone())));
    }
}

pub(crate) async fn a_read_after_a_commit_sees_it(store: &Shared) {
    let tasks = (0..8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = format!("task/{task}");
            for turn in 0..25 {
                let committed = set(&store, [put(&key, turn.to_string())]).await;
                let entry = store.get(&key).await.unwrap().unwrap();
                assert_eq!((number(&entry.value), entry.revision), (turn, committed));
                assert!(revision(&store).await >= committed);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

pub(crate) async fn a_watch_begins_in_the_past_or_now(store: &Shared) {
    let first = set(store, [put("a", "1")]).await;
    let second = set(store, [put("a", "2")]).await;
    let mut from_start = store.watch("", first).await.unwrap();
    let mut from_now = store.watch("", second).await.unwrap();
    let third = set(store, [put("a", "3")]).await;

    let expected = [
        Changes { revision: second, changes: vec![put("a", "2")] },
        Changes { revision: third, changes: vec![put("a", "3")] },
    ];
    assert_eq!(take(&mut from_start, 2).await, expected);
    assert_eq!(take(&mut from_now, 1).await, expected[1..]);
    is_quiet(&mut from_start).await;
    is_quiet(&mut from_now).await;
}

pub(crate) async fn watches_agree_with_each_other(store: &Shared) {
    let start = revision(store).await;
    let mut watches = vec![];
    for _ in 0..4 {
        watches.push(store.watch("", start).await.unwrap());
    }
    let writers = (0..5).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for turn in 0..20 {
                set(&store, [put(&format!("writer/{writer}"), turn.to_string())]).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    watches.push(store.watch("", start).await.unwrap());
    let first = take(&mut watches[0], 100).await;
    assert!(first.windows(2).all(|two| two[0].revision < two[1].revision));
    for watch in &mut watches[1..] {
        assert_eq!(take(watch, 100).await, first);
    }
}

pub(crate) async fn a_watch_keeps_to_its_prefix(store: &Shared) {
    let start = revision(store).await;
    let mut watch = store.watch("doors/", start).await.unwrap();
    set(store, [put("doors", "no")]).await;
    set(store, [put("doorsx/a", "no"), put("door", "no")]).await;
    let mixed = set(store, [put("bans/a", "no"), put("doors/a", "yes"), put("users/a", "no")]).await;
    let last = set(store, [put("doors/b", "yes")]).await;
    assert_eq!(
        take(&mut watch, 2).await,
        [
            Changes { revision: mixed, changes: vec![put("doors/a", "yes")] },
            Changes { revision: last, changes: vec![put("doors/b", "yes")] },
        ]
    );
}

pub(crate) async fn a_watch_tells_of_deletions(store: &Shared) {
    let start = set(store, [put("a", "1"), put("b", "1")]).await;
    let mut watch = store.watch("", start).await.unwrap();
    let gone = set(store, [delete("a"), put("c", "1"), delete("not/there")]).await;
    let back = set(store, [put("a", "2")]).await;
    let mut first = next(&mut watch).await.unwrap();
    first.changes.sort_by(|one, other| one.key().cmp(other.key()));
    assert_eq!(first, Changes { revision: gone, changes: vec![delete("a"), put("c", "1")] });
    assert_eq!(next(&mut watch).await.unwrap(), Changes { revision: back, changes: vec![put("a", "2")] });
}

pub(crate) async fn a_watch_that_catches_up_takes_large_commits(store: &Shared) {
    let start = revision(store).await;
    let large = Bytes::from(vec![7; VALUE_MAX - 32]);
    for _ in 0..10 {
        let changes = ["a", "b", "c"].map(|key| put(key, large.clone()));
        set(store, changes).await;
    }
    let mut watch = store.watch("", start).await.unwrap();
    for changes in take(&mut watch, 10).await {
        assert_eq!(changes.changes, ["a", "b", "c"].map(|key| put(key, large.clone())));
    }
}

pub(crate) async fn values_are_opaque(store: &Shared) {
    let start = revision(store).await;
    let mut watch = store.watch("", start).await.unwrap();
    let all: Vec<u8> = (0..=255).collect();
    for bytes in [all, vec![], vec![0], b"\xff\xfe".to_vec(), vec![0; VALUE_MAX]] {
        set(store, [put("a", bytes.clone())]).await;
        assert_eq!(value(store, "a").await.unwrap(), bytes);
        assert_eq!(next(&mut watch).await.unwrap().changes, [put("a", bytes)]);
    }
}

pub(crate) async fn what_is_out_of_bounds_is_refused(store: &Shared) {
    let before = store.list("").await.unwrap();
    let long = "k".repeat(KEY_MAX + 1);
    for key in ["", "/a", "a/", "a//b", "a b", "a\0", "ä", "a\n", &long] {
        let refused = commit(store, [], [put("fine", ""), put(key, "")]).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{key:?}: {refused:?}");
        let refused = commit(store, [expect(key, 0)], []).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{key:?}: {refused:?}");
        let refused = store.get(key).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{key:?}: {refused:?}");
    }
    for prefix in ["/", "a//", "ä", &long] {
        let refused = store.list(prefix).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{prefix:?}: {refused:?}");
        let refused = store.watch(prefix, 0).await.err();
        assert!(matches!(refused, Some(StoreError::Invalid(_))), "{prefix:?}: {refused:?}");
    }
    let many: Vec<_> = (0..=CHANGES_MAX).map(|index| put(&format!("many/{index}"), "")).collect();
    let checks: Vec<_> = (0..=CHANGES_MAX).map(|index| expect(&format!("many/{index}"), 0)).collect();
    let heavy: Vec<_> = (0..=TRANSACTION_MAX / VALUE_MAX)
        .map(|index| put(&format!("h/{index}"), vec![0; VALUE_MAX]))
        .collect();
    for (expects, changes) in [
        (vec![], vec![put("a", vec![0; VALUE_MAX + 1])]),
        (vec![], many.clone()),
        (checks, vec![]),
        (vec![], heavy),
        (vec![], vec![put("a", ""), delete("a")]),
        (vec![], vec![put("a", ""), put("a", "")]),
    ] {
        let refused = commit(store, expects, changes).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(store.list("").await.unwrap(), before);

    let longest = "k".repeat(KEY_MAX);
    let fits: Vec<_> =
        many.into_iter().take(CHANGES_MAX - 1).chain([put(&longest, vec![0; VALUE_MAX])]).collect();
    let checks: Vec<_> = fits.iter().map(|change| expect(change.key(), 0)).collect();
    commit(store, checks, fits).await.unwrap();
    let full: Vec<_> = (0..TRANSACTION_MAX / VALUE_MAX)
        .map(|index| put(&format!("{index}"), vec![0; VALUE_MAX - 1]))
        .collect();
    set(store, full).await;
}

pub(crate) async fn concurrent_increments_lose_none(store: &Shared) {
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    increment(&store, "counter").await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(number(&value(store, "counter").await.unwrap()), 100);
}

pub(crate) async fn a_key_created_by_many_has_one_winner(store: &Shared) {
    for round in 0..10 {
        let key = format!("code/{round}");
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (store, key) = (store.clone(), key.clone());
                // Byte for byte the same: only the expectation tells the winner.
                tokio::spawn(async move { commit(&store, [expect(&key, 0)], [put(&key, "used")]).await })
            })
            .collect();
        let mut winners = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => winners += 1,
                Err(StoreError::Conflict) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(winners, 1);
    }
}
