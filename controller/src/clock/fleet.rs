//! The fleet's time: one clock for everything that controllers share.
//!
//! Pure. The longest-serving member (the lowest epoch) leads: its time is the fleet's. The others follow the oldest one
//! before them that they can measure; so nobody follows somebody who follows him. A leader that leaves is followed by
//! the next oldest, which goes on with the offset that it had: the fleet's time does not jump.
//!
//! Without this a controller whose clock is a minute ahead would close what another has just opened.

use std::{collections::BTreeMap, time::Duration};

use fleetknock_core::{host::HostName, time::Timestamp};

use super::Offset;
use crate::store::Revision;

/// A measurement older than this says nothing any more: its peer is out of reach.
const FRESH_US: u64 = 15_000_000;

/// How certain a controller is of the fleet's time that has measured none of those before it: clocks that anybody looks
/// after lie closer together.
const UNMEASURED: Duration = Duration::from_secs(5);

/// How fast two clocks may drift apart, as for agents.
const DRIFT_PPM: u64 = 100;

/// What this controller adds to its own clock, and whom it follows.
#[derive(Clone, Debug)]
pub struct FleetClock {
    offset: Offset,
    /// When that was measured.
    at: Timestamp,
    leader: Option<HostName>,
    measured: BTreeMap<HostName, Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    offset: Offset,
    at: Timestamp,
}

impl FleetClock {
    /// This machine's own clock, until somebody older is measured.
    pub fn new() -> Self {
        let offset = Offset { micros: 0, uncertainty: Duration::ZERO };
        Self { offset, at: Timestamp::ZERO, leader: None, measured: BTreeMap::new() }
    }

    /// Takes in a peer's fleet time minus this machine's clock, as measured at that time of this machine.
    pub fn measured(&mut self, peer: HostName, offset: Offset, at: Timestamp) {
        self.measured.insert(peer, Measured { offset, at });
    }

    /// Follows the oldest member that is older than this controller, of those measured lately. `epoch` is its own;
    /// nothing before it has joined: then everybody is older.
    pub fn follow<'a>(
        &mut self,
        members: impl IntoIterator<Item = (&'a HostName, Revision)>,
        epoch: Option<Revision>,
        now: Timestamp,
    ) {
        let members: BTreeMap<_, _> = members.into_iter().map(|(name, of)| (of, name)).collect();
        self.measured.retain(|name, _| members.values().any(|member| *member == name));
        let older = || members.iter().filter(|(of, _)| epoch.is_none_or(|epoch| **of < epoch));
        let fresh =
            |measured: &&Measured| now.as_micros().saturating_sub(measured.at.as_micros()) <= FRESH_US;
        let best = older().find_map(|(_, name)| Some((*name, self.measured.get(*name).filter(fresh)?)));
        match best {
            Some((name, measured)) => {
                (self.offset, self.at) = (measured.offset, measured.at);
                self.leader = Some(name.clone());
            }
            // The eldest goes on with what it has, and is certain of it by definition.
            None if older().next().is_none() => {
                self.offset.uncertainty = Duration::ZERO;
                self.leader = None;
            }
            None if self.leader.is_none() => self.offset.uncertainty = UNMEASURED,
            None => {}
        }
    }

    /// The fleet's time minus this machine's clock, at that time of this machine.
    pub fn offset(&self, now: Timestamp) -> Offset {
        let age = if self.leader.is_some() { now.since(self.at) } else { Duration::ZERO };
        let drift = Duration::from_micros(
            u64::try_from(age.as_micros()).unwrap_or(u64::MAX) / (1_000_000 / DRIFT_PPM),
        );
        Offset { micros: self.offset.micros, uncertainty: self.offset.uncertainty + drift }
    }

    /// Whom this controller follows; nothing when it leads.
    pub fn leader(&self) -> Option<&HostName> {
        self.leader.as_ref()
    }
}

impl Default for FleetClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
