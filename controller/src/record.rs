//! What the store holds: one JSON document per door, host, opening, ban and controller, and the keys under which they lie.
//!
//! The store's contents are hostile until parsed: another version, another program or a hand may have written them.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use bytes::Bytes;
use fleetknock_core::{
    door::DoorName,
    host::{HostName, Labels, NameError},
    identity::UserName,
    port::Port,
    source::Source,
    time::Timestamp,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::seal;

pub mod audit;
pub mod door;
pub mod token;

pub use self::{
    audit::{Actor, AuditRecord, EventId, FieldChange},
    door::{DoorRecord, Owner, Pending},
    token::{Holder, TokenId, TokenRecord},
};

/// Everything of a fleet lies under these.
const DOORS: &str = "doors/";
const HOSTS: &str = "hosts/";
const OPENINGS: &str = "openings/";
const BANS: &str = "bans/";
const CONTROLLERS: &str = "controllers/";
const IDENTITY: &str = "identity";
const AUDIT: &str = "audit/";
const TOKENS: &str = "tokens/";

/// Where a record lies. One opening per door and source, one ban per source: the key makes them idempotent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An event of the audit trail.
    Audit(EventId),
    /// A ban.
    Ban(Source),
    /// A controller whose lease holds.
    Controller(HostName),
    /// A door.
    Door(DoorName),
    /// A host.
    Host(HostName),
    /// Who the fleet is.
    Identity,
    /// An opening.
    Opening(DoorName, Source),
    /// A token.
    Token(TokenId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audit(id) => write!(f, "{AUDIT}{id}"),
            Self::Token(id) => write!(f, "{TOKENS}{id}"),
            Self::Ban(source) => write!(f, "{BANS}{source}"),
            Self::Controller(name) => write!(f, "{CONTROLLERS}{name}"),
            Self::Door(name) => write!(f, "{DOORS}{name}"),
            Self::Host(name) => write!(f, "{HOSTS}{name}"),
            Self::Identity => f.write_str(IDENTITY),
            Self::Opening(door, source) => write!(f, "{OPENINGS}{door}/{source}"),
        }
    }
}

impl FromStr for Key {
    type Err = RecordError;

    fn from_str(key: &str) -> Result<Self, RecordError> {
        let unknown = |reason: String| RecordError { key: key.to_owned(), reason };
        if key == IDENTITY {
            return Ok(Self::Identity);
        }
        if let Some(name) = key.strip_prefix(DOORS) {
            return name.parse().map(Self::Door).map_err(|e| unknown(e.to_string()));
        }
        if let Some(name) = key.strip_prefix(HOSTS) {
            return name.parse().map(Self::Host).map_err(|e| unknown(e.to_string()));
        }
        if let Some(name) = key.strip_prefix(CONTROLLERS) {
            return name.parse().map(Self::Controller).map_err(|e: NameError| unknown(e.to_string()));
        }
        if let Some(id) = key.strip_prefix(AUDIT) {
            return id.parse().map(Self::Audit).map_err(|e: audit::EventIdError| unknown(e.to_string()));
        }
        if let Some(id) = key.strip_prefix(TOKENS) {
            return id.parse().map(Self::Token).map_err(|e: token::TokenIdError| unknown(e.to_string()));
        }
        if let Some(source) = key.strip_prefix(BANS) {
            return source.parse().map(Self::Ban).map_err(|e| unknown(e.to_string()));
        }
        if let Some((door, source)) = key.strip_prefix(OPENINGS).and_then(|rest| rest.split_once('/')) {
            let door = door.parse().map_err(|e: NameError| unknown(e.to_string()))?;
            let source =
                source.parse().map_err(|e: fleetknock_core::source::SourceError| unknown(e.to_string()))?;
            return Ok(Self::Opening(door, source));
        }
        Err(unknown("no record of this version lies under such a key".to_owned()))
    }
}

/// A host, as its agent last described it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its name.
    pub name: HostName,
    /// By which doors choose it.
    pub labels: Labels,
    /// Where it can be knocked, for people.
    pub addresses: Vec<String>,
    /// Networks that pass its guard and are never banned.
    pub management: BTreeSet<IpNet>,
    /// The agent's version.
    pub version: String,
    /// The firewall driver in use.
    pub firewall: String,
    /// When it first reported.
    pub created: Timestamp,
}

/// A controller that takes part: its key is bound to its lease, and the key's revision is its *epoch*.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its name.
    pub name: HostName,
    /// Where the other controllers reach it, a URL.
    pub address: String,
    /// Its version.
    pub version: String,
    /// When its process started, by its own clock.
    pub started: Timestamp,
}

/// Who the fleet is, written once by the first of its controllers. By it a store that was emptied is told from one that
/// never held a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    /// Random, 32 hexadecimal digits.
    pub id: String,
    /// The store was set up by the controller that wrote this, and nothing shows yet that it is the fleet's: no host that it
    /// knows has come back, and nobody restored a backup. It may stand where the fleet's store was lost, so hosts that keep
    /// guard and that it does not know are not told what it holds, which would take their guard off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new: bool,
    /// Such a host came and was turned away: only an operator can say now that a store that is `new` is the fleet's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missed: bool,
}

