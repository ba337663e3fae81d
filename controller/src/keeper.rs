//! Keeps the fleet's copy true: follows the store's watch, pushes what changed to the agents, tells the watchers.
//!
//! One task. When the watch breaks, it reads the whole store anew and re-asserts everything; nothing is computed from
//! clocks or from what was missed. Of what was missed the audit trail tells.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use fleetknock_core::time::Timestamp;
use fleetknock_proto::v1 as pb;
use futures::StreamExt;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    audit,
    fleet::Effect,
    grant,
    shared::{Shared, State},
    store::{CHANGES_MAX, Changes, StoreError, Watch},
    wire::{self, opening_event},
};

mod reading;

pub use self::reading::{check_identity, load_patiently};

/// How often ended openings are said and old records cleared away.
const TICK: Duration = Duration::from_secs(1);

/// An event that is older when it is written was restored from a backup: it is kept, and no news to anybody.
const NEWS: Duration = Duration::from_secs(300);

/// Records cleared away per transaction.
const CLEAR_MAX: usize = CHANGES_MAX / 2;

/// Follows the store until the process ends. `watch` begins where the shared fleet's copy was read.
pub async fn run(shared: Arc<Shared>, mut watch: Watch) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_tick = shared.now();
    loop {
        shared.pulses.keeper.beat();
        tokio::select! {
            biased;
            next = watch.next() => match next {
                Some(Ok(changes)) => take_in(&shared, changes),
                Some(Err(error)) => watch = resync(&shared, &error.to_string()).await,
                None => watch = resync(&shared, "its watch ended").await,
            },
            _ = ticks.tick() => {
                let at = shared.now();
                say_ended(&shared, last_tick, at);
                clear_away(&shared, at).await;
                last_tick = at;
            }
        }
    }
}

fn take_in(shared: &Shared, changes: Changes) {
    let (now, seen) = (shared.now(), Instant::now());
    let revision = changes.revision;
    let mut guard = shared.state();
    let State { fleet, sessions, statuses, pushes, .. } = &mut *guard;
    let mut effects = fleet.apply(changes);
    let traced = shared.tracing.pushing(&mut effects);
    sessions.push(&effects, fleet, &shared.wide, now);
    for effect in &effects {
        if let Effect::Opening { after, .. } = effect
            && fleet.is_effective(after, now)
        {
            let told = after.hosts.iter().filter_map(|host| sessions.of(host));
            let told: Vec<_> = told.map(|session| session.number).collect();
            shared.metrics.doors.count(&after.door, |counts| counts.pushed += told.len() as u64);
            if !told.is_empty() {
                shared.tracing.pushed(&traced, after, told.len(), (now, shared.now()));
            }
            pushes.note(after, told, seen);
        }
        match effect {
            Effect::OpeningForgotten(opening) => {
                statuses.forget(&opening.id);
                pushes.forget(&opening.id);
            }
            Effect::Opening { before: Some(before), after } if before.id != after.id => {
                statuses.forget(&before.id);
                pushes.forget(&before.id);
            }
            _ => {}
        }
    }
    let members =
        effects.iter().any(|effect| matches!(effect, Effect::MemberJoined(_) | Effect::MemberLeft(_)));
    let rules = effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::Banned(_)
                | Effect::Broken(_)
                | Effect::DoorApplied(_)
                | Effect::DoorDeleted(_)
                | Effect::HostChanged(_)
                | Effect::Unbanned(_)
        )
    });
    drop(guard);

    // Before whoever waits for this revision goes on: what it knew of rules and members is old.
    if rules {
        shared.rules_changed();
    }
    if members {
        shared.members_changed();
    }
    shared.advance(revision);
    let told: HashSet<_> = effects.iter().filter_map(subject_of_event).collect();
    let is_news = |effect: &&Effect| !matches!(effect, Effect::Audited(event) if event.at + NEWS <= now);
    for effect in effects.iter().filter(is_news) {
        say(shared, effect, now, &told);
    }
}

/// What something is about: a door, a source, an opening.
type Subject = (String, String, String);

/// What an event of the audit trail is about. It tells of the changes to that in its own commit, and better than they do
/// themselves; a controller of an earlier version, or somebody by hand, may change things without an event.
fn subject_of_event(effect: &Effect) -> Option<Subject> {
    let Effect::Audited(record) = effect else { return None };
    let event = wire::audited(record);
    Some((event.door, event.source, event.opening))
}

