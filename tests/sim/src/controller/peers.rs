//! The other controllers: mirrors `controller::peers` with its link, around the real router and clocks.

use std::{collections::BTreeMap, time::Duration};

use fleetknock_controller::{
    clock::{Estimate, Offset, Probe},
    peers::route::Link as Reach,
    store::Revision,
};
use fleetknock_core::host::HostName;
use fleetknock_proto::v1::{self as pb, peer_message::Kind as Said, peer_reply::Kind as Tell};

use super::Process;
use crate::{
    Sabotage,
    core::{Core, Timer},
    network::{Message, Node, Refused, StreamId},
    time::Micros,
};

/// Dialling may take twice `link::DIAL_MAX`.
const DIALLING_MAX: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_secs(1);
const FIRST_PROBES: u32 = 4;
const SILENCE_MAX: Micros = 2_500_000;
const RESEND_GATHER: Micros = 20_000;
const RESEND_EVERY: Micros = 500_000;

/// The stream to one peer.
#[derive(Debug)]
pub(super) struct Link {
    epoch: Revision,
    number: usize,
    serial: u64,
    pub(super) stream: Option<StreamId>,
    pub(super) welcomed: bool,
    pause: Duration,
    clock: Estimate,
    probes: u32,
    heard: Micros,
}

impl Process {
    pub(super) fn follow_members(&mut self, core: &mut Core) {
        let members: BTreeMap<HostName, Revision> =
            self.fleet.members().iter().map(|(name, held)| (name.clone(), held.revision)).collect();
        let moved = self.router.set_members(members.clone());
        let node = self.node();
        self.links.retain(|name, link| {
            let stays = members.get(name) == Some(&link.epoch);
            if let (false, Some(stream)) = (stays, link.stream) {
                core.close(stream, node);
            }
            stays
        });
        for (name, epoch) in members {
            if name == self.name || self.links.contains_key(&name) {
                continue;
            }
            let number = core.scenario.controllers.iter().position(|(known, _)| *known == name);
            let link = Link {
                epoch,
                number: number.unwrap_or(0),
                serial: 0,
                stream: None,
                welcomed: false,
                pause: RETRY_FIRST,
                clock: Estimate::default(),
                probes: 0,
                heard: 0,
            };
            self.links.insert(name.clone(), link);
            self.dial_peer(core, &name);
        }
        self.follow_clock(core);
        if moved {
            self.moved(core);
        }
    }

    fn dial_peer(&mut self, core: &mut Core, name: &HostName) {
        self.serials += 1;
        let (serial, node) = (self.serials, self.node());
        let Some(link) = self.links.get_mut(name) else { return };
        let hello = pb::PeerHello {
            controller: self.name.to_string(),
            meant: name.to_string(),
            epoch: link.epoch,
            fleet: "default".to_owned(),
            version: "simulated".to_owned(),
        };
        let message = pb::PeerMessage { kind: Some(Said::Hello(hello)) };
        link.serial = serial;
        link.welcomed = false;
        link.clock = Estimate::default();
        link.probes = 0;
        link.stream = Some(core.dial(node, Node::Controller(link.number), Message::Peer(Box::new(message))));
        core.wake(node, DIALLING_MAX, Timer::Peer(link.number, serial));
    }

    /// The deadline of a dial, the end of a pause, or the time for a probe.
    pub(super) fn link_due(&mut self, core: &mut Core, serial: u64) {
        let found = self.links.iter().find(|(_, link)| link.serial == serial);
        let Some(name) = found.map(|(name, _)| name.clone()) else { return };
        let Some(link) = self.links.get(&name) else { return };
        match link.stream {
            None => self.dial_peer(core, &name),
            Some(_) if !link.welcomed => self.link_failed(core, &name, Reach::Cut),
            Some(_) if core.now > link.heard + SILENCE_MAX => self.link_failed(core, &name, Reach::Cut),
            Some(_) => {
                self.probe_peer(core, &name);
                let Some(link) = self.links.get(&name) else { return };
                core.wake(self.node(), PROBE_EVERY, Timer::Peer(link.number, serial));
            }
        }
    }

    fn probe_peer(&mut self, core: &mut Core, name: &HostName) {
        let sent_us = self.local_now(core).as_micros();
        let node = self.node();
        if let Some(link) = self.links.get_mut(name)
            && let Some(stream) = link.stream
        {
            link.probes = link.probes.saturating_add(1);
            let probe = pb::PeerMessage { kind: Some(Said::Probe(pb::Probe { id: sent_us, sent_us })) };
            core.send(stream, node, Message::Peer(Box::new(probe)));
        }
    }

