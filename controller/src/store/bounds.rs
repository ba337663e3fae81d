//! What every store refuses before it does anything, so that what one implementation takes the other takes too.

use std::collections::HashSet;
use std::time::Duration;

use super::{
    CHANGES_MAX, Change, KEY_MAX, LEASE_MAX, LEASE_MIN, StoreError, TRANSACTION_MAX, Transaction, VALUE_MAX,
};

impl Change {
    /// The key it changes.
    pub fn key(&self) -> &str {
        match self {
            Self::Delete { key } | Self::Put { key, .. } => key,
        }
    }

    /// The bytes of its key and value.
    pub fn size(&self) -> usize {
        match self {
            Self::Delete { key } => key.len(),
            Self::Put { key, value } => key.len() + value.len(),
        }
    }
}

/// Refuses a key that is not a `/`-separated path of printable ASCII without empty parts, or too long.
///
/// # Errors
///
/// [`StoreError::Invalid`].
pub fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::Invalid("a key is empty".to_owned()));
    }
    check_path("key", key)?;
    if key.ends_with('/') {
        return Err(StoreError::Invalid(format!("key {key:?} ends with a slash")));
    }
    Ok(())
}

/// Refuses a prefix that no key could begin with. The empty prefix is every key's.
///
/// # Errors
///
/// [`StoreError::Invalid`].
pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    check_path("prefix", prefix)
}

/// Refuses a transaction beyond the bounds, or one that changes a key twice.
///
/// # Errors
///
/// [`StoreError::Invalid`].
pub fn check_transaction(transaction: &Transaction) -> Result<(), StoreError> {
    let Transaction { expect, changes, .. } = transaction;
    for (what, count) in [("expectations", expect.len()), ("changes", changes.len())] {
        if count > CHANGES_MAX {
            return Err(StoreError::Invalid(format!(
                "{count} {what} in one transaction; at most {CHANGES_MAX}"
            )));
        }
    }
    for expectation in expect {
        check_key(&expectation.key)?;
    }
    let mut keys = HashSet::with_capacity(changes.len());
    let mut size = 0;
    for change in changes {
        check_key(change.key())?;
        if let Change::Put { key, value } = change
            && value.len() > VALUE_MAX
        {
            return Err(StoreError::Invalid(format!(
                "the value of {key:?} has {} bytes; at most {VALUE_MAX}",
                value.len()
            )));
        }
        if !keys.insert(change.key()) {
            return Err(StoreError::Invalid(format!(
                "key {:?} is changed twice in one transaction",
                change.key()
            )));
        }
        size += change.size();
    }
    if size > TRANSACTION_MAX {
        return Err(StoreError::Invalid(format!(
            "{size} bytes of keys and values in one transaction; at most {TRANSACTION_MAX}"
        )));
    }
    Ok(())
}

/// Refuses a lease that is too short or too long.
///
/// # Errors
///
/// [`StoreError::Invalid`].
pub fn check_ttl(ttl: Duration) -> Result<(), StoreError> {
    if (LEASE_MIN..=LEASE_MAX).contains(&ttl) {
        return Ok(());
    }
    Err(StoreError::Invalid(format!("a lease of {ttl:?}; it must last from {LEASE_MIN:?} to {LEASE_MAX:?}")))
}

fn check_path(what: &str, path: &str) -> Result<(), StoreError> {
    // The length first: nothing below may print an unbounded key.
    if path.len() > KEY_MAX {
        return Err(StoreError::Invalid(format!("a {what} has {} bytes; at most {KEY_MAX}", path.len())));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(StoreError::Invalid(format!(
            "{what} {path:?} holds something else than printable ASCII"
        )));
    }
    if path.starts_with('/') || path.contains("//") {
        return Err(StoreError::Invalid(format!("{what} {path:?} has an empty part")));
    }
    Ok(())
}
