//! Carries decisions out: one transaction in the store each, made again when it loses a race.

use std::{sync::Arc, time::Duration};

use fleetknock_core::{door::DoorName, source::Source, time::Timestamp};
use fleetknock_proto::v1 as pb;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    grant::{self, BANS_MAX, Knocked, Refusal, Request},
    metrics::RefusedLabels,
    record::{BanRecord, By, Key, OpeningRecord, Withdrawn},
    shared::Shared,
    store::{CHANGES_MAX, Change, Revision, StoreError, Transaction},
};

/// Decisions that wait. When it is full the store is far behind: further ones are refused and counted, and the
/// user's next try begins anew.
pub const DECISIONS_QUEUE: usize = 4_096;

/// Decisions carried out at the same time; more would only queue up in the store.
const AT_ONCE: usize = 64;

/// How often a decision that loses a race is made again.
const TRIES: u32 = 10;

/// How long to wait for the copy to show what the race was lost to.
const LOST_RACE: Duration = Duration::from_millis(200);

/// How long a complete knock waits for the lease of a controller that holds none. One that was cut off from its store
/// holds it again a moment after it hears of it; a knock that comes in between is not lost.
const REJOIN: Duration = Duration::from_secs(2);

/// What the matching decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Too many misses.
    Ban {
        /// Who.
        source: Source,
        /// Such as `10 misses in 60 s`.
        reason: String,
    },
    /// A knock is complete.
    Open {
        /// Which door.
        door: DoorName,
        /// For whom.
        source: Source,
        /// When.
        knocked: Knocked,
    },
}

/// Why a decision was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// It must not be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This controller must not decide now.
    #[error(
        "this controller's lease is gone, because it cannot reach its store or is leaving; it decides nothing until it \
         holds one again"
    )]
    Suspended,
    /// As many records of a kind as are allowed.
    #[error("there are {limit} {what} already, the limit; remove some first")]
    Full {
        /// Such as `bans`.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

/// Carries out what the matching decides until it ends.
pub async fn run(shared: Arc<Shared>, mut decisions: mpsc::Receiver<Decision>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(decision) = decisions.recv().await {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            carry_out(&shared, decision).await;
            drop(permit);
        });
    }
}

async fn carry_out(shared: &Shared, decision: Decision) {
    match decision {
        Decision::Open { door, source, knocked } => {
            let request = Request {
                door,
                source,
                duration: None,
                knocked: Some(knocked),
                by: By::Knock,
                reason: String::new(),
            };
            let mut answer = open(shared, &request).await;
            if matches!(answer, Err(DecideError::Suspended)) && shared.serves_within(REJOIN).await {
                answer = open(shared, &request).await;
            }
            if let Err(error) = answer {
                if matches!(error, DecideError::Refused(Refusal::Known)) {
                    return;
                }
                refused(shared, &error);
                tracing::warn!(door = %request.door, %error, "a complete knock opened nothing");
                shared.say(pb::Event {
                    kind: pb::EventKind::Warning.into(),
                    time_ms: shared.now().as_millis(),
                    door: request.door.to_string(),
                    source: source.to_string(),
                    message: format!("a complete knock opened nothing: {error}"),
                    ..pb::Event::default()
                });
            }
        }
        Decision::Ban { source, reason } => {
            let duration = shared.ban_for;
            match ban(shared, source, duration, By::Policy, &reason).await {
                Ok(_) => {}
                // A flood of forged misses fills the bans; its sources would fill the log as well.
                Err(error @ DecideError::Full { .. }) => {
                    refused(shared, &error);
                    tracing::debug!(%error, "a source is not banned");
                }
                Err(error) => {
                    refused(shared, &error);
                    tracing::warn!(%error, "a ban could not be written");
                }
            }
        }
    }
}

fn refused(shared: &Shared, error: &DecideError) {
    let reason = match error {
        DecideError::Full { .. } => "full",
        DecideError::Refused(Refusal::Banned { .. }) => "banned",
        DecideError::Refused(Refusal::Late { .. }) => "late",
        DecideError::Refused(Refusal::NoDoor(_)) => "no_door",
        DecideError::Refused(_) => "record",
        DecideError::Store(_) => "store",
        DecideError::Suspended => "suspended",
    };
    shared.metrics.refused.get_or_create(&RefusedLabels { reason }).inc();
}

