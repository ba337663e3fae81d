//! A host: its kernel, which outlives its agent, and the agent with the real window and picture.
//!
//! Mirrors `agent::driver`; the link is in [`link`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use fleetknock_agent::{
    capture::Sighting,
    driver::state::Saved,
    firewall::Element,
    link::wire::observation,
    picture::{Changes, Picture},
    window::{AGE_DEFAULT, OBSERVATIONS_MAX, Window},
};
use fleetknock_core::port::Port;
use fleetknock_proto::v1::{self as pb, agent_message::Kind as Said};

use crate::{
    core::{Core, Input, Timer},
    network::{Message, Node, StreamId},
    time::{Clock, micros},
    users::Packet,
};

mod hear;
mod link;

use link::Link;

const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);
/// Observations in one message: as many as one may carry.
const BATCH_MAX: usize = fleetknock_proto::limits::OBSERVATIONS_MAX;

/// See the [module](self).
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) clock: Clock,
    /// What the kernel lets in, and until when.
    pub(crate) kernel: BTreeMap<Element, Instant>,
    saved: Option<Saved>,
    /// The ports that the kernel guards.
    guarded: BTreeSet<Port>,
    pub(crate) agent: Option<Agent>,
}

/// One life of the agent.
pub(crate) struct Agent {
    node: Node,
    boot: [u8; 16],
    pub(crate) picture: Picture,
    window: Window<Sighting>,
    keep: Duration,
    keep_guard: Option<Duration>,
    link: Link,
    session: Option<Session>,
    results: Vec<pb::OpeningResult>,
    unsaved: bool,
}

struct Session {
    stream: StreamId,
    welcomed: bool,
    told: bool,
}

impl Host {
    pub(crate) fn new(number: usize, core: &Core) -> Self {
        let clock = core.scenario.hosts[number].1;
        Self { number, clock, kernel: BTreeMap::new(), saved: None, guarded: BTreeSet::new(), agent: None }
    }

    fn node(&self) -> Node {
        Node::Agent(self.number)
    }

    pub(crate) fn start(&mut self, core: &mut Core) {
        let mut boot = [0; 16];
        boot[..8].copy_from_slice(&core.number().to_be_bytes());
        let mut picture = Picture::new(BTreeSet::new());
        let now = self.clock.instant(core.now);
        if let Some(saved) = self.saved.clone() {
            picture.take_delta(saved.into_delta(self.clock.wall(core.now).as_micros()), now);
            for (element, remaining) in picture.desired(now).openings {
                self.open(core, element, now + remaining);
            }
        }
        self.agent = Some(Agent {
            node: self.node(),
            boot,
            picture,
            window: Window::new(OBSERVATIONS_MAX),
            keep: AGE_DEFAULT,
            keep_guard: None,
            link: Link::new(core),
            session: None,
            results: Vec::new(),
            unsaved: false,
        });
        core.wake(self.node(), HOUSEKEEPING_EVERY, Timer::Keeper);
        core.wake(self.node(), Duration::ZERO, Timer::Dial);
    }

    pub(crate) fn crash(&mut self) {
        self.agent = None;
    }

    /// Sees a packet, if the agent runs. The run and the number that it was given.
    pub(crate) fn capture(&mut self, core: &mut Core, packet: &Packet) -> Option<([u8; 16], u64)> {
        let now = self.clock.instant(core.now);
        let agent = self.agent.as_mut()?;
        let sighting = Sighting {
            source: core.scenario.sources[packet.source],
            destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            port: packet.port,
            time: self.clock.wall(core.now),
            fingerprint: packet.fingerprint,
        };
        let counter = agent.window.push(sighting, now);
        agent.say(core, now);
        Some((agent.boot, counter))
    }

