//! What restoring a backup changes. Pure: it takes the fleet's copy and the fleet's time, so that a change that lost a race
//! is decided anew.
//!
//! By default records are added and changed, and none is removed. What the store knows better than the file stays: a
//! host's own word, a ban that lasts longer. Doors come first: agents that wait for the restore
//! ([`Fleet::is_of_another_store`]) are let in when their hosts are known, which are written after all doors.

use std::collections::BTreeSet;

use fleetknock_core::{door::DoorName, source::Source, time::Timestamp};
use fleetknock_proto::v1 as pb;
use serde::Serialize;

use super::records::Records;
use crate::{
    audit::{AUDIT_KEEP, AUDIT_MAX},
    control_api::doors::differences,
    fleet::{Fleet, Held},
    grant::{self, Refusal},
    record::{AuditRecord, BanRecord, DoorRecord, HostRecord, Key, TokenId, TokenRecord},
    store::{Change, Revision},
};

/// What is to be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Remove doors and bans that are not in the file, and tokens when those are restored.
    pub replace: bool,
    /// Restore tokens.
    pub tokens: bool,
}

/// What the store shall hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A ban.
    Ban(BanRecord),
    /// A door, with nothing that waits to be confirmed but what still can be.
    Door(Box<DoorRecord>),
    /// An event.
    Event(Box<AuditRecord>),
    /// A host, unless it is known.
    Host(Box<HostRecord>),
    /// No ban of this source.
    NoBan(Source),
    /// No door of this name.
    NoDoor(DoorName),
    /// No token of this id.
    NoToken(TokenId),
    /// A token, unless it is known.
    Token(TokenRecord),
}

/// One change of the store.
#[derive(Clone, Debug)]
pub struct Step {
    /// Of which record.
    pub key: Key,
    /// Whether it is added, changed or removed.
    pub action: pb::RestoreAction,
    /// Of the record as it is; nothing when there is none.
    pub expect: Option<Revision>,
    /// What is written.
    pub change: Change,
    /// What else there is to say, for people; no secret.
    pub note: String,
}

/// What a backup's records come to here and now.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// In the order in which they are to be written.
    pub targets: Vec<Target>,
    /// Records of the file that are not restored.
    pub left_out: usize,
    /// What the operator should know, for people.
    pub remarks: Vec<String>,
}

/// What shall be restored of these records. `is_management` tells sources that are never banned.
pub fn targets(
    records: &Records,
    fleet: &Fleet,
    options: Options,
    at: Timestamp,
    is_management: impl Fn(Source) -> bool,
) -> Targets {
    let mut all = Targets::default();
    let Records { doors, hosts, bans, tokens, events } = records;
    let settled: Vec<_> = doors.values().map(|record| settle(record, at)).collect();
    all.leave_out(
        settled.iter().filter(|door| door.is_none()).count(),
        "new doors that nobody confirmed in time",
    );
    all.targets.extend(settled.into_iter().flatten().map(|door| Target::Door(Box::new(door))));
    if options.replace {
        let more = fleet.doors().keys().filter(|name| !doors.contains_key(*name));
        all.targets.extend(more.cloned().map(Target::NoDoor));
    }
    all.targets.extend(hosts.values().cloned().map(|host| Target::Host(Box::new(host))));

    let over = bans.values().filter(|ban| ban.expires <= at).count();
    all.leave_out(over, "bans that are over");
    let (never, good): (Vec<_>, Vec<_>) =
        bans.values().filter(|ban| ban.expires > at).partition(|ban| is_management(ban.source));
    all.leave_out(never.len(), "bans of management networks");
    all.targets.extend(good.into_iter().cloned().map(Target::Ban));
    if options.replace {
        let more = fleet.bans().iter().filter(|(source, held)| {
            held.record.expires > at && bans.get(*source).is_none_or(|ban| ban.expires <= at)
        });
        all.targets.extend(more.map(|(source, _)| Target::NoBan(*source)));
    }

    let (good, over): (Vec<_>, Vec<_>) = tokens.values().partition(|token| token.expires > at);
    all.leave_out(over.len(), "tokens that are over");
    if options.tokens {
        all.targets.extend(good.into_iter().cloned().map(Target::Token));
        if options.replace {
            let more = fleet.tokens().keys().filter(|id| !tokens.contains_key(*id));
            all.targets.extend(more.cloned().map(Target::NoToken));
        }
    } else {
        let why = "tokens (--tokens restores them, also those that were revoked or spent since)";
        all.leave_out(good.len(), why);
    }

    let kept = events.values().filter(|event| event.at + AUDIT_KEEP > at);
    let kept: BTreeSet<_> = kept.map(|event| &event.id).collect();
    let new = kept.iter().filter(|id| !fleet.audit().contains_key(**id)).count();
    // The newest fill what room there is; each door that is written leaves an event of its own.
    let room = AUDIT_MAX.saturating_sub(fleet.audit().len() + all.targets.len().min(AUDIT_MAX / 2));
    let oldest = new.saturating_sub(room);
    let new = kept.into_iter().filter(|id| !fleet.audit().contains_key(*id)).skip(oldest);
    let new: Vec<_> = new.filter_map(|id| events.get(id)).cloned().collect();
    let known = events.keys().filter(|id| fleet.audit().contains_key(*id)).count();
    all.leave_out(events.len() - known - new.len(), "events that are too old, or for which there is no room");
    all.targets.extend(new.into_iter().map(|event| Target::Event(Box::new(event))));
    all
}

