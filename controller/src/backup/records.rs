//! What a backup holds, opened and parsed. Pure: what opens sealed values is an argument.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetknock_core::{door::DoorName, host::HostName, source::Source};
use serde::de::DeserializeOwned;

use super::file::Backup;
use crate::record::{
    AuditRecord, BanRecord, DoorRecord, EventId, HostRecord, Key, RecordError, TokenId, TokenRecord, decode,
};

/// The records of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Doors by name.
    pub doors: BTreeMap<DoorName, DoorRecord>,
    /// Hosts by name.
    pub hosts: BTreeMap<HostName, HostRecord>,
    /// Bans by source.
    pub bans: BTreeMap<Source, BanRecord>,
    /// Tokens by id.
    pub tokens: BTreeMap<TokenId, TokenRecord>,
    /// Events, the oldest first.
    pub events: BTreeMap<EventId, AuditRecord>,
}

/// Records that cannot be read: nothing of the backup is restored then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} of its records cannot be read here, so nothing is restored. The first is '{}': {}", .first.key, .first.reason)]
pub struct Unreadable {
    /// How many.
    pub count: usize,
    /// One of them, and why.
    pub first: RecordError,
}

impl Records {
    /// Reads all records of a backup. `open` opens what is sealed.
    ///
    /// # Errors
    /// [`Unreadable`] names the first record that is none, or the key with which it is sealed.
    pub fn of(backup: &Backup, open: impl Fn(&str, Bytes) -> Bytes) -> Result<Self, Unreadable> {
        let mut records = Self::default();
        let mut errors = Vec::new();
        for (key, value) in &backup.records {
            let value = open(&key.to_string(), value.clone());
            errors.extend(records.add(key, &value).err());
        }
        let count = errors.len();
        match errors.into_iter().next() {
            Some(first) => Err(Unreadable { count, first }),
            None => Ok(records),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let Self { doors, hosts, bans, tokens, events } = self;
        doors.len() + hosts.len() + bans.len() + tokens.len() + events.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add(&mut self, key: &Key, value: &[u8]) -> Result<(), RecordError> {
        match key {
            Key::Audit(id) => {
                let event = named(key, value, |event: &AuditRecord| event.id == *id)?;
                self.events.insert(id.clone(), event);
            }
            Key::Ban(source) => {
                let ban = named(key, value, |ban: &BanRecord| ban.source == *source)?;
                self.bans.insert(*source, ban);
            }
            Key::Door(name) => {
                let door = named(key, value, |record: &DoorRecord| {
                    let before = record.pending.as_ref().and_then(|pending| pending.before.as_ref());
                    record.door.name() == name && before.is_none_or(|before| before.name() == name)
                })?;
                self.doors.insert(name.clone(), door);
            }
            Key::Host(name) => {
                let host = named(key, value, |host: &HostRecord| host.name == *name)?;
                self.hosts.insert(name.clone(), host);
            }
            Key::Token(id) => {
                let token = named(key, value, |token: &TokenRecord| token.id == *id)?;
                self.tokens.insert(id.clone(), token);
            }
            // The file's reader lets none of these through.
            Key::Controller(_) | Key::Identity | Key::Opening(..) => {}
        }
        Ok(())
    }
}

/// A record that is about what its key names.
fn named<T: DeserializeOwned>(
    key: &Key,
    value: &[u8],
    is_its: impl Fn(&T) -> bool,
) -> Result<T, RecordError> {
    let record = decode(key, value)?;
    if is_its(&record) {
        return Ok(record);
    }
    Err(RecordError {
        key: key.to_string(),
        reason: "it is about something else than its key names".to_owned(),
    })
}
