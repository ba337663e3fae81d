//! What a decision writes to the store: one transaction per opening, withdrawal or ban.
//!
//! Pure. A transaction expects the records that the decision was made from; if one changed meanwhile the store refuses
//! it, and the decision is made again from the new ones. That, and one key per door and source, is what makes two
//! controllers that decide the same knock write one opening.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use fleetknock_core::{
    door::{DoorName, OPEN_FOR_MAX, STEPS_MAX},
    host::HostName,
    source::Source,
    time::Timestamp,
};
use serde::Serialize;

use crate::{
    audit,
    fleet::{Fleet, Held},
    record::{BanRecord, By, DoorRecord, Key, OpeningRecord, Packet, Withdrawn, encode},
    store::{Change, Expect, Transaction, VALUE_MAX},
};

/// Records of ended openings are kept for this long, for people who ask what happened.
pub const KEEP_ENDED: Duration = Duration::from_secs(3600);
/// At most this many bans that hold at the same time; further misses are ignored then, not recorded.
pub const BANS_MAX: usize = 10_000;

/// A knock that is older than the one that was answered last is told by the time of its last packet, too. The same
/// packet, sent again after a reconnection, is put at a slightly different time as the clocks are measured anew: each
/// time within its uncertainty, and this for what the uncertainties of different hosts differ. Nobody knocks a whole
/// sequence again so soon.
const SAME_KNOCK: Duration = Duration::from_millis(20);

/// A complete knock is answered within this time of its last packet, or not at all: whoever knocked has gone, or knocks
/// again. It leaves time for a lease to end and another controller to take over.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Packets that an opening remembers: those of the longest sequence, or of many short ones on as many hosts.
pub const ANSWERED_MAX: usize = STEPS_MAX;

/// A complete knock: when, and by which packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knocked {
    /// When its last packet was captured.
    pub at: Timestamp,
    /// Within what that is certain.
    pub uncertainty: Duration,
    /// The packet for its last step; nothing when the run of the agent that captured it is no longer known.
    pub end: Option<Packet>,
    /// Its packets, as far as they are known, that one among them.
    pub packets: Vec<Packet>,
}

/// What is asked to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which door.
    pub door: DoorName,
    /// For whom.
    pub source: Source,
    /// For how long; otherwise as the door says. Capped at [`OPEN_FOR_MAX`].
    pub duration: Option<Duration>,
    /// Nothing for an operator.
    pub knocked: Option<Knocked>,
    /// Who asks.
    pub by: By,
    /// Why, for the record.
    pub reason: String,
    /// The trace that this is part of, as a W3C traceparent.
    pub trace: Option<String>,
}

/// An opening that is ready to be committed.
#[derive(Clone, Debug)]
pub struct Granted {
    /// As it will be.
    pub opening: OpeningRecord,
    /// Makes it so.
    pub transaction: Transaction,
}

/// Why nothing is opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The source is banned.
    #[error(
        "{source_address} is banned until {until} ({reason}); lift it with: fleetknock unban {source_address}"
    )]
    Banned {
        /// Who.
        source_address: Source,
        /// Until when.
        until: Timestamp,
        /// Why.
        reason: String,
    },
    /// The record of the opening would be larger than the store takes.
    #[error(
        "the door '{door}' opens {hosts} hosts, more than fit into one opening's record ({VALUE_MAX} bytes); make several \
         doors that open fewer hosts each"
    )]
    TooManyHosts {
        /// Which door.
        door: DoorName,
        /// How many hosts match.
        hosts: usize,
    },
    /// The opening has answered this very knock already, or was taken back after it.
    #[error("this knock has been answered already")]
    Known,
    /// The knock was complete too long ago.
    #[error(
        "the knock was complete {late_by:?} before it could be answered, longer than {ANSWER_WITHIN:?}; knock again"
    )]
    Late {
        /// How long ago.
        late_by: Duration,
    },
    /// There is no such door (any more).
    #[error("there is no door '{0}'")]
    NoDoor(DoorName),
    /// A record could not be written as JSON.
    #[error("cannot encode the record: {0}")]
    Encode(String),
}

/// What a request is granted by.
struct Admitted<'a> {
    door: &'a Held<DoorRecord>,
    /// The opening that there is or was.
    held: Option<&'a Held<OpeningRecord>>,
}