async fn resync(shared: &Shared, why: &str) -> Watch {
    tracing::warn!(reason = why, "lost the store's watch; reading the whole store anew");
    shared.metrics.resyncs.inc();
    let (listing, watch) = reading::read_again(shared).await;
    let revision = listing.revision;
    let mut guard = shared.state();
    let State { fleet, sessions, .. } = &mut *guard;
    let seen = fleet.revision();
    let broken = fleet.replace(listing);
    let missed = fleet.audit().values().filter(|held| held.revision > seen);
    let missed: Vec<_> = missed.map(|held| Effect::Audited(held.record.clone())).collect();
    sessions.reassert_all(fleet, &shared.wide, shared.now());
    drop(guard);
    shared.rules_changed();
    shared.members_changed();
    shared.advance(revision);
    let now = shared.now();
    for error in broken {
        say(shared, &Effect::Broken(error), now, &HashSet::new());
    }
    for event in &missed {
        say(shared, event, shared.now(), &HashSet::new());
    }
    tracing::info!(revision, "the store was read anew");
    watch
}

/// Says what a change meant: to the log, to the counters and to whoever watches.
fn say(shared: &Shared, effect: &Effect, now: Timestamp, told: &HashSet<Subject>) {
    let plain = |kind: pb::EventKind, message: String| wire::event(kind, now, message);
    let event = match effect {
        Effect::Banned(ban) if ban.expires > now => pb::Event {
            source: ban.source.to_string(),
            ..plain(pb::EventKind::SourceBanned, audit::said_of_ban(ban))
        },
        Effect::Broken(error) => {
            tracing::warn!("{error}");
            shared.metrics.records_broken.inc();
            plain(pb::EventKind::Warning, error.to_string())
        }
        Effect::DoorApplied(door) => pb::Event {
            door: door.to_string(),
            ..plain(pb::EventKind::DoorApplied, "door applied".to_owned())
        },
        Effect::DoorDeleted(door) => pb::Event {
            door: door.to_string(),
            ..plain(pb::EventKind::DoorDeleted, "door deleted".to_owned())
        },
        Effect::Opening { before, after } => {
            let is_new = before.as_ref().is_none_or(|before| before.id != after.id);
            let (kind, message) = audit::said_of_opening(after, is_new);
            opening_event(kind, after, None, now, message)
        }
        Effect::MemberJoined(name) => {
            plain(pb::EventKind::ControllerJoined, format!("controller {name} has joined"))
        }
        Effect::MemberLeft(name) => plain(
            pb::EventKind::ControllerLeft,
            format!("controller {name} has left, or its lease has ended"),
        ),
        Effect::Unbanned(source) => pb::Event {
            source: source.to_string(),
            ..plain(pb::EventKind::SourceUnbanned, "no longer banned".to_owned())
        },
        Effect::Audited(record) => wire::audited(record),
        Effect::Banned(_)
        | Effect::HostChanged(_)
        | Effect::Identified
        | Effect::OpeningForgotten(_)
        | Effect::TokenChanged(_) => return,
    };
    let subject = (event.door.clone(), event.source.clone(), event.opening.clone());
    let is_change = matches!(
        effect,
        Effect::Banned(_)
            | Effect::DoorApplied(_)
            | Effect::DoorDeleted(_)
            | Effect::Opening { .. }
            | Effect::Unbanned(_)
    );
    if is_change && told.contains(&subject) {
        return;
    }
    if matches!(effect, Effect::Audited(record) if record.controller == shared.name) {
        shared.log(event.clone());
    }
    tracing::info!(
        event = event.kind().as_str_name(),
        door = event.door,
        opening = event.opening,
        actor = event.actor.as_ref().map(|actor| &actor.who),
        "{}",
        event.message
    );
    shared.say_of_store(event);
}

fn say_ended(shared: &Shared, after: Timestamp, until: Timestamp) {
    let state = shared.state();
    let ended = state.fleet.openings().values().map(|held| &held.record);
    let ended = ended.filter(|o| o.withdrawn.is_none() && o.expires > after && o.expires <= until);
    let ended: Vec<_> = ended.cloned().collect();
    drop(state);
    for opening in ended {
        let message = "its time was up; the kernel closed it".to_owned();
        shared.say_of_store(opening_event(pb::EventKind::OpeningExpired, &opening, None, until, message));
    }
}

/// One small transaction per tick at the most, by the longest-serving member. Should two think that they are, the first
/// wins, the other loses nothing.
async fn clear_away(shared: &Shared, at: Timestamp) {
    let transaction = {
        let state = shared.state();
        let ours = state.fleet.eldest() == Some(&shared.name);
        ours.then(|| grant::clear(&state.fleet, at, CLEAR_MAX)).flatten()
    };
    let Some(transaction) = transaction else {
        return;
    };
    match shared.store.commit(transaction).await {
        Ok(_) | Err(StoreError::Conflict) => {}
        Err(error) => tracing::debug!(%error, "cannot clear away old records now"),
    }
}
