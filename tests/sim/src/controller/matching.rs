//! Feeds the real matcher: mirrors `controller::matching`.

use std::{collections::BTreeMap, time::Duration};

use fleetknock_controller::{
    grant::{Knocked, Request},
    record::By,
};
use fleetknock_core::{
    knock::Observation,
    matcher::{Completion, Decision, Verdict},
    time::Timestamp,
};

use super::{
    Process,
    decide::{Work, fresh_id},
};
use crate::{Sabotage, core::Core};

const BAN_PENDING: Duration = Duration::from_secs(5);
/// How long a policy's ban lasts (`--ban-for`).
const BAN_FOR: Duration = Duration::from_secs(600);

impl Process {
    pub(super) fn read_rules(&mut self, now: Timestamp) {
        let fleet = &self.fleet;
        self.matcher.set_doors(fleet.doors().values().map(|held| &held.record.door));
        let hosts = fleet.hosts().values().map(|held| &held.record);
        self.matcher
            .set_hosts(hosts.filter_map(|host| Some((fleet.host_id(&host.name)?, &host.name, &host.labels))));
        let bans: BTreeMap<_, _> =
            fleet.bans().values().map(|held| (held.record.source, held.record.expires)).collect();
        let mut ended = Vec::new();
        for source in bans.keys().chain(self.bans.keys()) {
            if bans.contains_key(source) != self.bans.contains_key(source) {
                self.matcher.forget(*source, now, &mut ended);
            }
        }
        self.bans = bans;
    }

    pub(super) fn judge(&mut self, core: &mut Core, observations: &[Observation]) {
        let now = self.now(core);
        let mut found = Vec::new();
        for observation in observations {
            if self.bans.get(&observation.source).is_some_and(|until| *until > now) {
                continue;
            }
            core.oracle.uncertain(observation.source, observation.uncertainty);
            let verdict = self.matcher.observe(observation, now, &mut found);
            core.say(|| {
                let Observation { source, port, time, uncertainty, .. } = observation;
                let us = time.as_micros();
                format!("{}: {source} at {port}, {us} +- {uncertainty:?}: {verdict:?}", self.name)
            });
            if Self::is_sabotaged(core, Sabotage::AnswerHalf)
                && let Verdict::Advanced { door, step: 2.., .. } = &verdict
            {
                let (door, source, last) = (door.as_ref().clone(), observation.source, observation.time);
                let (end, knocks) = (observation.id, vec![observation.id]);
                found.push(Decision::Complete(Completion { door, source, first: last, last, end, knocks }));
            }
            for decision in std::mem::take(&mut found) {
                let work = match decision {
                    Decision::Complete(complete) => Work::Open {
                        request: Request {
                            door: complete.door,
                            source: complete.source,
                            duration: None,
                            knocked: Some(Knocked {
                                at: complete.last,
                                uncertainty: observation.uncertainty,
                                end: self.packet(complete.end),
                                packets: complete.knocks.iter().filter_map(|id| self.packet(*id)).collect(),
                            }),
                            by: By::Knock,
                            reason: String::new(),
                            trace: None,
                        },
                        fresh_id: fresh_id(core),
                        ahead: self.ahead(core),
                    },
                    // Only watchers and metrics hear of those.
                    Decision::Failed(_) => continue,
                    Decision::Ban { source, .. } => {
                        self.bans.insert(source, now + BAN_PENDING);
                        Work::Ban { source, duration: BAN_FOR, by: By::Policy }
                    }
                };
                self.decide(core, work, 0);
            }
        }
    }
}
