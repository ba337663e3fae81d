//! What a simulated store promises: compare, commit, leases.

use bytes::Bytes;

use super::*;
use crate::store::{Change, Expect};

#[test]
fn a_lease_takes_its_keys_along_and_an_election_gives_it_its_time_again() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut ledger = Ledger::new();
    let lease = ledger.lease(Duration::from_secs(5), start).unwrap();
    let revision = ledger.commit(put("a", 0, Some(lease.id)), start).unwrap();
    assert_eq!(ledger.entry("a").unwrap().revision, revision);
    assert!(matches!(ledger.commit(put("a", 0, None), start), Err(StoreError::Conflict)));

    ledger.renew_all(at(6));
    ledger.expire(at(10));
    assert!(ledger.entry("a").is_some());
    ledger.expire(at(11));
    assert!(ledger.entry("a").is_none());
    assert_eq!(ledger.keep_alive(lease.id, at(11)), None);
    assert!(ledger.list().entries.is_empty());
    let revisions: Vec<_> = ledger.take_commits().iter().map(|changes| changes.revision).collect();
    assert_eq!(revisions, [revision, revision + 1]);
}

fn put(key: &str, expected: Revision, lease: Option<LeaseId>) -> Transaction {
    Transaction {
        expect: vec![Expect { key: key.to_owned(), revision: expected }],
        changes: vec![Change::Put { key: key.to_owned(), value: Bytes::from_static(b"x") }],
        lease,
    }
}
