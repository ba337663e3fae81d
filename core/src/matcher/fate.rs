//! How attempts end: each that has reached its second step is either completed or fails, and is told of once.
//!
//! A source is *under way* at a door when it has a chain of at least two of its steps, none of whose knocks is older than
//! `within` and `settle` together, and no wrong knock certainly or possibly after its first. That is looked at when a
//! report of the source arrives, and again when the time of the attempt is over. The window notes the doors at which the
//! source was under way when it was looked at last: what is under way and not noted has started, what is noted and no
//! longer under way has ended. Noise is never noted, so it costs nothing but to see that.

use std::{cmp::Reverse, collections::BinaryHeap, mem::size_of, time::Duration};

use crate::{door::DoorName, source::Source, time::Timestamp};

use super::{
    Matcher,
    chain::places,
    index::micros,
    judge::Progress,
    limits::{Attempts, Limits},
    verdict::{Decision, FailReason, Failure},
    window::{ALLOCATION, Record, Window},
};

/// The fewest steps of an attempt that is told of: the first step of some door is hit by every scan.
pub(super) const STEPS_TOLD: usize = 2;

/// What is remembered of attempts that are under way.
#[derive(Debug)]
pub(super) struct Fates {
    /// When attempts are to be looked at again, in microseconds, and whose they are. What has ended meanwhile stays until
    /// its time; when it is full, an attempt whose time is over is noticed at its source's next report only, or when the
    /// source is dropped.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    due_max: usize,
    /// The window as it was before the report that is taken in.
    before: Window,
    /// Doors of the window at hand.
    keys: Vec<u32>,
    pub(super) counts: Attempts,
}

impl Fates {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            due: BinaryHeap::new(),
            due_max: limits.sources as usize,
            before: Window::Many { records: Vec::new(), extra: None },
            keys: Vec::new(),
            counts: Attempts::default(),
        }
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        match self.due.capacity() {
            0 => 0,
            capacity => capacity * size_of::<Reverse<(u64, u32)>>() + ALLOCATION,
        }
    }

    /// Gives memory back when nothing is followed any more.
    pub(super) fn clear(&mut self) {
        self.due = BinaryHeap::new();
    }

    fn look_again(&mut self, at: u32, due: Timestamp) {
        if self.due.len() < self.due_max {
            self.due.push(Reverse((due.as_micros(), at)));
        }
    }
}

impl Matcher {
    /// Before a report changes a window: ends what its time has ended, and remembers the rest.
    pub(super) fn remember(
        &mut self,
        source: Source,
        at: u32,
        (now, horizon): (Timestamp, u64),
        decisions: &mut Vec<Decision>,
    ) {
        let expires = self.arena.slot(at).window.records().iter().any(|record| record.time < horizon);
        if expires {
            self.end_overdue(source, at, now, decisions);
        }
        self.fates.before.copy_from(&self.arena.slot(at).window);
        if expires {
            self.arena.change(at, |window| window.expire(horizon));
            self.end_unusable(source, at, now, decisions);
        }
    }

    /// After knocks were dropped: ends what may have had a wrong knock among them.
    pub(super) fn end_unusable(
        &mut self,
        source: Source,
        at: u32,
        now: Timestamp,
        decisions: &mut Vec<Decision>,
    ) {
        let lost = self.no_longer_under_way(source, at, now);
        for mut failure in self.failures(source, None, &lost) {
            failure.reason = FailReason::NoRoom;
            failure.at = now;
            self.tell(failure, decisions);
        }
    }

    /// After a report was judged: notes what has started, and tells what has ended.
    pub(super) fn conclude(
        &mut self,
        source: Source,
        at: u32,
        new: &Record,
        now: Timestamp,
        decisions: &mut Vec<Decision>,
    ) {
        self.fates.keys.clear();
        self.fates.keys.extend(self.arena.slot(at).followed());
        let mut lost = Vec::new();
        for key in &self.fates.keys {
            let is_door = |progress: &&Progress| self.index.door(progress.door).key == *key;
            if self.judge.completed.iter().any(|progress| is_door(&progress)) {
                self.fates.counts.completed += 1;
            } else if self.judge.under_way.iter().any(|progress| is_door(&progress)) {
                continue;
            } else {
                lost.push(*key);
            }
            self.arena.unfollow(at, *key);
        }
        for progress in &self.judge.completed {
            if !self.fates.keys.contains(&self.index.door(progress.door).key) {
                self.fates.counts.started += 1;
                self.fates.counts.completed += 1;
            }
        }
        for progress in self.judge.under_way.iter().filter(|progress| progress.is_new) {
            let door = self.index.door(progress.door);
            if !self.fates.keys.contains(&door.key) {
                self.fates.counts.started += 1;
                self.arena.follow(at, door.key);
                self.fates.look_again(at, progress.chain.first + Duration::from_micros(door.within));
            }
        }
        if lost.is_empty() {
            return;
        }
        let over = now.before(self.config.settle);
        for mut failure in self.failures(source, None, &lost) {
            failure.wrong = Some(new.id());
            let is_late = new.time > failure.deadline.as_micros() || failure.deadline < over;
            failure.reason = if is_late { FailReason::TooSlow } else { FailReason::WrongKnock };
            failure.at = if is_late { failure.deadline } else { Timestamp::from_micros(new.time) };
            self.tell(failure, decisions);
        }
    }

