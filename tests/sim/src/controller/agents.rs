//! Serves agents: mirrors `controller::agent_api` around the real sessions and clock estimate.

use std::time::Duration;

use fleetknock_controller::{
    clock::{Estimate, Probe},
    record::{Boot, HostRecord},
    sessions::{SESSION_QUEUE, Session},
    status::{Report, State},
    store::Revision,
    wire,
};
use fleetknock_core::{
    host::{HostId, HostName, Labels},
    time::Timestamp,
};
use fleetknock_proto::{
    Seen, convert,
    v1::{self as pb, agent_message::Kind as Said, controller_message::Kind as Tell},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Process, Standing, decide::Work};
use crate::{
    Sabotage,
    core::{Core, Timer},
    network::{Message, Refused, StreamId},
    time::{Micros, SECOND},
};

const GREETING_MAX: Duration = Duration::from_secs(10);
const FIRST_PROBES: u64 = 4;
const PROBE_EVERY: Duration = Duration::from_secs(5);
const SILENCE_MAX: Micros = 20 * SECOND;
const REASSERT_EVERY: Duration = Duration::from_secs(60);
/// As `Shared::caught_up`.
const CATCH_UP: Micros = 2 * SECOND;

type Outbound = mpsc::Receiver<Result<pb::ControllerMessage, tonic::Status>>;

/// One agent's stream.
pub(super) struct Call {
    stage: Stage,
    clock: Estimate,
    heard: Micros,
}

enum Stage {
    CatchingUp { greeting: Greeting, revision: Revision, until: Micros },
    Greeting { greeting: Greeting, answered: u64 },
    Registering { greeting: Greeting },
    Serving { registered: Registered, number: u64, outbound: Outbound, stop: CancellationToken },
}

#[derive(Clone)]
struct Greeting {
    host: HostName,
    boot: Boot,
    picture: Revision,
}

struct Registered {
    host: HostName,
    id: HostId,
    boot: u32,
    boot_id: Boot,
}

impl Process {
    pub(super) fn agent_said(&mut self, core: &mut Core, stream: StreamId, message: Message) {
        let said = match message {
            Message::Ping => return core.send(stream, self.node(), Message::Pong),
            Message::Agent(message) => message.kind,
            _ => return,
        };
        let Some(said) = said else { return };
        let now = core.now;
        let Some(call) = self.agents.get_mut(&stream) else {
            if let Said::Hello(hello) = said {
                self.greet(core, stream, hello);
            }
            return;
        };
        call.heard = now;
        match said {
            Said::ProbeReply(reply) => self.measured(core, stream, &reply),
            Said::Observations(batch) => self.observed(core, stream, batch),
            Said::Results(batch) => self.results(core, stream, batch),
            _ => {}
        }
    }

    fn greet(&mut self, core: &mut Core, stream: StreamId, hello: pb::Hello) {
        core.send(stream, self.node(), Message::Accepted);
        let refused = match self.standing {
            Standing::Serving { .. } => None,
            Standing::Leaving => Some(Refused::Unavailable),
            Standing::Joining | Standing::Suspended if hello.last_resort => None,
            Standing::Joining | Standing::Suspended => Some(Refused::Unavailable),
        };
        let (Ok(host), Ok(boot)) = (hello.host.parse(), Boot::try_from(hello.boot.as_slice())) else {
            return core.fail("a controller does not understand a Hello".to_owned());
        };
        if let Some(refused) = refused {
            return self.refuse(core, stream, refused);
        }
        let greeting = Greeting { host, boot, picture: hello.revision };
        let stage = Stage::Greeting { greeting, answered: 0 };
        self.agents.insert(stream, Call { stage, clock: Estimate::default(), heard: core.now });
        core.wake(self.node(), GREETING_MAX, Timer::Attach(stream));
        self.probe(core, stream);
    }

    pub(super) fn refuse(&mut self, core: &mut Core, stream: StreamId, refused: Refused) {
        core.send(stream, self.node(), Message::Status(refused));
        core.close(stream, self.node());
        self.agents.remove(&stream);
    }

    fn probe(&self, core: &mut Core, stream: StreamId) {
        let sent_us = self.local_now(core).as_micros();
        let probe = Tell::Probe(pb::Probe { id: sent_us, sent_us });
        self.tell(core, stream, probe);
    }

