//! Follows each source's knocks through the doors' sequences.
//!
//! The matcher is pure: observations and the present time go in, [decisions](Decision) come out. It holds a bounded
//! window of the knocks known of each source, in whatever order their reports came, and every decision is a
//! function of that *set*, taken when a report arrives. No timer settles anything.
//!
//! # Order
//!
//! Two knocks on one host are ordered by boot and counter, which is capture order. On different hosts one is
//! *certainly before* the other when `time + uncertainty` of the one is less than `time - uncertainty` of the other;
//! else they overlap and may count in either order.
//!
//! # Chains
//!
//! A *chain* of k steps is k different knocks of one source where the i-th matches the door's i-th step (the port is
//! equal and the step's selector chooses the host), none is certainly before one that stands earlier in the chain, the
//! latest is at most `within` after the earliest by packet time, the door admits the source, and no wrong knock can
//! lie between. Any other knock that is kept is *wrong*, unless it is certainly before the first of the chain or
//! certainly after the last, or *repeats* a step: it matches one of the k steps and is not certainly before the knock
//! that stands for that step. So overlap helps a knock's own steps and never hides a wrong one: a parallel scan whose
//! probes all overlap opens nothing.
//!
//! Retransmissions (same host, port and fingerprint) count as one knock, the earliest of them.
//!
//! A door is *completed* when a report arrives that stands in a chain of all its steps. All knocks of that source that
//! are known by then are spent for that door, though not for others, except those certainly after the last of such a
//! chain: they may belong to the next knock, some of whose reports came before all of this one's.
//!
//! # Misses
//!
//! A kept knock that is in no chain, repeats a step of none, and matches no step of a door it was spent for, is a miss.
//! One that matches a later step of some door may be early only, and counts when it is older than `settle`; never if its
//! own report came later than that: what is sent again after a controller has died comes host by host, and the first steps
//! may come last or not at all. When the misses in the policy's window reach its number, a ban is decided once and the
//! source forgotten.
//!
//! # Attempts
//!
//! An attempt that has reached its second step ends once: completed, or [failed](Failure), which is told when a wrong
//! knock is reported, or when its time is over. See [`Attempts`] for how they are counted.
//!
//! # Bounds
//!
//! See [`Limits`]. A source is *noise*, at a *first* step, or *progressed* to a later one, by its longest chain. What
//! is evicted is of the lowest class and never of a higher one than what it makes room for; a progressed source is
//! never evicted. A search costs at most a constant number of steps; when they are used up the chain counts as not
//! found.
//!
//! Knocks older than [`Matcher::retention`] are dropped. A chain may not use what is not certainly after a knock that
//! was dropped and may still matter, so forgetting a wrong knock opens nothing.

use std::{slice, sync::Arc, time::Duration};

use crate::{
    door::{Door, DoorName},
    host::{HostId, HostName, Labels},
    knock::Observation,
    port::Protocol,
    source::Source,
    time::Timestamp,
};

use self::{
    arena::{Arena, CLASSES, Class},
    chain::places,
    fate::Fates,
    index::Index,
    judge::{Judge, Progress, Standing},
    window::{Added, Key, Record, Window},
};

mod arena;
mod chain;
mod fate;
mod index;
mod judge;
mod limits;
mod slab;
mod verdict;
mod window;

#[cfg(test)]
mod model;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    limits::{Attempts, Config, FUTURE_MAX, Limits, MissPolicy, READ_AHEAD, Stats},
    verdict::{Attempt, Completion, Decision, FailReason, Failure, Ignored, Verdict},
};

/// Follows each source's knocks through the doors' sequences. See the [module](self).
#[derive(Debug)]
pub struct Matcher {
    config: Config,
    index: Index,
    arena: Arena,
    judge: Judge,
    fates: Fates,
    retention: Duration,
}

impl Matcher {
    /// A matcher without doors and hosts. The seed keys the hash of sources and should be random, so that nobody can
    /// choose sources that collide; it changes no decision.
    pub fn new(config: Config, seed: u64) -> Self {
        let limits = config.limits.clamped();
        let bans = config.bans.map(|policy| MissPolicy {
            misses: policy.misses.clamp(1, limits.records_per_source),
            window: policy.window,
        });
        let mut matcher = Self {
            config: Config { limits, bans, settle: config.settle },
            index: Index::default(),
            arena: Arena::new(seed, &limits),
            judge: Judge::new(),
            fates: Fates::new(&limits),
            retention: Duration::ZERO,
        };
        matcher.set_retention();
        matcher
    }

