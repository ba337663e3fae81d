//! In which order candidates are dialled, and what a round of refusals means. Pure: no socket, no clock.

use std::collections::VecDeque;

use rand::{Rng, seq::SliceRandom as _};

/// Candidates dialled in one round; of more, each round takes others.
pub const CANDIDATES_MAX: usize = 64;

/// One pass over all candidates. `C` is where a controller may be.
#[derive(Debug)]
pub struct Round<C> {
    left: VecDeque<C>,
    size: usize,
    last_resort: bool,
    /// A candidate answered that it cannot serve.
    unavailable: bool,
    welcomed: bool,
}

impl<C: PartialEq> Round<C> {
    /// In random order, so that the agents of a dead controller spread over the others; `last` (the candidate that was
    /// just lost) after all others. `last_resort`: the round says so in its Hellos.
    pub fn new(mut candidates: Vec<C>, last: Option<&C>, last_resort: bool, random: &mut impl Rng) -> Self {
        candidates.shuffle(random);
        if let Some(place) = last.and_then(|last| candidates.iter().position(|candidate| candidate == last)) {
            let lost = candidates.remove(place);
            candidates.truncate(CANDIDATES_MAX - 1);
            candidates.push(lost);
        }
        candidates.truncate(CANDIDATES_MAX);
        Self {
            size: candidates.len(),
            left: candidates.into(),
            last_resort,
            unavailable: false,
            welcomed: false,
        }
    }

    /// The candidate to dial next; `None` when all were dialled.
    pub fn next_candidate(&mut self) -> Option<C> {
        self.left.pop_front()
    }

    /// How many candidates the round began with.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether Hello says that every controller has refused.
    pub fn is_last_resort(&self) -> bool {
        self.last_resort
    }

    /// A candidate refused. `unavailable`: it answered, and said that it cannot serve.
    pub fn refused(&mut self, unavailable: bool) {
        self.unavailable |= unavailable;
    }

    /// A candidate took the agent: nobody needs to be a last resort any more.
    pub fn welcomed(&mut self) {
        self.welcomed = true;
        self.last_resort = false;
    }

    /// Whether the round after this one says that every controller has refused: nobody took the agent, and somebody is
    /// there who could.
    pub fn next_is_last_resort(&self) -> bool {
        self.unavailable && !self.welcomed
    }
}

#[cfg(test)]
mod tests;
