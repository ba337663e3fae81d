//! Looks for a chain: records of one source that match a door's steps in order, with no wrong knock possibly between.
//!
//! Sets of records are bits of a `u64`. A search fixes the first and the last record, which settles the *danger set*:
//! whatever is neither certainly before the first nor certainly after the last. All of it must be in the chain or
//! repeat one of its steps; a knock that matches none of the steps ends the matter at once. The records between are
//! then chosen from the danger set by depth-first search.
//!
//! Hostile input can make the search long, so each step of it costs one unit of a budget. When that is used up, the
//! chain counts as not found.

use crate::{door::STEPS_MAX, time::Timestamp};

use super::window::{RECORDS_MAX, Record};

/// Steps of search that one observation may cost.
pub(super) const BUDGET: u32 = 4_096;

/// Steps of search that following attempts may cost beside: what it says changes no decision.
pub(super) const BUDGET_UNDER_WAY: u32 = 1_024;

/// A set of records of one source, by place.
pub(super) type Set = u64;

/// The set of one record.
pub(super) fn only(at: usize) -> Set {
    1 << at
}

/// The set of the first `count` records.
pub(super) fn first(count: usize) -> Set {
    if count >= RECORDS_MAX { Set::MAX } else { (1 << count) - 1 }
}

/// The places of a set, lowest first.
pub(super) fn places(mut set: Set) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (at < RECORDS_MAX).then_some(at)
    })
}

/// One door as one source's records see it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) total: usize,
    pub(super) within: u64,
    /// Per step, the records that match it.
    matching: [Set; STEPS_MAX],
    /// Per step, those of them that may be in a chain.
    pool: [Set; STEPS_MAX],
}

impl View {
    pub(super) fn new() -> Self {
        Self { total: 0, within: 0, matching: [0; STEPS_MAX], pool: [0; STEPS_MAX] }
    }

    /// Turns to another door. `usable` records may be in a chain, if they match.
    pub(super) fn turn(
        &mut self,
        total: usize,
        within: u64,
        usable: Set,
        matches: impl Iterator<Item = (usize, usize)>,
    ) {
        self.total = total;
        self.within = within;
        self.matching[..total].fill(0);
        for (step, record) in matches {
            self.matching[step] |= only(record);
        }
        for step in 0..total {
            self.pool[step] = self.matching[step] & usable;
        }
    }

    /// The records that match one of the steps.
    pub(super) fn matched(&self, steps: std::ops::Range<usize>) -> Set {
        self.matching[steps].iter().fold(0, |all, set| all | set)
    }

    pub(super) fn matches(&self, step: usize, record: usize) -> bool {
        self.matching[step] & only(record) != 0
    }

    pub(super) fn may_use(&self, step: usize, record: usize) -> bool {
        self.pool[step] & only(record) != 0
    }

    /// No chain is longer than this: the steps up to the first without a record.
    pub(super) fn reach(&self) -> usize {
        self.pool[..self.total].iter().take_while(|pool| **pool != 0).count()
    }
}

/// For each record, which are certainly before and after it. Filled in as needed.
#[derive(Debug)]
pub(super) struct Rows {
    filled: Set,
    before: [Set; RECORDS_MAX],
    after: [Set; RECORDS_MAX],
}

impl Rows {
    pub(super) fn new() -> Self {
        Self { filled: 0, before: [0; RECORDS_MAX], after: [0; RECORDS_MAX] }
    }

    /// Forgets what was filled in, for another set of records.
    pub(super) fn reset(&mut self) {
        self.filled = 0;
    }

    fn fill(&mut self, records: &[Record], at: usize) {
        if self.filled & only(at) != 0 {
            return;
        }
        let (mut before, mut after) = (0, 0);
        let this = &records[at];
        for (place, other) in records.iter().enumerate() {
            before |= Set::from(other.certainly_before(this)) << place;
            after |= Set::from(this.certainly_before(other)) << place;
        }
        self.before[at] = before;
        self.after[at] = after;
        self.filled |= only(at);
    }
}

/// How far past its last record a chain must be free of wrong knocks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// Not at all.
    End,
    /// As far as this record.
    Record(usize),
    /// For good.
    Forever,
}

/// What chain is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query {
    /// Of this many steps, at least 1.
    pub(super) length: usize,
    /// Whose record for this step
    pub(super) step: usize,
    /// is one of these.
    pub(super) among: Set,
    /// Whose last record is one of these.
    pub(super) ends: Set,
    /// That uses none of these.
    pub(super) without: Set,
    pub(super) until: Until,
}

