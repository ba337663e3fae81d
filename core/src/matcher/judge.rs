//! Judges one source's records under all doors: what completes, how far the source is, what was a miss.

use std::time::Duration;

use crate::{source::Source, time::Timestamp};

use super::{
    arena::Class,
    chain::{BUDGET, BUDGET_UNDER_WAY, Chain, Query, Rows, Search, Set, Until, View, first, only, places},
    fate::STEPS_TOLD,
    index::{Entry, Index, micros},
    limits::MissPolicy,
    window::{Record, Window},
};

/// What the newest record is to its source. The later, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Neither progress nor a repeat.
    Miss,
    /// No progress yet, but it matches a later step: it may be an early report of a late first knock.
    Waiting,
    /// Repeats an accepted step.
    Repeat,
    /// The last record of a viable chain of this many steps, of the door at this position.
    Advanced { steps: usize, door: u32 },
    /// Completed a door.
    Completed,
}

/// A door's progress with one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Position of the door.
    pub(super) door: u32,
    /// Accepted steps.
    pub(super) steps: usize,
    pub(super) chain: Chain,
    /// Of a completed door: what is certainly after it, and may belong to the next knock.
    pub(super) spared: Set,
    /// Whether the record that was judged matches a step of the door.
    pub(super) is_new: bool,
}

/// Room for judging, kept so that judging allocates nothing.
#[derive(Debug)]
pub(super) struct Judge {
    /// Door, step and record of each match, as one number so that sorting groups them by door.
    matches: Vec<u64>,
    view: View,
    rows: Rows,
    /// Doors that the last judged record completed.
    pub(super) completed: Vec<Progress>,
    /// Doors at whose second step or beyond the source is under way.
    pub(super) under_way: Vec<Progress>,
}

/// Takes a match from `matches` apart.
fn door_of(found: u64) -> u32 {
    (found >> 16) as u32
}

fn step_and_record(found: u64) -> (usize, usize) {
    ((found >> 8 & 0xff) as usize, (found & 0xff) as usize)
}

impl Judge {
    pub(super) fn new() -> Self {
        Self {
            matches: Vec::new(),
            view: View::new(),
            rows: Rows::new(),
            completed: Vec::new(),
            under_way: Vec::new(),
        }
    }

    /// Forgets what was judged.
    pub(super) fn clear(&mut self) {
        self.completed.clear();
        self.under_way.clear();
    }

    /// Judges the record at `new`, which has just arrived; completed doors lie in `completed` after, those at which the
    /// source is under way in `under_way`. Attempts whose time ended before `over`, in microseconds, are not.
    pub(super) fn judge(
        &mut self,
        index: &Index,
        source: Source,
        window: &Window,
        new: usize,
        over: u64,
    ) -> (Standing, Class) {
        self.gather(index, window);
        self.clear();
        let mut budget = BUDGET;
        let mut budget_under_way = BUDGET_UNDER_WAY;
        let mut standing = Standing::Miss;
        let mut class = Class::Noise;
        let mut at = 0;
        while let Some(door) = self.turn(index, source, window, &mut at) {
            let (door, spent) = door;
            let view = &self.view;
            let mut search =
                Search { records: window.records(), view, rows: &mut self.rows, budget: &mut budget };
            if let Some(chain) = completion(&mut search, new) {
                let spared = spared(&mut search, new);
                self.completed.push(Progress { door, steps: view.total, chain, spared, is_new: true });
                standing = Standing::Completed;
                continue;
            }
            let (mine, longest) = stand(&mut search, new, spent, door);
            standing = better(standing, mine);
            class = class.max(match longest {
                0 => Class::Noise,
                1 => Class::First,
                _ => Class::Progressed,
            });
            if longest >= STEPS_TOLD {
                search.budget = &mut budget_under_way;
                let is_new = search.view.matched(0..search.view.total) & only(new) != 0;
                let found = under_way(&mut search, STEPS_TOLD, longest, over);
                let found = found.map(|(steps, chain)| Progress { door, steps, chain, spared: 0, is_new });
                self.under_way.extend(found);
            }
        }
        (standing, class)
    }

