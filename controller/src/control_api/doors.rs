//! Doors: apply, confirm, get, list, delete.

use std::{collections::BTreeSet, time::Duration};

use fleetknock_core::{
    door::{Door, DoorName, Knock, Sequence, Step, strength, yaml},
    host::{HostName, HostSelector},
    port::{Port, PortRange},
    time::Timestamp,
};
use fleetknock_proto::{convert, limits, status as refuse, v1 as pb};
use tonic::Status;

use super::{decided, door_name, hosts::Told, page::Page};
use crate::{
    audit,
    confirm::{self, ConfirmError, Hold},
    decide::{self, DecideError},
    fleet::{Fleet, Held},
    grant,
    peers::Peers,
    record::{Actor, AuditRecord, DoorRecord, FieldChange, Key, Owner, Withdrawn},
    shared::Shared,
    store::{Change, Revision, Transaction},
    trust::Caller,
    wire,
};

/// Doors in a fleet.
pub(crate) const DOORS_MAX: usize = 4_096;
/// Hosts that a warning names.
const UNSEEN_NAMED_MAX: usize = 8;

/// A door that somebody declares.
pub(crate) struct Order<'a> {
    /// As it shall be.
    pub(crate) door: &'a Door,
    /// Whether a weak knock is good enough.
    pub(crate) weak: bool,
    /// Whether, and for how long, the change waits to be confirmed.
    pub(crate) hold: Option<Hold>,
    /// The revision that it takes the place of, nothing inside for a new door; whatever there is unless given.
    pub(crate) over: Option<Option<Revision>>,
    /// Nothing is written.
    pub(crate) dry_run: bool,
    /// By whose hand.
    pub(crate) actor: &'a Actor,
    /// The resource that declares it. Then it is written only while this controller's lease holds.
    pub(crate) owner: Option<&'a Owner>,
}

/// What became of it.
pub(crate) struct Declared {
    before: Option<DoorRecord>,
    applied: confirm::Applied,
    warnings: Vec<String>,
}

/// Takes a door into the fleet, whoever declares it.
pub(crate) async fn declare(shared: &Shared, peers: &Peers, order: Order<'_>) -> Result<Declared, Status> {
    let Order { door, weak, hold, over, dry_run, actor, owner } = order;
    let mut warnings = examine(shared, door, weak)?;
    warnings.extend(unseen_steps(shared, peers, door).await);
    let ((before, applied), revision) = decided(
        shared,
        decide::contend(shared, |at| {
            let state = shared.state();
            let held = state.fleet.doors().get(door.name());
            if over.is_some_and(|over| held.map(|held| held.revision) != over) {
                return Err(crate::store::StoreError::Conflict.into());
            }
            if owner.is_none() {
                check_owner(shared, door.name(), held)?;
            }
            if held.is_none() && state.fleet.doors().len() >= DOORS_MAX {
                return Err(DecideError::Full { what: "doors", limit: DOORS_MAX });
            }
            let before = held.map(|held| held.record.clone());
            let applied = confirm::apply(before.as_ref(), door, hold.clone(), at);
            let applied = applied.owned_by(owner.cloned(), before.as_ref());
            let key = Key::Door(door.name().clone());
            let mut transaction = Transaction::default();
            if applied.write && !dry_run {
                transaction.expect.push(grant::expect(&key, held.map(|held| held.revision)));
                if owner.is_some() {
                    transaction.expect.push(shared.fence().ok_or(DecideError::Suspended)?);
                }
                transaction.changes.push(grant::put(&key, &applied.record)?);
                let message = said(before.as_ref(), &applied.record);
                let event = audit::entry(pb::EventKind::DoorApplied, shared.stamp(at, Some(actor)), message)
                    .about_door(door.name())
                    .with_changes(differences(before.as_ref().map(|before| &before.door), Some(door)));
                audit::append(&mut transaction, &state.fleet, [event])?;
            }
            Ok(((before, applied), transaction))
        })
        .await,
    )?;
    shared.caught_up(revision).await;
    warnings.extend(applied.remark.map(str::to_owned));
    Ok(Declared { before, applied, warnings })
}