    /// Ends at most `budget` attempts whose time is over, at a cost in proportion to what has to be looked at.
    pub(super) fn end_due(&mut self, now: Timestamp, budget: usize, decisions: &mut Vec<Decision>) {
        let over = now.before(self.config.settle).as_micros();
        for _ in 0..budget {
            let Some(&Reverse((due, at))) = self.fates.due.peek() else { return };
            if due >= over {
                return;
            }
            self.fates.due.pop();
            // It may have ended, and its place be another source's: whatever is there is looked at.
            if let Some(slot) = self.arena.get(at)
                && slot.is_followed()
            {
                self.end_overdue(slot.key.source(), at, now, decisions);
            }
        }
    }

    /// Tells of what a source loses that is about to be forgotten.
    pub(super) fn lose(
        &mut self,
        at: u32,
        reason: FailReason,
        now: Timestamp,
        decisions: &mut Vec<Decision>,
    ) {
        let slot = self.arena.slot(at);
        if !slot.is_followed() {
            return;
        }
        let source = slot.key.source();
        let keys: Vec<_> = slot.followed().collect();
        for mut failure in self.failures(source, Some(at), &keys) {
            failure.reason = reason;
            failure.at = if reason == FailReason::TooSlow { failure.deadline } else { now };
            self.tell(failure, decisions);
        }
        for key in keys {
            self.arena.unfollow(at, key);
        }
    }

    /// Ends what is no longer under way because of the time.
    fn end_overdue(&mut self, source: Source, at: u32, now: Timestamp, decisions: &mut Vec<Decision>) {
        let lost = self.no_longer_under_way(source, at, now);
        for mut failure in self.failures(source, Some(at), &lost) {
            failure.at = failure.deadline;
            self.tell(failure, decisions);
        }
    }

    /// Doors at which a source was under way and is no longer. They are noted no longer; the others are looked at again.
    fn no_longer_under_way(&mut self, source: Source, at: u32, now: Timestamp) -> Vec<u32> {
        let over = now.before(self.config.settle).as_micros();
        let slot = self.arena.slot(at);
        let mut lost: Vec<_> = slot.followed().collect();
        for progress in self.judge.progress(&self.index, source, &slot.window, over) {
            let door = self.index.door(progress.door);
            if progress.steps >= STEPS_TOLD
                && let Some(which) = lost.iter().position(|key| *key == door.key)
            {
                lost.swap_remove(which);
                self.fates.look_again(at, progress.chain.first + Duration::from_micros(door.within));
            }
        }
        for key in &lost {
            self.arena.unfollow(at, *key);
        }
        lost
    }

    /// What is to be told of attempts at these doors, as the window stood when they were under way: that of the source at
    /// this place, or the one before the last report.
    fn failures(&mut self, source: Source, at: Option<u32>, keys: &[u32]) -> Vec<Failure> {
        let window = at.map_or(&self.fates.before, |at| &self.arena.slot(at).window);
        let over = window.newest().saturating_sub(micros(self.config.settle));
        let found = self.judge.progress(&self.index, source, window, over);
        let mut failures = Vec::new();
        for key in keys {
            if !self.index.has_key(*key) {
                self.fates.counts.fail(FailReason::DoorGone);
                continue;
            }
            let progress = found
                .iter()
                .find(|progress| self.index.door(progress.door).key == *key && progress.steps >= STEPS_TOLD);
            let Some(progress) = progress else {
                // Only when hostile overlap has used up the search: there is nothing to tell but the number.
                self.fates.counts.fail(FailReason::TooSlow);
                continue;
            };
            let door = self.index.door(progress.door);
            failures.push(Failure {
                door: DoorName::clone(&door.name),
                source,
                step: progress.steps,
                of: door.total,
                reason: FailReason::TooSlow,
                first: progress.chain.first,
                deadline: progress.chain.first + Duration::from_micros(door.within),
                at: progress.chain.last,
                knocks: places(progress.chain.records).map(|place| window.records()[place].id()).collect(),
                wrong: None,
            });
        }
        failures
    }

    fn tell(&mut self, failure: Failure, decisions: &mut Vec<Decision>) {
        self.fates.counts.fail(failure.reason);
        decisions.push(Decision::Failed(failure));
    }
}
