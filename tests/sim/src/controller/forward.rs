//! Knocks on their way to whoever follows their sources: mirrors `controller::peers` with its service.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use fleetknock_controller::{peers::route::Route, record::Boot, wire};
use fleetknock_core::{host::HostName, knock::Observation};
use fleetknock_proto::{
    Seen,
    v1::{self as pb, peer_message::Kind as Said, peer_reply::Kind as Tell},
};

use super::Process;
use crate::{
    core::{Core, Timer},
    network::{Message, Node, Refused, StreamId},
    time::{Micros, SECOND, micros},
};

/// As `Shared::caught_up`.
const CATCH_UP: Micros = 2 * SECOND;
/// As in `peers::service`.
const BEGINS_WITHIN: Micros = SECOND;

/// A stream from a peer: what it said and was not read yet.
#[derive(Debug, Default)]
pub(super) struct PeerCall {
    greeted: bool,
    pub(super) backlog: VecDeque<pb::PeerMessage>,
    waits: Option<Micros>,
}

impl Process {
    /// Brings knocks to whoever follows their sources.
    pub(super) fn observe(
        &mut self,
        core: &mut Core,
        host: &HostName,
        boot: Boot,
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
                boot: boot.0.to_vec(),
                uncertainty_us: wire::micros(uncertainty),
                observations: observations.iter().map(|observation| Seen::from(observation).into()).collect(),
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
            let wait = match &message.kind {
                Some(Said::Batch(batch)) if batch.revision > self.fleet.revision() => CATCH_UP,
                Some(Said::Hello(hello)) if Some(hello.epoch) > self.epoch => BEGINS_WITHIN,
                _ => 0,
            };
            if wait > 0 {
                let until = *call.waits.get_or_insert(core.now + wait);
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
            let Ok(boot) = Boot::try_from(message.boot.as_slice()) else { continue };
            let Some(id) = self.fleet.host_id(&host) else { continue };
            let number = self.boot(&host, boot);
            let uncertainty = Duration::from_micros(message.uncertainty_us);
            let mut observations = Vec::with_capacity(message.observations.len());
            for seen in message.observations.into_iter().filter_map(|seen| Seen::try_from(seen).ok()) {
                observations.push(seen.observed(id, number, seen.time, uncertainty));
            }
            self.observe(core, &host, boot, observations, batch.hops.max(1));
        }
    }
}
