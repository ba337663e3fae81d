//! What is to be done next for a resource. Pure: no API server, no store.
//!
//! ```text
//! new ──Finalize──▶ finalized ──Apply──▶ declared ◀──Apply── changed
//!                                           │ deleted
//!                                           ▼
//!                  gone ◀──Release── withdrawn ◀──Withdraw── deleting
//! ```
//!
//! A door is withdrawn only for a resource that is seen being deleted while it still has the finalizer. One that is merely
//! not there any more (a list that lacks it, a finalizer taken off by hand) leaves its door in force; it is *lost*, and
//! becomes the control API's.

use fleetknock_core::door::{Door, DoorName};

use super::resource::{Refusal, Resource};
use crate::{
    fleet::{Fleet, Held},
    record::{DoorRecord, Owner},
    store::Revision,
};

#[cfg(test)]
mod tests;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Add the finalizer: nothing is taken into the fleet that could not be withdrawn.
    Finalize,
    /// Take the door into the fleet over that revision, nothing for a new one.
    Apply(Option<Revision>),
    /// Withdraw the door, its guard and its openings.
    Withdraw,
    /// Remove the finalizer, so that the resource goes.
    Release,
    /// Nothing, and this is to be said of it.
    Rest(Result<(), Refusal>),
}

/// Decides what to do next for a resource. `finalized` is whether it has the finalizer by now; `door` is the door that it
/// declares, `held` the one of its name in the fleet.
pub(crate) fn decide(
    resource: &Resource,
    finalized: bool,
    door: &Result<Door, Refusal>,
    held: Option<&Held<DoorRecord>>,
) -> Step {
    let record = held.map(|held| &held.record);
    let owner = record.and_then(|record| record.owner.as_ref());
    let is_own = owner == Some(&resource.owner);
    if resource.deleting {
        return match (finalized, is_own) {
            (false, _) => Step::Rest(Ok(())),
            (true, true) => Step::Withdraw,
            (true, false) => Step::Release,
        };
    }
    let door = match door {
        Ok(door) => door,
        Err(refusal) if is_own => {
            let message = format!("{}; the door that was accepted last stays in force", refusal.message);
            return Step::Rest(Err(Refusal { message, ..refusal.clone() }));
        }
        Err(refusal) => return Step::Rest(Err(refusal.clone())),
    };
    if let Some(record) = record
        && let Err(taken) = may_take(resource, door, record)
    {
        return Step::Rest(Err(taken));
    }
    let is_declared = is_own && record.is_some_and(|record| record.door == *door && record.pending.is_none());
    match (finalized, is_declared) {
        (false, _) => Step::Finalize,
        (true, true) => Step::Rest(Ok(())),
        (true, false) => Step::Apply(held.map(|held| held.revision)),
    }
}

/// Whether a resource may declare a door that is there.
fn may_take(resource: &Resource, door: &Door, record: &DoorRecord) -> Result<(), Refusal> {
    let name = record.door.name();
    match &record.owner {
        // Also one that was made anew: names are unique, so the earlier one is gone.
        Some(owner) if owner.is_same_place(&resource.owner) => Ok(()),
        Some(owner) if !owner.lost && !resource.adopt => Err(Refusal::new(
            "NameTaken",
            format!("the door '{name}' of the fleet is declared by the resource {owner}"),
        )),
        // The very same door: nothing changes but where it is declared.
        _ if resource.adopt || record.door == *door => Ok(()),
        _ => Err(Refusal::new(
            "NameTaken",
            format!(
                "the fleet has another door '{name}' that no resource declares; annotate this one with \
                 fleetknock.io/adopt=true to take its place, or delete that door with: fleetknock delete door {name}"
            ),
        )),
    }
}

/// The doors whose resources are gone without having been deleted in order, of all that resources of these namespaces
/// declare. `is_there` tells whether there is a resource of that namespace and name.
pub(crate) fn lost(
    fleet: &Fleet,
    covers: impl Fn(&str) -> bool,
    is_there: impl Fn(&Owner) -> bool,
) -> Vec<(DoorName, Owner)> {
    let owned = fleet.doors().iter().filter_map(|(name, held)| Some((name, held.record.owner.as_ref()?)));
    let lost = owned.filter(|(_, owner)| !owner.lost && covers(&owner.namespace) && !is_there(owner));
    lost.map(|(name, owner)| (name.clone(), owner.clone())).collect()
}
