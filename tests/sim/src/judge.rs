//! What must happen: a complete knock opens, and in the end everybody agrees.
//!
//! 3. *A complete knock opens.* It must when, whenever one of its packets is sent, some controllers are *good* (running,
//!    with their lease held and a whole path to an etcd that has a majority and loses no answers), the good ones reach
//!    each other (one pair may be cut if a third can relay), and each host that was knocked on has a whole path to one of them; and when nothing
//!    breaks anew between its first packet and [`bound`] after its last, but for one controller at the most
//!    that crashes or leaves, without which the above still holds. Whatever broke before, and stays broken, is no excuse.
//!    Without anything broken since [`QUIET`], it opens within [`QUICK`].
//! 4. *Everybody agrees.* After all was healed, every controller that runs serves and holds the store's picture, every
//!    agent is attached, and every host holds what its controller's picture says.

use std::collections::BTreeSet;

use fleetknock_controller::{fleet::Fleet, status::State};
use fleetknock_core::{
    door::{DoorName, Knock},
    source::Source,
};

use crate::{
    controller::Standing,
    core::Core,
    faults::Fault,
    network::{Node, Run},
    oracle::bound,
    time::{Micros, SECOND, micros},
    users::Operation,
    world::World,
};

/// Nothing has been broken for so long: everybody has come to rest.
pub(crate) const QUIET: Micros = 15 * SECOND;
/// In rest a knock opens within this of its last packet.
pub(crate) const QUICK: Micros = SECOND;
/// Openings that end so soon, or only just began, are not compared.
const SOON: Micros = 3 * SECOND;

/// What is known of one attempt at a whole sequence.
#[derive(Debug)]
pub(crate) struct Seen {
    first: Micros,
    last: Micros,
    pub(crate) steps: usize,
    hosts: BTreeSet<usize>,
    missed: bool,
    /// Whether it could be answered whenever one of its packets was sent.
    fair: bool,
    /// Without which of the controllers, one at a time, as well.
    without: BTreeSet<usize>,
    granted: Option<Micros>,
}

impl Core {
    /// A step of an attempt was sent.
    pub(crate) fn attempted(&mut self, attempt: usize, host: usize, seen: bool) {
        let now = self.now;
        let begun = Seen {
            first: now,
            last: now,
            steps: 0,
            hosts: BTreeSet::new(),
            missed: false,
            fair: true,
            without: (0..self.scenario.controllers.len()).collect(),
            granted: None,
        };
        let entry = self.oracle.attempts.entry(attempt).or_insert(begun);
        entry.last = now;
        entry.steps += 1;
        entry.missed |= !seen;
        entry.hosts.insert(host);
        let (hosts, steps) = (entry.hosts.clone(), entry.steps);
        let fair = self.is_fair(&hosts, None);
        let controllers = 0..self.scenario.controllers.len();
        let without: BTreeSet<usize> = controllers.filter(|one| self.is_fair(&hosts, Some(*one))).collect();
        let all = self.scenario.attempts[attempt].steps;
        if let Some(entry) = self.oracle.attempts.get_mut(&attempt) {
            entry.fair &= fair;
            entry.without.retain(|one| without.contains(one));
            if steps == all && !entry.missed {
                self.oracle.stats.knocks += 1;
                self.judge_at(now + bound(), attempt);
            }
        }
    }

    /// A knock with that last packet was answered, and with it all earlier ones of that source at that door.
    pub(crate) fn granted(&mut self, door: &DoorName, source: Source, last: Micros) {
        let now = self.now;
        for (number, seen) in &mut self.oracle.attempts {
            let attempt = &self.scenario.attempts[*number];
            let same = self.scenario.sources[attempt.source] == source
                && self.scenario.doors[attempt.door].name() == door;
            if same && seen.last <= last && seen.steps == attempt.steps {
                seen.granted.get_or_insert(now);
            }
        }
    }

