//! Why a source's knock opened a door, or did not: gathers what all controllers remember and know, asks the core, and
//! says it in words.
//!
//! A port of any door's sequence is shown only to those who may see steps and ask for it; nor do words tell a step's
//! host that the source did not itself knock.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use fleetknock_core::{
    door::{Door, DoorName, Knock},
    explain::{self, Explained, Host, OnHost, Opening, Question, Seen, Standing},
    host::{HostId, HostName, Labels},
    port::{Port, PortRange},
    source::Source,
    time::Timestamp,
};
use fleetknock_proto::{limits, status as refuse, v1 as pb};
use tonic::Status;

use self::{gathered::Gathered, words::Words};
use super::{door_name, doors, hosts::Told, openings, optional, source};
use crate::{clock::Offset, matching, peers::Peers, record::OpeningRecord, shared::Shared, trust::Caller};

mod gathered;
mod words;

#[cfg(test)]
mod tests;

/// Knocks in an answer: the latest.
const KNOCKS_MAX: usize = 256;
/// Doors in an answer: the first by name of those that are concerned.
const DOORS_MAX: usize = 64;
/// Hosts that one caveat names.
const NAMED_MAX: usize = 8;

pub(super) async fn explain(
    shared: &Shared,
    matching: &matching::Handle,
    peers: &Peers,
    caller: &Caller,
    request: &pb::ExplainRequest,
) -> Result<pb::ExplainResponse, Status> {
    let from = source("source", &request.source)?;
    let asked = optional("door", &request.door, door_name)?;
    if let Some(name) = asked.as_ref().filter(|name| !shared.state().fleet.doors().contains_key(*name)) {
        return Err(refuse::not_found("door", name.as_str()));
    }
    if request.reveal {
        let message = format!("the knocks of {from} were shown with their ports");
        doors::revealed(shared, caller, &message, |event| event).await?;
    }
    let mut gathered = Gathered::of(shared, matching, peers, from, request.since_ms).await?;
    let scene = Scene::of(shared, peers, from, asked.as_ref(), &mut gathered).await;
    Ok(scene.answer(gathered, request.reveal))
}

/// A host as it is known while the answer is made.
struct Known {
    id: HostId,
    name: HostName,
    labels: Labels,
    connected: bool,
    in_use: Vec<PortRange>,
}

/// All that does not come from memory of knocks.
struct Scene {
    source: Source,
    doors: Vec<(Door, Option<Opening>)>,
    /// Doors that are left out of the answer.
    left_out: usize,
    hosts: Vec<Known>,
    ban: Option<Timestamp>,
    /// Of all doors.
    secret: BTreeSet<Port>,
    /// Doors that do not admit the source, by the ports of their steps.
    barred: HashMap<Port, DoorName>,
    caveats: Vec<String>,
    now: Timestamp,
}

impl Scene {
    async fn of(
        shared: &Shared,
        peers: &Peers,
        from: Source,
        asked: Option<&DoorName>,
        gathered: &mut Gathered,
    ) -> Self {
        let chosen = choose(shared, from, asked, gathered);
        let records: Vec<_> = {
            let state = shared.state();
            let of =
                |door: &Door| Some(state.fleet.openings().get(&(door.name().clone(), from))?.record.clone());
            chosen.doors.iter().filter_map(of).collect()
        };
        let (described, silent) = match records.is_empty() {
            true => Default::default(),
            false => openings::describe(shared, peers, &records).await,
        };
        gathered.unanswered.extend(silent);
        let openings: HashMap<_, _> = records
            .iter()
            .zip(described)
            .map(|(record, told)| (record.door.clone(), opening(record, &told)))
            .collect();
        let names = names_of_interest(shared, &chosen.doors, gathered);
        let told = Told::of(shared, peers, &names).await;
        let maybe = told.unanswered.values().any(|silence| !silence.dead);
        gathered.unanswered.extend(told.unanswered.keys().map(ToString::to_string));
        let state = shared.state();
        let mut caveats = caveats(&told.hosts, maybe);
        caveats.extend(chosen.changed);
        let hosts = state.fleet.hosts().values().filter_map(|held| {
            let host = &held.record;
            let said = told.hosts.get(host.name.as_str());
            let asked = names.contains(&host.name);
            let in_use = said.map(|said| said.in_use.clone()).unwrap_or_default();
            Some(Known {
                id: state.fleet.host_id(&host.name)?,
                name: host.name.clone(),
                labels: host.labels.clone(),
                connected: !asked || maybe || said.is_some_and(|said| said.connected),
                in_use: in_use.into_iter().filter_map(|range| range.try_into().ok()).collect(),
            })
        });
        let hosts = hosts.collect();
        let now = shared.now();
        let ban = state.fleet.ban(from, now).map(|ban| ban.expires);
        let doors = chosen.doors.into_iter().map(|door| {
            let opening = openings.get(door.name()).cloned();
            (door, opening)
        });
        let mut scene = Self {
            source: from,
            doors: doors.collect(),
            left_out: chosen.left_out,
            hosts,
            ban,
            secret: BTreeSet::new(),
            barred: HashMap::new(),
            caveats,
            now,
        };
        for held in state.fleet.doors().values() {
            let door = &held.record.door;
            for port in ports(door) {
                scene.secret.insert(port);
                if !door.admits(from) {
                    scene.barred.insert(port, door.name().clone());
                }
            }
        }
        scene
    }

