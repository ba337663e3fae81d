//! A controller's process: the real pure parts, and as little around them as the programs' own shells have.

use std::{collections::BTreeMap, time::Duration};

use fleetknock_controller::{
    boots::Boots,
    clock::{Offset, fleet::FleetClock},
    fleet::Fleet,
    grant,
    membership::tenure::Tenure,
    peers::route::Router,
    record::{Boot, Key, Packet},
    sessions::{FleetWide, Sessions},
    status::Statuses,
    store::{Expect, Revision},
};
use fleetknock_core::{
    host::HostName,
    knock::ObservationId,
    matcher::{self, Matcher},
    source::Source,
    time::Timestamp,
};

use crate::{
    Sabotage,
    core::{Core, Event, Input, Timer},
    etcd::{Answer, Ask, Request},
    network::{Node, StreamId},
    time::{Clock, Micros, perfect},
};

mod agents;
mod decide;
mod forward;
mod keeper;
mod matching;
mod member;
mod peers;

use agents::Call;
use decide::Work;
use forward::PeerCall;
use member::Membership;
use peers::Link;

const TICK: Duration = Duration::from_secs(1);

/// Whether it may decide, as `shared::Standing`, by its own monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Joining,
    Leaving,
    Serving { epoch: Revision, until: Duration },
    Suspended,
}

/// What a question to the store was about.
#[derive(Debug)]
enum Asked {
    Clear,
    Identify,
    Join,
    JoinGet(fleetknock_controller::store::LeaseId),
    List,
    Revoke,
    Step,
    Work { work: Box<Work>, tries: u32, from: Revision },
}

/// One life of a controller.
pub(crate) struct Process {
    number: usize,
    pub(crate) name: HostName,
    address: String,
    clock: Clock,
    pub(crate) fleet: Fleet,
    loaded: bool,
    /// What came before the store was read.
    early: Vec<Input>,
    pub(crate) sessions: Sessions,
    pub(crate) statuses: Statuses,
    wide: FleetWide,
    boots: Boots,
    offset: Offset,
    fleet_clock: FleetClock,
    pub(crate) standing: Standing,
    epoch: Option<Revision>,
    tenure: Tenure,
    membership: Membership,
    router: Router,
    links: BTreeMap<HostName, Link>,
    serials: u64,
    calls: BTreeMap<StreamId, PeerCall>,
    agents: BTreeMap<StreamId, Call>,
    numbers: u64,
    matcher: Matcher,
    bans: BTreeMap<Source, Timestamp>,
    pending: BTreeMap<u64, Asked>,
    waiting: BTreeMap<u64, (Work, u32, Revision)>,
    /// Complete knocks that wait for the store or the lease.
    parked: BTreeMap<u64, Work>,
    next_id: u64,
    watch: u64,
    failures: u32,
    resend_due: Option<Micros>,
    resent: Micros,
    dismissed: bool,
}

impl Process {
    pub(crate) fn new(number: usize, core: &mut Core) -> Self {
        let (name, clock) = core.scenario.controllers[number].clone();
        Self {
            number,
            address: format!("http://{name}:7000"),
            clock,
            fleet: Fleet::default(),
            loaded: false,
            early: Vec::new(),
            sessions: Sessions::default(),
            statuses: Statuses::default(),
            wide: FleetWide::default(),
            boots: Boots::default(),
            offset: Offset { micros: 0, uncertainty: Duration::ZERO },
            fleet_clock: FleetClock::new(),
            standing: Standing::Joining,
            epoch: None,
            tenure: Tenure::new(),
            membership: Membership::default(),
            router: Router::new(name.clone()),
            name,
            links: BTreeMap::new(),
            serials: 0,
            calls: BTreeMap::new(),
            agents: BTreeMap::new(),
            numbers: 0,
            matcher: Matcher::new(matcher::Config::default(), core.number()),
            bans: BTreeMap::new(),
            pending: BTreeMap::new(),
            waiting: BTreeMap::new(),
            parked: BTreeMap::new(),
            next_id: 0,
            watch: 0,
            failures: 0,
            resend_due: None,
            resent: 0,
            dismissed: false,
        }
    }

