//! The promises about leases, of every store.
//!
//! Times are real, so the tests wait for ends with [`PATIENCE`] and hold against the clock only what a slow machine
//! cannot break: that nothing ends early.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fleetknock_controller::store::{Change, LEASE_MAX, LEASE_MIN, LeaseId, Revision, StoreError, Watch};
use tokio::time;

use crate::support::*;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

pub(crate) async fn what_is_bound_vanishes_when_its_lease_ends(store: &Shared) {
    set(store, [put("free", "1")]).await;
    let begun = Instant::now();
    let lease = store.lease(LEASE_MIN).await.unwrap();
    assert!(lease.ttl >= LEASE_MIN);
    let bound = bind(store, lease.id, [], [put("member/a", "1"), put("member/b", "1")]).await.unwrap();
    let mut watch = store.watch("", bound).await.unwrap();

    deletions(&mut watch, ["member/a", "member/b"]).await;
    assert!(begun.elapsed() >= LEASE_MIN, "ended after {:?}", begun.elapsed());
    assert_eq!(store.get("member/a").await.unwrap(), None);
    assert_eq!(keys(store, "").await, ["free"]);
    is_quiet(&mut watch).await;
    is_over(store, lease.id).await;
}

pub(crate) async fn nobody_has_to_ask_for_the_end_of_a_lease(store: &Shared) {
    let lease = store.lease(LEASE_MIN).await.unwrap();
    let bound = bind(store, lease.id, [], [put("member/a", "1")]).await.unwrap();
    let until = time::Instant::now() + PATIENCE;
    while store.get("member/a").await.unwrap().is_some() {
        assert!(time::Instant::now() < until, "the lease does not end");
        time::sleep(Duration::from_millis(100)).await;
    }
    assert!(revision(store).await > bound);
    assert_eq!(store.keep_alive(lease.id).await.unwrap(), None);
}

pub(crate) async fn a_lease_that_is_kept_alive_goes_on_and_takes_no_revision(store: &Shared) {
    // Kept alive ten times as often as needed, for half as long again as it would last.
    let ttl = Duration::from_secs(3);
    let lease = store.lease(ttl).await.unwrap();
    let bound = bind(store, lease.id, [], [put("member/a", "1")]).await.unwrap();
    let mut watch = store.watch("", bound).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < lease.ttl * 3 / 2 {
        let left = store.keep_alive(lease.id).await.unwrap();
        assert!(left.is_some_and(|left| left >= ttl), "{left:?}");
        time::sleep(ttl / 10).await;
    }
    assert_eq!(store.get("member/a").await.unwrap().unwrap().revision, bound);
    assert_eq!(revision(store).await, bound);
    is_quiet(&mut watch).await;

    deletions(&mut watch, ["member/a"]).await;
    is_over(store, lease.id).await;
}

pub(crate) async fn a_revoked_lease_ends_at_once(store: &Shared) {
    let lease = store.lease(LONG).await.unwrap();
    let other = store.lease(LONG).await.unwrap();
    assert_ne!(lease.id, other.id);
    bind(store, other.id, [], [put("member/b", "1")]).await.unwrap();
    let bound = bind(store, lease.id, [], [put("member/a", "1"), put("member/c", "1")]).await.unwrap();
    let mut watch = store.watch("", bound).await.unwrap();

    store.revoke(lease.id).await.unwrap();
    assert_eq!(keys(store, "").await, ["member/b"]);
    deletions(&mut watch, ["member/a", "member/c"]).await;
    is_over(store, lease.id).await;
    // Fine when it has ended, or never was.
    store.revoke(lease.id).await.unwrap();
    store.revoke(LeaseId(i64::MAX)).await.unwrap();
    assert!(store.keep_alive(other.id).await.unwrap().is_some());
}

pub(crate) async fn a_later_put_unbinds_or_binds_anew(store: &Shared) {
    let one = store.lease(LONG).await.unwrap().id;
    let other = store.lease(LONG).await.unwrap().id;
    let all = ["deleted", "free", "kept", "moved"];
    let bound = bind(store, one, [], all.map(|key| put(key, "1"))).await.unwrap();
    set(store, [put("free", "1"), delete("deleted")]).await;
    set(store, [put("deleted", "2")]).await;
    bind(store, other, [], [put("moved", "1")]).await.unwrap();
    // What loses binds nothing.
    let lost = bind(store, one, [expect("free", bound)], [put("free", "2")]).await;
    assert!(matches!(lost, Err(StoreError::Conflict)), "{lost:?}");

    store.revoke(one).await.unwrap();
    assert_eq!(keys(store, "").await, ["deleted", "free", "moved"]);
    store.revoke(other).await.unwrap();
    assert_eq!(keys(store, "").await, ["deleted", "free"]);
}