    pub(crate) fn take(&mut self, core: &mut Core, input: Input) {
        let now = self.clock.instant(core.now);
        let mut work = Vec::new();
        let mut reconcile = false;
        let Some(agent) = &mut self.agent else { return };
        match input {
            Input::Heard(stream, _, message) => {
                agent.heard(core, stream, message, self.clock, &mut work, &mut reconcile)
            }
            Input::Ended(stream, _) => agent.ended(core, stream),
            Input::Timer(Timer::Dial) => agent.link.waited(core, agent.node, agent.hello(core)),
            Input::Timer(Timer::Attach(stream)) => {
                let hello = agent.hello(core);
                agent.link.too_slow(core, agent.node, stream, hello);
            }
            Input::Timer(Timer::Link(stream)) => {
                let hello = agent.hello(core);
                if agent.link.tick(core, agent.node, stream, hello) {
                    agent.detach();
                }
            }
            Input::Timer(Timer::Keeper) => {
                agent.window.forget(now);
                agent.picture.expire(now);
                if std::mem::take(&mut agent.unsaved) {
                    let wall = self.clock.wall(core.now).as_micros();
                    self.saved = Some(Saved::of(&agent.picture, now, wall));
                }
                core.wake(agent.node, HOUSEKEEPING_EVERY, Timer::Keeper);
            }
            _ => {}
        }
        for changes in work {
            self.apply(core, changes, now);
        }
        if reconcile && let Some(agent) = &mut self.agent {
            let desired = agent.picture.desired(now).openings;
            self.kernel.retain(|element, _| desired.contains_key(element));
            for (element, remaining) in desired {
                self.open(core, element, now + remaining);
            }
        }
        self.guard(core);
        let clock = self.clock;
        if let Some(agent) = &mut self.agent {
            agent.say(core, now);
            if agent.is_welcomed()
                && let Some(at) = agent.window.pass_at()
            {
                let after = Duration::from_micros(clock.when(at).saturating_sub(core.now) + 1_000);
                core.wake(agent.node, after, Timer::Window);
            }
        }
    }

    /// Guards what the picture says, once there is one. Doors stay as they are in a run, and so does what is guarded.
    fn guard(&mut self, core: &mut Core) {
        let Some(agent) = self.agent.as_ref().filter(|agent| agent.picture.revision() > 0) else { return };
        let ports = &agent.picture.fleet_guard().ports;
        if !self.guarded.is_subset(ports) {
            core.fail(format!("host {} took guard off: {:?} became {ports:?}", self.number, self.guarded));
        }
        self.guarded.clone_from(ports);
    }

    /// What the firewall's thread does.
    fn apply(&mut self, core: &mut Core, changes: Changes, now: Instant) {
        for element in changes.close {
            self.kernel.remove(&element);
        }
        for (element, remaining) in changes.shorten {
            self.open(core, element, now + remaining);
        }
        for opened in changes.open {
            let state = if opened.elements.is_empty() {
                pb::HostOpeningState::Failed
            } else {
                pb::HostOpeningState::Applied
            };
            for (element, remaining) in &opened.elements {
                self.open(core, *element, now + *remaining);
            }
            if let Some(agent) = &mut self.agent {
                agent.results.push(pb::OpeningResult {
                    id: opened.id.to_string(),
                    generation: opened.generation,
                    state: state.into(),
                    reason: String::new(),
                    took_us: 10,
                });
            }
        }
    }

    fn open(&mut self, core: &mut Core, element: Element, until: Instant) {
        self.kernel.insert(element, until);
        core.let_in(self.number, element, self.clock.when(until));
    }
}

impl Agent {
    fn hello(&self, core: &Core) -> pb::Hello {
        let Node::Agent(number) = self.node else { return pb::Hello::default() };
        pb::Hello {
            host: core.scenario.hosts[number].0.to_string(),
            boot: self.boot.to_vec(),
            revision: self.picture.revision(),
            version: "simulated".to_owned(),
            firewall: "simulated".to_owned(),
            ..pb::Hello::default()
        }
    }

    pub(crate) fn is_welcomed(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.welcomed)
    }

    pub(crate) fn attached_to(&self) -> Option<usize> {
        self.is_welcomed().then(|| self.link.attached_to()).flatten()
    }

    fn detach(&mut self) {
        self.session = None;
        self.results.clear();
        self.picture.stream_ended();
    }

    fn ended(&mut self, core: &mut Core, stream: StreamId) {
        let hello = self.hello(core);
        if self.link.ended(core, self.node, stream, hello, link::Parting::Broken) {
            self.detach();
        }
    }

    fn tell(&self, core: &mut Core, kind: Said) {
        if let Some(session) = &self.session {
            let message = pb::AgentMessage { kind: Some(kind) };
            core.send(session.stream, self.node, Message::Agent(Box::new(message)));
        }
    }

    /// Sends what there is to send.
    fn say(&mut self, core: &mut Core, now: Instant) {
        if !self.is_welcomed() {
            return;
        }
        self.window.begin_due_pass(now);
        if !self.results.is_empty() {
            let results = std::mem::take(&mut self.results);
            self.tell(core, Said::Results(pb::ResultBatch { results }));
        }
        while self.window.has_unsent() {
            let (kept, resent) = self.window.next_batch(BATCH_MAX);
            let observations: Vec<_> = kept.map(observation).collect();
            self.tell(core, Said::Observations(pb::ObservationBatch { observations, drops: None, resent }));
        }
    }
}

/// How much longer something lasts, never less than nothing.
pub(crate) fn remaining(until: Instant, now: Instant) -> u64 {
    micros(until.saturating_duration_since(now))
}