    /// How many records of the source are misses at `now`; 0 when they are fewer than the policy asks.
    pub(super) fn misses(
        &mut self,
        index: &Index,
        source: Source,
        window: &Window,
        policy: &MissPolicy,
        settle: Duration,
        now: Timestamp,
    ) -> u32 {
        let since = now.before(policy.window).as_micros();
        let records = window.records();
        let which = |keep: &dyn Fn(&Record) -> bool| -> Set {
            records
                .iter()
                .enumerate()
                .filter(|(_, record)| keep(record))
                .fold(0, |set, (at, _)| set | only(at))
        };
        let recent = which(&|record| record.time >= since);
        if recent.count_ones() < policy.misses {
            return 0;
        }
        self.gather(index, window);
        let young =
            which(&|record| record.late || record.time.saturating_add(micros(settle)) >= now.as_micros());
        let mut early: Set = 0;
        let mut at = 0;
        while self.turn(index, source, window, &mut at).is_some() {
            early |= self.view.matched(1..self.view.total);
        }
        let countable = recent & !(early & young);
        if countable.count_ones() < policy.misses {
            return 0;
        }
        let mut budget = BUDGET;
        let mut excused: Set = 0;
        let mut at = 0;
        while let Some((_, spent)) = self.turn(index, source, window, &mut at) {
            let mut search = Search { records, view: &self.view, rows: &mut self.rows, budget: &mut budget };
            let asked = countable & !excused & self.view.matched(0..self.view.total);
            for record in places(asked) {
                if *search.budget == 0 {
                    break;
                }
                if spent & only(record) != 0 || repeats(&mut search, record, 1, Until::End, 0) {
                    excused |= only(record);
                }
            }
        }
        (countable & !excused).count_ones()
    }

    /// The doors at which the source is under way, with the longest chain that no wrong knock has followed and whose time
    /// did not end before `over`, in microseconds.
    pub(super) fn progress(
        &mut self,
        index: &Index,
        source: Source,
        window: &Window,
        over: u64,
    ) -> Vec<Progress> {
        self.gather(index, window);
        let mut budget = BUDGET;
        let mut found = Vec::new();
        let mut at = 0;
        while let Some((door, _)) = self.turn(index, source, window, &mut at) {
            let view = &self.view;
            let mut search =
                Search { records: window.records(), view, rows: &mut self.rows, budget: &mut budget };
            let longest = under_way(&mut search, 1, view.reach(), over);
            found.extend(longest.map(|(steps, chain)| Progress {
                door,
                steps,
                chain,
                spared: 0,
                is_new: false,
            }));
        }
        found
    }

    /// Finds which records match which steps.
    fn gather(&mut self, index: &Index, window: &Window) {
        self.rows.reset();
        self.matches.clear();
        for (at, record) in window.records().iter().enumerate() {
            let hits = index.matches(record.port, record.host);
            self.matches
                .extend(hits.map(|(door, step)| u64::from(door) << 16 | u64::from(step) << 8 | at as u64));
        }
        self.matches.sort_unstable();
    }

    /// Turns the view to the next door that admits the source and that some record matches. Gives its position and
    /// the records that are spent for it.
    fn turn(&mut self, index: &Index, source: Source, window: &Window, at: &mut usize) -> Option<(u32, Set)> {
        while let Some(&start) = self.matches.get(*at) {
            let position = door_of(start);
            let rest = &self.matches[*at..];
            let group = &rest[..rest.iter().take_while(|found| door_of(**found) == position).count()];
            *at += group.len();
            let door: &Entry = index.door(position);
            if !door.admits(source) {
                continue;
            }
            let spent = window.spent(door.key);
            let floor = window.floor();
            let mut usable = first(window.records().len()) & !spent;
            if floor != 0 {
                for (place, record) in window.records().iter().enumerate() {
                    if record.earliest() <= floor {
                        usable &= !only(place);
                    }
                }
            }
            self.view.turn(
                door.total,
                door.within,
                usable,
                group.iter().map(|found| step_and_record(*found)),
            );
            return Some((position, spent));
        }
        None
    }
}

