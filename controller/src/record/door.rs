//! A door as the store holds it, and a change of it that waits to be confirmed.

use std::fmt;

use fleetknock_core::{door::Door, time::Timestamp};
use serde::{Deserialize, Serialize};

use super::Actor;

/// A door, as applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorRecord {
    /// As the operator declared it.
    pub door: Door,
    /// When it was first applied.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// Set while its last change waits to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// When its last change was rolled back, until the next one; for people who confirm too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<Timestamp>,
    /// The resource that declares it, when one does; otherwise the control API does. Versions that do not know of it drop it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

impl DoorRecord {
    /// A door that is applied for the first time, for good.
    pub fn new(door: Door, at: Timestamp) -> Self {
        Self { door, created: at, updated: at, pending: None, rolled_back: None, owner: None }
    }
}

/// A change that is rolled back unless somebody confirms it in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The door as it was confirmed last; nothing when there was none: the rollback deletes it.
    pub before: Option<Door>,
    /// From when on it is rolled back, by the fleet's time.
    pub until: Timestamp,
    /// By whose hand it waits.
    pub by: Actor,
}

/// The Kubernetes resource of kind Door that declares a door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What tells it from an earlier one of that name.
    pub uid: String,
    /// It is gone without having been deleted in order, or its definition is: the door stays in force, and is the control
    /// API's to change and to delete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

impl Owner {
    /// Whether both are the resource of one name, perhaps made anew.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.namespace, &self.name) == (&other.namespace, &other.name)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
