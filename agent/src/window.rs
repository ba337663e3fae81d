//! The observations of this boot that are kept for re-sending, and which of them have been sent.
//!
//! A controller that dies takes with it what it knew of attempts in flight. The agents' windows bring that back to the
//! next one. The window is the report queue as well: what could not be sent yet is simply not sent yet.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Observations kept: at 128 knocks in 10 s from one source (the limit of one source), 20 minutes of it; in a flood of
/// forged sources the youngest. About 1.5 MiB.
pub const OBSERVATIONS_MAX: usize = 16_384;
/// How long observations are kept until a controller says so: the longest time that a sequence can take.
pub const AGE_DEFAULT: Duration = fleetknock_core::door::WITHIN_MAX;
/// A controller that asks for everything again and again gets it this often at most.
pub const RESEND_EVERY: Duration = Duration::from_millis(500);

/// One kept observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<T> {
    /// Rises by one with each observation of this boot, from 1.
    pub counter: u64,
    /// What was seen.
    pub seen: T,
    at: Instant,
}

impl<T> Kept<T> {
    /// When it was taken into the window.
    pub fn since(&self) -> Instant {
        self.at
    }
}

/// The window. `T` is what was seen.
#[derive(Debug)]
pub struct Window<T> {
    kept: VecDeque<Kept<T>>,
    count_max: usize,
    age: Duration,
    /// Of the youngest observation.
    counter: u64,
    /// Up to which counter this stream's controller was sent what is kept.
    sent: u64,
    /// The youngest observation when this pass began: the pass is over when it is sent.
    goal: u64,
    /// Since when the controller waits for everything again.
    asked: Option<Instant>,
    /// When it last got that on this stream.
    resent: Option<Instant>,
    /// Up to which counter anything was ever sent to any controller.
    sent_ever: u64,
    /// Up to which counter a controller has taken observations in.
    acknowledged: u64,
    lost: u64,
}

impl<T> Window<T> {
    /// Empty; keeps `count_max` observations at most.
    pub fn new(count_max: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            count_max: count_max.max(1),
            age: AGE_DEFAULT,
            counter: 0,
            sent: 0,
            goal: 0,
            asked: None,
            resent: None,
            sent_ever: 0,
            acknowledged: 0,
            lost: 0,
        }
    }

    /// Keeps observations for as long as a controller says.
    pub fn set_age(&mut self, age: Duration) {
        self.age = age;
    }

    /// Keeps one more observation and gives it its counter. When full, the oldest goes.
    pub fn push(&mut self, seen: T, now: Instant) -> u64 {
        if self.kept.len() >= self.count_max
            && let Some(oldest) = self.kept.pop_front()
        {
            self.lost += u64::from(oldest.counter > self.sent_ever.max(self.acknowledged));
        }
        self.counter += 1;
        self.kept.push_back(Kept { counter: self.counter, seen, at: now });
        self.counter
    }

    /// A controller has taken in everything up to `counter`. What is young stays: another controller may need it.
    pub fn acknowledge(&mut self, counter: u64) {
        self.acknowledged = self.acknowledged.max(counter.min(self.counter));
    }

    /// Observations that went before any controller was sent them.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The observation of this counter, if it is kept.
    pub fn of(&self, counter: u64) -> Option<&Kept<T>> {
        let at = self.kept.partition_point(|kept| kept.counter < counter);
        self.kept.get(at).filter(|kept| kept.counter == counter)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// A new stream begins: everything young enough is to be sent on it, in order.
    pub fn rewind(&mut self, now: Instant) {
        self.resent = None;
        self.begin_pass(now);
    }

    /// The controller asks for everything again. However often it asks, a pass that is under way is finished first, so
    /// that what is new is sent too, and passes keep their distance of [`RESEND_EVERY`]; all that asked meanwhile are
    /// served by the next one.
    pub fn ask_again(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// When the pass that was asked for may begin; `None` when nobody asked, or another pass is under way.
    pub fn pass_at(&self) -> Option<Instant> {
        let asked = self.asked.filter(|_| !self.under_way())?;
        Some(self.resent.map_or(asked, |resent| asked.max(resent + RESEND_EVERY)))
    }

    /// Begins the pass that was asked for, if it is time, and says whether it did.
    pub fn begin_due_pass(&mut self, now: Instant) -> bool {
        let due = self.pass_at().is_some_and(|at| at <= now);
        if due {
            self.resent = Some(now);
            self.begin_pass(now);
        }
        due
    }

    fn begin_pass(&mut self, now: Instant) {
        self.forget(now);
        self.asked = None;
        self.sent = 0;
        self.goal = self.counter;
    }

    fn under_way(&self) -> bool {
        let next = self.kept.partition_point(|kept| kept.counter <= self.sent);
        self.kept.get(next).is_some_and(|kept| kept.counter <= self.goal)
    }

    /// Forgets what is older than the window's age.
    pub fn forget(&mut self, now: Instant) {
        while self.kept.front().is_some_and(|kept| now.saturating_duration_since(kept.at) > self.age) {
            if let Some(kept) = self.kept.pop_front() {
                self.lost += u64::from(kept.counter > self.sent_ever.max(self.acknowledged));
            }
        }
    }

    /// Whether this stream has not been sent everything.
    pub fn has_unsent(&self) -> bool {
        self.kept.back().is_some_and(|kept| kept.counter > self.sent)
    }

    /// The next observations to send on this stream, in order, at most `count_max`, and whether they may be known to a
    /// controller already. They count as sent. A batch is either all new or all old.
    pub fn next_batch(&mut self, count_max: usize) -> (impl Iterator<Item = &Kept<T>>, bool) {
        let start = self.kept.partition_point(|kept| kept.counter <= self.sent);
        let known = self.kept.partition_point(|kept| kept.counter <= self.sent_ever);
        let resent = start < known;
        let end = if resent { known } else { self.kept.len() }.min(start.saturating_add(count_max));
        if let Some(last) = end.checked_sub(1).and_then(|last| self.kept.get(last)) {
            self.sent = self.sent.max(last.counter);
            self.sent_ever = self.sent_ever.max(self.sent);
        }
        (self.kept.range(start..end), resent)
    }
}

#[cfg(test)]
mod tests;