impl Targets {
    fn leave_out(&mut self, count: usize, what: &str) {
        if count > 0 {
            self.left_out += count;
            self.remarks.push(format!("left out: {count} {what}"));
        }
    }
}

/// A door as it is restored: a change that waits to be confirmed waits on while it can be, and is rolled back otherwise.
/// Nothing when there was no door before that change.
fn settle(record: &DoorRecord, at: Timestamp) -> Option<DoorRecord> {
    match &record.pending {
        Some(pending) if pending.until <= at => {
            let door = pending.before.clone()?;
            Some(DoorRecord { door, pending: None, rolled_back: Some(pending.until), ..record.clone() })
        }
        _ => Some(record.clone()),
    }
}

impl Target {
    /// What is to be changed for it to be so; nothing when it is.
    ///
    /// # Errors
    /// When a record cannot be encoded.
    pub fn step(&self, fleet: &Fleet, at: Timestamp) -> Result<Option<Step>, Refusal> {
        match self {
            Self::Ban(ban) => {
                let held = fleet.bans().get(&ban.source);
                if held.is_some_and(|held| held.record.expires >= ban.expires) || ban.expires <= at {
                    return Ok(None);
                }
                put(Key::Ban(ban.source), held, ban, format!("until {}: {}", ban.expires, ban.reason))
                    .map(Some)
            }
            Self::Door(door) => {
                let held = fleet.doors().get(door.door.name());
                let same = |held: &DoorRecord| {
                    DoorRecord {
                        created: held.created,
                        updated: held.updated,
                        rolled_back: None,
                        ..(**door).clone()
                    } == DoorRecord { rolled_back: None, ..held.clone() }
                };
                if held.is_some_and(|held| same(&held.record)) {
                    return Ok(None);
                }
                let created = held.map_or(door.created, |held| held.record.created);
                let updated = held.map_or(door.updated, |_| at);
                let record = DoorRecord { created, updated, ..(**door).clone() };
                let changes = differences(held.map(|held| &held.record.door), Some(&door.door));
                let told = |change: crate::record::FieldChange| match change.before.as_str() {
                    "" => format!("{}: {}", change.field, change.after),
                    before => format!("{}: {before} -> {}", change.field, change.after),
                };
                let note = changes.into_iter().map(told).collect::<Vec<_>>().join("; ");
                put(Key::Door(door.door.name().clone()), held, &record, note).map(Some)
            }
            Self::Event(event) => match fleet.audit().get(&event.id) {
                Some(_) => Ok(None),
                None => put(Key::Audit(event.id.clone()), None, &**event, String::new()).map(Some),
            },
            Self::Host(host) => match fleet.hosts().get(&host.name) {
                Some(_) => Ok(None),
                None => put(Key::Host(host.name.clone()), None, &**host, String::new()).map(Some),
            },
            Self::NoBan(source) => Ok(remove(Key::Ban(*source), fleet)),
            Self::NoDoor(name) => Ok(remove(Key::Door(name.clone()), fleet)),
            Self::NoToken(id) => Ok(remove(Key::Token(id.clone()), fleet)),
            Self::Token(token) => match fleet.tokens().get(&token.id) {
                Some(_) => Ok(None),
                None => {
                    let note = format!("until {}, made by {}", token.expires, token.created_by);
                    put(Key::Token(token.id.clone()), None, token, note).map(Some)
                }
            },
        }
    }
}

fn put<T: Serialize>(key: Key, held: Option<&Held<T>>, record: &T, note: String) -> Result<Step, Refusal> {
    let change = grant::put(&key, record)?;
    let action = if held.is_some() { pb::RestoreAction::Change } else { pb::RestoreAction::Add };
    Ok(Step { key, action, expect: held.map(|held| held.revision), change, note })
}

fn remove(key: Key, fleet: &Fleet) -> Option<Step> {
    let revision = fleet.revision_of(&key)?;
    let change = Change::Delete { key: key.to_string() };
    let note = "not in the file".to_owned();
    Some(Step { key, action: pb::RestoreAction::Remove, expect: Some(revision), change, note })
}
