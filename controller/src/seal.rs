//! Keeps what is secret out of the store: doors, whose sequences let people in, lie there sealed with a key that the
//! store does not have.
//!
//! [`Sealed`] stands before a store and is one itself, so that nobody else has to know. Who can read the store, such as
//! everybody with its backup, learns doors' names, hosts, openings and bans, and no step of a door. Who can write to it
//! can still do harm: take records away, put older ones back, or write a record in the clear, which is read for the sake
//! of fleets that had no key.
//!
//! A value that cannot be opened is no reason to fail a listing of everything else. [`Sealed`] hands it on as a value
//! that says why, and the parser of records refuses that with the reason ([`why_unopened`]).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use crate::store::{
    Change, Entry, Lease, LeaseId, Listing, Revision, Store, StoreError, Transaction, Watch,
    bounds::check_transaction,
};

pub use self::{
    key::{KeyId, SealKey, SealKeyError},
    keyring::{FORMAT, Keyring, KeyringError, OpenError, SealError, State},
    source::KeySourceError,
};

pub mod command;
pub mod key;
pub mod keyring;
pub mod reseal;
pub mod source;

/// What is secret lies under these. A record joins by having its key begin with one of them.
pub const SECRETS: &[&str] = &["doors/"];

/// Whether what lies under a key of the store is secret.
pub fn is_secret(key: &str) -> bool {
    lies_under(key, SECRETS)
}

fn lies_under(key: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| key.starts_with(prefix))
}

/// A store of which some values are sealed. Without a key they lie in the clear.
pub struct Sealed {
    store: Arc<dyn Store>,
    seals: Arc<Seals>,
}

struct Seals {
    keyring: Keyring,
    secrets: &'static [&'static str],
    said_clear: AtomicBool,
}

impl Sealed {
    /// Seals what is secret in a store.
    pub fn new(store: Arc<dyn Store>, keyring: Keyring) -> Self {
        Self::of(store, keyring, SECRETS)
    }

    /// Seals what lies under these prefixes.
    pub fn of(store: Arc<dyn Store>, keyring: Keyring, secrets: &'static [&'static str]) -> Self {
        let seals = Seals { keyring, secrets, said_clear: AtomicBool::new(false) };
        Self { store, seals: Arc::new(seals) }
    }
}

impl Seals {
    fn open(&self, key: &str, value: Bytes) -> Bytes {
        if !lies_under(key, self.secrets) {
            return value;
        }
        self.keyring
            .open(key, &value)
            .unwrap_or_else(|why| Unopened { format: FORMAT, unopened: why }.encode())
    }

    fn open_change(&self, change: Change) -> Change {
        match change {
            Change::Delete { key } => Change::Delete { key },
            Change::Put { key, value } => Change::Put { value: self.open(&key, value), key },
        }
    }

    fn seal_change(&self, change: Change) -> Result<Change, StoreError> {
        match change {
            Change::Put { key, value } if lies_under(&key, self.secrets) => {
                let sealed = self.keyring.seal(&key, &value, rand::random());
                let value =
                    sealed.map_err(|why| StoreError::Invalid(format!("the value of {key:?}: {why}")))?;
                Ok(Change::Put { key, value })
            }
            change => Ok(change),
        }
    }

    /// Says once that records from before there was a key still lie in the clear.
    fn say_clear(&self, entries: &[Entry]) {
        if self.keyring.is_empty() || self.said_clear.load(Ordering::Relaxed) {
            return;
        }
        let is_clear = |entry: &&Entry| {
            lies_under(&entry.key, self.secrets) && keyring::state_of(&entry.value) == State::Clear
        };
        let count = entries.iter().filter(is_clear).count();
        if count > 0 && !self.said_clear.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                count,
                "secret records lie in the store in the clear, from before there was a --seal-key: run \
                 fleetknock-controller reseal"
            );
        }
    }
}

#[async_trait]
impl Store for Sealed {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let entry = self.store.get(key).await?;
        Ok(entry.map(|entry| Entry { value: self.seals.open(&entry.key, entry.value), ..entry }))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let mut listing = self.store.list(prefix).await?;
        self.seals.say_clear(&listing.entries);
        for entry in &mut listing.entries {
            entry.value = self.seals.open(&entry.key, std::mem::take(&mut entry.value));
        }
        Ok(listing)
    }

    async fn list_as_it_lies(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.store.list_as_it_lies(prefix).await
    }

    fn open_value(&self, key: &str, value: Bytes) -> Bytes {
        self.seals.open(key, value)
    }

    /// A sealed value takes a third more room than what is sealed, and has to keep to the store's bounds too.
    async fn commit(&self, mut transaction: Transaction) -> Result<Revision, StoreError> {
        check_transaction(&transaction)?;
        let changes = transaction.changes.into_iter().map(|change| self.seals.seal_change(change));
        transaction.changes = changes.collect::<Result<_, _>>()?;
        self.store.commit(transaction).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let (watch, seals) = (self.store.watch(prefix, after).await?, Arc::clone(&self.seals));
        Ok(Box::pin(watch.map(move |next| {
            let mut changes = next?;
            changes.changes = changes.changes.into_iter().map(|change| seals.open_change(change)).collect();
            Ok(changes)
        })))
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.store.probe().await
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.store.lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.store.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke(lease).await
    }
}

/// What stands for a value that cannot be opened. It never comes from the store: there it would be a torn seal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unopened {
    format: u32,
    unopened: OpenError,
}

impl Unopened {
    fn encode(&self) -> Bytes {
        // Never fails for such a value; what is empty is no record either.
        serde_json::to_vec(self).map(Bytes::from).unwrap_or_default()
    }
}

/// Why a value of [`FORMAT`], which is no record, has not been opened.
pub fn why_unopened(value: &[u8]) -> String {
    match (serde_json::from_slice::<Unopened>(value), keyring::state_of(value)) {
        (Ok(Unopened { unopened, .. }), _) => unopened.to_string(),
        (Err(_), State::Sealed(id)) => OpenError::UnknownKey(id).to_string(),
        (Err(_), _) => OpenError::Torn.to_string(),
    }
}

#[cfg(test)]
mod tests;