pub(crate) async fn an_ended_lease_binds_nothing_and_changes_nothing(store: &Shared) {
    let revision = set(store, [put("a", "1")]).await;
    let lease = store.lease(LONG).await.unwrap().id;
    store.revoke(lease).await.unwrap();
    let before = store.list("").await.unwrap();
    for ended in [lease, LeaseId(i64::MAX)] {
        let refused = bind(store, ended, [expect("a", revision)], [delete("a"), put("member/a", "1")]).await;
        assert!(matches!(refused, Err(StoreError::LeaseEnded)), "{refused:?}");
        // Expectations are judged first.
        let lost = bind(store, ended, [expect("a", revision + 1)], [put("member/a", "1")]).await;
        assert!(matches!(lost, Err(StoreError::Conflict)), "{lost:?}");
    }
    assert_eq!(store.list("").await.unwrap(), before);
    // Nothing is put, so nothing would be bound.
    bind(store, lease, [expect("a", revision)], []).await.unwrap();
    bind(store, lease, [expect("a", revision)], [delete("a")]).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
}

pub(crate) async fn a_fence_holds_as_long_as_the_lease_and_never_again(store: &Shared) {
    let lease = store.lease(LONG).await.unwrap().id;
    let epoch = bind(store, lease, [expect("member/a", 0)], [put("member/a", "1")]).await.unwrap();
    let decide = |epoch: Revision, opening: u32| {
        let (fence, key) = (expect("member/a", epoch), format!("openings/{opening}"));
        async move { commit(store, [fence, expect(&key, 0)], [put(&key, "1")]).await }
    };
    store.keep_alive(lease).await.unwrap().unwrap();
    decide(epoch, 1).await.unwrap();
    store.revoke(lease).await.unwrap();
    let fenced = decide(epoch, 2).await;
    assert!(matches!(fenced, Err(StoreError::Conflict)), "{fenced:?}");

    let again = store.lease(LONG).await.unwrap().id;
    let epoch_again = bind(store, again, [expect("member/a", 0)], [put("member/a", "1")]).await.unwrap();
    assert!(epoch_again > epoch);
    let fenced = decide(epoch, 3).await;
    assert!(matches!(fenced, Err(StoreError::Conflict)), "{fenced:?}");
    decide(epoch_again, 4).await.unwrap();
    assert_eq!(keys(store, "openings/").await, ["openings/1", "openings/4"]);
}

pub(crate) async fn a_lease_is_as_long_as_asked_within_bounds(store: &Shared) {
    let before = revision(store).await;
    let nanosecond = Duration::from_nanos(1);
    for ttl in [Duration::ZERO, LEASE_MIN - nanosecond, LEASE_MAX + nanosecond] {
        let refused = store.lease(ttl).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{ttl:?}: {refused:?}");
    }
    for ttl in [LEASE_MIN, Duration::from_millis(1500), LEASE_MAX] {
        let lease = store.lease(ttl).await.unwrap();
        assert!(lease.ttl >= ttl, "{ttl:?}: {lease:?}");
        assert!(store.keep_alive(lease.id).await.unwrap() >= Some(ttl));
        store.revoke(lease.id).await.unwrap();
    }
    assert_eq!(revision(store).await, before, "a lease that binds nothing takes no revision");
}

/// That a watch tells of these deletions and nothing else, in one commit or several.
async fn deletions<const COUNT: usize>(watch: &mut Watch, wanted: [&str; COUNT]) {
    let mut heard = BTreeSet::new();
    while heard.len() < COUNT {
        for change in next(watch).await.unwrap().changes {
            match change {
                Change::Delete { key } => assert!(heard.insert(key)),
                Change::Put { .. } => panic!("{change:?}"),
            }
        }
    }
    assert!(heard.iter().eq(wanted.iter()), "{heard:?}");
}

async fn is_over(store: &Shared, lease: LeaseId) {
    assert_eq!(store.keep_alive(lease).await.unwrap(), None);
    let before = revision(store).await;
    let refused = bind(store, lease, [], [put("member/a", "1")]).await;
    assert!(matches!(refused, Err(StoreError::LeaseEnded)), "{refused:?}");
    assert_eq!(revision(store).await, before);
}
