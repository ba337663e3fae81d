//! A door as the store holds it, and a change of it that waits to be confirmed.

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
}

impl DoorRecord {
    /// A door that is applied for the first time, for good.
    pub fn new(door: Door, at: Timestamp) -> Self {
        Self { door, created: at, updated: at, pending: None, rolled_back: None }
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
