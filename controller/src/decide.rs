//! Carries decisions out: one transaction in the store each, made again when it loses a race.

use std::{sync::Arc, time::Duration};

use fleetknock_core::{door::DoorName, source::Source, time::Timestamp};
use fleetknock_proto::v1 as pb;
use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument as _;

use crate::{
    audit,
    fleet::Fleet,
    grant::{self, ANSWER_WITHIN, BANS_MAX, Knocked, Refusal, Request},
    metrics::RefusedLabels,
    recollection::Unanswered,
    record::{Actor, AuditRecord, BanRecord, By, Key, OpeningRecord, Owner, Withdrawn},
    shared::{Shared, Standing},
    store::{CHANGES_MAX, Change, Revision, StoreError, Transaction},
    traces::{Attempt, Call},
    wire,
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

/// How often a complete knock is tried again while the store or the lease is away.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Complete knocks that wait so at the same time. Further decisions wait in the queue, and are refused when that is full.
const WAITING_MAX: usize = 4_096;

/// Why a decision for which the queue has no room is refused.
pub const TOO_FAR_BEHIND: &str = "the store was too far behind";

/// Openings taken back by one transaction, with an event each.
pub const CLOSE_MAX: usize = CHANGES_MAX / (1 + audit::CHANGES_EACH);

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
        /// What is told of it in the end, when somebody takes traces.
        trace: Option<Attempt>,
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
    /// A resource declares the door.
    #[error(
        "the door '{door}' is declared by the Kubernetes resource Door {owner}; change or delete it there, such as with \
         kubectl --namespace {} edit doors.fleetknock.io {}", owner.namespace, owner.name
    )]
    Owned {
        /// The door.
        door: DoorName,
        /// What declares it.
        owner: Owner,
    },
    /// As many records of a kind as are allowed.
    #[error("there are {limit} {what} already, the limit; remove some first")]
    Full {
        /// Such as `bans`.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

impl DecideError {
    /// Whether the same may be carried out a moment later.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Suspended | Self::Store(StoreError::Conflict | StoreError::Unavailable(_)))
    }
}

/// Carries out what the matching decides until it ends.
pub async fn run(shared: Arc<Shared>, mut decisions: mpsc::Receiver<Decision>) {
    let store = Arc::new(Semaphore::new(AT_ONCE));
    let waiting = Arc::new(Semaphore::new(WAITING_MAX));
    while let Some(decision) = decisions.recv().await {
        let Ok(permit) = waiting.clone().acquire_owned().await else {
            return;
        };
        let (shared, store) = (shared.clone(), store.clone());
        tokio::spawn(async move {
            carry_out(&shared, &store, decision).await;
            drop(permit);
        });
    }
}