    fn tell(&self, core: &mut Core, stream: StreamId, kind: Tell) {
        let message = pb::ControllerMessage { kind: Some(kind) };
        core.send(stream, self.node(), Message::Controller(Box::new(message)));
    }

    fn measured(&mut self, core: &mut Core, stream: StreamId, reply: &pb::ProbeReply) {
        let (at, local, ahead) = (self.now(core), self.local_now(core), self.offset.micros);
        let Some(call) = self.agents.get_mut(&stream) else { return };
        call.clock.add(Probe {
            sent: reply.probe_sent_us,
            heard: reply.received_us,
            answered: reply.sent_us,
            received: local.as_micros(),
        });
        match &mut call.stage {
            Stage::Greeting { greeting, answered } => {
                *answered += 1;
                if *answered < FIRST_PROBES {
                    return self.probe(core, stream);
                }
                let greeting = greeting.clone();
                let record = record(&greeting.host);
                let picture = greeting.picture;
                call.stage = Stage::Registering { greeting };
                // As `hello::register`.
                let is_of_another_store = self.fleet.is_of_another_store(&record.name, picture);
                if is_of_another_store && !Self::is_sabotaged(core, Sabotage::TakeAnyPicture) {
                    core.say(|| format!("{} turns {} away: it knows another store", self.name, record.name));
                    self.decide(core, Work::Identify { host: record.name, picture }, 0);
                    return self.refuse(core, stream, Refused::Unavailable);
                }
                self.decide(core, Work::Register { stream, record, picture }, 0);
            }
            Stage::Serving { registered, number, .. } => {
                let offset = call.clock.offset(local).map(|offset| offset.against(ahead));
                if let Some(session) = self.sessions.current(&registered.host, *number) {
                    session.info.offset = offset;
                    session.info.last_seen = at;
                }
            }
            _ => {}
        }
    }

    /// The host's record is written: the copy has to show it.
    pub(super) fn registered(&mut self, core: &mut Core, stream: StreamId, revision: Revision) {
        let until = core.now + CATCH_UP;
        if let Some(call) = self.agents.get_mut(&stream)
            && let Stage::Registering { greeting } = &call.stage
        {
            call.stage = Stage::CatchingUp { greeting: greeting.clone(), revision, until };
            core.wake(self.node(), Duration::from_micros(CATCH_UP), Timer::Attach(stream));
            self.admit_waiting(core);
        }
    }

    pub(super) fn admit_waiting(&mut self, core: &mut Core) {
        let mut ready = Vec::new();
        for (stream, call) in &self.agents {
            if let Stage::CatchingUp { greeting, revision, until } = &call.stage
                && (self.fleet.revision() >= *revision || core.now >= *until)
            {
                ready.push((*stream, greeting.clone()));
            }
        }
        for (stream, greeting) in ready {
            match self.fleet.host_id(&greeting.host) {
                Some(id) => self.admit(core, stream, greeting, id),
                None => self.refuse(core, stream, Refused::Unavailable),
            }
        }
    }

    fn admit(&mut self, core: &mut Core, stream: StreamId, greeting: Greeting, id: HostId) {
        let boot = self.boot(&greeting.host, greeting.boot);
        let welcome = pb::Welcome {
            controller: self.name.to_string(),
            version: "simulated".to_owned(),
            keep_window_ms: u32::try_from(convert::millis(wire::keep_window(&self.fleet)))
                .unwrap_or(u32::MAX),
            reassert_ms: u32::try_from(convert::millis(REASSERT_EVERY)).unwrap_or(u32::MAX),
        };
        self.tell(core, stream, Tell::Welcome(welcome));
        self.numbers += 1;
        let (number, at) = (self.numbers, self.now(core));
        let (local, ahead) = (self.local_now(core), self.offset.micros);
        let (sender, outbound) = mpsc::channel(SESSION_QUEUE);
        let stop = CancellationToken::new();
        let mut session = Session::new(number, at, sender, stop.clone());
        let Some(call) = self.agents.get_mut(&stream) else { return };
        session.info.offset = call.clock.offset(local).map(|offset| offset.against(ahead));
        let host = greeting.host.clone();
        let registered = Registered { host: greeting.host, id, boot, boot_id: greeting.boot };
        call.stage = Stage::Serving { registered, number, outbound, stop };
        self.sessions.add(host, session, &self.fleet, &self.wide, at);
        core.wake(self.node(), Duration::ZERO, Timer::Link(stream));
    }

