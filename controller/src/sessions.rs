//! The agents connected to this controller, and what is pushed to them.
//!
//! Pure but for the queues' sending ends. A session gets a snapshot when it is added and deltas from then on; both are
//! computed under the one lock that guards the fleet's copy, so that no change falls between.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fleetknock_core::{host::HostName, port::PortRange, time::Timestamp};
use fleetknock_proto::{limits, v1 as pb};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    clock::Offset,
    fleet::{Effect, Fleet},
    grant::hosts_of_change,
    wire,
};

/// Messages waiting for one agent. An agent that does not read is cut off when it is full: it comes back and gets a
/// snapshot, which is worth more than any number of deltas.
pub const SESSION_QUEUE: usize = 1_024;

/// What every host is told beside what the store says.
#[derive(Clone, Debug, Default)]
pub struct FleetWide {
    /// The ports at which a knock counts.
    pub knock_space: Vec<PortRange>,
    /// Networks, textual, that pass every guard.
    pub management: Vec<String>,
}

/// What is known of a connected agent.
#[derive(Clone, Debug)]
pub struct Info {
    /// When its stream began.
    pub since: Timestamp,
    /// When it was last heard.
    pub last_seen: Timestamp,
    /// Its clock, as last measured.
    pub offset: Option<Offset>,
    /// Knocks it reported on this stream.
    pub observations: u64,
    /// Its last report on itself.
    pub report: pb::HostReport,
}

/// One connected agent.
#[derive(Debug)]
pub struct Session {
    /// Unique in this process; a newer stream of the same host has a larger one.
    pub number: u64,
    /// What is known of it.
    pub info: Info,
    /// Ends its stream.
    pub stop: CancellationToken,
    outbound: mpsc::Sender<Result<pb::ControllerMessage, Status>>,
    guard: pb::Guard,
}

/// All connected agents, by host.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: HashMap<HostName, Session>,
    /// What was known last of hosts that are not connected here any more. Bounded by the fleet's hosts: what is said of
    /// a host that is forgotten goes with it.
    last: HashMap<HostName, Info>,
    /// Agents cut off because they did not read.
    pub cut_off: u64,
}

impl Session {
    /// A session that nothing was sent to yet.
    pub fn new(
        number: u64,
        since: Timestamp,
        outbound: mpsc::Sender<Result<pb::ControllerMessage, Status>>,
        stop: CancellationToken,
    ) -> Self {
        let info = Info {
            since,
            last_seen: since,
            offset: None,
            observations: 0,
            report: pb::HostReport::default(),
        };
        Self { number, info, stop, outbound, guard: pb::Guard::default() }
    }

    /// Says something that can be lost.
    pub fn tell(&self, kind: pb::controller_message::Kind) {
        self.send(kind);
    }

    fn dismiss(&self, reason: &str) {
        let goodbye = pb::Goodbye { reason: reason.to_owned(), move_now: true };
        self.send(pb::controller_message::Kind::Goodbye(goodbye));
        self.stop.cancel();
    }

    fn send(&self, kind: pb::controller_message::Kind) -> bool {
        self.outbound.try_send(Ok(pb::ControllerMessage { kind: Some(kind) })).is_ok()
    }
}

impl Sessions {
    /// Adds an agent and sends it a snapshot. A session that the same host still had is ended and returned.
    pub fn add(
        &mut self,
        host: HostName,
        mut session: Session,
        fleet: &Fleet,
        wide: &FleetWide,
        now: Timestamp,
    ) -> Option<Session> {
        snapshot(&host, &mut session, fleet, wide, false, now);
        self.last.remove(&host);
        let old = self.sessions.insert(host, session);
        if let Some(old) = &old {
            let reason = "another agent with this host's name has connected".to_owned();
            old.send(pb::controller_message::Kind::Goodbye(pb::Goodbye { reason, move_now: false }));
            old.stop.cancel();
        }
        old
    }

    /// Removes a host's session if it still is the one of that number.
    pub fn remove(&mut self, host: &HostName, number: u64) -> Option<Session> {
        if self.sessions.get(host)?.number != number {
            return None;
        }
        let session = self.sessions.remove(host)?;
        self.last.insert(host.clone(), session.info.clone());
        Some(session)
    }