async fn carry_out(shared: &Shared, store: &Semaphore, decision: Decision) {
    match decision {
        Decision::Open { door, source, knocked, trace } => {
            let mut request = Request {
                door,
                source,
                duration: None,
                knocked: Some(knocked),
                by: By::Knock,
                reason: String::new(),
                trace: None,
            };
            // A knock that was answered already had its trace.
            let trace = trace.filter(|_| !grant::is_known(&shared.state().fleet, &request, shared.now()));
            let Some(trace) = trace else {
                let _told = answer_and_tell(shared, store, &request).await;
                return;
            };
            request.trace = Some(trace.context.to_string());
            let span = trace.store();
            let refused = answer_and_tell(shared, store, &request).instrument(span).await.err();
            trace.answered(shared, &request, refused.map(|error| error.to_string()));
        }
        Decision::Ban { source, reason } => {
            let _permit = store.acquire().await;
            let duration = shared.ban_for;
            match ban(shared, source, duration, By::Policy, &reason, None).await {
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

/// Answers a knock, and says when it was in vain.
async fn answer_and_tell(shared: &Shared, store: &Semaphore, request: &Request) -> Result<(), DecideError> {
    let answered = answer(shared, store, request).await;
    match &answered {
        Ok(()) => {
            tracing::info!(door = %request.door, "a knock opened its door");
            forget(shared, request);
        }
        Err(DecideError::Refused(Refusal::Known)) => forget(shared, request),
        // Whoever follows the source now hears of the knock again, and answers it.
        Err(DecideError::Suspended) if shared.standing() == Standing::Leaving => {}
        Err(error) => {
            refused(shared, error);
            remember(shared, request, error, false);
            say_unanswered(shared, request, &format!("a complete knock opened nothing: {error}"));
        }
    }
    answered
}

/// Answers a knock, trying again while the store or the lease is away, for as long as a knock may be answered.
async fn answer(shared: &Shared, store: &Semaphore, request: &Request) -> Result<(), DecideError> {
    let mut awaited = None;
    loop {
        let tried = {
            let _permit = store.acquire().await;
            open(shared, request, None).await
        };
        let error = match (tried, awaited) {
            (Ok(_), _) => return Ok(()),
            // What it waited for says more than that it was too long.
            (Err(DecideError::Refused(Refusal::Late { .. })), Some(awaited)) => return Err(awaited),
            (Err(error), awaited) if error.is_passing() && shared.standing() != Standing::Leaving => {
                if awaited.is_none() {
                    let message = format!("a complete knock waits, at most {ANSWER_WITHIN:?}: {error}");
                    say_unanswered(shared, request, &message);
                    remember(shared, request, &error, true);
                }
                error
            }
            (Err(error), _) => return Err(error),
        };
        awaited = Some(error);
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Remembers why a complete knock is not answered, for whoever asks why the door is closed.
fn remember(shared: &Shared, request: &Request, error: &DecideError, waits: bool) {
    if let Some(end) = request.knocked.as_ref().and_then(|knocked| knocked.end.clone()) {
        let (source, door, reason) = (request.source, request.door.clone(), error.to_string());
        shared.refused().add(Unanswered { source, door, end, reason, waits });
    }
}

fn forget(shared: &Shared, request: &Request) {
    if let Some(end) = request.knocked.as_ref().and_then(|knocked| knocked.end.as_ref()) {
        shared.refused().remove(request.source, &request.door, end);
    }
}

fn say_unanswered(shared: &Shared, request: &Request, message: &str) {
    tracing::warn!(door = %request.door, "{message}");
    shared.say(pb::Event {
        door: request.door.to_string(),
        source: request.source.to_string(),
        ..wire::event(pb::EventKind::Warning, shared.now(), message.to_owned())
    });
}

fn refused(shared: &Shared, error: &DecideError) {
    let reason = match error {
        DecideError::Full { .. } => "full",
        DecideError::Owned { .. } => "record",
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
pub async fn open(
    shared: &Shared,
    request: &Request,
    actor: Option<&Actor>,
) -> Result<(OpeningRecord, Revision), DecideError> {
    let fresh_id = format!("{:016x}", rand::random::<u64>());
    let (opening, revision) = contend(shared, |at| {
        let state = shared.state();
        let mut granted = grant::grant(&state.fleet, request, &fresh_id, at)?;
        let event = audit::opening(&granted.opening, shared.stamp(at, actor));
        audit::append(&mut granted.transaction, &state.fleet, [event])?;
        if request.by == By::Knock {
            granted.transaction.expect.push(shared.fence().ok_or(DecideError::Suspended)?);
        }
        Ok((granted.opening, granted.transaction))
    })
    .await?;
    shared.metrics.doors.count(&opening.door, |counts| match opening.generation {
        0 | 1 => counts.granted += 1,
        _ => counts.refreshed += 1,
    });
    Ok((opening, revision))
}

/// [`open`] as an operator's call, which is a trace of its own.
///
/// # Errors
/// As [`open`].
pub async fn open_by_call(
    shared: &Shared,
    mut request: Request,
    actor: &Actor,
) -> Result<(OpeningRecord, Revision), DecideError> {
    let Some(call) = Call::begin(shared) else { return open(shared, &request, Some(actor)).await };
    request.trace = Some(call.context.to_string());
    let opened = open(shared, &request, Some(actor)).instrument(call.store()).await;
    call.answered(shared, &request, opened.as_ref().err().map(ToString::to_string));
    opened
}

/// Bans a source and takes its openings back. What the policy bans does not enter the audit trail: a flood of forged
/// sources would flush out everything else.
///
/// # Errors
/// When too many bans hold, or the store cannot.
pub async fn ban(
    shared: &Shared,
    source: Source,
    duration: Duration,
    by: By,
    reason: &str,
    actor: Option<&Actor>,
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
        } else {
            let event = audit::ban(&record, shared.stamp(at, actor));
            audit::append(&mut transaction, &state.fleet, [event])?;
        }
        Ok((record.clone(), transaction))
    })
    .await?;
    shared.metrics.bans.inc();
    if by == By::Policy {
        let event = wire::audited(&audit::ban(&record, shared.stamp(record.since, None)));
        shared.log(pb::Event { id: String::new(), ..event });
    }
    let how = Withdrawn { at: shared.now(), reason: format!("banned: {reason}"), kill_connections: false };
    close(shared, |opening| opening.source == source, &how, actor).await?;
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
    actor: Option<&Actor>,
) -> Result<(Vec<OpeningRecord>, Revision), DecideError> {
    let mut closed = Vec::new();
    let mut last = 0;
    loop {
        let batch = contend(shared, |at| {
            let state = shared.state();
            let openings = state.fleet.openings().values();
            let openings = openings.filter(|held| chosen(&held.record) && held.record.is_active(at));
            let openings: Vec<_> = openings.take(CLOSE_MAX).collect();
            let (records, mut transaction) = grant::withdraw(&openings, how, at)?.unwrap_or_default();
            let stamp = shared.stamp(at, actor);
            let events = records.iter().enumerate().map(|(number, o)| audit::opening(o, stamp.nth(number)));
            audit::append(&mut transaction, &state.fleet, events)?;
            Ok((records, transaction))
        });
        let (records, revision) = batch.await?;
        if records.is_empty() {
            return Ok((closed, last));
        }
        for opening in &records {
            shared.metrics.doors.count(&opening.door, |counts| counts.withdrawn += 1);
        }
        closed.extend(records);
        last = revision;
        // The next batch must not find these again.
        shared.caught_up(revision).await;
    }
}

/// Removes a record, and writes the event that tells of it; one that is gone already is fine. The event is made under the
/// lock of the fleet's copy.
///
/// # Errors
/// When the store cannot.
pub async fn remove(
    shared: &Shared,
    key: Key,
    event: impl Fn(&Fleet, Timestamp) -> AuditRecord,
) -> Result<Revision, DecideError> {
    let removed = contend(shared, |at| {
        let state = shared.state();
        let Some(revision) = state.fleet.revision_of(&key) else {
            return Ok(((), Transaction::default()));
        };
        let expect = vec![grant::expect(&key, Some(revision))];
        let changes = vec![Change::Delete { key: key.to_string() }];
        let mut transaction = Transaction { expect, changes, ..Transaction::default() };
        audit::append(&mut transaction, &state.fleet, [event(&state.fleet, at)])?;
        Ok(((), transaction))
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
