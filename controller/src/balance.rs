//! Spreads the agents evenly over the controllers: one that has joined anew is empty, as are those that a rolling restart
//! reaches last, until the others let some of theirs go.
//!
//! Pure: who has how many agents comes in, who is asked to move goes out; [`run`] asks and tells. Each controller only
//! ever lets go of its own surplus over the fair share, half of it at a time, since all of them do so at once and an agent
//! chooses by lot where it goes. What an agent saw meanwhile it sends again where it comes to, so that no knock is lost.

use std::{collections::HashMap, time::Duration};

use fleetknock_core::{host::HostName, time::Timestamp};
use rand::{Rng, seq::SliceRandom as _};

pub mod run;

/// How long no controller may have joined or left, and how long an agent must have been connected, before it is moved,
/// unless said otherwise: during a rolling restart every move but the last ones would be for nothing.
pub const SETTLED: Duration = Duration::from_secs(30);
/// An agent that was asked to move and is back within this time, when it has tried all others, has nowhere else to go.
pub const CAME_BACK: Duration = Duration::from_secs(30);
/// How long such an agent is left alone.
pub const STAYS: Duration = Duration::from_secs(3_600);
/// A smaller surplus is not worth a move.
pub const SURPLUS_LEAST: usize = 2;
/// Nor is one below this share of what is fair: one part of five.
pub const SURPLUS_PART: usize = 5;
/// Agents asked to move at once: each has to show its certificate and gets a snapshot where it comes to.
pub const MOVES_MAX: usize = 100;

/// An agent connected here.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its host.
    pub host: HostName,
    /// When its stream began.
    pub since: Timestamp,
}

/// What is remembered from one look to the next.
#[derive(Debug)]
pub struct Balance {
    /// As [`SETTLED`].
    settled: Duration,
    /// How often a controller had joined or left, and when that was seen first.
    generation: Option<(u64, Timestamp)>,
    /// Those asked to move. At most what [`MOVES_MAX`] allows in the time of [`STAYS`].
    asked: HashMap<HostName, Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Timestamp,
    came_back: bool,
}

impl Balance {
    /// Nobody was asked yet.
    pub fn new(settled: Duration) -> Self {
        Self { settled, generation: None, asked: HashMap::new() }
    }

    /// Who is asked to move: of the agents `here`, while each of the other controllers has as many as `others` says.
    /// `generation` tells how often controllers have joined or left so far. Empty while one of them has lately, when the
    /// share is fair enough, and when nobody can go elsewhere.
    pub fn leaving(
        &mut self,
        now: Timestamp,
        generation: u64,
        here: Vec<Agent>,
        others: &[usize],
        random: &mut impl Rng,
    ) -> Vec<HostName> {
        self.learn(now, &here);
        let (seen, since) = *self.generation.get_or_insert((generation, now));
        let settled = |since| now.since(since) >= self.settled;
        if seen != generation {
            self.generation = Some((generation, now));
            return Vec::new();
        }
        if !settled(since) {
            return Vec::new();
        }
        let moves = moves(here.len(), others);
        let mut movable: Vec<_> = here.into_iter().filter(|agent| settled(agent.since)).collect();
        movable.retain(|agent| self.asked.get(&agent.host).is_none_or(|asked| !asked.came_back));
        movable.shuffle(random);
        movable.truncate(moves);
        let leaving: Vec<_> = movable.into_iter().map(|agent| agent.host).collect();
        let asked = Asked { at: now, came_back: false };
        self.asked.extend(leaving.iter().map(|host| (host.clone(), asked)));
        leaving
    }

    /// Notes who came straight back, and forgets who was asked long ago.
    fn learn(&mut self, now: Timestamp, here: &[Agent]) {
        self.asked.retain(|_, asked| now.since(asked.at) < STAYS);
        for agent in here {
            let Some(asked) = self.asked.get_mut(&agent.host) else { continue };
            asked.came_back |= agent.since >= asked.at && agent.since.since(asked.at) < CAME_BACK;
        }
    }
}

/// How many agents a controller with `own` of them lets go now.
fn moves(own: usize, others: &[usize]) -> usize {
    let total = others.iter().fold(own, |sum, count| sum.saturating_add(*count));
    let fair = total.div_ceil(others.len() + 1);
    let surplus = own.saturating_sub(fair);
    if surplus < SURPLUS_LEAST || surplus.saturating_mul(SURPLUS_PART) < fair {
        return 0;
    }
    (surplus / 2).min(MOVES_MAX)
}

#[cfg(test)]
mod tests;