    /// The session of a host.
    pub fn of(&self, host: &HostName) -> Option<&Session> {
        self.sessions.get(host)
    }

    /// What was known last of a host that is not connected here any more.
    pub fn last_of(&self, host: &HostName) -> Option<&Info> {
        self.last.get(host)
    }

    /// The hosts that are connected here.
    pub fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.sessions.keys()
    }

    /// The session of a host, if it still is the one of that number.
    pub fn current(&mut self, host: &HostName, number: u64) -> Option<&mut Session> {
        self.sessions.get_mut(host).filter(|session| session.number == number)
    }

    /// How many agents are connected.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no agent is connected.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Tells one agent everything again.
    pub fn reassert(
        &mut self,
        host: &HostName,
        number: u64,
        fleet: &Fleet,
        wide: &FleetWide,
        now: Timestamp,
    ) {
        if let Some(session) = self.sessions.get_mut(host).filter(|session| session.number == number) {
            snapshot(host, session, fleet, wide, true, now);
        }
    }

    /// Tells all agents everything again, after the fleet's copy was read anew.
    pub fn reassert_all(&mut self, fleet: &Fleet, wide: &FleetWide, now: Timestamp) {
        self.last.retain(|host, _| fleet.hosts().contains_key(host));
        for (host, session) in &mut self.sessions {
            snapshot(host, session, fleet, wide, true, now);
        }
    }

    /// Asks everybody for the observations that they keep. An agent that does not read is cut off: it comes back, and
    /// sends them anyway.
    pub fn resend(&mut self) {
        let full: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| !session.send(pb::controller_message::Kind::Resend(pb::Resend {})))
            .map(|(host, _)| host.clone())
            .collect();
        self.cut_off(full);
    }

    /// Tells a host's agent what to log. False when it is not connected here, or does not read and is cut off.
    pub fn order_log(&mut self, host: &HostName, order: pb::LogOrder) -> bool {
        let Some(session) = self.sessions.get(host) else { return false };
        let taken = session.send(pb::controller_message::Kind::Log(order));
        if !taken {
            self.cut_off(vec![host.clone()]);
        }
        taken
    }

    /// Tells everybody to go elsewhere, as this controller leaves.
    pub fn dismiss(&mut self, reason: &str) {
        self.sessions.values().for_each(|session| session.dismiss(reason));
    }

    /// Tells these hosts' agents to go elsewhere, where they are better off.
    pub fn let_go(&mut self, hosts: &[HostName], reason: &str) {
        hosts.iter().filter_map(|host| self.sessions.get(host)).for_each(|session| session.dismiss(reason));
    }

    /// Sends each agent what the effects mean for its host: one delta each, nothing to those whom it does not concern.
    pub fn push(&mut self, effects: &[Effect], fleet: &Fleet, wide: &FleetWide, now: Timestamp) {
        let mut deltas: BTreeMap<HostName, pb::Delta> = BTreeMap::new();
        let mut guards = Guards::Of(BTreeSet::new());
        for effect in effects {
            match effect {
                Effect::Opening { before, after } => {
                    for host in hosts_of_change(before.as_ref(), after) {
                        let delta = deltas.entry(host.clone()).or_default();
                        if after.hosts.contains(&host) && fleet.is_effective(after, now) {
                            delta.openings.push(pb::HostOpening {
                                traceparent: after.trace.clone().unwrap_or_default(),
                                ..wire::host_opening(after, now)
                            });
                        } else {
                            let kill_connections =
                                after.withdrawn.as_ref().is_some_and(|how| how.kill_connections);
                            delta.withdrawn.push(pb::Withdrawal { id: after.id.clone(), kill_connections });
                        }
                    }
                }
                Effect::Banned(ban) => {
                    for host in self.sessions.keys() {
                        deltas.entry(host.clone()).or_default().bans.push(wire::host_ban(ban, now));
                    }
                }
                Effect::Unbanned(source) => {
                    for host in self.sessions.keys() {
                        deltas.entry(host.clone()).or_default().unbanned.push(source.to_string());
                    }
                }
                Effect::DoorDeleted(door) => {
                    guards = Guards::All;
                    for opening in fleet.openings_of(door).filter(|opening| opening.is_active(now)) {
                        for host in &opening.hosts {
                            let withdrawal =
                                pb::Withdrawal { id: opening.id.clone(), kill_connections: false };
                            deltas.entry(host.clone()).or_default().withdrawn.push(withdrawal);
                        }
                    }
                }
                Effect::DoorApplied(_) => guards = Guards::All,
                Effect::HostChanged(host) => {
                    if !fleet.hosts().contains_key(host) {
                        self.last.remove(host);
                    }
                    guards.add(host);
                }
                Effect::Audited(_)
                | Effect::Broken(_)
                | Effect::Identified
                | Effect::MemberJoined(_)
                | Effect::MemberLeft(_)
                | Effect::OpeningForgotten(_)
                | Effect::TokenChanged(_) => {}
            }
        }
        for (host, guard) in self.changed_guards(guards, fleet, wide) {
            deltas.entry(host).or_default().guard = Some(guard);
        }
        let mut full = Vec::new();
        for (host, delta) in deltas {
            let Some(session) = self.sessions.get(&host) else {
                continue;
            };
            let delta = pb::Delta { revision: fleet.revision(), ..delta };
            if !session.send(pb::controller_message::Kind::Delta(delta)) {
                full.push(host);
            }
        }
        self.cut_off(full);
    }

    fn cut_off(&mut self, hosts: Vec<HostName>) {
        for host in hosts {
            if let Some(session) = self.sessions.remove(&host) {
                self.cut_off += 1;
                session.stop.cancel();
                self.last.insert(host, session.info);
            }
        }
    }

    /// The guards that differ from what was sent last, noted as sent.
    fn changed_guards(&mut self, of: Guards, fleet: &Fleet, wide: &FleetWide) -> Vec<(HostName, pb::Guard)> {
        let hosts: Vec<HostName> = match of {
            Guards::All => self.sessions.keys().cloned().collect(),
            Guards::Of(hosts) => hosts.into_iter().collect(),
        };
        let mut changed = Vec::new();
        for host in hosts {
            let (Some(session), Some(held)) = (self.sessions.get_mut(&host), fleet.hosts().get(&host)) else {
                continue;
            };
            let guard = wire::guard(fleet, &held.record, &wide.knock_space, &wide.management);
            if guard != session.guard {
                session.guard = guard.clone();
                changed.push((host, guard));
            }
        }
        changed
    }
}

