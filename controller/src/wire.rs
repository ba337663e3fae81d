//! The controller's records as the wire's messages. Total: what a record holds is already checked.

use std::time::Duration;

use fleetknock_core::{explain::Outcome, host::HostName, port::PortRange, time::Timestamp};
use fleetknock_proto::{convert, v1 as pb};

use crate::{
    fleet::Fleet,
    grant::ANSWER_WITHIN,
    record::{Actor, AuditRecord, BanRecord, FieldChange, Holder, HostRecord, OpeningRecord, TokenRecord},
    status::{OnHost, State},
};

/// What a host keeps closed and what counts as a knock there.
pub fn guard(
    fleet: &Fleet,
    host: &HostRecord,
    knock_space: &[PortRange],
    management: &[String],
) -> pb::Guard {
    pb::Guard {
        ports: fleet.guarded(host).into_iter().map(Into::into).collect(),
        knock_space: knock_space.iter().copied().map(Into::into).collect(),
        icmp: fleet.knocks_by_icmp(),
        management: management.to_vec(),
        keep_window_ms: u32::try_from(convert::millis(keep_window(fleet))).unwrap_or(u32::MAX),
        observed: fleet.observed(host).into_iter().map(Into::into).collect(),
    }
}

/// Shorter sequences do not change what agents keep: not every new door is news to every host.
const KEEP_WINDOW_MIN: Duration = Duration::from_secs(30);

/// How long agents keep observations for re-sending: the longest sequence, and the time in which a controller that died
/// is replaced. A knock that takes longer to be answered is not answered at all.
pub fn keep_window(fleet: &Fleet) -> Duration {
    (fleet.longest_knock() + ANSWER_WITHIN).max(KEEP_WINDOW_MIN)
}

/// An opening as a host's agent is told it.
pub fn host_opening(opening: &OpeningRecord, now: Timestamp) -> pb::HostOpening {
    pb::HostOpening {
        id: opening.id.clone(),
        source: opening.source.to_string(),
        ports: opening.ports.iter().copied().map(Into::into).collect(),
        remaining_ms: convert::millis(opening.remaining(now)),
        generation: opening.generation,
        traceparent: String::new(),
    }
}

/// A ban as a host's agent is told it.
pub fn host_ban(ban: &BanRecord, now: Timestamp) -> pb::HostBan {
    pb::HostBan { source: ban.source.to_string(), remaining_ms: convert::millis(ban.expires.since(now)) }
}

/// An opening as an operator is told it.
pub fn opening(
    opening: &OpeningRecord,
    on_hosts: Vec<OnHost>,
    effective: bool,
    now: Timestamp,
) -> pb::Opening {
    let state = match &opening.withdrawn {
        Some(_) => pb::OpeningState::Withdrawn,
        None if opening.expires <= now => pb::OpeningState::Expired,
        None if !effective => pb::OpeningState::Withdrawn,
        None => pb::OpeningState::Active,
    };
    pb::Opening {
        id: opening.id.clone(),
        door: opening.door.to_string(),
        source: opening.source.to_string(),
        ports: opening.ports.iter().copied().map(Into::into).collect(),
        state: state.into(),
        opened_ms: opening.opened.as_millis(),
        refreshed_ms: opening.refreshed.as_millis(),
        expires_ms: opening.expires.as_millis(),
        generation: opening.generation,
        opened_by: opening.by.to_string(),
        closed_reason: opening.withdrawn.as_ref().map(|how| how.reason.clone()).unwrap_or_default(),
        hosts: on_hosts.into_iter().map(on_host).collect(),
    }
}

fn on_host(row: OnHost) -> pb::OpeningOnHost {
    let (state, reason) = match row.state {
        State::Applied => (pb::HostOpeningState::Applied, String::new()),
        State::Expired => (pb::HostOpeningState::Expired, String::new()),
        State::Failed { reason } => (pb::HostOpeningState::Failed, reason),
        State::Pending => (pb::HostOpeningState::Pending, String::new()),
        State::Withdrawn => (pb::HostOpeningState::Withdrawn, String::new()),
    };
    pb::OpeningOnHost {
        host: row.host.to_string(),
        state: state.into(),
        reason,
        changed_ms: row.changed.as_millis(),
        took_us: row.took_us,
    }
}

/// A ban as an operator is told it.
pub fn ban(ban: &BanRecord) -> pb::Ban {
    pb::Ban {
        source: ban.source.to_string(),
        since_ms: ban.since.as_millis(),
        expires_ms: ban.expires.as_millis(),
        reason: ban.reason.clone(),
        by: ban.by.to_string(),
    }
}

