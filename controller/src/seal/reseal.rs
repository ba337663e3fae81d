//! Seals every secret record of a store anew with the first key of the ring.
//!
//! One compare-and-swap per record, so that it may run while controllers serve, be broken off, and be run again: what is
//! sealed with the first key already is only looked at.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{KeyId, Keyring, State, keyring::state_of, lies_under};
use crate::store::{Change, Entry, Expect, Revision, Store, StoreError, Transaction};

/// How often the store is gone through: controllers that seal with another key may write meanwhile.
const PASSES_MAX: usize = 3;
/// How often one record is tried when somebody else changes it, or the store is away.
const TRIES_MAX: u32 = 8;
/// Between tries while the store is away.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// How many secret records there are, by what seals them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// In the clear.
    pub clear: usize,
    /// Sealed, by the key's name.
    pub sealed: BTreeMap<KeyId, usize>,
    /// No records, newer ones, or torn seals.
    pub strange: usize,
}

impl Census {
    fn of(entries: &[Entry]) -> Self {
        let mut census = Self::default();
        for entry in entries {
            match state_of(&entry.value) {
                State::Clear => census.clear += 1,
                State::Sealed(id) => *census.sealed.entry(id).or_default() += 1,
                State::Strange => census.strange += 1,
            }
        }
        census
    }

    /// Whether all are sealed with this key.
    pub fn is_all_of(&self, id: &KeyId) -> bool {
        self.clear == 0 && self.strange == 0 && self.sealed.keys().all(|sealed| sealed == id)
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<_> =
            self.sealed.iter().map(|(id, count)| format!("{count} sealed with '{id}'")).collect();
        if self.clear > 0 {
            parts.push(format!("{} in the clear", self.clear));
        }
        if self.strange > 0 {
            parts.push(format!("{} that cannot be read", self.strange));
        }
        if parts.is_empty() {
            parts.push("no secret records".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

/// What resealing did.
#[derive(Debug)]
pub struct Report {
    /// As it was.
    pub before: Census,
    /// As it is.
    pub after: Census,
    /// Records that were sealed anew.
    pub resealed: usize,
    /// What was left as it is: where it lies, and why.
    pub left: Vec<(String, String)>,
}

/// Seals with the first key whatever lies under the prefixes. `progress` is told how many of how many records of a pass
/// have been looked at.
///
/// # Errors
/// When the store stays away, or [`StoreError::Invalid`] when there is no key to seal with.
pub async fn reseal(
    store: &dyn Store,
    keyring: &Keyring,
    secrets: &[&str],
    mut progress: impl FnMut(usize, usize),
) -> Result<Report, StoreError> {
    let first =
        keyring.first().ok_or_else(|| StoreError::Invalid("there is no key to seal with".to_owned()))?;
    let mut entries = list(store, secrets).await?;
    let mut report =
        Report { before: Census::of(&entries), after: Census::default(), resealed: 0, left: Vec::new() };
    for _pass in 0..PASSES_MAX {
        report.left.clear();
        let count = entries.len();
        let mut resealed = 0;
        for (index, entry) in (1..).zip(entries) {
            let key = entry.key.clone();
            match reseal_one(store, keyring, first, entry).await? {
                Fate::Resealed => resealed += 1,
                Fate::Fine => {}
                Fate::Left(why) => report.left.push((key, why)),
            }
            progress(index, count);
        }
        report.resealed += resealed;
        entries = list(store, secrets).await?;
        report.after = Census::of(&entries);
        if resealed == 0 || report.after.is_all_of(first) {
            break;
        }
    }
    Ok(report)
}

enum Fate {
    /// Sealed with the first key already, or gone.
    Fine,
    Left(String),
    Resealed,
}

async fn reseal_one(
    store: &dyn Store,
    keyring: &Keyring,
    first: &KeyId,
    mut entry: Entry,
) -> Result<Fate, StoreError> {
    for turn in 1..=TRIES_MAX {
        let state = state_of(&entry.value);
        if state == State::Strange {
            return Ok(Fate::Left("it is no record that this version can read".to_owned()));
        }
        let plain = match keyring.open(&entry.key, &entry.value) {
            Ok(plain) => plain,
            Err(why) => return Ok(Fate::Left(why.to_string())),
        };
        if state == State::Sealed(first.clone()) {
            return Ok(Fate::Fine);
        }
        let sealed = keyring.seal(&entry.key, &plain, rand::random());
        let value = match sealed {
            Ok(value) => value,
            Err(why) => return Ok(Fate::Left(why.to_string())),
        };
        let key = entry.key.clone();
        match store.commit(swap(&key, entry.revision, Change::Put { key: key.clone(), value })).await {
            Ok(_) => return Ok(Fate::Resealed),
            // Nobody knows what became of that one; what the store holds now tells.
            Err(error) if error.is_retryable() && turn < TRIES_MAX => tokio::time::sleep(RETRY_EVERY).await,
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
        match store.get(&key).await? {
            Some(changed) => entry = changed,
            None => return Ok(Fate::Fine),
        }
    }
    Ok(Fate::Left("somebody else changes it all the time".to_owned()))
}

fn swap(key: &str, revision: Revision, change: Change) -> Transaction {
    let expect = vec![Expect { key: key.to_owned(), revision }];
    Transaction { expect, changes: vec![change], lease: None }
}

async fn list(store: &dyn Store, secrets: &[&str]) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for prefix in secrets {
        entries.extend(store.list(prefix).await?.entries);
    }
    entries.retain(|entry| lies_under(&entry.key, secrets));
    Ok(entries)
}

#[cfg(test)]
mod tests;