    fn answer(self, gathered: Gathered, reveal: bool) -> pb::ExplainResponse {
        let hosts: Vec<_> = self
            .hosts
            .iter()
            .map(|host| Host {
                id: host.id,
                name: &host.name,
                labels: &host.labels,
                connected: host.connected,
                in_use: &host.in_use,
            })
            .collect();
        let seen: Vec<Seen> = gathered.knocks.iter().map(|knock| knock.seen).collect();
        let explained: Vec<_> = self
            .doors
            .iter()
            .map(|(door, opening)| {
                let refusals: Vec<_> = gathered.refusals(door.name());
                let question = Question {
                    door,
                    hosts: &hosts,
                    source: self.source,
                    knocks: &seen,
                    ban: self.ban,
                    opening: opening.clone(),
                    refusals: &refusals,
                    now: self.now,
                };
                (door, opening, explain::explain(&question))
            })
            .collect();
        let mut words = Words {
            reveal,
            source: self.source,
            now: self.now,
            secret: &self.secret,
            barred: &self.barred,
            notes: HashMap::new(),
            knocks: gathered.knocks.iter().map(|knock| (knock.seen.observation.id, knock)).collect(),
        };
        let mut told: Vec<_> = explained
            .iter()
            .map(|(door, opening, explained)| {
                words.note(door, explained);
                tell(&words, door, opening.as_ref(), explained)
            })
            .collect();
        told.sort_by_cached_key(|door| {
            let open = !matches!(door.code(), pb::ExplainCode::Open | pb::ExplainCode::OpenInPart);
            (open, u64::from(door.steps_total - door.steps_done), door.door.clone())
        });
        let mut latest: Vec<_> = gathered.knocks.iter().collect();
        latest.sort_by_key(|knock| (knock.seen.observation.time, knock.seen.observation.id));
        let surplus = latest.len().saturating_sub(KNOCKS_MAX);
        let knocks = latest.drain(surplus..).map(|knock| words.knock(knock)).collect();
        let mut caveats = self.caveats;
        if surplus > 0 {
            caveats.push(format!("the latest {KNOCKS_MAX} knocks are shown, {surplus} earlier ones are not"));
        }
        if self.left_out > 0 {
            caveats.push(format!("{} more doors are left out; name one with --door", self.left_out));
        }
        for controller in &gathered.unanswered {
            caveats.push(format!("controller {controller} did not answer: what it alone knows is missing"));
        }
        pb::ExplainResponse {
            source: self.source.to_string(),
            knocks,
            doors: told,
            remembered_from_ms: gathered.complete_from.as_millis(),
            caveats,
            unanswered: gathered.unanswered.into_iter().collect(),
            now_ms: self.now.as_millis(),
        }
    }
}

fn tell(
    words: &Words<'_>,
    door: &Door,
    opening: Option<&Opening>,
    explained: &Explained,
) -> pb::DoorExplained {
    let (code, message, remedy) = words.verdict(door, &explained.verdict, explained.total);
    let small = |number| u32::try_from(number).unwrap_or(u32::MAX);
    pb::DoorExplained {
        door: door.name().to_string(),
        code: code.into(),
        message,
        remedy,
        steps_done: small(explained.done),
        steps_total: small(explained.total),
        opening: opening.map(|opening| opening.id.clone()).unwrap_or_default(),
    }
}

fn ports(door: &Door) -> impl Iterator<Item = Port> + '_ {
    let Knock::Sequence(sequence) = door.knock();
    sequence.steps.iter().map(|step| step.port)
}

/// The doors to explain.
struct Chosen {
    doors: Vec<Door>,
    left_out: usize,
    /// Which of them changed after knocks that are shown.
    changed: Vec<String>,
}