/// Opens a door for a source, or refreshes what is open. A knock is answered only while this controller's lease holds.
///
/// # Errors
/// When the door is gone, the source is banned, or the store cannot.
pub async fn open(shared: &Shared, request: &Request) -> Result<(OpeningRecord, Revision), DecideError> {
    let fresh_id = format!("{:016x}", rand::random::<u64>());
    let (opening, revision) = contend(shared, |at| {
        let mut granted = grant::grant(&shared.state().fleet, request, &fresh_id, at)?;
        if request.by == By::Knock {
            granted.transaction.expect.push(shared.fence().ok_or(DecideError::Suspended)?);
        }
        Ok((granted.opening, granted.transaction))
    })
    .await?;
    shared.metrics.openings.inc();
    Ok((opening, revision))
}

/// Bans a source and takes its openings back.
///
/// # Errors
/// When too many bans hold, or the store cannot.
pub async fn ban(
    shared: &Shared,
    source: Source,
    duration: Duration,
    by: By,
    reason: &str,
) -> Result<(BanRecord, Revision), DecideError> {
    let (record, revision) = contend(shared, |at| {
        let state = shared.state();
        let bans = state.fleet.bans();
        if bans.len() >= BANS_MAX && !bans.contains_key(&source) {
            return Err(DecideError::Full { what: "bans", limit: BANS_MAX });
        }
        let record = BanRecord {
            source,
            since: at,
            expires: at + duration,
            reason: reason.to_owned(),
            by: by.clone(),
        };
        let mut transaction = grant::ban(&state.fleet, &record)?;
        if by == By::Policy {
            transaction.expect.push(shared.fence().ok_or(DecideError::Suspended)?);
        }
        Ok((record.clone(), transaction))
    })
    .await?;
    shared.metrics.bans.inc();
    let how = Withdrawn { at: shared.now(), reason: format!("banned: {reason}"), kill_connections: false };
    close(shared, |opening| opening.source == source, &how).await?;
    Ok((record, revision))
}

/// Takes back every active opening of that choice.
///
/// # Errors
/// When the store cannot.
pub async fn close(
    shared: &Shared,
    chosen: impl Fn(&OpeningRecord) -> bool,
    how: &Withdrawn,
) -> Result<(Vec<OpeningRecord>, Revision), DecideError> {
    let mut closed = Vec::new();
    let mut last = 0;
    loop {
        let batch = contend(shared, |at| {
            let state = shared.state();
            let openings = state.fleet.openings().values();
            let openings = openings.filter(|held| chosen(&held.record) && held.record.is_active(at));
            let openings: Vec<_> = openings.take(CHANGES_MAX / 2).collect();
            Ok(grant::withdraw(&openings, how, at)?.unwrap_or_default())
        });
        let (records, revision) = batch.await?;
        if records.is_empty() {
            return Ok((closed, last));
        }
        closed.extend(records);
        last = revision;
        // The next batch must not find these again.
        shared.caught_up(revision).await;
    }
}

/// Removes a record; one that is gone already is fine.
///
/// # Errors
/// When the store cannot.
pub async fn remove(shared: &Shared, key: &Key) -> Result<Revision, DecideError> {
    let removed = contend(shared, |_| {
        let Some(revision) = shared.state().fleet.revision_of(key) else {
            return Ok(((), Transaction::default()));
        };
        let expect = vec![grant::expect(key, Some(revision))];
        let changes = vec![Change::Delete { key: key.to_string() }];
        Ok(((), Transaction { expect, changes, ..Transaction::default() }))
    });
    removed.await.map(|((), revision)| revision)
}

/// Decides and commits, again and again while others change the same records first. An empty transaction is not
/// committed.
///
/// # Errors
/// What `decide` says, or the store's last word.
pub async fn contend<T>(
    shared: &Shared,
    decide: impl Fn(Timestamp) -> Result<(T, Transaction), DecideError>,
) -> Result<(T, Revision), DecideError> {
    let mut tries = 0;
    loop {
        let from = shared.state().fleet.revision();
        let (value, transaction) = decide(shared.now())?;
        if transaction.changes.is_empty() {
            return Ok((value, from));
        }
        match shared.store.commit(transaction).await {
            Ok(revision) => return Ok((value, revision)),
            Err(StoreError::Conflict) if tries < TRIES => {
                tries += 1;
                shared.metrics.conflicts.inc();
                shared.moved(from, LOST_RACE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