/// A token as an operator is told it: without its hash.
pub fn token(token: &TokenRecord) -> pb::Token {
    let holder = match &token.holder {
        Holder::Host(name) => pb::token::Holder::Host(name.to_string()),
        Holder::User { name, role } => {
            let role = pb::Role::from(*role).into();
            pb::token::Holder::User(pb::TokenUser { name: name.to_string(), role })
        }
    };
    pb::Token {
        id: token.id.to_string(),
        holder: Some(holder),
        created_ms: token.created.as_millis(),
        expires_ms: token.expires.as_millis(),
        created_by: token.created_by.clone(),
    }
}

/// An event of the audit trail.
pub fn audited(record: &AuditRecord) -> pb::Event {
    let text = |part: Option<String>| part.unwrap_or_default();
    pb::Event {
        door: text(record.door.as_ref().map(ToString::to_string)),
        source: text(record.source.map(|source| source.to_string())),
        host: text(record.host.as_ref().map(ToString::to_string)),
        opening: text(record.opening.clone()),
        controller: record.controller.to_string(),
        id: record.id.to_string(),
        actor: record.actor.as_ref().map(actor),
        changes: record.changes.iter().map(field_change).collect(),
        ..event(record.kind(), record.at, record.message.clone())
    }
}

/// Who did something.
pub fn actor(actor: &Actor) -> pb::Actor {
    pb::Actor {
        who: actor.who.clone(),
        role: actor.role.map(|role| role.to_string()).unwrap_or_default(),
        by: actor.by.clone(),
        address: actor.address.clone(),
    }
}

/// A field that changed.
pub fn field_change(change: &FieldChange) -> pb::FieldChange {
    let FieldChange { field, before, after } = change.clone();
    pb::FieldChange { field, before, after }
}

/// What a knock was.
pub fn knock_outcome(outcome: Outcome) -> pb::KnockOutcome {
    match outcome {
        Outcome::Known => pb::KnockOutcome::Unspecified,
        Outcome::Banned => pb::KnockOutcome::Banned,
        Outcome::NoRoom => pb::KnockOutcome::NoRoom,
        Outcome::Ping => pb::KnockOutcome::Ping,
        Outcome::Future => pb::KnockOutcome::Future,
        Outcome::TooLate => pb::KnockOutcome::TooLate,
        Outcome::Miss => pb::KnockOutcome::Miss,
        Outcome::Repeat => pb::KnockOutcome::Repeat,
        Outcome::Waiting => pb::KnockOutcome::Waiting,
        Outcome::Step => pb::KnockOutcome::Step,
        Outcome::Completed => pb::KnockOutcome::Completed,
        Outcome::Refused => pb::KnockOutcome::Refused,
    }
}

/// What a peer says a knock was; nothing when it says what this controller does not know.
pub fn outcome(outcome: pb::KnockOutcome) -> Option<Outcome> {
    Some(match outcome {
        pb::KnockOutcome::Unspecified => return None,
        pb::KnockOutcome::Banned => Outcome::Banned,
        pb::KnockOutcome::NoRoom => Outcome::NoRoom,
        pb::KnockOutcome::Ping => Outcome::Ping,
        pb::KnockOutcome::Future => Outcome::Future,
        pb::KnockOutcome::TooLate => Outcome::TooLate,
        pb::KnockOutcome::Miss => Outcome::Miss,
        pb::KnockOutcome::Repeat => Outcome::Repeat,
        pb::KnockOutcome::Waiting => Outcome::Waiting,
        pb::KnockOutcome::Step => Outcome::Step,
        pb::KnockOutcome::Completed => Outcome::Completed,
        pb::KnockOutcome::Refused => Outcome::Refused,
    })
}

/// An event of which nothing but this is known.
pub fn event(kind: pb::EventKind, at: Timestamp, message: impl Into<String>) -> pb::Event {
    pb::Event { kind: kind.into(), time_ms: at.as_millis(), message: message.into(), ..pb::Event::default() }
}

/// An event about an opening.
pub fn opening_event(
    kind: pb::EventKind,
    opening: &OpeningRecord,
    host: Option<&HostName>,
    now: Timestamp,
    message: String,
) -> pb::Event {
    pb::Event {
        door: opening.door.to_string(),
        source: opening.source.to_string(),
        host: host.map(ToString::to_string).unwrap_or_default(),
        opening: opening.id.clone(),
        ..event(kind, now, message)
    }
}

/// Whole microseconds, saturating.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Such as `1 host` or `3 hosts`.
pub fn counted(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}