/// Whose guard may have changed: a fleet of many hosts that all connect changes one at a time.
enum Guards {
    All,
    Of(BTreeSet<HostName>),
}

impl Guards {
    fn add(&mut self, host: &HostName) {
        if let Self::Of(hosts) = self {
            hosts.insert(host.clone());
        }
    }
}

/// Sends everything that a host should hold, in parts that fit a message.
fn snapshot(
    host: &HostName,
    session: &mut Session,
    fleet: &Fleet,
    wide: &FleetWide,
    again: bool,
    now: Timestamp,
) {
    let guard = fleet
        .hosts()
        .get(host)
        .map(|held| wire::guard(fleet, &held.record, &wide.knock_space, &wide.management));
    let guard = guard.unwrap_or_default();
    session.guard = guard.clone();
    let openings: Vec<_> =
        fleet.openings_on(host, now).map(|opening| wire::host_opening(opening, now)).collect();
    let bans = fleet.bans().values().map(|held| &held.record).filter(|ban| ban.expires > now);
    let bans: Vec<_> = bans.map(|ban| wire::host_ban(ban, now)).collect();

    let parts = openings.len().max(bans.len()).div_ceil(limits::OPENINGS_MAX).max(1);
    let (mut openings, mut bans) = (openings.into_iter(), bans.into_iter());
    for part in 1..=parts {
        let message = pb::Snapshot {
            revision: fleet.revision(),
            guard: Some(guard.clone()),
            openings: openings.by_ref().take(limits::OPENINGS_MAX).collect(),
            bans: bans.by_ref().take(limits::OPENINGS_MAX).collect(),
            reassertion: again,
            more: part < parts,
        };
        if !session.send(pb::controller_message::Kind::Snapshot(message)) {
            session.stop.cancel();
            return;
        }
    }
}

#[cfg(test)]
mod tests;
