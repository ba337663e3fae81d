//! How keys and values look in etcd.
//!
//! ```text
//! key     /fleetknock/FLEET/doors/bastion-ssh
//! value   version (1 byte, 1)  tag of the commit (16 bytes)  the value itself
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::store::StoreError;

/// The layout of values.
const VERSION: u8 = 1;
const HEADER: usize = 1 + TAG;
const TAG: usize = 16;

/// Which commit wrote a value: unique per store opened, and within it per commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag([u8; TAG]);

/// Gives out tags.
#[derive(Debug)]
pub(super) struct Tags {
    opened: u64,
    next: AtomicU64,
}

impl Tags {
    /// Those of a store that is opened now. 64 random bits keep it apart from every other one that shares the cluster.
    pub(super) fn new() -> Self {
        Self { opened: rand::random(), next: AtomicU64::new(0) }
    }

    /// Another one.
    pub(super) fn next(&self) -> Tag {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut tag = [0; TAG];
        tag[..8].copy_from_slice(&self.opened.to_be_bytes());
        tag[8..].copy_from_slice(&number.to_be_bytes());
        Tag(tag)
    }
}

/// Translates for one fleet.
#[derive(Clone, Debug)]
pub(super) struct Codec {
    prefix: String,
}

impl Codec {
    pub(super) fn new(prefix: &str, fleet: &str) -> Self {
        Self { prefix: format!("{prefix}{fleet}/") }
    }

    pub(super) fn encode_key(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    pub(super) fn decode_key<'a>(&self, key: &'a [u8]) -> Result<&'a str, StoreError> {
        let ours = key.strip_prefix(self.prefix.as_bytes()).and_then(|key| str::from_utf8(key).ok());
        ours.ok_or_else(|| {
            let key = String::from_utf8_lossy(key);
            StoreError::Broken(format!("etcd's key {key:?} is not of this fleet; delete it"))
        })
    }

    /// The first key of a prefix, and the first key after all of them.
    pub(super) fn range(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let from = self.encode_key(prefix);
        let mut end = from.clone();
        // Prefixes are ASCII, so the last byte has room for one more.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        (from, end)
    }

    pub(super) fn encode_value(&self, tag: Tag, value: &[u8]) -> Vec<u8> {
        [&[VERSION], tag.0.as_slice(), value].concat()
    }

    pub(super) fn decode_value(&self, key: &str, stored: &[u8]) -> Result<Bytes, StoreError> {
        match stored.split_at_checked(HEADER) {
            Some(([VERSION, ..], value)) => Ok(Bytes::copy_from_slice(value)),
            _ => Err(StoreError::Broken(format!(
                "etcd's value of {}{key} was not written by fleetknock; delete the key",
                self.prefix
            ))),
        }
    }

    /// Whether a value was written by a commit.
    pub(super) fn is_tagged(&self, stored: &[u8], tag: Tag) -> bool {
        stored.first() == Some(&VERSION) && stored.get(1..HEADER) == Some(tag.0.as_slice())
    }
}

#[cfg(test)]
mod tests;