    /// Whether knocks on these hosts can be answered now, also without one of the controllers.
    fn is_fair(&self, hosts: &BTreeSet<usize>, without: Option<usize>) -> bool {
        if self.etcd.down || self.etcd.losing > 0.0 || self.is_store_lost() {
            return false;
        }
        let good: Vec<Node> =
            self.good().filter(|number| Some(*number) != without).map(Node::Controller).collect();
        let pairs = good
            .iter()
            .enumerate()
            .flat_map(|(place, one)| good[..place].iter().map(move |other| (*one, *other)));
        let cut = pairs.filter(|(one, other)| !self.net.is_whole(*one, *other)).count();
        let related = cut == 0 || cut == 1 && good.len() >= 3;
        let heard =
            hosts.iter().all(|host| good.iter().any(|node| self.net.is_whole(Node::Agent(*host), *node)));
        !good.is_empty() && related && heard
    }

    /// The controllers that can decide, and go on to.
    fn good(&self) -> impl Iterator<Item = usize> {
        (0..self.scenario.controllers.len()).filter(|number| {
            let node = Node::Controller(*number);
            !self.is_leaving(*number)
                && self.oracle.serving.contains(number)
                && self.state(node).0 == Run::Up
                && self.net.is_whole(node, Node::Etcd)
        })
    }

    fn is_leaving(&self, controller: usize) -> bool {
        self.scenario.faults.iter().any(|(from, fault, until)| {
            *fault == Fault::Leave(controller) && *from <= self.now && self.now < *until
        })
    }

    /// Whether a knock must have been answered: see the [module](self).
    fn must_open(&self, attempt: usize) -> bool {
        let Some(seen) = self.oracle.attempts.get(&attempt) else { return false };
        let attempt = &self.scenario.attempts[attempt];
        let source = self.scenario.sources[attempt.source];
        let uncertainty = self.oracle.uncertainty(source);
        let Knock::Sequence(sequence) = self.scenario.doors[attempt.door].knock();
        let in_time = seen.last - seen.first + 2 * uncertainty + SECOND / 10 < micros(sequence.within);
        let operated = self.scenario.operations.iter().any(|(at, operation)| {
            let of = match operation {
                Operation::Ban { source, .. } | Operation::Close { source } => *source,
                Operation::Open { .. } | Operation::Unban { .. } => return false,
            };
            of == attempt.source && *at + 5 * SECOND > seen.first && *at < self.now
        });
        let left_alone =
            !operated && !self.oracle.banned.contains(&source) && attempt.source < self.scenario.honest;
        if !seen.fair || !in_time || !left_alone || uncertainty > SECOND {
            return false;
        }
        let mut new = self.oracle.faults.iter().filter(|(at, _)| *at > seen.first);
        match (new.next(), new.next()) {
            (None, _) => true,
            (Some((_, Fault::Crash { node: Node::Controller(number), .. } | Fault::Leave(number))), None) => {
                seen.without.contains(number)
            }
            _ => false,
        }
    }
}

impl World {
    /// The bound of a complete knock is over.
    pub(crate) fn judge(&mut self, attempt: usize) {
        let core = &mut self.core;
        let must = core.must_open(attempt);
        let Some(seen) = core.oracle.attempts.get(&attempt) else { return };
        core.oracle.stats.due += u32::from(must);
        let quiet = core
            .scenario
            .faults
            .iter()
            .all(|(from, _, until)| *until + QUIET < seen.first || *from > seen.last + QUICK)
            && seen.first > QUIET;
        match seen.granted {
            Some(at) => {
                let took = at - seen.last;
                core.oracle.stats.opened += 1;
                core.oracle.stats.slowest_us = core.oracle.stats.slowest_us.max(took);
                if must && quiet && took > QUICK {
                    core.fail(format!("attempt {attempt} opened only after {took} us with nothing broken"));
                }
            }
            None if must => {
                let said = format!("{:?} {seen:?}", core.scenario.attempts[attempt]);
                core.fail(format!("attempt {attempt} is complete and opened nothing: {said}"));
            }
            None => {}
        }
    }