/// Whether a request is to be granted, before anything is made of it.
fn admit<'a>(fleet: &'a Fleet, request: &Request, now: Timestamp) -> Result<Admitted<'a>, Refusal> {
    let Some(door) = fleet.doors().get(&request.door) else {
        return Err(Refusal::NoDoor(request.door.clone()));
    };
    if let Some(ban) = fleet.ban(request.source, now) {
        return Err(Refusal::Banned {
            source_address: request.source,
            until: ban.expires,
            reason: ban.reason.clone(),
        });
    }
    let held = fleet.openings().get(&(request.door.clone(), request.source));
    if let (Some(held), Some(knocked)) = (held, &request.knocked)
        && is_answered(&held.record, knocked)
    {
        return Err(Refusal::Known);
    }
    if let Some(knocked) = &request.knocked
        && now > knocked.at + ANSWER_WITHIN
    {
        return Err(Refusal::Late { late_by: now.since(knocked.at) });
    }
    Ok(Admitted { door, held })
}

/// Whether the opening that there is has answered this knock already: nothing comes of it.
pub fn is_known(fleet: &Fleet, request: &Request, now: Timestamp) -> bool {
    matches!(admit(fleet, request, now), Err(Refusal::Known))
}

/// Decides on a request: a new opening, or the one that there is, refreshed. `fresh_id` names a new one.
///
/// # Errors
/// When there is no such door, or the source is banned.
pub fn grant(fleet: &Fleet, request: &Request, fresh_id: &str, now: Timestamp) -> Result<Granted, Refusal> {
    let Admitted { door, held } = admit(fleet, request, now)?;
    let opens = door.record.door.opens();
    let expires = now + request.duration.unwrap_or(opens.duration).min(OPEN_FOR_MAX);
    let active = held.map(|held| &held.record).filter(|opening| opening.is_active(now));
    let opening = OpeningRecord {
        id: active.map_or_else(|| fresh_id.to_owned(), |opening| opening.id.clone()),
        door: request.door.clone(),
        source: request.source,
        ports: opens.ports.clone(),
        hosts: fleet.hosts_of(&door.record.door),
        opened: active.map_or(now, |opening| opening.opened),
        refreshed: now,
        expires: active.map_or(expires, |opening| opening.expires.max(expires)),
        generation: active.map_or(1, |opening| opening.generation.saturating_add(1)),
        by: request.by.clone(),
        reason: request.reason.clone(),
        knocked: request
            .knocked
            .as_ref()
            .map(|knocked| knocked.at)
            .max(held.and_then(|held| held.record.knocked)),
        answered: answered(request.knocked.as_ref(), held.map(|held| &held.record)),
        withdrawn: None,
        trace: request.trace.clone(),
    };
    let key = Key::Opening(request.door.clone(), request.source);
    let change = put(&key, &opening)?;
    if change.size() > VALUE_MAX {
        return Err(Refusal::TooManyHosts { door: opening.door, hosts: opening.hosts.len() });
    }
    let transaction = Transaction {
        expect: vec![
            expect(&key, held.map(|held| held.revision)),
            expect(&Key::Door(request.door.clone()), Some(door.revision)),
        ],
        changes: vec![change],
        lease: None,
    };
    Ok(Granted { opening, transaction })
}

/// Whether an opening answers that knock or a later one, or was taken back after it.
///
/// By its packets, a knock is answered when the one for its last step was not captured after the last that the same run
/// of the same agent captured for an answered knock. That holds whatever the clocks say: an agent numbers its packets.
/// Only the last step is asked for, because a new knock whose first packet is lost or late may be followed with the
/// first packet of an answered one. It is compared with every packet of the answered ones, because where steps overlap in
/// time the same packets may stand for other steps the next time.
fn is_answered(opening: &OpeningRecord, knocked: &Knocked) -> bool {
    let is_behind = |end: &Packet| {
        opening.answered.iter().any(|packet| packet.is_of_run(end) && end.counter <= packet.counter)
    };
    let same = SAME_KNOCK + knocked.uncertainty * 2;
    knocked.end.as_ref().is_some_and(is_behind)
        || opening.knocked.is_some_and(|last| knocked.at <= last + same)
        || opening.withdrawn.as_ref().is_some_and(|how| knocked.at <= how.at)
}