/// A door that a resource declares is changed there: here the change would be undone in a moment.
fn check_owner(shared: &Shared, door: &DoorName, held: Option<&Held<DoorRecord>>) -> Result<(), DecideError> {
    match held.and_then(|held| held.record.owner.as_ref()) {
        Some(owner) if shared.is_left_to(owner) => {
            Err(DecideError::Owned { door: door.clone(), owner: owner.clone() })
        }
        _ => Ok(()),
    }
}

pub(super) async fn apply(
    shared: &Shared,
    peers: &Peers,
    caller: &Caller,
    request: pb::ApplyDoorRequest,
) -> Result<pb::ApplyDoorResponse, Status> {
    let declared = request.door.ok_or_else(|| refuse::invalid("door", "is missing"))?;
    let door = convert::door(&declared)?;
    let order = Order {
        door: &door,
        weak: request.weak,
        hold: hold(caller, request.confirm_within_ms)?,
        over: (request.if_revision != 0).then_some(Some(request.if_revision)),
        dry_run: request.dry_run,
        actor: &caller.actor(),
        owner: None,
    };
    let Declared { before, applied, warnings } = declare(shared, peers, order).await?;

    let changes = before.as_ref().map(|before| differences(Some(&before.door), Some(&door)));
    let changes = changes.into_iter().flatten().map(|change| wire::field_change(&change)).collect();
    let outcome = match &before {
        None => pb::ApplyOutcome::Created,
        Some(before) if before.door == door => pb::ApplyOutcome::Unchanged,
        Some(_) => pb::ApplyOutcome::Changed,
    };
    let state = shared.state();
    let described = match state.fleet.doors().get(door.name()) {
        Some(held) if !request.dry_run => describe(shared, &state.fleet, held, false, shared.now()),
        _ => {
            let held = Held { record: applied.record, revision: 0 };
            describe(shared, &state.fleet, &held, false, shared.now())
        }
    };
    Ok(pb::ApplyDoorResponse { door: Some(described), outcome: outcome.into(), changes, warnings })
}

/// Whether, and for how long, the change shall wait to be confirmed.
fn hold(caller: &Caller, within_ms: u64) -> Result<Option<Hold>, Status> {
    let within = Duration::from_millis(within_ms);
    match within_ms {
        0 => Ok(None),
        _ if (limits::CONFIRM_WITHIN_MIN..=limits::CONFIRM_WITHIN_MAX).contains(&within) => {
            Ok(Some(Hold { within, by: caller.actor() }))
        }
        _ => Err(refuse::invalid(
            "confirm_within_ms",
            format!(
                "must be from {} to {}, not {}",
                yaml::time_text(limits::CONFIRM_WITHIN_MIN),
                yaml::time_text(limits::CONFIRM_WITHIN_MAX),
                yaml::time_text(within)
            ),
        )),
    }
}

/// What the audit trail tells of an applied door.
fn said(before: Option<&DoorRecord>, after: &DoorRecord) -> String {
    let done = match before {
        None => "door created",
        Some(before) if before.door == after.door => "door unchanged",
        Some(_) => "door changed",
    };
    match (&after.pending, before.is_some_and(|before| before.pending.is_some())) {
        (Some(pending), _) => format!("{done}; rolled back at {} unless it is confirmed", pending.until),
        (None, true) => format!("{done}; nothing waits to be confirmed any more"),
        (None, false) => done.to_owned(),
    }
}

