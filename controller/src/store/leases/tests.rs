//! What ends a lease, and which keys are orphans then.

use bytes::Bytes;

use super::*;

const TTL: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_lease_ends_at_its_time_and_not_before() {
    let start = Instant::now();
    let mut leases = Leases::default();
    let lease = leases.grant(TTL, start).unwrap();
    leases.take_down(&[put("a"), put("b")], Some(lease.id));

    assert!(!leases.expire(start + TTL - Duration::from_nanos(1)));
    assert!(leases.is_held(lease.id) && leases.orphans().is_empty());
    assert_eq!(leases.next_end(), Some(start + TTL));

    assert!(leases.expire(start + TTL));
    assert!(!leases.is_held(lease.id));
    assert_eq!(leases.orphans(), ["a", "b"]);
    assert_eq!(leases.keep_alive(lease.id, start + TTL), None);
    assert_eq!(leases.next_end(), None);
    leases.take_down(&[delete("a"), delete("b")], None);
    assert!(leases.orphans().is_empty());
}

#[tokio::test(start_paused = true)]
async fn its_time_begins_anew_when_that_was_asked_for_however_late_it_is_heard() {
    let start = Instant::now();
    let mut leases = Leases::default();
    let lease = leases.grant(TTL, start).unwrap();
    assert_eq!(leases.keep_alive(lease.id, start + 3 * SECOND), Some(lease));
    assert_eq!(leases.next_end(), Some(start + 8 * SECOND));
    leases.keep_alive(lease.id, start + 2 * SECOND);
    assert_eq!(leases.next_end(), Some(start + 8 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_later_put_unbinds_a_key_or_binds_it_elsewhere() {
    let mut leases = Leases::default();
    let [one, other] = [(); 2].map(|()| leases.grant(TTL, Instant::now()).unwrap().id);
    assert_ne!(one, other);
    leases.take_down(&[put("free"), put("moved"), put("deleted"), put("kept")], Some(one));
    leases.take_down(&[put("free"), delete("deleted")], None);
    leases.take_down(&[put("moved")], Some(other));

    assert!(leases.end(one) && !leases.end(one));
    assert_eq!(leases.orphans(), ["kept"]);
    assert!(leases.end(other));
    assert_eq!(leases.orphans(), ["kept", "moved"]);
}

#[tokio::test(start_paused = true)]
async fn what_another_book_bound_is_orphaned_and_its_leases_are_not_given_again() {
    let mut leases = Leases::of(BTreeMap::from([("a".to_owned(), LeaseId(7))]));
    assert_eq!(leases.orphans(), ["a"]);
    assert!(leases.grant(TTL, Instant::now()).unwrap().id > LeaseId(7));
    leases.rebind(BTreeMap::from([("b".to_owned(), LeaseId(20))]));
    assert_eq!(leases.orphans(), ["b"]);
    assert!(leases.grant(TTL, Instant::now()).unwrap().id > LeaseId(20));
}

#[tokio::test(start_paused = true)]
async fn leases_are_bounded_in_number() {
    let mut leases = Leases::default();
    let now = Instant::now();
    let last = (0..LEASES_MAX).map(|_| leases.grant(TTL, now).unwrap()).last().unwrap();
    assert!(matches!(leases.grant(TTL, now), Err(StoreError::Unavailable(_))));
    leases.end(last.id);
    leases.grant(TTL, now).unwrap();
}

fn put(key: &str) -> Change {
    Change::Put { key: key.to_owned(), value: Bytes::new() }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: key.to_owned() }
}