    /// The stream to a peer is over: how it can be reached now, and when it is dialled again.
    fn link_failed(&mut self, core: &mut Core, name: &HostName, reach: Reach) {
        self.serials += 1;
        let (serial, node) = (self.serials, self.node());
        let Some(link) = self.links.get_mut(name) else { return };
        if let Some(stream) = link.stream.take() {
            core.close(stream, node);
        }
        // A stream that served is dialled again at once.
        let pause = if link.welcomed { Duration::ZERO } else { link.pause };
        link.pause = if link.welcomed { RETRY_FIRST } else { RETRY_LAST.min(link.pause * 2) };
        link.serial = serial;
        let (epoch, number) = (link.epoch, link.number);
        core.wake(node, pause, Timer::Peer(number, serial));
        core.say(|| format!("{} finds {name} {reach:?}", self.name));
        if self.router.set_link(name, epoch, reach) {
            self.moved(core);
        }
    }

    pub(super) fn link_ended(&mut self, core: &mut Core, stream: StreamId, refused: bool) {
        if let Some(name) = self.link_of(stream) {
            self.link_failed(core, &name, if refused { Reach::Dead } else { Reach::Cut });
        }
    }

    fn link_of(&self, stream: StreamId) -> Option<HostName> {
        self.links.iter().find(|(_, link)| link.stream == Some(stream)).map(|(name, _)| name.clone())
    }

    pub(super) fn peer_said(&mut self, core: &mut Core, stream: StreamId, message: Message) {
        match message {
            Message::Peer(message) => {
                self.calls.entry(stream).or_default().backlog.push_back(*message);
                self.read_call(core, stream);
            }
            Message::PeerReply(reply) => {
                if let Some(name) = self.link_of(stream) {
                    self.link_heard(core, &name, *reply);
                }
            }
            Message::Status(refused) => {
                if let Some(name) = self.link_of(stream) {
                    let dead = refused == Refused::Precondition;
                    self.link_failed(core, &name, if dead { Reach::Dead } else { Reach::Cut });
                }
            }
            _ => {}
        }
    }

    fn link_heard(&mut self, core: &mut Core, name: &HostName, reply: pb::PeerReply) {
        let (at, node) = (self.local_now(core), self.node());
        let Some(link) = self.links.get_mut(name) else { return };
        link.heard = core.now;
        match reply.kind {
            Some(Tell::Welcome(_)) => {
                link.welcomed = true;
                link.pause = RETRY_FIRST;
                let (epoch, number, serial) = (link.epoch, link.number, link.serial);
                core.wake(node, Duration::ZERO, Timer::Peer(number, serial));
                if self.router.set_link(name, epoch, Reach::Up) {
                    self.moved(core);
                }
            }
            Some(Tell::ProbeReply(pb::PeerProbeReply { reply: Some(reply), uncertainty_us })) => {
                link.clock.add(Probe {
                    sent: reply.probe_sent_us,
                    heard: reply.received_us,
                    answered: reply.sent_us,
                    received: at.as_micros(),
                });
                let again = link.probes < FIRST_PROBES;
                if let Some(offset) = link.clock.offset(at) {
                    let uncertainty = offset.uncertainty + Duration::from_micros(uncertainty_us);
                    let offset = Offset { uncertainty, ..offset };
                    self.fleet_clock.measured(name.clone(), offset, at);
                    self.follow_clock(core);
                }
                if again {
                    self.probe_peer(core, name);
                }
            }
            _ => {}
        }
    }

    /// As `Peers::follow_clock`.
    fn follow_clock(&mut self, core: &Core) {
        let at = self.local_now(core);
        let members = self.fleet.members();
        let own = members.get(&self.name).map(|held| held.revision);
        self.fleet_clock.follow(members.iter().map(|(name, held)| (name, held.revision)), own, at);
        self.offset = self.fleet_clock.offset(at);
    }

    /// Sources moved: the agents are asked for their windows, soon and not too often.
    fn moved(&mut self, core: &mut Core) {
        if self.resend_due.is_none() && !Self::is_sabotaged(core, Sabotage::NeverResend) {
            let due = core.now.max(self.resent + RESEND_EVERY) + RESEND_GATHER;
            self.resend_due = Some(due);
            core.wake(self.node(), Duration::from_micros(due - core.now), Timer::Resend);
        }
    }

    pub(super) fn resend(&mut self, core: &Core) {
        if self.resend_due.is_some_and(|due| core.now >= due) {
            self.resend_due = None;
            self.resent = core.now;
            self.sessions.resend();
        }
    }
}
