//! The matcher's definition, written as plainly as it reads: one source, every sequence of its knocks tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    door::{Door, DoorName, Knock, Step},
    host::{HostName, Labels},
    knock::{Observation, ObservationId},
    port::Protocol,
    time::Timestamp,
};

use super::{Config, FUTURE_MAX, Ignored};

/// What [`Verdict`](super::Verdict) and the decisions say, in one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) verdict: Said,
    pub(super) completed: Vec<DoorName>,
    pub(super) ban: Option<u32>,
    /// Doors and accepted steps of the attempts that failed, ordered.
    pub(super) failed: Vec<(DoorName, usize)>,
}

impl Outcome {
    pub(super) fn said(verdict: Said) -> Self {
        Self { verdict, completed: Vec::new(), ban: None, failed: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Completed,
    Advanced(DoorName, usize),
    Repeat,
    Waiting,
    Miss,
    Ignored(Ignored),
}

/// One source.
pub(super) struct Model {
    pub(super) config: Config,
    pub(super) retention: Duration,
    pub(super) doors: Vec<Door>,
    pub(super) hosts: BTreeMap<u32, (HostName, Labels)>,
    /// In the order of arrival.
    kept: Vec<Observation>,
    /// Those whose reports came later than `settle`.
    late: BTreeSet<ObservationId>,
    spent: BTreeMap<DoorName, BTreeSet<usize>>,
    floor: u64,
    /// Doors at whose second step or beyond the source was under way when that was looked at last.
    followed: BTreeSet<DoorName>,
    /// Attempts that began, that were completed and that failed.
    pub(super) attempts: [u64; 3],
    /// The chains by which the last report completed doors, step by step.
    pub(super) found: Vec<(DoorName, Vec<ObservationId>)>,
}

enum Until {
    End,
    Forever,
    Record(usize),
}

impl Model {
    pub(super) fn new(
        config: Config,
        retention: Duration,
        doors: Vec<Door>,
        hosts: BTreeMap<u32, (HostName, Labels)>,
    ) -> Self {
        Self {
            config,
            retention,
            doors,
            hosts,
            kept: Vec::new(),
            late: BTreeSet::new(),
            spent: BTreeMap::new(),
            floor: 0,
            followed: BTreeSet::new(),
            attempts: [0; 3],
            found: Vec::new(),
        }
    }

    pub(super) fn observe(&mut self, new: &Observation, now: Timestamp) -> Outcome {
        self.found.clear();
        let said = Outcome::said;
        let ignored = |reason| said(Said::Ignored(reason));
        let horizon = now.before(self.retention);
        if new.time < horizon {
            return ignored(Ignored::TooLate);
        }
        if new.time.before(new.uncertainty) > now + FUTURE_MAX {
            return ignored(Ignored::Future);
        }
        let used = self.doors.iter().flat_map(steps).any(|step| step.port == new.port);
        if new.port.protocol() == Protocol::Icmp && !used {
            return ignored(Ignored::IcmpUnused);
        }
        let mut failed = Vec::new();
        let expires = self.kept.iter().any(|kept| kept.time < horizon);
        if expires {
            failed = self.end_overdue(now);
        }
        let progress = self.longest_before();
        self.expire(horizon);
        if expires {
            failed.extend(self.end(&progress, now));
        }
        let ended = failed.clone();
        let ignored = |reason| Outcome { failed: ended.clone(), ..said(Said::Ignored(reason)) };
        if self.kept.iter().any(|kept| kept.id == new.id) {
            return ignored(Ignored::Duplicate);
        }
        let copy = self.kept.iter().position(|kept| {
            kept.fingerprint != 0
                && (kept.fingerprint, kept.id.host, kept.port) == (new.fingerprint, new.id.host, new.port)
        });
        if let Some(copy) = copy
            && place(&self.kept[copy]) < place(new)
        {
            return Outcome { failed, ..said(Said::Repeat) };
        }
        if self.floor != 0 && latest(new) <= self.floor {
            failed.extend(self.end(&progress, now));
            return Outcome { failed, ..said(Said::Ignored(Ignored::TooLate)) };
        }
        if copy.is_none() && self.kept.len() >= self.config.limits.records_per_source as usize {
            let oldest = (0..self.kept.len()).min_by_key(|at| self.kept[*at].time).unwrap();
            if new.time < self.kept[oldest].time {
                self.floor = self.floor.max(latest(new));
                failed.extend(self.end(&progress, now));
                return Outcome { failed, ..said(Said::Ignored(Ignored::TooLate)) };
            }
            self.drop_at(oldest, 0);
        }
        let at = copy.unwrap_or(self.kept.len());
        if copy.is_some() {
            self.kept[at] = *new;
        } else {
            self.kept.push(*new);
        }
        let completed: Vec<_> = self
            .admitting(new)
            .filter(|door| {
                self.chains(door, steps(door).len(), &Until::End).iter().any(|chain| chain.contains(&at))
            })
            .map(|door| door.name().clone())
            .collect();
        let verdict = self.verdict(at, &completed, now);
        failed.extend(self.conclude(at, &completed, &progress, now));
        let doors: Vec<_> =
            self.admitting(new).filter(|door| completed.contains(door.name())).cloned().collect();
        for door in doors {
            let mut chains = self.chains(&door, steps(&door).len(), &Until::End);
            chains.retain(|chain| chain.contains(&at));
            let ids = chains.iter().map(|chain| chain.iter().map(|&at| self.kept[at].id).collect());
            self.found.extend(ids.map(|ids| (door.name().clone(), ids)));
            let next = |at: usize| {
                chains.iter().any(|chain| before(&self.kept[chain[chain.len() - 1]], &self.kept[at]))
            };
            let spent: Vec<_> = (0..self.kept.len()).filter(|at| !next(*at)).collect();
            self.spent.entry(door.name().clone()).or_default().extend(spent);
        }
        if new.time + self.config.settle < now {
            self.late.insert(new.id);
        }
        let ban = self.misses(now);
        if ban.is_some() {
            failed.extend(self.forget());
            self.kept.clear();
            self.late.clear();
            self.spent.clear();
            self.floor = 0;
        }
        failed.sort();
        Outcome { verdict, completed, ban, failed }
    }

    /// What becomes of attempts when the source is forgotten.
    pub(super) fn forget(&mut self) -> Vec<(DoorName, usize)> {
        let progress = self.longest_before();
        let lost = std::mem::take(&mut self.followed);
        self.attempts[2] += lost.len() as u64;
        lost.into_iter().map(|door| (door.clone(), progress[&door])).collect()
    }

    /// What the passing of time does to attempts.
    pub(super) fn end_overdue(&mut self, now: Timestamp) -> Vec<(DoorName, usize)> {
        let progress = self.longest_before();
        self.end(&progress, now)
    }

    /// Ends what is no longer under way.
    fn end(&mut self, progress: &BTreeMap<DoorName, usize>, now: Timestamp) -> Vec<(DoorName, usize)> {
        let over: Vec<_> =
            self.followed.iter().filter(|door| self.under_way(door, now) == 0).cloned().collect();
        self.followed.retain(|door| !over.contains(door));
        self.attempts[2] += over.len() as u64;
        over.into_iter().map(|door| (door.clone(), progress[&door])).collect()
    }

    fn conclude(
        &mut self,
        new: usize,
        completed: &[DoorName],
        progress: &BTreeMap<DoorName, usize>,
        now: Timestamp,
    ) -> Vec<(DoorName, usize)> {
        let mut failed = Vec::new();
        for door in completed {
            self.attempts[0] += u64::from(!self.followed.remove(door));
            self.attempts[1] += 1;
        }
        let source = self.kept[new].source;
        let doors: Vec<_> = self.doors.iter().filter(|door| door.admits(source)).cloned().collect();
        for door in doors.iter().filter(|door| !completed.contains(door.name())) {
            let is_under_way = self.under_way(door.name(), now) > 0;
            let is_new = (0..steps(door).len()).any(|step| self.matches(door, step, new));
            if is_under_way && is_new && self.followed.insert(door.name().clone()) {
                self.attempts[0] += 1;
            } else if !is_under_way && self.followed.remove(door.name()) {
                self.attempts[2] += 1;
                failed.push((door.name().clone(), progress[door.name()]));
            }
        }
        failed
    }

    /// The steps of the longest chain that no wrong knock has followed and whose time is not over; 0 when it has less than
    /// two.
    fn under_way(&self, door: &DoorName, now: Timestamp) -> usize {
        let door = self.doors.iter().find(|other| other.name() == door).unwrap();
        let over = now.before(self.config.settle).before(within(door));
        let is_young = |chain: &Vec<usize>| chain.iter().all(|&at| self.kept[at].time >= over);
        (2..=steps(door).len())
            .rev()
            .find(|&k| self.chains(door, k, &Until::Forever).iter().any(is_young))
            .unwrap_or(0)
    }

    /// How far the followed attempts were at the time of the latest knock.
    fn longest_before(&self) -> BTreeMap<DoorName, usize> {
        let newest = self.kept.iter().map(|kept| kept.time).max().unwrap_or(Timestamp::ZERO);
        self.followed.iter().map(|door| (door.clone(), self.under_way(door, newest))).collect()
    }

    fn expire(&mut self, horizon: Timestamp) {
        if self.floor < horizon.as_micros() {
            self.floor = 0;
        }
        while let Some(at) = self.kept.iter().position(|kept| kept.time < horizon) {
            self.drop_at(at, horizon.as_micros());
        }
    }

    fn drop_at(&mut self, at: usize, horizon: u64) {
        let dropped = self.kept.remove(at);
        if latest(&dropped) >= horizon {
            self.floor = self.floor.max(latest(&dropped));
        }
        for spent in self.spent.values_mut() {
            *spent =
                spent.iter().filter(|kept| **kept != at).map(|kept| kept - usize::from(*kept > at)).collect();
        }
    }

    fn verdict(&self, new: usize, completed: &[DoorName], now: Timestamp) -> Said {
        if !completed.is_empty() {
            return Said::Completed;
        }
        let mut furthest: Option<(DoorName, usize)> = None;
        let mut repeat = false;
        let mut later = false;
        for door in self.admitting(&self.kept[new]) {
            if !(0..steps(door).len()).any(|step| self.matches(door, step, new)) {
                continue;
            }
            later |= (1..steps(door).len()).any(|step| self.matches(door, step, new));
            let lengths = 1..=steps(door).len();
            let ending = lengths
                .clone()
                .filter(|&k| self.chains(door, k, &Until::End).iter().any(|chain| chain[k - 1] == new))
                .max()
                .unwrap_or(0);
            let repeats_progress = lengths.clone().filter(|&k| k >= ending).any(|k| {
                self.chains(door, k, &Until::Record(new))
                    .iter()
                    .any(|chain| !chain.contains(&new) && self.repeats(door, chain, new))
            });
            if self.is_spent(door, new)
                || (ending > 0 && repeats_progress)
                || (ending == 0 && self.excused(door, new))
            {
                repeat = true;
            } else if ending > furthest.as_ref().map_or(0, |(_, steps)| *steps) {
                furthest = Some((door.name().clone(), ending));
            }
        }
        match furthest {
            Some((door, steps)) => Said::Advanced(door, steps),
            None if repeat => Said::Repeat,
            None if later && self.kept[new].time + self.config.settle >= now => Said::Waiting,
            None => Said::Miss,
        }
    }

    fn misses(&self, now: Timestamp) -> Option<u32> {
        let policy = self.config.bans?;
        let count = (0..self.kept.len())
            .filter(|&at| {
                let record = &self.kept[at];
                let doors: Vec<_> = self.admitting(record).collect();
                let early =
                    doors.iter().any(|door| (1..steps(door).len()).any(|step| self.matches(door, step, at)));
                let young = self.late.contains(&record.id) || record.time + self.config.settle >= now;
                let matched_and_spent = |door: &Door| {
                    self.is_spent(door, at) && (0..steps(door).len()).any(|step| self.matches(door, step, at))
                };
                record.time >= now.before(policy.window)
                    && !(early && young)
                    && !doors.iter().any(|door| matched_and_spent(door) || self.excused(door, at))
            })
            .count() as u32;
        (count >= policy.misses).then_some(count)
    }

    /// Whether it is in a viable chain or repeats a step of one.
    fn excused(&self, door: &Door, at: usize) -> bool {
        (1..=steps(door).len())
            .flat_map(|k| self.chains(door, k, &Until::End))
            .any(|chain| chain.contains(&at) || self.repeats(door, &chain, at))
    }

    fn chains(&self, door: &Door, k: usize, until: &Until) -> Vec<Vec<usize>> {
        let mut tuples = vec![Vec::new()];
        for step in 0..k {
            tuples = tuples
                .into_iter()
                .flat_map(|tuple: Vec<usize>| {
                    let next = (0..self.kept.len())
                        .filter(|at| !tuple.contains(at) && self.matches(door, step, *at));
                    next.map(|at| [&tuple[..], &[at]].concat()).collect::<Vec<_>>()
                })
                .collect();
        }
        tuples.retain(|tuple| self.is_chain(door, tuple, until));
        tuples
    }

    /// The definition.
    fn is_chain(&self, door: &Door, chain: &[usize], until: &Until) -> bool {
        let record = |at: usize| &self.kept[at];
        let ordered = (0..chain.len()).all(|j| (0..j).all(|i| !before(record(chain[j]), record(chain[i]))));
        let times: Vec<_> = chain.iter().map(|&at| record(at).time).collect();
        let span = times.iter().max().unwrap().since(*times.iter().min().unwrap());
        let usable = chain
            .iter()
            .all(|&at| !self.is_spent(door, at) && (self.floor == 0 || earliest(record(at)) > self.floor));
        let (first, last) = (record(chain[0]), record(chain[chain.len() - 1]));
        let undisturbed = (0..self.kept.len()).filter(|at| !chain.contains(at)).all(|at| {
            let past = before(last, record(at))
                && match until {
                    Until::End => true,
                    Until::Forever => false,
                    Until::Record(until) => before(record(*until), record(at)),
                };
            self.repeats(door, chain, at) || before(record(at), first) || past
        });
        ordered && span <= within(door) && usable && undisturbed
    }

    fn repeats(&self, door: &Door, chain: &[usize], at: usize) -> bool {
        (0..chain.len()).any(|j| self.matches(door, j, at) && !before(&self.kept[at], &self.kept[chain[j]]))
    }

    fn matches(&self, door: &Door, step: usize, at: usize) -> bool {
        let (record, step) = (&self.kept[at], &steps(door)[step]);
        let host = self.hosts.get(&record.id.host.0);
        step.port == record.port
            && (step.hosts.is_any() || host.is_some_and(|(name, labels)| step.hosts.matches(name, labels)))
    }

    fn is_spent(&self, door: &Door, at: usize) -> bool {
        self.spent.get(door.name()).is_some_and(|spent| spent.contains(&at))
    }

    fn admitting(&self, record: &Observation) -> impl Iterator<Item = &Door> {
        let source = record.source;
        self.doors.iter().filter(move |door| door.admits(source))
    }
}

#[allow(irrefutable_let_patterns, reason = "the kinds of knock grow; the matcher follows sequences only")]
fn steps(door: &Door) -> &[Step] {
    if let Knock::Sequence(sequence) = door.knock() { &sequence.steps } else { &[] }
}

#[allow(irrefutable_let_patterns, reason = "as above")]
fn within(door: &Door) -> Duration {
    if let Knock::Sequence(sequence) = door.knock() { sequence.within } else { Duration::ZERO }
}

fn place(record: &Observation) -> (u32, u64) {
    (record.id.boot, record.id.counter)
}

fn latest(record: &Observation) -> u64 {
    (record.time + record.uncertainty).as_micros()
}

fn earliest(record: &Observation) -> u64 {
    record.time.before(record.uncertainty).as_micros()
}

fn before(a: &Observation, b: &Observation) -> bool {
    if a.id.host == b.id.host { place(a) < place(b) } else { latest(a) < earliest(b) }
}