    /// Replaces the doors. Knocks that are kept are judged by the new ones from the next report of their source on.
    /// What was spent for a door stays spent while a door of its name exists. Doors without a sequence are skipped.
    pub fn set_doors<'a>(&mut self, doors: impl IntoIterator<Item = &'a Door>) {
        self.index.set_doors(doors);
        self.set_retention();
    }

    /// Replaces the hosts. Knocks on a host that is not among them match only steps that take any host.
    pub fn set_hosts<'a>(&mut self, hosts: impl IntoIterator<Item = (HostId, &'a HostName, &'a Labels)>) {
        self.index.set_hosts(hosts);
    }

    /// Takes in a report. What is decided is added to `decisions`: at most one completion or failure per door, and one ban.
    pub fn observe(
        &mut self,
        observation: &Observation,
        now: Timestamp,
        decisions: &mut Vec<Decision>,
    ) -> Verdict {
        let horizon = now.before(self.retention).as_micros();
        let settled = observation.time + self.config.settle < now;
        let record = Record::new(observation, settled);
        if record.time < horizon {
            return Verdict::Ignored(Ignored::TooLate);
        }
        if record.earliest() > (now + FUTURE_MAX).as_micros() {
            return Verdict::Ignored(Ignored::Future);
        }
        if record.port.protocol() == Protocol::Icmp && !self.index.uses(record.port) {
            return Verdict::Ignored(Ignored::IcmpUnused);
        }
        let key = Key::new(observation.source);
        let (found, standing) = match self.arena.find(key) {
            None => self.newcomer(observation.source, key, record),
            Some(at) => match self.follow(at, record, (now, horizon), decisions) {
                Ok(standing) => (Some(at), standing),
                Err(verdict) => return verdict,
            },
        };
        self.announce(observation.source, found, &record, decisions);
        let Some(at) = found else {
            self.arena.refused += 1;
            return match standing {
                Standing::Completed => Verdict::Completed,
                _ => Verdict::Ignored(Ignored::Refused),
            };
        };
        self.ban(observation.source, at, now, decisions);
        self.verdict(if standing == Standing::Waiting && settled { Standing::Miss } else { standing })
    }

    /// A hint that these are observed next: at most [`READ_AHEAD`] of them, more are not looked at. It decides
    /// nothing. With very many sources in flight the waits for memory overlap, which halves their cost.
    pub fn read_ahead(&self, observations: &[Observation]) {
        self.arena.read_ahead(observations.iter().map(|observation| Key::new(observation.source)));
    }

    /// Forgets a source: it was banned, or a ban was lifted.
    pub fn forget(&mut self, source: Source, now: Timestamp, decisions: &mut Vec<Decision>) {
        if let Some(at) = self.arena.find(Key::new(source)) {
            self.lose(at, FailReason::Banned, now, decisions);
            self.arena.remove(at);
        }
    }

    /// Fails attempts whose time is over. Then drops sources that have been silent for longer than
    /// [`retention`](Self::retention), and gives memory back when little is left. Each at most `budget` times, at a cost
    /// in proportion to what there is to do. Tells how many sources it dropped.
    pub fn sweep(&mut self, now: Timestamp, budget: usize, decisions: &mut Vec<Decision>) -> usize {
        self.end_due(now, budget, decisions);
        let horizon = now.before(self.retention).as_micros();
        let mut dropped = 0;
        for class in CLASSES {
            while dropped < budget
                && let Some(at) = self.arena.oldest(class)
                && self.arena.slot(at).window.newest() < horizon
            {
                self.lose(at, FailReason::TooSlow, now, decisions);
                self.arena.remove(at);
                dropped += 1;
            }
        }
        if dropped > 0 {
            self.arena.shrink();
            if self.arena.stats().sources == 0 {
                self.fates.clear();
            }
        }
        dropped
    }

    /// The attempts under way, those at later steps first: neither failed by a wrong knock nor past their deadline by
    /// more than `settle`.
    pub fn attempts(&self, now: Timestamp) -> impl Iterator<Item = Attempt> + '_ {
        let mut judge = Judge::new();
        let slots = self.arena.of_class(Class::Progressed).chain(self.arena.of_class(Class::First));
        slots.flat_map(move |slot| self.attempts_in(&mut judge, slot, now))
    }

    /// The attempts of one source, as [`attempts`](Self::attempts) tells them.
    pub fn attempts_of(&self, source: Source, now: Timestamp) -> Vec<Attempt> {
        self.arena
            .find(Key::new(source))
            .map_or_else(Vec::new, |at| self.attempts_in(&mut Judge::new(), self.arena.slot(at), now))
    }

    /// What is held.
    pub fn stats(&self) -> Stats {
        let stats = self.arena.stats();
        Stats { memory: stats.memory + self.fates.memory(), attempts: self.fates.counts, ..stats }
    }

    /// For how long a knock is kept, by packet time: the longest `within` of a door or the window of the miss policy,
    /// whichever is longer, and twice `settle`. Agents should keep their observations for re-sending for as long.
    pub fn retention(&self) -> Duration {
        self.retention
    }

    fn set_retention(&mut self) {
        let within = Duration::from_micros(self.index.within_max());
        let window = self.config.bans.map_or(Duration::ZERO, |policy| policy.window);
        self.retention = within.max(window).saturating_add(self.config.settle.saturating_mul(2));
    }

    /// Judges a source's first knock and takes the source in, if there is room.
    fn newcomer(&mut self, source: Source, key: Key, record: Record) -> (Option<u32>, Standing) {
        let (standing, class) = self.judge.judge(&self.index, source, &Window::One(record), 0, 0);
        let at = self.arena.insert(key, record, class);
        if let Some(at) = at {
            self.spend(at);
        }
        // Doors of one step.
        self.fates.counts.started += self.judge.completed.len() as u64;
        self.fates.counts.completed += self.judge.completed.len() as u64;
        (at, standing)
    }

    /// Adds a knock of a known source and judges it.
    fn follow(
        &mut self,
        at: u32,
        record: Record,
        (now, horizon): (Timestamp, u64),
        decisions: &mut Vec<Decision>,
    ) -> Result<Standing, Verdict> {
        let ignored = |reason| Err(Verdict::Ignored(reason));
        let limit = self.config.limits.records_per_source as usize;
        let source = self.arena.slot(at).key.source();
        let was_followed = self.arena.slot(at).is_followed();
        if was_followed {
            self.remember(source, at, (now, horizon), decisions);
        }
        self.arena.change(at, |window| window.expire(horizon));
        let slot = self.arena.slot(at);
        let class = slot.class;
        match slot.window.knows(&record, horizon) {
            None => {}
            Some(Added::Repeat) => {
                self.arena.touch(at, class);
                return Err(Verdict::Repeat);
            }
            Some(_) => return ignored(Ignored::Duplicate),
        }
        let growth = slot.window.growth(limit);
        if !self.arena.make_room(at, growth) {
            self.lose(at, FailReason::NoRoom, now, decisions);
            self.arena.remove(at);
            self.arena.refused += 1;
            return ignored(Ignored::Refused);
        }
        let Added::At(place) = self.arena.change(at, |window| window.add(record, horizon, limit)) else {
            if was_followed {
                self.end_unusable(source, at, now, decisions);
            }
            return ignored(Ignored::TooLate);
        };
        // Noise upon noise is the common case under a scan: nothing can have come of it.
        let hopeless = class == Class::Noise && self.index.matches(record.port, record.host).next().is_none();
        let (standing, class) = if hopeless {
            self.judge.clear();
            (Standing::Miss, class)
        } else {
            let over = now.before(self.config.settle).as_micros();
            self.judge.judge(&self.index, source, &self.arena.slot(at).window, place, over)
        };
        self.arena.touch(at, class);
        if was_followed || !self.judge.under_way.is_empty() || !self.judge.completed.is_empty() {
            self.conclude(source, at, &record, now, decisions);
        }
        self.spend(at);
        Ok(standing)
    }

    /// Spends what is known of a source for the doors that it has just completed.
    fn spend(&mut self, at: u32) {
        for progress in &self.judge.completed {
            let (key, spared) = (self.index.door(progress.door).key, progress.spared);
            self.arena.change(at, |window| window.spend(key, spared, |key| self.index.has_key(key)));
        }
    }

    /// Says what was completed. A source that there was no room for has this one record.
    fn announce(&self, source: Source, at: Option<u32>, only: &Record, decisions: &mut Vec<Decision>) {
        let records = at.map_or(slice::from_ref(only), |at| self.arena.slot(at).window.records());
        decisions.extend(self.judge.completed.iter().map(|&Progress { door, chain, .. }| {
            Decision::Complete(Completion {
                door: DoorName::clone(&self.index.door(door).name),
                source,
                first: chain.first,
                last: chain.last,
                end: records[chain.end].id(),
                knocks: places(chain.records).map(|place| records[place].id()).collect(),
            })
        }));
    }

    fn ban(&mut self, source: Source, at: u32, now: Timestamp, decisions: &mut Vec<Decision>) {
        let Some(policy) = self.config.bans else { return };
        let window = &self.arena.slot(at).window;
        if window.records().len() < policy.misses as usize {
            return;
        }
        let misses = self.judge.misses(&self.index, source, window, &policy, self.config.settle, now);
        if misses >= policy.misses {
            self.lose(at, FailReason::Banned, now, decisions);
            decisions.push(Decision::Ban { source, misses, window: policy.window });
            self.arena.remove(at);
        }
    }

    fn verdict(&self, standing: Standing) -> Verdict {
        match standing {
            Standing::Completed => Verdict::Completed,
            Standing::Advanced { steps, door } => {
                let door = self.index.door(door);
                Verdict::Advanced { door: Arc::clone(&door.name), step: steps, of: door.total }
            }
            Standing::Repeat => Verdict::Repeat,
            Standing::Waiting => Verdict::Waiting,
            Standing::Miss => Verdict::Miss,
        }
    }

    fn attempts_in(&self, judge: &mut Judge, slot: &arena::Slot, now: Timestamp) -> Vec<Attempt> {
        let source = slot.key.source();
        let over = now.before(self.config.settle).as_micros();
        let under_way = judge.progress(&self.index, source, &slot.window, over).into_iter();
        let attempts = under_way.map(|Progress { door, steps, chain, .. }| {
            let door = self.index.door(door);
            Attempt {
                door: DoorName::clone(&door.name),
                source,
                done: steps,
                total: door.total,
                started: chain.first,
                deadline: chain.first + Duration::from_micros(door.within),
                last_host: HostId(slot.window.records()[chain.end].host),
            }
        });
        attempts.collect()
    }
}