/// Who asked for an opening or a ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// A completed knock.
    Knock,
    /// An operator whose name is not known.
    Operator,
    /// The policy on misses.
    Policy,
    /// An operator.
    User(UserName),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Knock => f.write_str("knock"),
            Self::Operator => f.write_str("operator"),
            Self::Policy => f.write_str("policy"),
            Self::User(name) => write!(f, "user {name}"),
        }
    }
}

/// A granted hole: one source, some hosts, some ports, an expiry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningRecord {
    /// Unique among all openings ever.
    pub id: String,
    /// The door that was opened.
    pub door: DoorName,
    /// For whom.
    pub source: Source,
    /// The door's ports at that time.
    pub ports: BTreeSet<Port>,
    /// The hosts that matched at that time.
    pub hosts: BTreeSet<HostName>,
    /// When it was granted.
    pub opened: Timestamp,
    /// When it was last granted again.
    pub refreshed: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// 1 at first, one more with each refresh.
    pub generation: u64,
    /// Who asked last.
    pub by: By,
    /// Why, if an operator said so.
    #[serde(default)]
    pub reason: String,
    /// When the last knock that it answers was captured. Agents send again what they keep when they reconnect; a
    /// knock that is not later than this is that same knock.
    #[serde(default)]
    pub knocked: Option<Timestamp>,
    /// By which packets such a knock is recognised whatever the clocks say: of each run of a host's agent the last
    /// that stood in an answered knock, the latest answer first.
    #[serde(default)]
    pub answered: Vec<Packet>,
    /// Set once it was taken back before its time.
    #[serde(default)]
    pub withdrawn: Option<Withdrawn>,
    /// The trace of what opened it last, as a W3C traceparent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// A captured packet, named so that every controller means the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Where it was captured.
    pub host: HostName,
    /// By which run of that host's agent: the number that the agent drew.
    pub boot: Boot,
    /// Rises with each packet of that run, in the order of their capture.
    pub counter: u64,
}

impl Packet {
    /// Whether both were captured by one run of one agent.
    pub fn is_of_run(&self, other: &Self) -> bool {
        (&self.host, self.boot) == (&other.host, other.boot)
    }
}

/// The random number by which one run of an agent is told from another. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Boot(pub [u8; 16]);

/// Such a number that is written otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run of an agent is named by 16 bytes, in text by 32 lower-case hexadecimal digits")]
pub struct BootError;

impl TryFrom<&[u8]> for Boot {
    type Error = BootError;

    fn try_from(bytes: &[u8]) -> Result<Self, BootError> {
        bytes.try_into().map(Self).map_err(|_| BootError)
    }
}

impl From<Boot> for String {
    fn from(boot: Boot) -> Self {
        format!("{:032x}", u128::from_be_bytes(boot.0))
    }
}

impl TryFrom<String> for Boot {
    type Error = BootError;

    fn try_from(text: String) -> Result<Self, BootError> {
        let number = u128::from_str_radix(&text, 16).map_err(|_| BootError)?;
        let boot = Self(number.to_be_bytes());
        // One spelling of each: no signs, no upper case, no digits left out.
        (String::from(boot) == text).then_some(boot).ok_or(BootError)
    }
}

impl OpeningRecord {
    /// Whether it lets anybody in at that time, as far as it alone can say.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.withdrawn.is_none() && self.expires > now
    }

    /// How much longer it lasts.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.expires.since(now)
    }
}

/// How an opening was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// When.
    pub at: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// Established connections are cut as well.
    pub kill_connections: bool,
}

/// A source whose knocks are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRecord {
    /// Who.
    pub source: Source,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub expires: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// Who banned.
    pub by: By,
}

/// The form of the documents. A reader refuses a newer one; 2 is that of a sealed one ([`seal::FORMAT`]).
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    record: T,
}

/// The bytes of a record as the store holds them.
///
/// # Errors
/// Never for the records of this module; serialisation's own error otherwise.
pub fn encode<T: Serialize>(record: &T) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(&Envelope { format: FORMAT, record }).map(Bytes::from)
}

/// Reads what the store holds under a key.
///
/// # Errors
/// When the bytes are not such a record, or of a newer format.
pub fn decode<T: DeserializeOwned>(key: &Key, bytes: &[u8]) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let wrong = |reason: String| RecordError { key: key.to_string(), reason };
    // serde_json's errors give a place, never the contents.
    let place = |e: serde_json::Error| format!("not a record: line {} column {}", e.line(), e.column());
    let Format { format } = serde_json::from_slice(bytes).map_err(|e| wrong(place(e)))?;
    if format == seal::FORMAT {
        return Err(wrong(seal::why_unopened(bytes)));
    }
    if format > FORMAT {
        return Err(wrong(format!(
            "its format {format} is newer than this version's {FORMAT}; upgrade this controller"
        )));
    }
    let envelope: Envelope<T> = serde_json::from_slice(bytes).map_err(|e| wrong(place(e)))?;
    Ok(envelope.record)
}

/// Something in the store that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store's record '{key}' is left aside: {reason}")]
pub struct RecordError {
    /// Where it lies.
    pub key: String,
    /// What is wrong with it; never its contents, which may be secret.
    pub reason: String,
}

#[cfg(test)]
mod tests;
