//! What this controller remembers of the knocks that it judged, so that it can tell why a door did not open. Pure.
//!
//! Two rings of small entries of one size, not one list per source: taking one in costs a few nanoseconds whatever is
//! knocked and by whom, and a flood of first steps and misses pushes out no progress. Who asks pays: an answer looks at
//! every entry.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use fleetknock_core::{
    door::DoorName,
    explain::Outcome,
    host::HostId,
    knock::{Observation, ObservationId},
    matcher::{Completion, Ignored, Verdict},
    port::Port,
    source::Source,
    time::Timestamp,
};

use crate::record::Packet;

/// Knocks remembered that came to nothing: misses, first steps, what was not taken in, what banned sources sent. 72 bytes
/// each, so at most 4.7 MB. The oldest gives way.
pub const NOISE_MAX: usize = 65_536;

/// Knocks remembered that were progress, or repeats of it; bounded in the same way.
pub const PROGRESS_MAX: usize = 65_536;

/// Knocks of one source in an answer: the latest.
pub const ANSWER_MAX: usize = 1_024;

/// One judged knock. `Debug` does not print its port.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    time: Timestamp,
    judged: Timestamp,
    source: [u8; 16],
    counter: u64,
    host: u32,
    boot: u32,
    /// Microseconds, at most 71 minutes.
    uncertainty: u32,
    fingerprint: u32,
    port: Port,
    /// What it was.
    pub outcome: Outcome,
    /// Which step, from 1; 0: none.
    pub step: u8,
    /// Of how many.
    pub of: u8,
    /// Of a step: the door.
    pub door: Option<Arc<DoorName>>,
}

impl Entry {
    /// A knock that was judged then, and is no step.
    pub fn new(observation: &Observation, judged: Timestamp, outcome: Outcome) -> Self {
        let Observation { id, source, port, time, uncertainty, fingerprint } = *observation;
        Self {
            time,
            judged,
            source: source.octets(),
            counter: id.counter,
            host: id.host.0,
            boot: id.boot,
            uncertainty: u32::try_from(uncertainty.as_micros()).unwrap_or(u32::MAX),
            fingerprint,
            port,
            outcome,
            step: 0,
            of: 0,
            door: None,
        }
    }

    /// What the matcher said of a knock; nothing when it was known already, or completed a door: that is told with the
    /// door's name, by [`completed`](Self::completed).
    pub fn judged(observation: &Observation, judged: Timestamp, verdict: Verdict) -> Option<Self> {
        let outcome = match &verdict {
            Verdict::Completed | Verdict::Ignored(Ignored::Duplicate) => return None,
            Verdict::Advanced { .. } => Outcome::Step,
            Verdict::Repeat => Outcome::Repeat,
            Verdict::Waiting => Outcome::Waiting,
            Verdict::Miss => Outcome::Miss,
            Verdict::Ignored(Ignored::TooLate) => Outcome::TooLate,
            Verdict::Ignored(Ignored::Future) => Outcome::Future,
            Verdict::Ignored(Ignored::IcmpUnused) => Outcome::Ping,
            Verdict::Ignored(Ignored::Refused) => Outcome::NoRoom,
        };
        let entry = Self::new(observation, judged, outcome);
        Some(match verdict {
            Verdict::Advanced { door, step, of } => entry.at_step(door, step, of),
            _ => entry,
        })
    }

    /// A knock with whose report a door was complete. It need not be the last step: reports come in any order. The name is
    /// that of the completed door.
    pub fn completed(
        observation: &Observation,
        judged: Timestamp,
        complete: &Completion,
        door: Arc<DoorName>,
    ) -> Self {
        let of = complete.knocks.len();
        let step = if observation.id == complete.end { of } else { 0 };
        Self::new(observation, judged, Outcome::Completed).at_step(door, step, of)
    }

    fn at_step(self, door: Arc<DoorName>, step: usize, of: usize) -> Self {
        let small = |number| u8::try_from(number).unwrap_or(u8::MAX);
        Self { door: Some(door), step: small(step), of: small(of), ..self }
    }

    /// What was seen.
    pub fn observation(&self) -> Observation {
        Observation {
            id: ObservationId { host: HostId(self.host), boot: self.boot, counter: self.counter },
            source: Source::from_octets(self.source),
            port: self.port,
            time: self.time,
            uncertainty: Duration::from_micros(self.uncertainty.into()),
            fingerprint: self.fingerprint,
        }
    }