    /// The time for a probe, or for giving a stream up.
    pub(super) fn agent_due(&mut self, core: &mut Core, stream: StreamId, timer: Timer) {
        let Some(call) = self.agents.get(&stream) else { return };
        match (&call.stage, timer) {
            (Stage::Serving { .. }, Timer::Link(_)) => {
                if core.now > call.heard + SILENCE_MAX {
                    self.agent_gone(stream);
                    return core.close(stream, self.node());
                }
                self.probe(core, stream);
                core.wake(self.node(), PROBE_EVERY, Timer::Link(stream));
            }
            (Stage::CatchingUp { .. }, _) => self.admit_waiting(core),
            (Stage::Greeting { .. }, Timer::Attach(_)) => self.refuse(core, stream, Refused::Other),
            _ => {}
        }
    }

    pub(super) fn agent_gone(&mut self, stream: StreamId) {
        if let Some(Call { stage: Stage::Serving { registered, number, .. }, .. }) =
            self.agents.remove(&stream)
        {
            self.sessions.remove(&registered.host, number);
        }
    }

    fn observed(&mut self, core: &mut Core, stream: StreamId, batch: pb::ObservationBatch) {
        let local = self.local_now(core);
        let shared = self.fleet_clock_uncertainty();
        let Some(Call { stage: Stage::Serving { registered, .. }, clock, .. }) = self.agents.get(&stream)
        else {
            return;
        };
        let Some(offset) = clock.offset(local) else { return };
        let offset = offset.against(self.offset.micros);
        let uncertainty = offset.uncertainty + shared;
        let mut observations = Vec::with_capacity(batch.observations.len());
        for observation in batch.observations {
            let Ok(seen) = Seen::try_from(observation) else {
                return core.fail("a controller does not understand an observation".to_owned());
            };
            observations.push(seen.observed(
                registered.id,
                registered.boot,
                offset.correct(seen.time),
                uncertainty,
            ));
        }
        let last = observations.last().map(|observation| observation.id.counter);
        let (host, boot) = (registered.host.clone(), registered.boot_id);
        self.observe(core, &host, boot, observations, 0);
        if let Some(counter) = last {
            self.tell(core, stream, Tell::Acknowledge(pb::Acknowledge { counter }));
        }
    }

    fn fleet_clock_uncertainty(&self) -> Duration {
        self.offset.uncertainty
    }

    fn results(&mut self, core: &mut Core, stream: StreamId, batch: pb::ResultBatch) {
        let at = self.now(core);
        let Some(Call { stage: Stage::Serving { registered, .. }, .. }) = self.agents.get(&stream) else {
            return;
        };
        for result in batch.results {
            let state = match result.state() {
                pb::HostOpeningState::Applied => State::Applied,
                pb::HostOpeningState::Failed => State::Failed { reason: String::new() },
                _ => continue,
            };
            if let Some(held) = self.fleet.opening(&result.id) {
                let report = Report { generation: result.generation, state, at, took_us: result.took_us };
                self.statuses.add(&held.record, &registered.host, report);
            }
        }
    }

    /// Writes what the sessions hold for their agents, and ends those that are to end.
    pub(super) fn flush(&mut self, core: &mut Core) {
        let node = self.node();
        let longer = Self::is_sabotaged(core, Sabotage::TellLonger);
        let mut over = Vec::new();
        for (stream, call) in &mut self.agents {
            let Stage::Serving { outbound, stop, .. } = &mut call.stage else { continue };
            while let Ok(Ok(mut message)) = outbound.try_recv() {
                if longer && let Some(Tell::Delta(delta)) = &mut message.kind {
                    delta.openings.iter_mut().for_each(|opening| opening.remaining_ms += 20_000);
                }
                core.send(*stream, node, Message::Controller(Box::new(message)));
            }
            if stop.is_cancelled() {
                over.push(*stream);
            }
        }
        for stream in over {
            self.agent_gone(stream);
            core.close(stream, node);
        }
    }
}

fn record(host: &HostName) -> HostRecord {
    HostRecord {
        name: host.clone(),
        labels: Labels::default(),
        addresses: Vec::new(),
        management: std::collections::BTreeSet::new(),
        version: "simulated".to_owned(),
        firewall: "simulated".to_owned(),
        created: Timestamp::ZERO,
    }
}
