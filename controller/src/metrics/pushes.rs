//! How long openings take from the store to the kernels: which agents were told of which one, and have not answered yet.
//!
//! Pure. It only measures: when it is full, further openings are not measured, and nothing else is different.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use fleetknock_core::time::Timestamp;

use crate::record::{By, OpeningRecord};

/// Answers that are waited for, of all openings together: one opening on ten thousand hosts and many of a few.
const WAITING_MAX: usize = 65_536;

/// What waits for answers.
#[derive(Debug, Default)]
pub struct Pushes {
    openings: HashMap<String, Pushed>,
    waiting: usize,
}

#[derive(Debug)]
struct Pushed {
    generation: u64,
    knocked: Option<Timestamp>,
    at: Instant,
    /// The sessions that have not answered.
    sessions: HashSet<u64>,
    failed: bool,
}

/// What an answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// From the commit seen here to the answer heard.
    pub took: Duration,
    /// When the knock's last packet was captured, in the fleet's time, if a knock opened it.
    pub knocked: Option<Timestamp>,
    /// It was the last answer, and every host that was told has taken it.
    pub complete: bool,
}

impl Pushes {
    /// Notes that these sessions were told of an opening, whose commit was seen at that time.
    pub fn note(&mut self, opening: &OpeningRecord, sessions: impl IntoIterator<Item = u64>, at: Instant) {
        self.forget(&opening.id);
        let sessions: HashSet<_> = sessions.into_iter().collect();
        if sessions.is_empty() || self.waiting + sessions.len() > WAITING_MAX {
            return;
        }
        self.waiting += sessions.len();
        let knocked = opening.knocked.filter(|_| opening.by == By::Knock);
        let pushed = Pushed { generation: opening.generation, knocked, at, sessions, failed: false };
        self.openings.insert(opening.id.clone(), pushed);
    }

    /// Takes in a session's word on an opening; nothing when it was not asked, or not for this generation of it.
    pub fn answered(
        &mut self,
        id: &str,
        generation: u64,
        session: u64,
        applied: bool,
        now: Instant,
    ) -> Option<Answer> {
        let pushed = self.openings.get_mut(id).filter(|pushed| pushed.generation == generation)?;
        if !pushed.sessions.remove(&session) {
            return None;
        }
        self.waiting -= 1;
        pushed.failed |= !applied;
        let last = pushed.sessions.is_empty();
        let answer = Answer {
            took: now.saturating_duration_since(pushed.at),
            knocked: pushed.knocked,
            complete: last && !pushed.failed,
        };
        if last {
            self.openings.remove(id);
        }
        applied.then_some(answer)
    }

    /// Waits no longer for answers about an opening.
    pub fn forget(&mut self, id: &str) {
        if let Some(pushed) = self.openings.remove(id) {
            self.waiting -= pushed.sessions.len();
        }
    }
}

#[cfg(test)]
mod tests;