/// What stands against a door, or only speaks against it.
fn examine(shared: &Shared, door: &Door, weak: bool) -> Result<Vec<String>, Status> {
    let state = shared.state();
    let fleet = &state.fleet;
    let Knock::Sequence(sequence) = door.knock();
    for (position, step) in (1..).zip(&sequence.steps) {
        let icmp = step.port.protocol() == fleetknock_core::port::Protocol::Icmp;
        if !icmp && !shared.wide.knock_space.iter().any(|range| range.contains(step.port)) {
            let reason =
                format!("step {position} lies outside the knock space, so that no agent would see it");
            return Err(refuse::invalid("door.spec.sequence.steps", reason));
        }
    }
    if let Some((position, guard, host)) = fleet.blind_step(door) {
        let reason = format!(
            "step {position} knocks at a port that the door '{guard}' guards on {host}; guarded ports are not in the knock space"
        );
        return Err(refuse::invalid("door.spec.sequence.steps", reason));
    }
    let problems = strength::weaknesses(door.knock(), bits(shared, fleet, door));
    let mut warnings = strength::warnings(door);
    if weak {
        warnings.extend(problems.iter().map(ToString::to_string));
    } else if let Some(problem) = problems.first() {
        return Err(refuse::invalid(
            "door.spec.sequence",
            format!("{problem}; apply it all the same with --weak"),
        ));
    }
    let nobody = |selector: &HostSelector| {
        // That an empty fleet has not any host says nothing about the door.
        !selector.is_any()
            && !fleet.hosts().values().any(|held| selector.matches(&held.record.name, &held.record.labels))
    };
    if nobody(&door.opens().hosts) {
        warnings.push(format!("no host of the fleet matches opens.hosts ({}) now", door.opens().hosts));
    }
    for (position, step) in (1..).zip(&sequence.steps) {
        if nobody(&step.hosts) {
            warnings.push(format!("no host of the fleet matches step {position} ({}) now", step.hosts));
        }
    }
    Ok(warnings)
}

/// Steps that some of their hosts cannot see now, because local services have their ports. Ports are not named: warnings
/// go to terminals and logs.
async fn unseen_steps(shared: &Shared, peers: &Peers, door: &Door) -> Vec<String> {
    let Knock::Sequence(sequence) = door.knock();
    let chosen = |step: &Step| -> Vec<HostName> {
        let state = shared.state();
        let hosts = state.fleet.hosts().values().map(|held| &held.record);
        let hosts = hosts.filter(|host| step.hosts.matches(&host.name, &host.labels));
        hosts.take(limits::PAGE_MAX).map(|host| host.name.clone()).collect()
    };
    let by_step: Vec<_> = sequence.steps.iter().map(chosen).collect();
    let all: BTreeSet<_> = by_step.iter().flatten().cloned().collect();
    let all: Vec<_> = all.into_iter().take(limits::PAGE_MAX).collect();
    let told = Told::of(shared, peers, &all).await;
    let uses = |host: &&HostName, port: Port| {
        let ranges = told.hosts.get(host.as_str()).map(|host| host.in_use.as_slice()).unwrap_or_default();
        ranges.iter().any(|range| PortRange::try_from(*range).is_ok_and(|range| range.contains(port)))
    };
    let mut warnings = Vec::new();
    for (position, (step, hosts)) in (1..).zip(sequence.steps.iter().zip(&by_step)) {
        let used: Vec<_> = hosts.iter().filter(|host| uses(host, step.port)).map(HostName::as_str).collect();
        let on = match used.as_slice() {
            [] => continue,
            [host] => format!("host {host}"),
            hosts if hosts.len() <= UNSEEN_NAMED_MAX => format!("hosts {}", hosts.join(", ")),
            hosts => {
                let more = hosts.len() - UNSEEN_NAMED_MAX;
                format!("hosts {} and {more} more", hosts[..UNSEEN_NAMED_MAX].join(", "))
            }
        };
        warnings.push(format!(
            "step {position}: its port is in use by a local service on {on}: no knock is seen there"
        ));
    }
    warnings
}

/// The strength of a door's knock, with the hosts that its selectors choose now.
pub(crate) fn bits(shared: &Shared, fleet: &Fleet, door: &Door) -> f64 {
    let space = strength::Space::of(&shared.wide.knock_space);
    strength::bits_counted(door.knock(), fleet.hosts().len(), space, |selector| {
        fleet.hosts().values().filter(|held| selector.matches(&held.record.name, &held.record.labels)).count()
    })
}

