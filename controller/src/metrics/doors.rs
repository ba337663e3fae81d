//! What is counted of each door. Doors are declared by operators, few, and come and go: what was counted of one that is
//! gone goes with it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fleetknock_core::door::DoorName;

/// Doors counted, the gone ones that nobody has asked about since among them. Beyond that a door is not counted.
const DOORS_MAX: usize = 4_096;

/// What happened to the openings of one door, on this controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// New ones.
    pub granted: u64,
    /// Granted again while they lasted.
    pub refreshed: u64,
    /// Orders to hold one, sent to agents when it was granted or refreshed.
    pub pushed: u64,
    /// Agents that said to hold one, each once.
    pub applied: u64,
    /// Agents that said not to.
    pub failed: u64,
    /// Taken back before their time.
    pub withdrawn: u64,
}

/// The counts of all doors. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Doors(Arc<Mutex<BTreeMap<DoorName, Counts>>>);

impl Doors {
    /// Counts something of a door.
    pub fn count(&self, door: &DoorName, add: impl FnOnce(&mut Counts)) {
        let mut doors = self.lock();
        if !doors.contains_key(door) {
            if doors.len() >= DOORS_MAX {
                return;
            }
            doors.insert(door.clone(), Counts::default());
        }
        if let Some(counts) = doors.get_mut(door) {
            add(counts);
        }
    }

    /// The counts of these doors; those of all others are forgotten.
    pub(super) fn of<'a>(&self, declared: impl IntoIterator<Item = &'a DoorName>) -> Vec<(DoorName, Counts)> {
        let mut doors = self.lock();
        let counts = |door: &DoorName| (door.clone(), doors.get(door).copied().unwrap_or_default());
        let of: Vec<_> = declared.into_iter().map(counts).collect();
        *doors = of.iter().take(DOORS_MAX).cloned().collect();
        of
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DoorName, Counts>> {
        // Every change under the lock leaves the counts whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
