//! Events of the audit trail: what happened, by whose hand, and what changed.

use std::{fmt, str::FromStr};

use fleetknock_core::{door::DoorName, host::HostName, identity::Role, source::Source, time::Timestamp};
use serde::{Deserialize, Serialize};

/// Names an event, unique in the fleet and rising with time: its milliseconds since the Unix epoch in 12 hexadecimal
/// digits, a dash, and 8 random ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId(String);

/// Something that does not name an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is named by 12 lower-case hexadecimal digits, a dash and 8 more")]
pub struct EventIdError;

impl EventId {
    /// Of an event at that time. `random` tells those of the same millisecond apart.
    pub fn new(at: Timestamp, random: u32) -> Self {
        // 48 bits of milliseconds last for 8,900 years.
        Self(format!("{:012x}-{random:08x}", at.as_millis() & 0xffff_ffff_ffff))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let is_hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match text.split_once('-') {
            Some((time, random))
                if time.len() == 12 && random.len() == 8 && is_hex(time) && is_hex(random) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(EventIdError),
        }
    }
}

impl TryFrom<String> for EventId {
    type Error = EventIdError;

    fn try_from(text: String) -> Result<Self, EventIdError> {
        text.parse()
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.0
    }
}

/// Who did something, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Such as `user alice`, `host db-1`, or `anybody` in plain text.
    pub who: String,
    /// What a user may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// How it showed who it is: `certificate`, `token ID` or `nothing`.
    pub by: String,
    /// The other end's address and port, textual.
    pub address: String,
}

/// A field that changed. Secrets are never spelled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Such as `spec.opens.for`.
    pub field: String,
    /// What it was.
    pub before: String,
    /// What it is.
    pub after: String,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its name.
    pub id: EventId,
    /// When, by the fleet's time.
    pub at: Timestamp,
    /// The name of its kind in the wire's `EventKind`, without its prefix: `DOOR_APPLIED`.
    pub code: String,
    /// Who wrote it.
    pub controller: HostName,
    /// By whose hand; nobody's for what happens by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// The door that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<DoorName>,
    /// The source that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The host that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// The id of the opening that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<String>,
    /// One sentence for people.
    pub message: String,
    /// What changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
}
