//! Runs of the hosts' agents, told apart by the random number that each draws at its start. Pure.

use std::collections::{BTreeMap, VecDeque};

use fleetknock_core::host::HostName;

use crate::record::Boot;

/// Runs of one host's agent that are told apart. An agent that restarts more often while its earlier knocks are still
/// on their way begins anew.
pub const BOOTS_KEPT: usize = 4;

/// The last runs of each host's agent with their numbers: a later run has a larger one.
#[derive(Clone, Debug, Default)]
pub struct Boots(BTreeMap<HostName, VecDeque<(Boot, u32)>>);

impl Boots {
    /// The number of a run of a host's agent, a new one if need be. Only the last [`BOOTS_KEPT`] are known: an earlier
    /// one would count as new.
    pub fn number(&mut self, host: &HostName, boot: Boot) -> u32 {
        let boots = self.0.entry(host.clone()).or_default();
        if let Some((_, number)) = boots.iter().find(|(known, _)| *known == boot) {
            return *number;
        }
        let number = boots.back().map_or(1, |(_, last)| last + 1);
        if boots.len() == BOOTS_KEPT {
            boots.pop_front();
        }
        boots.push_back((boot, number));
        number
    }

    /// The run of a host's agent that has this number, if it is known still.
    pub fn of_number(&self, host: &HostName, number: u32) -> Option<Boot> {
        self.0.get(host)?.iter().find(|(_, of_it)| *of_it == number).map(|(boot, _)| *boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_runs_have_larger_numbers_and_the_last_few_are_known() {
        let (mut boots, host) = (Boots::default(), "edge-1".parse().unwrap());
        let run = |first: u8| Boot([first; 16]);
        for first in 1..=5 {
            assert_eq!(boots.number(&host, run(first)), u32::from(first));
            assert_eq!(boots.number(&host, run(first)), u32::from(first), "known already");
        }
        assert_eq!(boots.of_number(&host, 2), Some(run(2)));
        assert_eq!(boots.of_number(&host, 1), None, "only {BOOTS_KEPT} are kept");
        assert_eq!(boots.number(&host, run(1)), 6, "it counts as new");
        assert_eq!(boots.number(&"db-1".parse().unwrap(), run(5)), 1, "each host has its own");
    }
}