    /// Takes in what came. Whether the process has ended.
    pub(crate) fn take(&mut self, core: &mut Core, input: Input) -> bool {
        if !self.loaded && matches!(input, Input::Heard(..) | Input::Ended(..) | Input::Operate(_)) {
            self.early.push(input);
            return false;
        }
        match input {
            Input::Start => {
                self.ask(core, Ask::List, Asked::List);
            }
            Input::Answer(id, answer) => {
                if let Some(asked) = self.pending.remove(&id) {
                    self.answered(core, id, asked, answer);
                }
            }
            Input::Send(request) => core.ask(request),
            Input::Heard(stream, Node::Agent(_), message) => self.agent_said(core, stream, message),
            Input::Heard(stream, _, message) => self.peer_said(core, stream, message),
            Input::Ended(stream, refused) => {
                self.agent_gone(stream);
                self.calls.remove(&stream);
                self.link_ended(core, stream, refused);
            }
            Input::Watched(watch, changes) if watch == self.watch => self.watched(core, changes),
            Input::Watched(..) => {}
            Input::Operate(operation) => self.operate(core, operation),
            Input::Leave => self.leave(core),
            Input::Timer(timer) => {
                if timer == Timer::Exit && self.exit(core) {
                    return true;
                }
                self.timer(core, timer);
            }
        }
        if self.loaded {
            self.take_part(core);
            self.flush(core);
        }
        false
    }

    fn timer(&mut self, core: &mut Core, timer: Timer) {
        match timer {
            Timer::Attach(stream) | Timer::Link(stream) => self.agent_due(core, stream, timer),
            Timer::Backlog(stream) => self.read_call(core, stream),
            Timer::Contend(id) => self.contend_again(core, id),
            Timer::Keeper => {
                self.clear_away(core);
                self.matcher.sweep(self.now(core), 1_000, &mut Vec::new());
                core.wake(self.node(), TICK, Timer::Keeper);
            }
            Timer::Peer(_, serial) => self.link_due(core, serial),
            Timer::Resend => self.resend(core),
            Timer::Resync => {
                self.ask(core, Ask::List, Asked::List);
            }
            Timer::Dial | Timer::Exit | Timer::Member | Timer::Window => {}
        }
    }

    fn answered(&mut self, core: &mut Core, id: u64, asked: Asked, answer: Answer) {
        match asked {
            Asked::List => self.listed(core, answer),
            Asked::Clear => {}
            Asked::Identify => {
                self.ask(core, Ask::List, Asked::List);
            }
            Asked::Revoke => {
                self.exit(core);
            }
            Asked::Step | Asked::Join | Asked::JoinGet(_) => self.step_answered(core, id, &asked, answer),
            Asked::Work { work, tries, from } => self.work_answered(core, *work, tries, from, answer),
        }
    }

    /// Asks the store, a moment later than it was decided: a process may stop in between.
    fn ask(&mut self, core: &mut Core, ask: Ask, asked: Asked) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.pending.insert(id, asked);
        let life = core.life(self.node());
        let request = Request { controller: self.number, life, id, ask };
        let at = core.now + core.between(0, 1_500);
        core.at(at, Event::Give { node: self.node(), life, input: Box::new(Input::Send(request)) });
        id
    }

    fn node(&self) -> Node {
        Node::Controller(self.number)
    }

    fn local_now(&self, core: &Core) -> Timestamp {
        self.clock.wall(core.now)
    }

    /// The fleet's time.
    pub(crate) fn now(&self, core: &Core) -> Timestamp {
        self.local_now(core).shifted(self.offset.micros)
    }

    /// How far its fleet time is ahead of true time, microseconds.
    fn ahead(&self, core: &Core) -> i64 {
        let difference = i128::from(self.now(core).as_micros()) - i128::from(perfect(core.now).as_micros());
        i64::try_from(difference).unwrap_or(0)
    }

    fn mono(&self, core: &Core) -> Duration {
        self.clock.mono(core.now)
    }

    /// As `Shared::fence`.
    fn fence(&self, core: &Core) -> Option<Expect> {
        match self.standing {
            Standing::Serving { epoch, until } if self.mono(core) < until => {
                Some(grant::expect(&Key::Controller(self.name.clone()), Some(epoch)))
            }
            _ => None,
        }
    }

    /// As `Shared::boot`.
    fn boot(&mut self, host: &HostName, boot: Boot) -> u32 {
        self.boots.number(host, boot)
    }

    /// As `Shared::packet`.
    fn packet(&self, id: ObservationId) -> Option<Packet> {
        let host = self.fleet.host_name(id.host)?.clone();
        Some(Packet { boot: self.boots.of_number(&host, id.boot)?, counter: id.counter, host })
    }

    fn is_sabotaged(core: &Core, how: Sabotage) -> bool {
        core.oracle.sabotage == Some(how)
    }
}
