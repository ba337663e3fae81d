//! Counts what goes wrong, by whom, so that many times are told as one.
//!
//! Pure. Bounded in memory ([`KEYS_MAX`]) and in what it lets be told ([`BURST`], one more every [`EVERY`]): whoever floods
//! is told of as a number.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

#[cfg(test)]
mod tests;

/// Those who are told apart, about 200 bytes each. When there are as many, all others count as one.
pub const KEYS_MAX: usize = 4_096;
/// Times within a [`SPAN`] that happen to anybody.
pub const FEW: u32 = 5;
/// A time is forgotten within a fifth of this, [`FEW`] within all of it, and however many within twice that.
pub const SPAN: Duration = Duration::from_secs(60);
/// After one was told of, the next times of the same are told together this much later.
pub const TOGETHER: Duration = Duration::from_secs(60);
/// What may be told at once.
pub const BURST: u32 = 20;
/// After this, one more.
pub const EVERY: Duration = Duration::from_secs(6);

/// Who did what how often. `K` names who, `T` says what.
#[derive(Debug)]
pub struct Tally<K, T> {
    keys: HashMap<K, Entry<T>>,
    /// Of those for whom there was no room.
    others: Option<Entry<T>>,
    budget: Leaky,
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling<T> {
    /// What happened, the last time.
    pub what: T,
    /// How often since it was told last.
    pub times: u64,
    /// Of how many, when of more than one.
    pub others: usize,
}

/// What became of one time.
#[derive(Debug, PartialEq, Eq)]
pub struct Noted<T> {
    /// It happens often to this one, or there are too many to say.
    pub often: bool,
    /// To be told now; otherwise it is told later.
    pub tell: Option<Telling<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    level: Leaky,
    told: Option<Instant>,
    untold: u64,
    what: T,
}

/// A vessel that leaks.
#[derive(Clone, Copy, Debug)]
struct Leaky {
    level: f64,
    at: Instant,
}

impl Leaky {
    fn new(at: Instant) -> Self {
        Self { level: 0.0, at }
    }

    fn leaked(self, now: Instant, drop: Duration) -> f64 {
        let leaked = now.saturating_duration_since(self.at).as_secs_f64() / drop.as_secs_f64();
        (self.level - leaked).max(0.0)
    }

    /// One drop more; what is above the brim runs over, so that the greatest flood is forgotten as soon as a small one.
    fn fill(&mut self, now: Instant, drop: Duration, brim: u32) {
        *self = Self { level: (self.leaked(now, drop) + 1.0).min(f64::from(brim)), at: now };
    }
}

impl<T: Clone> Entry<T> {
    fn new(what: T, now: Instant) -> Self {
        Self { level: Leaky::new(now), told: None, untold: 0, what }
    }

    fn is_due(&self, now: Instant) -> bool {
        let quiet = |told: Instant| now.saturating_duration_since(told) >= TOGETHER;
        self.untold > 0 && self.told.is_none_or(quiet)
    }

    fn tell(&mut self, now: Instant) -> Telling<T> {
        self.told = Some(now);
        Telling { what: self.what.clone(), times: std::mem::take(&mut self.untold), others: 1 }
    }

    /// Nothing of it is left to know.
    fn is_over(&self, now: Instant) -> bool {
        let told = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TOGETHER);
        self.untold == 0 && told && self.level.leaked(now, SPAN / FEW) == 0.0
    }
}

impl<K: Eq + Hash, T: Clone> Tally<K, T> {
    /// Empty.
    pub fn new(now: Instant) -> Self {
        Self { keys: HashMap::new(), others: None, budget: Leaky::new(now) }
    }

    /// It happened to this one.
    pub fn note(&mut self, key: K, what: T, now: Instant) -> Noted<T> {
        let is_full = self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&key);
        let fresh = || Entry::new(what.clone(), now);
        let entry = if is_full {
            self.others.get_or_insert_with(fresh)
        } else {
            self.keys.entry(key).or_insert_with(fresh)
        };
        entry.level.fill(now, SPAN / FEW, 2 * FEW);
        entry.untold = entry.untold.saturating_add(1);
        entry.what = what;
        let often = is_full || entry.level.level > f64::from(FEW);
        let tell = (!is_full
            && entry.is_due(now)
            && self.budget.leaked(now, EVERY) + 1.0 <= f64::from(BURST))
        .then(|| {
            self.budget.fill(now, EVERY, BURST);
            entry.tell(now)
        });
        Noted { often, tell }
    }

    /// What is to be told by now, and has not been. When that is more than may be, the rest is told as one. Forgets those
    /// of whom nothing is left to know.
    pub fn due(&mut self, now: Instant) -> Vec<Telling<T>> {
        let Self { keys, others, budget } = self;
        let mut tellings = Vec::new();
        let mut rest: Option<Telling<T>> = None;
        for entry in keys.values_mut().chain(others.as_mut()).filter(|entry| entry.is_due(now)) {
            let room = f64::from(BURST) - budget.leaked(now, EVERY);
            match &mut rest {
                // One place is kept for the rest.
                None if room >= 2.0 => {
                    budget.fill(now, EVERY, BURST);
                    tellings.push(entry.tell(now));
                }
                None if room >= 1.0 => {
                    budget.fill(now, EVERY, BURST);
                    rest = Some(entry.tell(now));
                }
                None => break,
                Some(rest) => {
                    rest.times = rest.times.saturating_add(entry.tell(now).times);
                    rest.others += 1;
                }
            }
        }
        keys.retain(|_, entry| !entry.is_over(now));
        if others.as_ref().is_some_and(|entry| entry.is_over(now)) {
            *others = None;
        }
        tellings.extend(rest);
        tellings
    }
}