/// The fields in which two doors differ; one that is not there has none. Steps are never spelled out.
pub(crate) fn differences(before: Option<&Door>, after: Option<&Door>) -> Vec<FieldChange> {
    let list = |items: Vec<String>| items.join(", ");
    let mut changes = Vec::new();
    let mut note = |field: &str, value: &dyn Fn(&Door) -> String| {
        let (before, after) = (before.map(value).unwrap_or_default(), after.map(value).unwrap_or_default());
        if before != after {
            changes.push(FieldChange { field: field.to_owned(), before, after });
        }
    };
    note("metadata.labels", &|door| list(door.labels().iter().map(|(k, v)| format!("{k}={v}")).collect()));
    note("spec.mode", &|door| door.mode().name().to_owned());
    note("spec.sources", &|door| list(door.sources().iter().map(ToString::to_string).collect()));
    note("spec.opens.hosts", &|door| door.opens().hosts.to_string());
    note("spec.opens.ports", &|door| list(door.opens().ports.iter().map(ToString::to_string).collect()));
    note("spec.opens.for", &|door| yaml::time_text(door.opens().duration));
    let sequence = |door: &Door| {
        let Knock::Sequence(sequence) = door.knock();
        sequence.clone()
    };
    note("spec.knock.within", &|door| yaml::time_text(sequence(door).within));
    let (old, new) = (before.map(sequence), after.map(sequence));
    if old.as_ref().map(|old| &old.steps) != new.as_ref().map(|new| &new.steps) {
        let steps = |of: Option<Sequence>, what: &str| {
            of.map(|of| format!("{} steps ({what})", of.steps.len())).unwrap_or_default()
        };
        let (before, after) = (steps(old, "old"), steps(new, "new"));
        changes.push(FieldChange { field: "spec.knock.sequence".to_owned(), before, after });
    }
    changes
}

fn describe(
    shared: &Shared,
    fleet: &Fleet,
    held: &Held<DoorRecord>,
    reveal: bool,
    at: Timestamp,
) -> pb::Door {
    let DoorRecord { door, created, updated, pending, .. } = &held.record;
    let active = fleet.openings_of(door.name()).filter(|opening| fleet.is_effective(opening, at)).count();
    pb::Door {
        revision: held.revision,
        strength_bits: bits(shared, fleet, door),
        hosts: fleet.hosts_of(door).iter().map(ToString::to_string).collect(),
        created_ms: created.as_millis(),
        updated_ms: updated.as_millis(),
        active_openings: u32::try_from(active).unwrap_or(u32::MAX),
        confirm_until_ms: pending.as_ref().map_or(0, |pending| pending.until.as_millis()),
        ..convert::door_message(door, reveal)
    }
}

pub(super) async fn one(
    shared: &Shared,
    caller: &Caller,
    request: &pb::GetDoorRequest,
) -> Result<pb::Door, Status> {
    let name = door_name("name", &request.name)?;
    let shown = {
        let state = shared.state();
        let held = state.fleet.doors().get(&name).ok_or_else(|| refuse::not_found("door", name.as_str()))?;
        describe(shared, &state.fleet, held, request.reveal, shared.now())
    };
    if request.reveal {
        let message = "the steps were shown";
        revealed(shared, caller, message, |event| event.about_door(&name)).await?;
    }
    Ok(shown)
}

pub(super) async fn list(
    shared: &Shared,
    caller: &Caller,
    request: &pb::ListDoorsRequest,
) -> Result<pb::ListDoorsResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let (doors, next_page_token): (Vec<_>, _) = {
        let state = shared.state();
        let (held, next) = page.cut(state.fleet.doors().iter().map(|(name, held)| (name.to_string(), held)));
        let at = shared.now();
        let describe = |held| describe(shared, &state.fleet, held, request.reveal, at);
        (held.into_iter().map(describe).collect(), next)
    };
    // One event for a page: thousands would flush the trail.
    if let (true, Some(first), Some(last)) = (request.reveal, doors.first(), doors.last()) {
        let message = format!(
            "the steps of {} doors were shown, all from '{}' to '{}'",
            doors.len(),
            first.name,
            last.name
        );
        revealed(shared, caller, &message, |event| event).await?;
    }
    Ok(pb::ListDoorsResponse { doors, next_page_token })
}