/// The packets of this knock and of those before it: of each run of an agent the last. When there are too many, those
/// of the earliest knocks are left out.
fn answered(knocked: Option<&Knocked>, held: Option<&OpeningRecord>) -> Vec<Packet> {
    let mut kept: Vec<Packet> = Vec::new();
    let new = knocked.into_iter().flat_map(|knocked| &knocked.packets);
    for packet in new.chain(held.into_iter().flat_map(|held| &held.answered)) {
        if let Some(known) = kept.iter_mut().find(|known| known.is_of_run(packet)) {
            known.counter = known.counter.max(packet.counter);
        } else if kept.len() < ANSWERED_MAX {
            kept.push(packet.clone());
        }
    }
    kept
}

/// Takes openings back. Those that are not active are left out; nothing is returned when none is left.
///
/// # Errors
/// When a record cannot be encoded.
pub fn withdraw(
    openings: &[&Held<OpeningRecord>],
    how: &Withdrawn,
    now: Timestamp,
) -> Result<Option<(Vec<OpeningRecord>, Transaction)>, Refusal> {
    let mut transaction = Transaction::default();
    let mut records = Vec::new();
    for held in openings.iter().filter(|held| held.record.is_active(now)) {
        let key = Key::Opening(held.record.door.clone(), held.record.source);
        let record = OpeningRecord { withdrawn: Some(how.clone()), ..held.record.clone() };
        transaction.expect.push(expect(&key, Some(held.revision)));
        transaction.changes.push(put(&key, &record)?);
        records.push(record);
    }
    Ok((!records.is_empty()).then_some((records, transaction)))
}

/// Bans a source, or changes its ban.
///
/// # Errors
/// When the record cannot be encoded.
pub fn ban(fleet: &Fleet, record: &BanRecord) -> Result<Transaction, Refusal> {
    let key = Key::Ban(record.source);
    let held = fleet.bans().get(&record.source);
    Ok(Transaction {
        expect: vec![expect(&key, held.map(|held| held.revision))],
        changes: vec![put(&key, record)?],
        lease: None,
    })
}

/// Clears away up to `limit` records that no longer say anything: bans and tokens that are over, openings that ended
/// [`KEEP_ENDED`] ago, and events whose time is up.
pub fn clear(fleet: &Fleet, now: Timestamp, limit: usize) -> Option<Transaction> {
    let bans = fleet.bans().values().filter(|held| held.record.expires <= now);
    let bans = bans.map(|held| (Key::Ban(held.record.source), held.revision));
    let openings = fleet.openings().values().filter(|held| {
        let ended =
            held.record.withdrawn.as_ref().map_or(held.record.expires, |how| how.at.min(held.record.expires));
        ended + KEEP_ENDED <= now
    });
    let openings =
        openings.map(|held| (Key::Opening(held.record.door.clone(), held.record.source), held.revision));
    let tokens = fleet.tokens().values().filter(|held| held.record.expires <= now);
    let tokens = tokens.map(|held| (Key::Token(held.record.id.clone()), held.revision));
    let mut transaction = Transaction::default();
    for (key, revision) in bans.chain(tokens).chain(openings).chain(audit::outdated(fleet, now)).take(limit) {
        transaction.expect.push(expect(&key, Some(revision)));
        transaction.changes.push(Change::Delete { key: key.to_string() });
    }
    (!transaction.changes.is_empty()).then_some(transaction)
}

/// The hosts on which a withdrawal or a refresh must be heard: those before and those after.
pub fn hosts_of_change(before: Option<&OpeningRecord>, after: &OpeningRecord) -> BTreeSet<HostName> {
    let before = before.into_iter().flat_map(|opening| opening.hosts.iter());
    before.chain(&after.hosts).cloned().collect()
}

/// The expectation that a record is as it was read; `None`: that there is none.
pub fn expect(key: &Key, revision: Option<u64>) -> Expect {
    Expect { key: key.to_string(), revision: revision.unwrap_or(0) }
}

/// The change that writes a record.
///
/// # Errors
/// When it cannot be encoded.
pub fn put<T: Serialize>(key: &Key, record: &T) -> Result<Change, Refusal> {
    let value: Bytes = encode(record).map_err(|error| Refusal::Encode(error.to_string()))?;
    Ok(Change::Put { key: key.to_string(), value })
}

#[cfg(test)]
mod tests;
