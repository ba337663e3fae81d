//! The audit trail: each change leaves an event, written by the same commit as the change that it tells of. There is no
//! change without its event, and no event without its change.
//!
//! Pure but for [`write()`], which commits an event of something that changes nothing else.
//!
//! The trail is bounded ([`AUDIT_MAX`], [`AUDIT_KEEP`]), and the oldest events give way. It has two [shares](Share), so
//! that whoever can only knock, or is refused, never flushes out what users ordered. What the policy bans is streamed and
//! written to the audit log but does not enter the trail: the sources of misses can be forged, and the bans tell it too.

use std::time::Duration;

use fleetknock_core::{door::DoorName, host::HostName, source::Source, time::Timestamp};
use fleetknock_proto::v1 as pb;

use crate::{
    decide::{self, DecideError},
    fleet::Fleet,
    grant::{self, Refusal},
    record::{Actor, AuditRecord, EventId, FieldChange, Key, OpeningRecord},
    shared::Shared,
    store::{CHANGES_MAX, Change, Revision, Transaction},
    wire,
};

pub mod denials;
mod event;
pub mod lines;
#[cfg(test)]
mod tests;

pub use self::event::{ban, opening};
pub(crate) use self::event::{said_of_ban, said_of_opening};

/// Events that are kept. Each write makes room for what it adds; writes of several controllers at the same moment may be
/// above it by as many, until the next one.
pub const AUDIT_MAX: usize = 10_000;
/// How long an event is kept at the most.
pub const AUDIT_KEEP: Duration = Duration::from_secs(90 * 24 * 3600);
/// Changes of a transaction that one event may take: itself, and the old ones that give way to it. One more than enough,
/// so that a trail above its bound shrinks.
pub const CHANGES_EACH: usize = 1 + GIVE_WAY;
const GIVE_WAY: usize = 2;

/// The longest message, and the longest side of a change, in characters; what is longer is cut.
const MESSAGE_MAX: usize = 1_000;
const SIDE_MAX: usize = 300;
/// Changes that one event tells.
const FIELDS_MAX: usize = 32;

/// On whose account an event is kept. Each share is sure of half of the trail, and takes what the other does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Share {
    /// A user did it, who may.
    Orders,
    /// Everybody else's: knocks, hosts, and whoever was refused.
    Rest,
}

/// When, where and by whose hand something happens: what each event begins with.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// By the fleet's time.
    pub at: Timestamp,
    /// Tells events of the same millisecond apart.
    pub random: u32,
    /// Who writes it.
    pub controller: &'a HostName,
    /// By whose hand; nobody's for what happens by itself.
    pub actor: Option<&'a Actor>,
}

impl Stamp<'_> {
    /// The same for another event of the same transaction.
    pub fn nth(self, number: usize) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        Self { random: self.random.wrapping_add(number), ..self }
    }
}

/// An event of which nothing but this is known; it is completed with `about_…` and `with_changes`. The message holds no
/// secret and no step.
pub fn entry(kind: pb::EventKind, stamp: Stamp<'_>, message: impl Into<String>) -> AuditRecord {
    AuditRecord {
        id: EventId::new(stamp.at, stamp.random),
        at: stamp.at,
        code: code(kind).to_owned(),
        controller: stamp.controller.clone(),
        actor: stamp.actor.cloned(),
        door: None,
        source: None,
        host: None,
        opening: None,
        message: cut(message.into(), MESSAGE_MAX),
        changes: Vec::new(),
    }
}

/// The stable code of a kind: its name in the wire's `EventKind` without the prefix, such as `DOOR_APPLIED`.
pub fn code(kind: pb::EventKind) -> &'static str {
    let name = kind.as_str_name();
    name.strip_prefix("EVENT_KIND_").unwrap_or(name)
}

impl AuditRecord {
    /// It is about this door.
    #[must_use]
    pub fn about_door(self, door: &DoorName) -> Self {
        Self { door: Some(door.clone()), ..self }
    }

    /// It is about this source.
    #[must_use]
    pub fn about_source(self, source: Source) -> Self {
        Self { source: Some(source), ..self }
    }

    /// It is about this host.
    #[must_use]
    pub fn about_host(self, host: &HostName) -> Self {
        Self { host: Some(host.clone()), ..self }
    }

    /// It is about this opening, its door and its source.
    #[must_use]
    pub fn about_opening(self, opening: &OpeningRecord) -> Self {
        let id = Some(opening.id.clone());
        Self { opening: id, ..self }.about_door(&opening.door).about_source(opening.source)
    }

