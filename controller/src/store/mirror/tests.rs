//! The history's bounds, and what becomes of watches that are behind them.

use futures::StreamExt;

use super::*;

#[tokio::test]
async fn a_watch_that_falls_behind_the_history_ends_with_compacted() {
    let mirror = Mirror::new(Picture::default(), 10);
    let mut watch = mirror.watch("", 0).unwrap();
    mirror.apply((1..=11).map(commit).collect());

    let ended = watch.next().await;
    assert!(matches!(ended, Some(Err(StoreError::Compacted { oldest: 1 }))), "{ended:?}");
    assert!(watch.next().await.is_none());
    assert!(matches!(mirror.watch("", 0).err(), Some(StoreError::Compacted { oldest: 1 })));

    let caught_up: Vec<_> =
        mirror.watch("", 1).unwrap().take(10).map(|changes| changes.unwrap().revision).collect().await;
    assert_eq!(caught_up, (2..=11).collect::<Vec<_>>());
}

#[test]
fn the_history_is_bounded_in_bytes() {
    let mirror = Mirror::new(Picture::default(), HISTORY_CHANGES_MAX);
    for revision in 1..=40 {
        let value = Bytes::from(vec![0; 1024 * 1024]);
        let changes = vec![Change::Put { key: "a".to_owned(), value }];
        mirror.apply(vec![Commit::new(Changes { revision, changes }, None)]);
    }
    let state = mirror.read();
    assert!(state.history.bytes <= HISTORY_BYTES_MAX, "{}", state.history.bytes);
    assert_eq!(state.history.commits.len(), 15);
    assert_eq!(state.history.oldest, 25);
}

#[tokio::test]
async fn a_replaced_picture_ends_watches_and_a_closed_mirror_too() {
    let mirror = Mirror::new(Picture::default(), 10);
    mirror.apply(vec![commit(1)]);
    let mut behind = mirror.watch("", 1).unwrap();
    mirror.replace(Picture::new(BTreeMap::new(), 2));
    let ended = behind.next().await;
    assert!(matches!(ended, Some(Err(StoreError::Compacted { oldest: 2 }))), "{ended:?}");

    let mut waiting = mirror.watch("", 2).unwrap();
    mirror.close();
    let ended = waiting.next().await;
    assert!(matches!(ended, Some(Err(StoreError::Unavailable(_)))), "{ended:?}");
    assert!(waiting.next().await.is_none());
}

#[test]
fn the_size_follows_puts_overwrites_and_deletes() {
    let mut picture = Picture::default();
    let put = |size: usize| Change::Put { key: "key".to_owned(), value: vec![0; size].into() };
    let delete = Change::Delete { key: "key".to_owned() };
    for (revision, change, size) in [(1, put(10), 13), (2, put(2), 5), (3, delete, 0)] {
        picture.apply(&Changes { revision, changes: vec![change] });
        assert_eq!(picture.size(), size);
    }
}

fn commit(revision: Revision) -> Commit {
    let changes = vec![Change::Put { key: format!("key/{revision}"), value: Bytes::new() }];
    Commit::new(Changes { revision, changes }, None)
}
