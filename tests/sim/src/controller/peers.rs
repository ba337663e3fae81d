//! The other controllers: mirrors `controller::peers` with its link and service, around the real router and clocks.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use fleetknock_controller::{
    clock::{Estimate, Offset, Probe},
    peers::route::{Link as Reach, Route},
    store::Revision,
    wire,
};
use fleetknock_core::{
    host::HostName,
    knock::{Observation, ObservationId},
};
use fleetknock_proto::{
    Seen, convert,
    v1::{self as pb, peer_message::Kind as Said, peer_reply::Kind as Tell},
};

use super::Process;
use crate::{
    Sabotage,
    core::{Core, Timer},
    network::{Message, Node, Refused, StreamId},
    time::{Micros, SECOND, micros},
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
const CATCH_UP: Micros = 2 * SECOND;

/// The stream to one peer.
#[derive(Debug)]
pub(super) struct Link {
    epoch: Revision,
    number: usize,
    serial: u64,
    stream: Option<StreamId>,
    welcomed: bool,
    pause: Duration,
    clock: Estimate,
    probes: u32,
    heard: Micros,
}

/// A stream from a peer: what it said and was not read yet.
#[derive(Debug, Default)]
pub(super) struct PeerCall {
    greeted: bool,
    backlog: VecDeque<pb::PeerMessage>,
    waits: Option<Micros>,
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
                    self.follow_clock(core, name, Offset { uncertainty, ..offset });
                }
                if again {
                    self.probe_peer(core, name);
                }
            }
            _ => {}
        }
    }

    /// As `Peers::clock_of`.
    fn follow_clock(&mut self, core: &Core, name: &HostName, offset: Offset) {
        let at = self.local_now(core);
        let members = self.fleet.members();
        let own = members.get(&self.name).map(|held| held.revision);
        self.fleet_clock.measured(name.clone(), offset, at);
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

    /// Brings knocks to whoever follows their sources.
    pub(super) fn observe(
        &mut self,
        core: &mut Core,
        host: &HostName,
        boot: [u8; 16],
        observations: Vec<Observation>,
        hops: u32,
    ) {
        let mut here = Vec::new();
        let mut away: BTreeMap<HostName, Vec<Observation>> = BTreeMap::new();
        for observation in observations {
            match self.router.route(observation.source, hops) {
                Route::Here => here.push(observation),
                Route::To(name) => away.entry(name.clone()).or_default().push(observation),
            }
        }
        for (name, observations) in away {
            core.say(|| format!("{}: {} knocks on to {name}, {hops} hops", self.name, observations.len()));
            let uncertainty = observations.first().map_or(Duration::ZERO, |first| first.uncertainty);
            let message = pb::HostObservations {
                host: host.to_string(),
                boot: boot.to_vec(),
                uncertainty_us: wire::micros(uncertainty),
                observations: observations.into_iter().map(observation).collect(),
            };
            let batch =
                pb::ForwardBatch { revision: self.fleet.revision(), hops: hops + 1, hosts: vec![message] };
            let batch = pb::PeerMessage { kind: Some(Said::Batch(batch)) };
            if let Some(stream) =
                self.links.get(&name).filter(|link| link.welcomed).and_then(|link| link.stream)
            {
                core.send(stream, self.node(), Message::Peer(Box::new(batch)));
            }
        }
        if !here.is_empty() {
            self.judge(core, &here);
        }
    }

    /// Reads on in what a peer said, as far as the copy allows.
    pub(super) fn read_call(&mut self, core: &mut Core, stream: StreamId) {
        while let Some(call) = self.calls.get_mut(&stream)
            && let Some(message) = call.backlog.front()
        {
            if let Some(Said::Batch(batch)) = &message.kind
                && batch.revision > self.fleet.revision()
            {
                let until = *call.waits.get_or_insert(core.now + CATCH_UP);
                if core.now < until {
                    let after = Duration::from_micros(until - core.now);
                    return core.wake(Node::Controller(self.number), after, Timer::Backlog(stream));
                }
            }
            call.waits = None;
            let greeted = call.greeted;
            let Some(message) = call.backlog.pop_front() else { return };
            match message.kind {
                Some(Said::Hello(hello)) => self.welcome_peer(core, stream, &hello),
                Some(Said::Probe(probe)) if greeted => self.answer_peer(core, stream, &probe),
                Some(Said::Batch(batch)) if greeted => self.take_batch(core, batch),
                _ => {}
            }
        }
    }

    fn welcome_peer(&mut self, core: &mut Core, stream: StreamId, hello: &pb::PeerHello) {
        if hello.meant != self.name.as_str() || Some(hello.epoch) != self.epoch {
            core.send(stream, self.node(), Message::Status(Refused::Precondition));
            core.close(stream, self.node());
            self.calls.remove(&stream);
            return;
        }
        if let Some(call) = self.calls.get_mut(&stream) {
            call.greeted = true;
        }
        let welcome = pb::PeerWelcome { controller: self.name.to_string(), version: "simulated".to_owned() };
        self.tell_peer(core, stream, Tell::Welcome(welcome));
    }

    fn answer_peer(&self, core: &mut Core, stream: StreamId, probe: &pb::Probe) {
        let at = self.now(core).as_micros();
        let reply =
            pb::ProbeReply { id: probe.id, probe_sent_us: probe.sent_us, received_us: at, sent_us: at };
        let uncertainty_us = micros(self.offset.uncertainty);
        self.tell_peer(
            core,
            stream,
            Tell::ProbeReply(pb::PeerProbeReply { reply: Some(reply), uncertainty_us }),
        );
    }

    fn tell_peer(&self, core: &mut Core, stream: StreamId, kind: Tell) {
        let reply = pb::PeerReply { kind: Some(kind) };
        core.send(stream, self.node(), Message::PeerReply(Box::new(reply)));
    }

    fn take_batch(&mut self, core: &mut Core, batch: pb::ForwardBatch) {
        for message in batch.hosts {
            let Ok(host) = message.host.parse::<HostName>() else { continue };
            let Ok(boot) = <[u8; 16]>::try_from(message.boot.as_slice()) else { continue };
            let Some(id) = self.fleet.host_id(&host) else { continue };
            let number = self.boot(&host, boot);
            let uncertainty = Duration::from_micros(message.uncertainty_us);
            let mut observations = Vec::with_capacity(message.observations.len());
            for seen in message.observations.into_iter().filter_map(|seen| Seen::try_from(seen).ok()) {
                observations.push(Observation {
                    id: ObservationId { host: id, boot: number, counter: seen.counter },
                    source: seen.source,
                    port: seen.port,
                    time: seen.time,
                    uncertainty,
                    fingerprint: seen.fingerprint,
                });
            }
            self.observe(core, &host, boot, observations, batch.hops.max(1));
        }
    }
}

fn observation(seen: Observation) -> pb::Observation {
    pb::Observation {
        counter: seen.id.counter,
        time_us: seen.time.as_micros(),
        source: convert::source_bytes(seen.source),
        destination: Vec::new(),
        protocol: pb::Protocol::from(seen.port.protocol()).into(),
        port: seen.port.number().into(),
        fingerprint: seen.fingerprint,
    }
}