    /// When it was judged.
    pub fn judged_at(&self) -> Timestamp {
        self.judged
    }

    fn is_progress(&self) -> bool {
        match self.outcome {
            Outcome::Repeat | Outcome::Waiting | Outcome::Completed | Outcome::Refused => true,
            Outcome::Step => self.step >= 2,
            _ => false,
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("observation", &self.observation())
            .field("judged", &self.judged)
            .field("outcome", &self.outcome)
            .field("door", &self.door)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

/// The last knocks judged.
#[derive(Debug)]
pub struct Recollection {
    began: Timestamp,
    noise: Ring,
    progress: Ring,
}

/// What is remembered of one source.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// In the order in which they were judged; the latest [`ANSWER_MAX`].
    pub entries: Vec<Entry>,
    /// Knocks judged before this may have been forgotten.
    pub complete_from: Timestamp,
}

impl Recollection {
    /// Nothing yet. Memory is taken as it fills.
    pub fn new(began: Timestamp) -> Self {
        Self { began, noise: Ring::new(NOISE_MAX), progress: Ring::new(PROGRESS_MAX) }
    }

    /// Takes a knock in.
    pub fn add(&mut self, entry: Entry) {
        if entry.is_progress() { self.progress.push(entry) } else { self.noise.push(entry) }
    }

    /// What is remembered of a source, judged from then on.
    pub fn of(&self, source: Source, since: Timestamp) -> Remembered {
        let octets = source.octets();
        let all = self.noise.entries.iter().chain(&self.progress.entries);
        let mut entries: Vec<_> =
            all.filter(|entry| entry.source == octets && entry.judged >= since).cloned().collect();
        entries.sort_by_key(|entry| (entry.judged, entry.time, entry.host, entry.boot, entry.counter));
        let mut complete_from = [&self.noise, &self.progress]
            .into_iter()
            .filter_map(Ring::lost_before)
            .fold(self.began, Ord::max);
        if let Some(surplus) = entries.len().checked_sub(ANSWER_MAX).filter(|surplus| *surplus > 0) {
            entries.drain(..surplus);
            complete_from = complete_from.max(entries.first().map_or(complete_from, |first| first.judged));
        }
        Remembered { entries, complete_from }
    }
}

/// The last entries, up to a number.
#[derive(Debug)]
struct Ring {
    entries: Vec<Entry>,
    /// The oldest, once it is full.
    next: usize,
    limit: usize,
}

impl Ring {
    fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), next: 0, limit }
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() < self.limit {
            self.entries.push(entry);
            return;
        }
        self.entries[self.next] = entry;
        self.next = (self.next + 1) % self.limit;
    }

    /// When the oldest entry was judged, if there were older ones.
    fn lost_before(&self) -> Option<Timestamp> {
        (self.entries.len() == self.limit).then(|| self.entries[self.next].judged)
    }
}

/// A complete knock that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Who knocked.
    pub source: Source,
    /// At which door.
    pub door: DoorName,
    /// The packet for its last step.
    pub end: Packet,
    /// Why, for people.
    pub reason: String,
    /// It is tried again for a while yet.
    pub waits: bool,
}

/// Complete knocks that were not answered, remembered.
pub const UNANSWERED_MAX: usize = 1_024;

/// Characters of a reason.
const REASON_MAX: usize = 200;

/// The last complete knocks that were not answered, at most [`UNANSWERED_MAX`]; the oldest gives way.
#[derive(Debug, Default)]
pub struct Refused(VecDeque<Unanswered>);

impl Refused {
    /// Takes one in, in the place of what was said of the same knock before.
    pub fn add(&mut self, unanswered: Unanswered) {
        self.remove(unanswered.source, &unanswered.door, &unanswered.end);
        if self.0.len() >= UNANSWERED_MAX {
            self.0.pop_front();
        }
        let reason = unanswered.reason.chars().take(REASON_MAX).collect();
        self.0.push_back(Unanswered { reason, ..unanswered });
    }

    /// It was answered after all.
    pub fn remove(&mut self, source: Source, door: &DoorName, end: &Packet) {
        self.0.retain(|held| (held.source, &held.door, &held.end) != (source, door, end));
    }

    /// Those of one source, the oldest first.
    pub fn of(&self, source: Source) -> impl Iterator<Item = &Unanswered> {
        self.0.iter().filter(move |held| held.source == source)
    }
}

#[cfg(test)]
mod tests;
