//! Changes of doors that are rolled back unless they are confirmed in time, as a router's commit-confirm does it: Junos OS,
//! `commit confirmed`.
//!
//! Pure: what is decided takes the fleet and the fleet's time. What waits stands in the door's own record, so that every
//! transaction that confirms it, changes it or rolls it back expects the same revision, and one of them wins. Who carries
//! the rollbacks out is in [`deadline`].

use std::time::Duration;

use fleetknock_core::{
    door::{Door, DoorName},
    time::Timestamp,
};

use crate::{
    decide::CLOSE_MAX,
    fleet::{Fleet, Held},
    grant::{Refusal, expect, put, withdraw},
    record::{Actor, DoorRecord, Key, OpeningRecord, Owner, Pending, Withdrawn},
    store::{Change, Transaction},
};

pub mod deadline;
#[cfg(test)]
mod tests;

/// Until when, and by whose hand, a change shall wait to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// How long from now.
    pub within: Duration,
    /// Who asks for it.
    pub by: Actor,
}

/// What applying a door writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The record as it is afterwards.
    pub record: DoorRecord,
    /// Whether it differs from what the store holds.
    pub write: bool,
    /// What the operator should know about changes that wait, for people.
    pub remark: Option<&'static str>,
}

impl Applied {
    /// The same, declared by that resource, or by the control API; compared with what the store holds.
    #[must_use]
    pub fn owned_by(mut self, owner: Option<Owner>, held: Option<&DoorRecord>) -> Self {
        self.record.owner = owner;
        self.write = held != Some(&self.record);
        self
    }
}

/// Decides what becomes of a door's record when this door is applied. A change that waits keeps what was confirmed last:
/// whatever is applied meanwhile, the rollback leads back there.
pub fn apply(held: Option<&DoorRecord>, door: &Door, hold: Option<Hold>, at: Timestamp) -> Applied {
    let same = held.is_some_and(|held| held.door == *door);
    let waited = held.and_then(|held| held.pending.as_ref());
    let confirmed = match waited {
        Some(pending) => pending.before.as_ref(),
        None => held.map(|held| &held.door),
    };
    let pending = hold.filter(|_| confirmed != Some(door)).map(|hold| Pending {
        before: confirmed.cloned(),
        until: at + hold.within,
        by: hold.by,
    });
    let remark = match (waited, &pending) {
        (Some(_), None) if confirmed == Some(door) => {
            Some("the door is as it was confirmed last: nothing waits to be confirmed any more")
        }
        (Some(_), None) => {
            Some("an earlier change of this door waited to be confirmed; this one replaces it and stays")
        }
        (Some(_), Some(_)) => Some(
            "an earlier change of this door waits to be confirmed as well: unless this one is confirmed, both are rolled back",
        ),
        (None, _) => None,
    };
    let record = match held {
        // Nothing is new, and the mark of an earlier rollback stays.
        Some(held) if same && waited.is_none() => held.clone(),
        _ => DoorRecord {
            door: door.clone(),
            created: held.map_or(at, |held| held.created),
            updated: held.filter(|_| same).map_or(at, |held| held.updated),
            pending,
            rolled_back: None,
            owner: held.and_then(|held| held.owner.clone()),
        },
    };
    Applied { write: held != Some(&record), record, remark }
}

/// Why nothing is confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// There is no such door (any more).
    #[error(
        "there is no door '{0}'; if it was new, it was not confirmed in time and is rolled back: apply it again"
    )]
    NoDoor(DoorName),
    /// Every change of it is there to stay.
    #[error("nothing waits to be confirmed: the last change of this door is there to stay")]
    Nothing,
    /// It is to be rolled back by now, or has been.
    #[error("it was not confirmed in time: its last change is rolled back since {0}; apply it again")]
    TooLate(Timestamp),
}

/// Decides whether a door's change is kept: the transaction that does so.
///
/// # Errors
/// [`ConfirmError`] inside when nothing waits or the time is up; outside when the record cannot be encoded.
pub fn confirm(
    fleet: &Fleet,
    name: &DoorName,
    now: Timestamp,
) -> Result<Result<Transaction, ConfirmError>, Refusal> {
    let Some(Held { record, revision }) = fleet.doors().get(name) else {
        return Ok(Err(ConfirmError::NoDoor(name.clone())));
    };
    match (&record.pending, record.rolled_back) {
        (Some(pending), _) if pending.until <= now => Ok(Err(ConfirmError::TooLate(pending.until))),
        (None, Some(at)) => Ok(Err(ConfirmError::TooLate(at))),
        (None, None) => Ok(Err(ConfirmError::Nothing)),
        (Some(_), _) => {
            let key = Key::Door(name.clone());
            let confirmed = DoorRecord { pending: None, ..record.clone() };
            let expect = vec![expect(&key, Some(*revision))];
            Ok(Ok(Transaction { expect, changes: vec![put(&key, &confirmed)?], lease: None }))
        }
    }
}

/// The doors whose changes were not confirmed in time.
pub fn overdue(fleet: &Fleet, now: Timestamp) -> Vec<DoorName> {
    let late = |record: &DoorRecord| record.pending.as_ref().is_some_and(|pending| pending.until <= now);
    let doors = fleet.doors().iter().filter(|(_, held)| late(&held.record));
    doors.map(|(name, _)| name.clone()).collect()
}

/// What one transaction of a rollback does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Withdraws these openings of a door that is deleted next.
    Withdrawn(Vec<OpeningRecord>),
    /// The door is gone: it was new.
    Deleted,
    /// The door is as it was confirmed last.
    Restored,
}

/// The next transaction of a door's rollback; nothing when none is due. Openings of a door that was new are withdrawn
/// before it is deleted, so that a rollback that is interrupted goes on where it was.
///
/// # Errors
/// When a record cannot be encoded.
pub fn roll_back(
    fleet: &Fleet,
    name: &DoorName,
    now: Timestamp,
) -> Result<Option<(Step, Transaction)>, Refusal> {
    let Some(Held { record, revision }) = fleet.doors().get(name) else { return Ok(None) };
    let Some(pending) = record.pending.as_ref().filter(|pending| pending.until <= now) else {
        return Ok(None);
    };
    let key = Key::Door(name.clone());
    let (step, mut transaction) = match &pending.before {
        Some(before) => {
            let restored = DoorRecord {
                door: before.clone(),
                created: record.created,
                updated: now,
                pending: None,
                rolled_back: Some(now),
                owner: record.owner.clone(),
            };
            let changes = vec![put(&key, &restored)?];
            (Step::Restored, Transaction { changes, ..Transaction::default() })
        }
        None => match withdraw(&active_openings(fleet, name, now), &withdrawn(now), now)? {
            Some((openings, transaction)) => (Step::Withdrawn(openings), transaction),
            None => {
                let changes = vec![Change::Delete { key: key.to_string() }];
                (Step::Deleted, Transaction { changes, ..Transaction::default() })
            }
        },
    };
    transaction.expect.push(expect(&key, Some(*revision)));
    Ok(Some((step, transaction)))
}

/// How the openings of a door that is rolled back end.
fn withdrawn(at: Timestamp) -> Withdrawn {
    let reason = "the door was rolled back: it was not confirmed in time".to_owned();
    Withdrawn { at, reason, kill_connections: false }
}

fn active_openings<'a>(fleet: &'a Fleet, door: &DoorName, now: Timestamp) -> Vec<&'a Held<OpeningRecord>> {
    let openings = fleet.openings().values();
    let openings = openings.filter(|held| held.record.door == *door && held.record.is_active(now));
    openings.take(CLOSE_MAX).collect()
}