    /// After everything was healed: everybody agrees.
    pub(crate) fn check_convergence(&mut self) {
        let (truth, _) = Fleet::load(self.core.etcd.listing());
        for (number, process) in self.controllers.iter().enumerate() {
            let Some(process) = process else {
                return self.core.fail(format!("controller {number} does not run"));
            };
            if !matches!(process.standing, Standing::Serving { .. }) {
                let standing = process.standing;
                return self.core.fail(format!("controller {number} is {standing:?} in the end"));
            }
            let same = process.fleet.openings() == truth.openings()
                && process.fleet.bans() == truth.bans()
                && process.fleet.hosts() == truth.hosts()
                && process.fleet.members() == truth.members();
            if !same {
                return self.core.fail(format!("controller {number} has another picture than the store"));
            }
        }
        for host in 0..self.hosts.len() {
            if let Err(what) = self.check_host(host) {
                return self.core.fail(format!("host {host}: {what}"));
            }
        }
    }

    fn check_host(&mut self, number: usize) -> Result<(), String> {
        let host = &mut self.hosts[number];
        let (clock, at) = (host.clock, self.core.now);
        let now = clock.instant(at);
        let agent = host.agent.as_mut().ok_or("its agent does not run")?;
        let controller = agent.attached_to().ok_or("its agent is not attached")?;
        let process = self.controllers[controller].as_ref().ok_or("its controller is gone")?;
        let name = &self.core.scenario.hosts[number].0;
        if process.sessions.of(name).is_none() {
            return Err(format!("controller {controller} knows no session of it"));
        }
        let time = process.now(&self.core);
        let slack = SOON + 2 * self.core.scenario.skew;
        for opening in process.fleet.openings_on(name, time) {
            if micros(opening.remaining(time)) < slack || micros(time.since(opening.refreshed)) < slack {
                continue;
            }
            let held = agent.picture.opening(&opening.id);
            let held = held.ok_or_else(|| format!("it does not hold the opening {}", opening.id))?;
            let apart = crate::agent::remaining(held.deadline, now).abs_diff(micros(opening.remaining(time)));
            if held.generation != opening.generation || apart > slack + 5 * SECOND {
                return Err(format!("it holds {} as {held:?} instead of {opening:?}", opening.id));
            }
            let rows = process
                .statuses
                .reports(&opening.id)
                .map(|reports| reports.of(opening, time))
                .unwrap_or_default();
            if !rows.iter().any(|row| row.host == *name && row.state == State::Applied) {
                return Err(format!("its controller does not know that {} is open: {rows:?}", opening.id));
            }
        }
        let fleet = &process.fleet;
        for (id, held) in agent.picture.openings() {
            let lasts = crate::agent::remaining(held.deadline, now) > slack + 5 * SECOND;
            let known = fleet.opening(id).is_some_and(|held| fleet.is_effective(&held.record, time));
            if lasts && !known {
                return Err(format!("it holds the opening {id}, which the fleet does not"));
            }
        }
        let desired = agent.picture.desired(now).openings;
        for (element, until) in &host.kernel {
            if *until > now && !desired.contains_key(element) {
                return Err(format!("its kernel lets {element:?} in, its picture does not"));
            }
        }
        let bans: BTreeSet<Source> = agent.picture.bans().map(|(source, _)| source).collect();
        let lasting = fleet.bans().values().filter(|held| micros(held.record.expires.since(time)) > slack);
        if let Some(ban) = lasting.map(|held| held.record.source).find(|source| !bans.contains(source)) {
            return Err(format!("it does not hold the ban of {ban}"));
        }
        let guarded = fleet.hosts().get(name).map(|held| fleet.guarded(&held.record));
        if guarded.as_ref() != Some(&agent.picture.fleet_guard().ports) {
            return Err("it guards other ports than it should".to_owned());
        }
        Ok(())
    }
}