    /// This changed. Sides that are long are cut; no secret is among them.
    #[must_use]
    pub fn with_changes(self, changes: impl IntoIterator<Item = FieldChange>) -> Self {
        let cut = |change: FieldChange| FieldChange {
            before: cut(change.before, SIDE_MAX),
            after: cut(change.after, SIDE_MAX),
            ..change
        };
        Self { changes: changes.into_iter().take(FIELDS_MAX).map(cut).collect(), ..self }
    }

    /// Its kind; unspecified when a later version wrote it.
    pub fn kind(&self) -> pb::EventKind {
        pb::EventKind::from_str_name(&format!("EVENT_KIND_{}", self.code)).unwrap_or_default()
    }

    /// On whose account it is kept.
    pub fn share(&self) -> Share {
        use pb::EventKind::{AuthenticationFailed, CallDenied, Impostor};
        let refused = matches!(self.kind(), CallDenied | AuthenticationFailed | Impostor);
        let by_user =
            |actor: &Actor| !actor.who.starts_with("host ") && !actor.who.starts_with("controller ");
        if !refused && self.actor.as_ref().is_some_and(by_user) { Share::Orders } else { Share::Rest }
    }
}

/// Adds events to the transaction of the change that they tell of, and lets as many old ones go as the bound asks for. Once
/// per transaction, which must have room for [`CHANGES_EACH`] changes per event.
///
/// # Errors
/// When an event cannot be encoded.
pub fn append(
    transaction: &mut Transaction,
    fleet: &Fleet,
    events: impl IntoIterator<Item = AuditRecord>,
) -> Result<(), Refusal> {
    append_within(AUDIT_MAX, transaction, fleet, events)
}

fn append_within(
    max: usize,
    transaction: &mut Transaction,
    fleet: &Fleet,
    events: impl IntoIterator<Item = AuditRecord>,
) -> Result<(), Refusal> {
    let trail = fleet.trail();
    let (mut orders, mut rest) = (trail.ids(Share::Orders).len(), trail.ids(Share::Rest).len());
    let mut added = 0;
    for event in events {
        match event.share() {
            Share::Orders => orders += 1,
            Share::Rest => rest += 1,
        }
        transaction.changes.push(grant::put(&Key::Audit(event.id.clone()), &event)?);
        added += 1;
    }
    let room = CHANGES_MAX.saturating_sub(transaction.changes.len()).min(added * GIVE_WAY);
    let mut oldest_orders = trail.ids(Share::Orders).iter();
    let mut oldest_rest = trail.ids(Share::Rest).iter();
    for _ in 0..room.min((orders + rest).saturating_sub(max)) {
        // Above the bound, one of the two is above its half.
        let oldest = if orders > rest { oldest_orders.next() } else { oldest_rest.next() };
        let Some(id) = oldest.or_else(|| oldest_rest.next()).or_else(|| oldest_orders.next()) else { break };
        if trail.ids(Share::Orders).contains(id) {
            orders -= 1;
        } else {
            rest -= 1;
        }
        transaction.changes.push(Change::Delete { key: Key::Audit(id.clone()).to_string() });
    }
    Ok(())
}

/// Events that are to be cleared away: those past their time, and the oldest of a trail above its bound.
pub fn outdated(fleet: &Fleet, now: Timestamp) -> impl Iterator<Item = (Key, Revision)> {
    let surplus = fleet.audit().len().saturating_sub(AUDIT_MAX);
    let events = fleet.audit().iter().enumerate();
    let outdated =
        events.take_while(move |(number, (_, held))| *number < surplus || held.record.at + AUDIT_KEEP <= now);
    outdated.map(|(_, (id, held))| (Key::Audit(id.clone()), held.revision))
}

/// Writes an event of something that changes nothing else, such as the showing of a door's steps.
///
/// # Errors
/// When the store cannot.
pub async fn write(
    shared: &Shared,
    event: impl Fn(Timestamp) -> AuditRecord,
) -> Result<Revision, DecideError> {
    let written = decide::contend(shared, |at| {
        let mut transaction = Transaction::default();
        append(&mut transaction, &shared.state().fleet, [event(at)])?;
        Ok(((), transaction))
    });
    written.await.map(|((), revision)| revision)
}

/// Tells of something that has happened already. When the store cannot keep the event it is streamed and logged all the same,
/// as one that is not kept.
pub async fn tell(shared: &Shared, event: impl Fn(Timestamp) -> AuditRecord) {
    if let Err(error) = write(shared, &event).await {
        tracing::warn!(%error, "an event does not enter the audit trail");
        let event = wire::audited(&event(shared.now()));
        shared.say(pb::Event { id: String::new(), ..event });
    }
}

fn cut(text: String, most: usize) -> String {
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