impl Query {
    /// Any chain of this length.
    pub(super) fn any(length: usize) -> Self {
        Self { length, step: 0, among: Set::MAX, ends: Set::MAX, without: 0, until: Until::End }
    }
}

/// A chain that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// The earliest packet time in it.
    pub(super) first: Timestamp,
    /// The latest packet time in it.
    pub(super) last: Timestamp,
    /// The place of the record for its last step.
    pub(super) end: usize,
    /// All of its records.
    pub(super) records: Set,
}

/// One source's records, one door, and what is left of the budget.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pub(super) records: &'a [Record],
    pub(super) view: &'a View,
    pub(super) rows: &'a mut Rows,
    pub(super) budget: &'a mut u32,
}

/// What is settled once the first and the last record are.
#[derive(Debug)]
struct Frame<'q> {
    query: &'q Query,
    danger: Set,
    /// Where the records between may come from.
    inner: Set,
}

/// The records chosen so far.
#[derive(Clone, Copy, Debug)]
struct Partial {
    used: Set,
    /// Certainly before a chosen record, so not to be chosen for a later step.
    passed: Set,
    /// In the chain, or repeating a step of it.
    excused: Set,
    low: u64,
    high: u64,
}

impl Search<'_> {
    /// The records that are certainly after this one.
    pub(super) fn after(&mut self, record: usize) -> Set {
        self.rows.fill(self.records, record);
        self.rows.after[record]
    }

    /// A chain as the query wants it, or `None` when there is none or the budget has ended.
    pub(super) fn find(&mut self, query: Query) -> Option<Chain> {
        self.pay()?;
        let last = query.length - 1;
        if (0..query.length).any(|step| self.pool(&query, step) == 0) {
            return None;
        }
        let all = first(self.records.len());
        let matched = self.view.matched(0..query.length);
        for start in places(self.pool(&query, 0)) {
            self.pay()?;
            self.rows.fill(self.records, start);
            let passed = self.rows.before[start];
            let ends = if last == 0 { only(start) } else { self.pool(&query, last) & !only(start) & !passed };
            for end in places(ends & query.ends) {
                self.pay()?;
                let (a, b) = (self.records[start].time, self.records[end].time);
                if a.abs_diff(b) > self.view.within {
                    continue;
                }
                self.rows.fill(self.records, end);
                let inner = all & !passed & !self.rows.after[end];
                let danger = match query.until {
                    Until::End => inner,
                    Until::Record(until) => all & !passed & !(self.rows.after[end] & self.after(until)),
                    Until::Forever => all & !passed,
                };
                if danger & !matched != 0 {
                    continue;
                }
                let excused =
                    (self.view.matching[0] & !passed) | (self.view.matching[last] & !self.rows.before[end]);
                let used = only(start) | only(end);
                let partial = Partial { used, passed, excused, low: a.min(b), high: a.max(b) };
                if let Some(Partial { used, low, high, .. }) =
                    self.fill_between(1, &Frame { query: &query, danger, inner }, partial)
                {
                    let at = Timestamp::from_micros;
                    return Some(Chain { first: at(low), last: at(high), end, records: used });
                }
            }
        }
        None
    }

    /// Chooses records for the steps from this one to the last but one. Gives what the chain is then.
    fn fill_between(&mut self, step: usize, frame: &Frame<'_>, partial: Partial) -> Option<Partial> {
        let last = frame.query.length - 1;
        if step >= last {
            return (frame.danger & !partial.excused == 0).then_some(partial);
        }
        if frame.danger & !(partial.excused | self.view.matched(step..last)) != 0 {
            return None;
        }
        for at in places(self.pool(frame.query, step) & frame.inner & !partial.used & !partial.passed) {
            self.pay()?;
            let time = self.records[at].time;
            let (low, high) = (partial.low.min(time), partial.high.max(time));
            if high - low > self.view.within {
                continue;
            }
            self.rows.fill(self.records, at);
            let before = self.rows.before[at];
            let next = Partial {
                used: partial.used | only(at),
                passed: partial.passed | before,
                excused: partial.excused | (self.view.matching[step] & !before),
                low,
                high,
            };
            if let Some(whole) = self.fill_between(step + 1, frame, next) {
                return Some(whole);
            }
        }
        None
    }

    fn pool(&self, query: &Query, step: usize) -> Set {
        let pool = self.view.pool[step] & !query.without;
        if step == query.step { pool & query.among } else { pool }
    }

    fn pay(&mut self) -> Option<()> {
        *self.budget = self.budget.checked_sub(1)?;
        Some(())
    }
}
