//! What a controller writes to the store: one commit for an opening, nothing for a miss, a half sequence or a renewal.
//!
//! The store in memory gives every commit that changes something the next revision, so revisions count writes.

use std::{sync::Arc, time::Duration};

use fleetknock_controller::{
    membership,
    store::{Revision, Store, memory::MemoryStore},
};
use tokio::time::sleep;

use crate::support::{Controller, apply, door};

#[tokio::test]
async fn an_opening_is_one_write_and_misses_and_renewals_are_none() {
    let store = Arc::new(MemoryStore::new());
    let controller = Controller::over(store.clone()).await;
    let mut operator = controller.operator().await;
    let mut edge = controller.agent("edge-1", "edge").await;
    let mut db = controller.agent("db-1", "db").await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    let before_door = revision(&store).await;
    operator.apply_door(apply(door())).await.unwrap();
    let start = revision(&store).await;
    assert_eq!(start, before_door + 1, "a door is one write");

    // Nine misses of one source, one less than what bans it, and half a sequence of another.
    edge.knock_many(&(2_000..2_009).map(|port| ([198, 51, 100, 1], port)).collect::<Vec<_>>()).await;
    edge.knock([198, 51, 100, 2], 7412).await;
    db.knock([198, 51, 100, 2], 23981).await;
    // What opens comes after them through the same queues, so they have been judged by then.
    for (number, last) in [(1, 3), (2, 4), (3, 5)] {
        let source = [203, 0, 113, last];
        edge.knock(source, 7412).await;
        db.knock(source, 23981).await;
        bastion.knock(source, 5103).await;
        assert_eq!(bastion.opening().await.source, format!("203.0.113.{last}"));
        assert_eq!(revision(&store).await, start + number, "an opening is one write");
    }

    // Longer than the lease, so that it was renewed, and ticks went by.
    sleep(membership::LEASE_MIN + Duration::from_secs(1)).await;
    assert_eq!(revision(&store).await, start + 3, "renewals and the passing of time are no writes");
    let source = [203, 0, 113, 6];
    edge.knock(source, 7412).await;
    db.knock(source, 23981).await;
    bastion.knock(source, 5103).await;
    assert_eq!(bastion.opening().await.source, "203.0.113.6");
    assert_eq!(revision(&store).await, start + 4, "it was a member all the time, and decides on");
}

async fn revision(store: &MemoryStore) -> Revision {
    store.list("").await.unwrap().revision
}
