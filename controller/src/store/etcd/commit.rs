//! Commits: sending one, sending it again only when that is safe, and finding out what became of the first attempt.

use std::collections::BTreeSet;

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use tokio::time::Instant;

use super::codec::{Codec, Tag};
use super::members::{Failure, Members};
use super::{DEADLINE, header_revision, signed, unsigned};
use crate::store::{Change, Revision, StoreError, Transaction};

/// etcd's default limit of operations in a transaction.
const OPERATIONS_MAX: usize = 128;
const WENT_BACK: &str = "etcd's history went back, as after its data was lost or restored";

/// Carries out a transaction within [`DEADLINE`].
pub(super) async fn commit(
    members: &Members,
    codec: &Codec,
    tag: Tag,
    transaction: &Transaction,
) -> Result<Revision, StoreError> {
    let deadline = Instant::now() + DEADLINE;
    let repeatable = is_repeatable(transaction);
    let mut attempts = 0;
    // Whether an earlier attempt may have been carried out.
    let mut in_doubt = false;
    loop {
        let member = members.preferred();
        let sent = request(codec, tag, transaction, in_doubt);
        let seen = members.history().seen();
        let answer = member.transact(sent, members.attempt_until(deadline)).await;
        let same = match &answer {
            Ok(answer) => members.history().take_in(seen, answer.header()),
            Err(_) => true,
        };
        let failure = match answer {
            // Its revision would be taken for one of the history that the caller knows.
            Ok(answer) if !same && (in_doubt || answer.succeeded()) => return Err(unknown(WENT_BACK)),
            Ok(answer) if answer.succeeded() => return unsigned(header_revision(answer.header())?),
            Ok(_) if !in_doubt => return Err(StoreError::Conflict),
            Ok(answer) => return resolve(codec, tag, transaction, &found(&answer)),
            Err(failure) => failure,
        };
        match failure {
            Failure::Unknown(why) if !repeatable => return Err(unknown(&why)),
            // Also when the lease has ended: the first attempt may have come before that, and have gone with it.
            Failure::Final(error) if in_doubt => return Err(unknown(&error.to_string())),
            failure => {
                in_doubt |= matches!(failure, Failure::Unknown(_));
                let moved_on = members.move_on(member, failure, &mut attempts, deadline).await;
                moved_on.map_err(Failure::into_store_error)?;
            }
        }
    }
}

/// Whether carrying it out twice is impossible: once it is done, a revision that it expects is no longer there.
fn is_repeatable(transaction: &Transaction) -> bool {
    let guards = |change: &Change| match expected(transaction, change.key()) {
        Some(revision) => revision > 0 || matches!(change, Change::Put { .. }),
        None => false,
    };
    transaction.changes.is_empty() || transaction.changes.iter().any(guards)
}

fn expected(transaction: &Transaction, key: &str) -> Option<Revision> {
    transaction
        .expect
        .iter()
        .find(|expectation| expectation.key == key)
        .map(|expectation| expectation.revision)
}

/// The transaction in etcd's terms. After an attempt in doubt it also asks what is there when the expectations fail.
fn request(codec: &Codec, tag: Tag, transaction: &Transaction, in_doubt: bool) -> Txn {
    let compares: Vec<_> = transaction
        .expect
        .iter()
        .map(|expectation| {
            Compare::mod_revision(
                codec.encode_key(&expectation.key),
                CompareOp::Equal,
                signed(expectation.revision),
            )
        })
        .collect();
    let bound = transaction.lease.map(|lease| PutOptions::new().with_lease(lease.0));
    let operations: Vec<_> = transaction
        .changes
        .iter()
        .map(|change| match change {
            Change::Delete { key } => TxnOp::delete(codec.encode_key(key), None),
            Change::Put { key, value } => {
                TxnOp::put(codec.encode_key(key), codec.encode_value(tag, value), bound.clone())
            }
        })
        .collect();
    let request = Txn::new().when(compares).and_then(operations);
    if !in_doubt {
        return request;
    }
    let changed = transaction.changes.iter().map(Change::key);
    let keys: BTreeSet<&str> =
        changed.chain(transaction.expect.iter().map(|expectation| expectation.key.as_str())).collect();
    let looks: Vec<_> =
        keys.into_iter().take(OPERATIONS_MAX).map(|key| TxnOp::get(codec.encode_key(key), None)).collect();
    request.or_else(looks)
}

/// What was there when the expectations failed.
fn found(answer: &TxnResponse) -> Vec<KeyValue> {
    let mut pairs = Vec::new();
    for response in answer.op_responses() {
        if let TxnOpResponse::Get(mut response) = response {
            pairs.append(&mut response.take_kvs());
        }
    }
    pairs
}

/// Decides what an attempt in doubt did, by what a later attempt found when the expectations did not hold.
fn resolve(
    codec: &Codec,
    tag: Tag,
    transaction: &Transaction,
    found: &[KeyValue],
) -> Result<Revision, StoreError> {
    if let Some(ours) = found.iter().find(|pair| codec.is_tagged(pair.value(), tag)) {
        return unsigned(ours.mod_revision());
    }
    if transaction.changes.is_empty() {
        return Err(StoreError::Conflict);
    }
    let revision = |key: &str| {
        let key = codec.encode_key(key);
        found.iter().find(|pair| pair.key() == key).map_or(0, |pair| pair.mod_revision())
    };
    // Untouched where it would have left a mark: it did not take place. And broken for good, because a key never gets
    // an old revision back: it never will, even if the first attempt is still on its way.
    let untouched = transaction.changes.iter().any(|change| {
        expected(transaction, change.key())
            .is_some_and(|expected| expected > 0 && revision(change.key()) == signed(expected))
    });
    let broken_for_good = transaction.expect.iter().any(|expectation| {
        expectation.revision > 0 && revision(&expectation.key) != signed(expectation.revision)
    });
    if untouched && broken_for_good && transaction.expect.len() + transaction.changes.len() <= OPERATIONS_MAX
    {
        return Err(StoreError::Conflict);
    }
    Err(unknown("its first attempt got no answer, and the keys have changed since"))
}

fn unknown(why: &str) -> StoreError {
    StoreError::Unavailable(format!("it is unknown whether a commit took place: {why}"))
}

#[cfg(test)]
mod tests;