/// The door that is asked for, or those that a knock concerns, or all.
fn choose(shared: &Shared, from: Source, asked: Option<&DoorName>, gathered: &Gathered) -> Chosen {
    let state = shared.state();
    let all = || state.fleet.doors().values().map(|held| &held.record);
    let knocked: BTreeSet<_> = gathered.knocks.iter().map(|knock| knock.seen.observation.port).collect();
    let concerned = |door: &Door| {
        ports(door).any(|port| knocked.contains(&port))
            || state.fleet.openings().contains_key(&(door.name().clone(), from))
    };
    let mut records: Vec<_> = match asked {
        Some(name) => all().filter(|record| record.door.name() == name).collect(),
        None => all().filter(|record| concerned(&record.door)).collect(),
    };
    if records.is_empty() {
        records = all().collect();
    }
    let left_out = records.len().saturating_sub(DOORS_MAX);
    records.truncate(DOORS_MAX);
    let first = gathered.knocks.iter().map(|knock| knock.seen.observation.time).min();
    let changed =
        records.iter().filter(|record| first.is_some_and(|first| first < record.updated)).map(|record| {
            format!(
                "the door {} was changed at {}: knocks before that were judged otherwise",
                record.door.name(),
                record.updated
            )
        });
    let changed = changed.take(NAMED_MAX).collect();
    Chosen { doors: records.into_iter().map(|record| record.door.clone()).collect(), left_out, changed }
}

/// The hosts to ask about: all of a small fleet; of a large one those that were knocked, or that the doors name.
fn names_of_interest(shared: &Shared, doors: &[Door], gathered: &Gathered) -> Vec<HostName> {
    let state = shared.state();
    let hosts = state.fleet.hosts();
    if hosts.len() <= limits::PAGE_MAX {
        return hosts.keys().cloned().collect();
    }
    let knocked: BTreeSet<_> = gathered.knocks.iter().map(|knock| knock.seen.observation.id.host).collect();
    let chosen = hosts.values().map(|held| &held.record).filter(|host| {
        let by_step = |door: &Door| {
            let Knock::Sequence(sequence) = door.knock();
            sequence
                .steps
                .iter()
                .any(|step| !step.hosts.is_any() && step.hosts.matches(&host.name, &host.labels))
        };
        state.fleet.host_id(&host.name).is_some_and(|id| knocked.contains(&id))
            || doors.iter().any(|door| by_step(door) || door.opens().hosts.matches(&host.name, &host.labels))
    });
    chosen.take(limits::PAGE_MAX).map(|host| host.name.clone()).collect()
}

fn opening(record: &OpeningRecord, told: &pb::Opening) -> Opening {
    let standing = match told.state() {
        pb::OpeningState::Active => {
            let on = |row: &pb::OpeningOnHost| match row.state() {
                pb::HostOpeningState::Applied => OnHost::Applied,
                pb::HostOpeningState::Failed => OnHost::Failed(row.reason.clone()),
                _ => OnHost::Pending,
            };
            // The rows are in the order of the hosts.
            Standing::Active(record.hosts.iter().cloned().zip(told.hosts.iter().map(on)).collect())
        }
        pb::OpeningState::Withdrawn => Standing::Withdrawn(told.closed_reason.clone()),
        _ => Standing::Expired,
    };
    let ends = record.withdrawn.as_ref().map_or(record.expires, |how| how.at);
    Opening { id: record.id.clone(), granted: record.refreshed, ends, standing }
}

/// What may be missing because of the hosts.
fn caveats(hosts: &HashMap<String, pb::Host>, maybe: bool) -> Vec<String> {
    let mut hosts: Vec<_> = hosts.values().collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let named = |keep: &dyn Fn(&pb::Host) -> bool| {
        let names: Vec<_> = hosts.iter().filter(|host| keep(host)).map(|host| host.name.as_str()).collect();
        (!names.is_empty()).then(|| words::listed(&names))
    };
    let lost = |host: &pb::Host| host.drops_kernel > 0 || host.drops_queue > 0 || host.drops_source_limit > 0;
    let drifts = |host: &pb::Host| {
        let uncertainty = Duration::from_micros(host.clock_uncertainty_us);
        host.connected && Offset { micros: host.clock_offset_us, uncertainty }.is_drifting()
    };
    let away = named(&|host| !host.connected).filter(|_| !maybe);
    let away = away.map(|names| format!("not connected now, so that nothing is seen there: {names}"));
    let lost =
        named(&lost).map(|names| format!("these hosts have lost knocks since their agents started: {names}"));
    let drifting = named(&drifts)
        .map(|names| format!("these hosts' clocks drift, so that the order across hosts is loose: {names}"));
    [away, lost, drifting].into_iter().flatten().collect()
}
