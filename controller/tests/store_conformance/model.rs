//! Random transactions, on a store and on a map that cannot be wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use fleetknock_controller::store::{Change, Changes, Expect, Revision, StoreError, Transaction};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;
use tokio::task;

use crate::support::*;

const CASES: u32 = 40;
const KEYS: [&str; 5] = ["a", "a/b", "ab", "b", "b/a"];

/// What a step expects of a key.
#[derive(Clone, Copy, Debug)]
enum Expectation {
    Current,
    Absent,
    Stale,
}

#[derive(Clone, Debug)]
struct Step {
    expect: BTreeMap<usize, Expectation>,
    /// `None` deletes.
    changes: BTreeMap<usize, Option<Vec<u8>>>,
}

pub(crate) async fn random_transactions_agree_with_a_map(store: &Shared) {
    let (store, handle) = (store.clone(), Handle::current());
    // The runner is not async and prints what failed, shrunk; it gets a thread of its own.
    let runner = task::spawn_blocking(move || {
        let case = AtomicU32::new(0);
        let config =
            Config { cases: CASES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
        TestRunner::new(config).run(&steps(), |steps| {
            let case = case.fetch_add(1, Ordering::Relaxed);
            handle.block_on(agrees(&store, &format!("case-{case}/"), &steps))
        })
    });
    runner.await.unwrap().unwrap();
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let expectation = prop_oneof![4 => Just(Expectation::Current), 1 => Just(Expectation::Absent), 1 => Just(Expectation::Stale)];
    let change = proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..4));
    let step = (
        proptest::collection::btree_map(0..KEYS.len(), expectation, 0..3),
        proptest::collection::btree_map(0..KEYS.len(), change, 0..4),
    );
    proptest::collection::vec(step.prop_map(|(expect, changes)| Step { expect, changes }), 1..25)
}

async fn agrees(store: &Shared, prefix: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model: BTreeMap<String, (Bytes, Revision)> = BTreeMap::new();
    let mut told = vec![];
    let start = revision(store).await;
    let mut last = start;
    let mut watch = store.watch(prefix, start).await.unwrap();
    for step in steps {
        let transaction = transaction(&model, prefix, step);
        let known = |key: &str| model.get(key).map_or(0, |(_, revision)| *revision);
        let holds = transaction.expect.iter().all(|expect| known(&expect.key) == expect.revision);
        let verdict = store.commit(transaction.clone()).await;
        if !holds {
            prop_assert!(matches!(verdict, Err(StoreError::Conflict)), "{:?}: {:?}", transaction, verdict);
            continue;
        }
        let revision = verdict.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut changes = transaction.changes;
        changes.retain(|change| matches!(change, Change::Put { .. }) || model.contains_key(change.key()));
        prop_assert_eq!(revision > last, !changes.is_empty());
        last = revision;
        for change in &changes {
            match change {
                Change::Delete { key } => drop(model.remove(key)),
                Change::Put { key, value } => drop(model.insert(key.clone(), (value.clone(), revision))),
            }
        }
        if !changes.is_empty() {
            told.push(Changes { revision, changes });
        }
        let listing = store.list(prefix).await.unwrap();
        prop_assert_eq!(listing.revision, revision);
        let listed: BTreeMap<_, _> =
            listing.entries.into_iter().map(|entry| (entry.key, (entry.value, entry.revision))).collect();
        prop_assert_eq!(&listed, &model);
    }
    let mut again = store.watch(prefix, start).await.unwrap();
    for watch in [&mut watch, &mut again] {
        let mut heard = take(watch, told.len()).await;
        // Within one commit the order of changes means nothing.
        heard.iter_mut().for_each(|changes| changes.changes.sort_by(|one, other| one.key().cmp(other.key())));
        prop_assert_eq!(&heard, &told);
    }
    Ok(())
}

fn transaction(model: &BTreeMap<String, (Bytes, Revision)>, prefix: &str, step: &Step) -> Transaction {
    let key = |index: &usize| format!("{prefix}{}", KEYS[*index]);
    let expect = step.expect.iter().map(|(index, expectation)| {
        let key = key(index);
        let current = model.get(&key).map_or(0, |(_, revision)| *revision);
        let revision = match expectation {
            Expectation::Current => current,
            Expectation::Absent => 0,
            Expectation::Stale => current.saturating_sub(1),
        };
        Expect { key, revision }
    });
    let changes = step.changes.iter().map(|(index, value)| match value {
        Some(value) => put(&key(index), value.clone()),
        None => delete(&key(index)),
    });
    let mut changes: Vec<_> = changes.collect();
    changes.sort_by(|one, other| one.key().cmp(other.key()));
    Transaction { expect: expect.collect(), changes, lease: None }
}
