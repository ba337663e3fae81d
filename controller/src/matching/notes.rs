//! What the controller notes of every knock that it judges: how many became what, and the last of them. Pure.
//!
//! It stands beside the matcher on the one path that a flood takes, so `make bench` measures both with and without it
//! and fails when it costs more than a twentieth.

use std::{collections::BTreeSet, sync::Arc};

use fleetknock_core::{
    door::DoorName,
    explain::Outcome,
    knock::Observation,
    matcher::{Completion, Verdict},
    time::Timestamp,
};

use crate::{
    metrics::{Metrics, VERDICTS, VerdictLabels},
    recollection::{Entry, Recollection},
    tally::Counts,
};

/// Notes of judged knocks.
#[derive(Debug)]
pub struct Notes {
    memory: Recollection,
    /// Since they were published last, in the order of [`VERDICTS`].
    counts: [u64; VERDICTS.len()],
    /// Names of doors that were completed. All notes share one: making and dropping a name costs as much as judging.
    doors: BTreeSet<Arc<DoorName>>,
}

/// Doors whose names are shared; with more the sharing begins anew.
const DOORS_MAX: usize = 1_024;

impl Notes {
    /// Nothing yet.
    pub fn new(began: Timestamp) -> Self {
        Self { memory: Recollection::new(began), counts: [0; VERDICTS.len()], doors: BTreeSet::new() }
    }

    /// A knock of a banned source, which the matcher does not see.
    pub fn banned(&mut self, observation: &Observation, now: Timestamp) {
        self.counts[BANNED] += 1;
        self.memory.add(Entry::new(observation, now, Outcome::Banned));
    }

    /// A door that a knock completed; [`judged`](Self::judged) follows.
    pub fn completed(&mut self, observation: &Observation, now: Timestamp, complete: &Completion) {
        let door = self.shared(&complete.door);
        self.memory.add(Entry::completed(observation, now, complete, door));
    }

    /// What the matcher said of a knock.
    pub fn judged(&mut self, observation: &Observation, now: Timestamp, verdict: Verdict) {
        self.counts[place(&verdict)] += 1;
        if let Some(entry) = Entry::judged(observation, now, verdict) {
            self.memory.add(entry);
        }
    }

    /// Adds what was counted to the metrics, and begins anew; the same as the dashboard draws it.
    pub fn publish(&mut self, metrics: &Metrics) -> Counts {
        let counts = std::mem::take(&mut self.counts);
        for (verdict, count) in VERDICTS.into_iter().zip(counts) {
            if count > 0 {
                metrics.knocks.get_or_create(&VerdictLabels { verdict }).inc_by(count);
            }
        }
        Counts::of_verdicts(|name| {
            VERDICTS
                .into_iter()
                .zip(counts)
                .find(|(verdict, _)| *verdict == name)
                .map_or(0, |(_, count)| count)
        })
    }

    /// The last knocks.
    pub fn memory(&self) -> &Recollection {
        &self.memory
    }

    fn shared(&mut self, door: &DoorName) -> Arc<DoorName> {
        if let Some(known) = self.doors.get(door) {
            return Arc::clone(known);
        }
        if self.doors.len() >= DOORS_MAX {
            self.doors.clear();
        }
        let door = Arc::new(door.clone());
        self.doors.insert(Arc::clone(&door));
        door
    }
}

const BANNED: usize = 1;

/// Its place among [`VERDICTS`]: found without comparing names, since every knock is counted.
fn place(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Advanced { .. } => 0,
        Verdict::Completed => 2,
        Verdict::Ignored(_) => 3,
        Verdict::Miss => 4,
        Verdict::Repeat => 5,
        Verdict::Waiting => 6,
    }
}

#[cfg(test)]
mod tests;
