//! Judging several transactions before the first is carried out.

use super::*;
use crate::store::Expect;

const ROOMY: usize = 1 << 20;

#[test]
fn a_later_transaction_sees_what_an_earlier_one_of_the_batch_did() {
    let (picture, mut leases) = (Picture::default(), Leases::default());
    let mut batch = Batch::on(&picture, &mut leases);

    let first = batch.judge(put_expecting("code/1", 0, 10), ROOMY).unwrap();
    let second = batch.judge(put_expecting("code/1", 0, 10), ROOMY);
    let third = batch.judge(put_expecting("code/1", first, 10), ROOMY).unwrap();

    assert!(matches!(second, Err(StoreError::Conflict)), "{second:?}");
    assert_eq!((first, third), (1, 2));
    assert_eq!(batch.into_commits().len(), 2);
}

#[test]
fn removing_what_does_not_exist_takes_no_revision() {
    let (picture, mut leases) = (Picture::default(), Leases::default());
    let mut batch = Batch::on(&picture, &mut leases);
    let gone =
        Transaction { changes: vec![Change::Delete { key: "a".to_owned() }], ..Transaction::default() };

    assert_eq!(batch.judge(gone, ROOMY).unwrap(), 0);
    assert!(batch.into_commits().is_empty());
}

#[test]
fn a_full_store_refuses_growth_and_still_shrinks() {
    let (picture, mut leases) = (Picture::default(), Leases::default());
    let mut batch = Batch::on(&picture, &mut leases);
    batch.judge(put_expecting("a", 0, 60), 100).unwrap();

    let refused = batch.judge(put_expecting("b", 0, 60), 100);
    assert!(
        matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("61 of 100 bytes")),
        "{refused:?}"
    );

    batch.judge(put_expecting("a", 1, 20), 100).unwrap();
    batch.judge(put_expecting("b", 0, 60), 100).unwrap();
}

fn put_expecting(key: &str, revision: Revision, size: usize) -> Transaction {
    Transaction {
        expect: vec![Expect { key: key.to_owned(), revision }],
        changes: vec![Change::Put { key: key.to_owned(), value: vec![b'x'; size].into() }],
        lease: None,
    }
}
