//! Doors: apply, get, list, delete.

use fleetknock_core::{
    door::{Door, Knock, strength, yaml},
    host::HostSelector,
    time::Timestamp,
};
use fleetknock_proto::{convert, status as refuse, v1 as pb};
use tonic::Status;

use super::{decided, door_name, page::Page};
use crate::{
    decide::{self, DecideError},
    fleet::{Fleet, Held},
    grant,
    record::{DoorRecord, Key, Withdrawn},
    shared::Shared,
    store::Transaction,
};

/// Doors in a fleet.
const DOORS_MAX: usize = 4_096;

pub(super) async fn apply(
    shared: &Shared,
    request: pb::ApplyDoorRequest,
) -> Result<pb::ApplyDoorResponse, Status> {
    let wire = request.door.ok_or_else(|| refuse::invalid("door", "is missing"))?;
    let door = convert::door(&wire)?;
    let warnings = examine(shared, &door, request.weak)?;

    let (outcome, revision) = decided(
        shared,
        decide::contend(shared, |at| {
            let state = shared.state();
            let held = state.fleet.doors().get(door.name());
            if request.if_revision != 0 && held.map(|held| held.revision) != Some(request.if_revision) {
                return Err(crate::store::StoreError::Conflict.into());
            }
            if held.is_none() && state.fleet.doors().len() >= DOORS_MAX {
                return Err(DecideError::Full { what: "doors", limit: DOORS_MAX });
            }
            let before = held.map(|held| held.record.clone());
            let unchanged = before.as_ref().is_some_and(|before| before.door == door);
            let record = DoorRecord {
                door: door.clone(),
                created: before.as_ref().map_or(at, |b| b.created),
                updated: at,
            };
            let key = Key::Door(door.name().clone());
            let mut transaction = Transaction::default();
            if !unchanged && !request.dry_run {
                transaction.expect.push(grant::expect(&key, held.map(|held| held.revision)));
                transaction.changes.push(grant::put(&key, &record)?);
            }
            Ok((before, transaction))
        })
        .await,
    )?;
    shared.caught_up(revision).await;

    let changes = outcome.as_ref().map(|before| differences(&before.door, &door)).unwrap_or_default();
    let outcome = match &outcome {
        None => pb::ApplyOutcome::Created,
        Some(before) if before.door == door => pb::ApplyOutcome::Unchanged,
        Some(_) => pb::ApplyOutcome::Changed,
    };
    let state = shared.state();
    let applied = match state.fleet.doors().get(door.name()) {
        Some(held) if !request.dry_run => describe(shared, &state.fleet, held, false, shared.now()),
        _ => {
            let at = shared.now();
            let record = DoorRecord { door: door.clone(), created: at, updated: at };
            describe(shared, &state.fleet, &Held { record, revision: 0 }, false, at)
        }
    };
    Ok(pb::ApplyDoorResponse { door: Some(applied), outcome: outcome.into(), changes, warnings })
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

/// The strength of a door's knock, with the hosts that its selectors choose now.
fn bits(shared: &Shared, fleet: &Fleet, door: &Door) -> f64 {
    let space = strength::Space::of(&shared.wide.knock_space);
    strength::bits_counted(door.knock(), fleet.hosts().len(), space, |selector| {
        fleet.hosts().values().filter(|held| selector.matches(&held.record.name, &held.record.labels)).count()
    })
}

/// The fields in which two doors differ. Steps are never spelled out.
fn differences(before: &Door, after: &Door) -> Vec<pb::FieldChange> {
    let list = |items: Vec<String>| items.join(", ");
    let labels = |door: &Door| list(door.labels().iter().map(|(k, v)| format!("{k}={v}")).collect());
    let networks = |door: &Door| list(door.sources().iter().map(ToString::to_string).collect());
    let ports = |door: &Door| list(door.opens().ports.iter().map(ToString::to_string).collect());
    let mut changes = Vec::new();
    let mut note = |field: &str, before: String, after: String| {
        if before != after {
            changes.push(pb::FieldChange { field: field.to_owned(), before, after });
        }
    };
    note("metadata.labels", labels(before), labels(after));
    note("spec.sources", networks(before), networks(after));
    note("spec.opens.hosts", before.opens().hosts.to_string(), after.opens().hosts.to_string());
    note("spec.opens.ports", ports(before), ports(after));
    note("spec.opens.for", yaml::time_text(before.opens().duration), yaml::time_text(after.opens().duration));
    let (Knock::Sequence(before), Knock::Sequence(after)) = (before.knock(), after.knock());
    note("spec.knock.within", yaml::time_text(before.within), yaml::time_text(after.within));
    if before.steps != after.steps {
        let steps = |count: usize, what: &str| format!("{count} steps ({what})");
        note("spec.knock.sequence", steps(before.steps.len(), "old"), steps(after.steps.len(), "new"));
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
    let DoorRecord { door, created, updated } = &held.record;
    let active = fleet.openings_of(door.name()).filter(|opening| fleet.is_effective(opening, at)).count();
    pb::Door {
        revision: held.revision,
        strength_bits: bits(shared, fleet, door),
        hosts: fleet.hosts_of(door).iter().map(ToString::to_string).collect(),
        created_ms: created.as_millis(),
        updated_ms: updated.as_millis(),
        active_openings: u32::try_from(active).unwrap_or(u32::MAX),
        ..convert::door_message(door, reveal)
    }
}

pub(super) fn one(shared: &Shared, request: &pb::GetDoorRequest) -> Result<pb::Door, Status> {
    let name = door_name("name", &request.name)?;
    let state = shared.state();
    let held = state.fleet.doors().get(&name).ok_or_else(|| refuse::not_found("door", name.as_str()))?;
    Ok(describe(shared, &state.fleet, held, request.reveal, shared.now()))
}

pub(super) fn list(shared: &Shared, request: &pb::ListDoorsRequest) -> Result<pb::ListDoorsResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let state = shared.state();
    let (held, next_page_token) =
        page.cut(state.fleet.doors().iter().map(|(name, held)| (name.to_string(), held)));
    let at = shared.now();
    let doors =
        held.into_iter().map(|held| describe(shared, &state.fleet, held, request.reveal, at)).collect();
    Ok(pb::ListDoorsResponse { doors, next_page_token })
}

/// Keeps a change that waits for it.
pub(super) async fn confirm(shared: &Shared, request: &pb::ConfirmDoorRequest) -> Result<pb::Door, Status> {
    let door = one(shared, &pb::GetDoorRequest { name: request.name.clone(), reveal: false })?;
    Err(refuse::precondition("door", &door.name, "nothing waits to be confirmed"))
}

/// Takes the door's openings back first: a deleted door leaves nothing open.
pub(super) async fn delete(
    shared: &Shared,
    request: &pb::DeleteDoorRequest,
) -> Result<pb::DeleteDoorResponse, Status> {
    let name = door_name("name", &request.name)?;
    if !shared.state().fleet.doors().contains_key(&name) {
        return Err(refuse::not_found("door", name.as_str()));
    }
    let how = Withdrawn {
        at: shared.now(),
        reason: "the door was deleted".to_owned(),
        kill_connections: request.kill_connections,
    };
    let revision = decided(shared, decide::remove(shared, &Key::Door(name.clone())).await)?;
    shared.caught_up(revision).await;
    // After the door: an opening that was granted at the same moment is found now.
    let (closed, revision) =
        decided(shared, decide::close(shared, |opening| opening.door == name, &how).await)?;
    shared.caught_up(revision).await;
    Ok(pb::DeleteDoorResponse { openings_withdrawn: u32::try_from(closed.len()).unwrap_or(u32::MAX) })
}
