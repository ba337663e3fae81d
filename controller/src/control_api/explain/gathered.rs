//! What all controllers remember of one source's knocks, put together: a knock that several judged counts once.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use fleetknock_core::{
    door::DoorName,
    explain::{self, Refusal, Seen},
    host::{HostId, HostName},
    knock::{Observation, ObservationId},
    source::Source,
    time::Timestamp,
};
use fleetknock_proto::v1 as pb;
use tonic::Status;

use crate::{
    matching,
    peers::{Peers, known},
    recollection,
    shared::Shared,
    wire,
};

/// One knock, as those who judged it saw it.
pub(super) struct Knocked {
    /// In this controller's numbers.
    pub(super) seen: Seen,
    /// The most telling word on it.
    pub(super) said: pb::KnockSeen,
    /// The doors that it completed.
    pub(super) completed: BTreeSet<String>,
    /// Of those, the ones that were not opened, and why.
    pub(super) refused: BTreeMap<String, (String, bool)>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Gathered {
    /// In the order in which they were judged.
    pub(super) knocks: Vec<Knocked>,
    /// Knocks judged before this may have been forgotten.
    pub(super) complete_from: Timestamp,
    /// Controllers that did not answer.
    pub(super) unanswered: BTreeSet<String>,
}

impl Gathered {
    pub(super) async fn of(
        shared: &Shared,
        matching: &matching::Handle,
        peers: &Peers,
        from: Source,
        since_ms: u64,
    ) -> Result<Self, Status> {
        let since_us = since_ms.saturating_mul(1_000);
        let question = pb::OwnKnocksRequest { source: from.to_string(), since_us };
        let own = known::knocks(shared, matching, &question).await?;
        let others = peers.ask(|mut client| {
            let question = question.clone();
            async move { client.own_knocks(question).await }
        });
        let others = others.await;
        let unanswered = others.unanswered().into_iter().collect();
        let state = shared.state();
        let number = |host: &HostName| state.fleet.host_id(host);
        let answers = std::iter::once(own).chain(others.answers.into_values());
        Ok(Self { unanswered, ..Self::merge(from, answers, number) })
    }

    /// Puts answers together. Knocks that make no sense, or whose host is no longer of the fleet, are left out.
    pub(super) fn merge(
        from: Source,
        answers: impl Iterator<Item = pb::OwnKnocksResponse>,
        number: impl Fn(&HostName) -> Option<HostId>,
    ) -> Self {
        let mut complete_from = Timestamp::ZERO;
        let mut known: BTreeMap<(String, Vec<u8>, u64), Knocked> = BTreeMap::new();
        for answer in answers {
            complete_from = complete_from.max(Timestamp::from_micros(answer.remembered_from_us));
            for said in answer.knocks.into_iter().take(recollection::ANSWER_MAX) {
                let Some(knock) = read(from, said, &number) else { continue };
                let key = (knock.said.host.clone(), knock.said.boot.clone(), knock.said.counter);
                match known.entry(key) {
                    Entry::Vacant(place) => drop(place.insert(knock)),
                    Entry::Occupied(mut held) => held.get_mut().join(knock),
                }
            }
        }
        let mut knocks: Vec<_> = known.into_values().collect();
        name_runs(&mut knocks);
        knocks
            .sort_by_key(|knock| (knock.seen.judged, knock.seen.observation.time, knock.seen.observation.id));
        Self { knocks, complete_from, unanswered: BTreeSet::new() }
    }

    /// Complete knocks at the door that were not answered.
    pub(super) fn refusals(&self, door: &DoorName) -> Vec<Refusal> {
        let refused = self.knocks.iter().filter_map(|knock| {
            let (reason, waits) = knock.refused.get(door.as_str())?;
            Some(Refusal { end: knock.seen.observation.id, reason: reason.clone(), waits: *waits })
        });
        refused.collect()
    }
}

fn read(from: Source, said: pb::KnockSeen, number: &impl Fn(&HostName) -> Option<HostId>) -> Option<Knocked> {
    let outcome = wire::outcome(said.outcome())?;
    let host = number(&said.host.parse().ok()?)?;
    let observation = Observation {
        id: ObservationId { host, boot: 0, counter: said.counter },
        source: from,
        port: said.port?.try_into().ok()?,
        time: Timestamp::from_micros(said.time_us),
        uncertainty: std::time::Duration::from_micros(said.uncertainty_us),
        fingerprint: said.fingerprint,
    };
    let seen = Seen { observation, judged: Timestamp::from_micros(said.judged_us), outcome };
    let (mut completed, mut refused) = (BTreeSet::new(), BTreeMap::new());
    if outcome.is_complete() {
        completed.insert(said.door.clone());
    }
    if outcome == explain::Outcome::Refused {
        refused.insert(said.door.clone(), (said.message.clone(), said.waits));
    }
    Some(Knocked { seen, said, completed, refused })
}

impl Knocked {
    /// Takes in another word on the same knock. The most telling one is kept; it is as old as the first. What one
    /// controller refused, another may have answered.
    fn join(&mut self, mut other: Self) {
        let answered: Vec<_> = self.answered().chain(other.answered()).cloned().collect();
        self.completed.append(&mut other.completed);
        self.refused.append(&mut other.refused);
        self.refused.retain(|door, _| !answered.contains(door));
        let judged = self.seen.judged.min(other.seen.judged);
        let further = |knock: &Self| (knock.seen.outcome, knock.said.step);
        if further(&other) > further(self) {
            (self.seen, self.said) = (other.seen, other.said);
        }
        self.seen.judged = judged;
        if self.seen.outcome == explain::Outcome::Refused && self.refused.is_empty() {
            self.seen.outcome = explain::Outcome::Completed;
        }
    }

    fn answered(&self) -> impl Iterator<Item = &String> {
        self.completed.iter().filter(|door| !self.refused.contains_key(*door))
    }
}

/// Gives each run of each host's agent a number: a later run has a larger one.
fn name_runs(knocks: &mut [Knocked]) {
    let mut first: HashMap<(HostId, Vec<u8>), Timestamp> = HashMap::new();
    for knock in &*knocks {
        let run = (knock.seen.observation.id.host, knock.said.boot.clone());
        let began = first.entry(run).or_insert(knock.seen.observation.time);
        *began = (*began).min(knock.seen.observation.time);
    }
    let mut runs: Vec<_> = first.into_iter().collect();
    runs.sort_by_key(|(_, began)| *began);
    let numbers: HashMap<_, u32> = runs.into_iter().map(|(run, _)| run).zip(1..).collect();
    for knock in knocks {
        let run = (knock.seen.observation.id.host, knock.said.boot.clone());
        knock.seen.observation.id.boot = numbers.get(&run).copied().unwrap_or(0);
    }
}