/// Writes down that steps are shown, before they are: when that cannot be written they are not shown.
pub(super) async fn revealed(
    shared: &Shared,
    caller: &Caller,
    message: &str,
    about: impl Fn(AuditRecord) -> AuditRecord,
) -> Result<(), Status> {
    let actor = caller.actor();
    let event =
        |at| about(audit::entry(pb::EventKind::DoorRevealed, shared.stamp(at, Some(&actor)), message));
    decided(shared, audit::write(shared, event).await).map(|_| ())
}

/// Keeps a change that waits for it.
pub(super) async fn confirm(
    shared: &Shared,
    caller: &Caller,
    request: &pb::ConfirmDoorRequest,
) -> Result<pb::Door, Status> {
    let name = door_name("name", &request.name)?;
    let actor = caller.actor();
    let contended = decide::contend(shared, |at| {
        let state = shared.state();
        let mut transaction = match confirm::confirm(&state.fleet, &name, at)? {
            Ok(transaction) => transaction,
            Err(error) => return Ok((Err(error), Transaction::default())),
        };
        let stamp = shared.stamp(at, Some(&actor));
        let event = audit::entry(pb::EventKind::DoorConfirmed, stamp, "the change was confirmed");
        audit::append(&mut transaction, &state.fleet, [event.about_door(&name)])?;
        Ok((Ok(()), transaction))
    });
    let (confirmed, revision) = decided(shared, contended.await)?;
    confirmed.map_err(|error| match error {
        ConfirmError::NoDoor(_) => Status::not_found(error.to_string()),
        _ => refuse::precondition("door", name.as_str(), error.to_string()),
    })?;
    shared.caught_up(revision).await;
    let state = shared.state();
    let held = state.fleet.doors().get(&name).ok_or_else(|| refuse::not_found("door", name.as_str()))?;
    Ok(describe(shared, &state.fleet, held, false, shared.now()))
}

pub(super) async fn delete(
    shared: &Shared,
    caller: &Caller,
    request: &pb::DeleteDoorRequest,
) -> Result<pb::DeleteDoorResponse, Status> {
    let name = door_name("name", &request.name)?;
    if !shared.state().fleet.doors().contains_key(&name) {
        return Err(refuse::not_found("door", name.as_str()));
    }
    let closed = withdraw(shared, &name, None, &caller.actor(), request.kill_connections).await?;
    Ok(pb::DeleteDoorResponse { openings_withdrawn: u32::try_from(closed).unwrap_or(u32::MAX) })
}

/// Removes a door, its guard and its openings, and says how many openings there were: a deleted door leaves nothing open.
/// With a resource given it is removed only if that declares it; otherwise only if none does.
pub(crate) async fn withdraw(
    shared: &Shared,
    name: &DoorName,
    of: Option<&Owner>,
    actor: &Actor,
    kill_connections: bool,
) -> Result<usize, Status> {
    let how = Withdrawn { at: shared.now(), reason: "the door was deleted".to_owned(), kill_connections };
    let removed = decide::contend(shared, |at| {
        let (state, mut transaction) = (shared.state(), Transaction::default());
        let Some(held) = state.fleet.doors().get(name) else { return Ok(((), transaction)) };
        match of {
            None => check_owner(shared, name, Some(held))?,
            Some(owner) if held.record.owner.as_ref() != Some(owner) => return Ok(((), transaction)),
            Some(_) => transaction.expect.push(shared.fence().ok_or(DecideError::Suspended)?),
        }
        let key = Key::Door(name.clone());
        transaction.expect.push(grant::expect(&key, Some(held.revision)));
        transaction.changes.push(Change::Delete { key: key.to_string() });
        let event = audit::entry(pb::EventKind::DoorDeleted, shared.stamp(at, Some(actor)), "door deleted")
            .about_door(name)
            .with_changes(differences(Some(&held.record.door), None));
        audit::append(&mut transaction, &state.fleet, [event])?;
        Ok(((), transaction))
    });
    let ((), revision) = decided(shared, removed.await)?;
    shared.caught_up(revision).await;
    // After the door: an opening that was granted at the same moment is found now.
    let (closed, revision) =
        decided(shared, decide::close(shared, |opening| opening.door == *name, &how, Some(actor)).await)?;
    shared.caught_up(revision).await;
    Ok(closed.len())
}