/// A full chain with the new record in it.
fn completion(search: &mut Search<'_>, new: usize) -> Option<Chain> {
    let length = search.view.total;
    if search.view.reach() < length {
        return None;
    }
    (0..length)
        .filter(|&step| search.view.may_use(step, new))
        .find_map(|step| search.find(Query { step, among: only(new), ..Query::any(length) }))
}

/// The longest chain, from `least` to `most` steps, that no wrong knock has followed and whose time did not end before
/// `over`.
fn under_way(search: &mut Search<'_>, least: usize, most: usize, over: u64) -> Option<(usize, Chain)> {
    let oldest = over.saturating_sub(search.view.within);
    let old = search.records.iter().enumerate().filter(|(_, record)| record.time < oldest);
    let without = old.fold(0, |set, (at, _)| set | only(at));
    (least..=most).rev().find_map(|steps| {
        let query = Query { until: Until::Forever, without, ..Query::any(steps) };
        search.find(query).map(|chain| (steps, chain))
    })
}

/// The records that are certainly after the last of some full chain with the new record in it.
fn spared(search: &mut Search<'_>, new: usize) -> Set {
    let view = search.view;
    let length = view.total;
    let mut spared: Set = 0;
    for end in (0..search.records.len()).filter(|&at| view.may_use(length - 1, at)) {
        let after = search.after(end);
        let mut steps = (0..length).filter(|&step| view.may_use(step, new));
        if after & !spared != 0
            && steps.any(|step| {
                let query = Query { step, among: only(new), ends: only(end), ..Query::any(length) };
                search.find(query).is_some()
            })
        {
            spared |= after;
        }
    }
    spared
}

/// What the new record is to a door that it did not complete, and the length of the longest viable chain.
fn stand(search: &mut Search<'_>, new: usize, spent: Set, door: u32) -> (Standing, usize) {
    let view = search.view;
    let reach = view.reach();
    let ending = (0..reach).rev().find(|&step| {
        view.may_use(step, new)
            && search.find(Query { step, among: only(new), ..Query::any(step + 1) }).is_some()
    });
    let steps = ending.map_or(0, |step| step + 1);
    let longest = if steps == reach {
        reach
    } else {
        (steps.max(1)..=reach).rev().find(|&length| search.find(Query::any(length)).is_some()).unwrap_or(0)
    };
    if view.matched(0..view.total) & only(new) == 0 {
        return (Standing::Miss, longest);
    }
    let repeat = if spent & only(new) != 0 {
        true
    } else if steps == 0 {
        repeats(search, new, 1, Until::End, 0)
    } else {
        repeats(search, new, steps, Until::Record(new), only(new))
    };
    let standing = if repeat {
        Standing::Repeat
    } else if steps > 0 {
        Standing::Advanced { steps, door }
    } else if view.matched(1..view.total) & only(new) != 0 {
        Standing::Waiting
    } else {
        Standing::Miss
    };
    (standing, longest)
}

/// Whether the record is in, or repeats a step of, a viable chain of at least this length.
fn repeats(search: &mut Search<'_>, record: usize, at_least: usize, until: Until, without: Set) -> bool {
    let view = search.view;
    let reach = view.reach();
    if reach < at_least {
        return false;
    }
    let among = !search.after(record);
    (at_least..=reach).any(|length| {
        (0..length).rev().any(|step| {
            view.matches(step, record)
                && search.find(Query { length, step, among, without, until, ..Query::any(length) }).is_some()
        })
    })
}

/// The better of two standings; of two advances the one with more steps, then the one of the first door.
fn better(a: Standing, b: Standing) -> Standing {
    match (a, b) {
        (Standing::Advanced { steps, .. }, Standing::Advanced { steps: more, .. }) if more <= steps => a,
        _ => a.max(b),
    }
}
