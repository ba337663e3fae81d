//! How long a controller may decide: its lease and its key in the store, seen from its own clock.
//!
//! Pure. Times are those of a monotonic clock that starts with the process.
//!
//! ```text
//!             leased                joined
//!   outside ─────────▶ has a lease ─────────▶ member ──▶ renewed in time, again and again
//!      ▲                    │                   │
//!      └────────────────────┴───── lost ◀───────┘  the store says that the lease or the key is gone,
//!                                                  or the lease could have ended
//! ```
//!
//! A lease lasts in the store at least as long as it lasts here: here it counts from the moment of asking, there from a
//! later one. So whoever takes over after the store has ended the lease does so when this controller has stopped
//! already; and should its clock run wrong, the store refuses what it decides, because its key is gone.

use std::time::Duration;

use crate::store::{LeaseId, Revision};

/// The part of a lease's time after which it is renewed.
const RENEW_AFTER: u32 = 3;
/// The part of a lease's time by which this controller stops earlier than the store.
const MARGIN: u32 = 10;
/// After a failure, the next try.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the store for a lease.
    Ask,
    /// Write the own key, bound to this lease.
    Join(LeaseId),
    /// Keep this lease alive.
    Renew(LeaseId),
}

/// The lease and the key of one controller.
#[derive(Clone, Debug)]
pub struct Tenure {
    state: State,
    /// When the next step is due.
    due: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Outside,
    Leased { lease: LeaseId, until: Duration },
    Member { lease: LeaseId, until: Duration, epoch: Revision },
}

impl Tenure {
    /// Outside, and to ask at once.
    pub fn new() -> Self {
        Self { state: State::Outside, due: Duration::ZERO }
    }

    /// What to do next, and when.
    pub fn next(&self) -> (Step, Duration) {
        let step = match self.state {
            State::Outside => Step::Ask,
            State::Leased { lease, .. } => Step::Join(lease),
            State::Member { lease, .. } => Step::Renew(lease),
        };
        (step, self.due)
    }

    /// The store gave a lease that lasts so long from when it was asked for.
    pub fn leased(&mut self, lease: LeaseId, ttl: Duration, asked: Duration) {
        self.state = State::Leased { lease, until: asked + ttl - ttl / MARGIN };
        self.due = asked;
    }

    /// The own key was written, at this revision.
    pub fn joined(&mut self, epoch: Revision, now: Duration) {
        if let State::Leased { lease, until } = self.state {
            self.state = State::Member { lease, until, epoch };
            self.due = now;
        }
    }

    /// The lease lasts so long from when that was asked.
    pub fn renewed(&mut self, ttl: Duration, asked: Duration) {
        if let State::Leased { until, .. } | State::Member { until, .. } = &mut self.state {
            *until = (*until).max(asked + ttl - ttl / MARGIN);
            self.due = asked + ttl / RENEW_AFTER;
        }
    }

    /// The step failed, and may succeed later.
    pub fn failed(&mut self, now: Duration) {
        self.due = now + RETRY_AFTER;
    }

    /// The lease or the key is gone.
    pub fn lost(&mut self, now: Duration) {
        if self.state != State::Outside {
            *self = Self { state: State::Outside, due: now };
        }
    }

    /// Gives up a lease that could have ended in the store by now. Says whether there was one.
    pub fn expire(&mut self, now: Duration) -> bool {
        let over = self.until().is_some_and(|until| now >= until);
        if over {
            self.lost(now);
        }
        over
    }

    /// Until when the lease is safe, as far as is known.
    pub fn until(&self) -> Option<Duration> {
        match self.state {
            State::Outside => None,
            State::Leased { until, .. } | State::Member { until, .. } => Some(until),
        }
    }

    /// The lease, while there is one.
    pub fn lease(&self) -> Option<LeaseId> {
        match self.state {
            State::Outside => None,
            State::Leased { lease, .. } | State::Member { lease, .. } => Some(lease),
        }
    }

    /// The epoch in which this controller may decide at that time; nothing when it must not.
    pub fn epoch(&self, now: Duration) -> Option<Revision> {
        match self.state {
            State::Member { until, epoch, .. } if now < until => Some(epoch),
            _ => None,
        }
    }
}

impl Default for Tenure {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
