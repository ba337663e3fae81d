//! What everybody in a run shares: the time, the queue of what happens next, the dice, and the record of it all.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use fleetknock_controller::store::Changes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    etcd::{Answer, Etcd, Request},
    faults::Fault,
    network::{Message, Network, Node, Run, StreamId},
    oracle::Oracle,
    scenario::Scenario,
    time::{Micros, micros},
    users::{Operation, Packet},
};

/// What happens at a point in time.
#[derive(Debug)]
pub(crate) enum Event {
    Answered { request: Request, answer: Answer, give_up: Micros },
    Asked { request: Request, give_up: Micros },
    Begin(Fault),
    End(Fault),
    Give { node: Node, life: u32, input: Box<Input> },
    Judge(usize),
    Leases,
    Operate(Operation),
    Packet(Packet),
    Pump { stream: StreamId, way: usize },
    Start(Node),
    Watch { controller: usize, watch: u64 },
}

/// What a process gets to know.
#[derive(Debug)]
pub(crate) enum Input {
    Answer(u64, Answer),
    Ended(StreamId, bool),
    Heard(StreamId, Node, Message),
    Leave,
    Operate(Operation),
    Send(Request),
    Start,
    Timer(Timer),
    Watched(u64, Option<Changes>),
}

/// What a process wanted to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    Attach(StreamId),
    Backlog(StreamId),
    Contend(u64),
    Dial,
    Exit,
    Keeper,
    Link(StreamId),
    Member,
    Peer(usize, u64),
    Resend,
    Resync,
    Window,
}

/// See the [module](self).
pub(crate) struct Core {
    pub(crate) now: Micros,
    queue: BinaryHeap<Reverse<Queued>>,
    next: u64,
    dice: StdRng,
    nodes: BTreeMap<Node, (Run, u32)>,
    pub(crate) net: Network,
    pub(crate) etcd: Etcd,
    pub(crate) oracle: Oracle,
    pub(crate) scenario: Scenario,
    pub(crate) trace: Trace,
    pub(crate) events: u64,
}

struct Queued {
    at: Micros,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl Core {
    pub(crate) fn new(scenario: Scenario, lines: bool) -> Self {
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            next: 0,
            dice: StdRng::seed_from_u64(scenario.seed ^ 0x5eed),
            nodes: BTreeMap::new(),
            net: Network::default(),
            etcd: Etcd::default(),
            oracle: Oracle::default(),
            scenario,
            trace: Trace { hash: 0xcbf2_9ce4_8422_2325, lines: lines.then(Vec::new) },
            events: 0,
        }
    }

    pub(crate) fn at(&mut self, at: Micros, event: Event) {
        let order = self.next;
        self.next += 1;
        self.queue.push(Reverse(Queued { at: at.max(self.now), order, event }));
    }

    /// Wakes this life of a process after a while.
    pub(crate) fn wake(&mut self, node: Node, after: Duration, timer: Timer) {
        let life = self.life(node);
        let input = Box::new(Input::Timer(timer));
        self.at(self.now + micros(after), Event::Give { node, life, input });
    }

    /// The next event before `end`, and the time is its time.
    pub(crate) fn next_event(&mut self, end: Micros) -> Option<Event> {
        if self.queue.peek().is_none_or(|Reverse(queued)| queued.at > end) {
            return None;
        }
        let Reverse(Queued { at, order, event }) = self.queue.pop()?;
        self.now = at;
        self.events += 1;
        self.trace.mix(at);
        self.trace.mix(order);
        Some(event)
    }

    pub(crate) fn state(&self, node: Node) -> (Run, u32) {
        self.nodes.get(&node).copied().unwrap_or((Run::Up, 0))
    }

    pub(crate) fn life(&self, node: Node) -> u32 {
        self.state(node).1
    }

    pub(crate) fn set_state(&mut self, node: Node, run: Run, life: u32) {
        self.nodes.insert(node, (run, life));
    }

    /// From `least` up to, not including, `most`.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        if least < most { self.dice.random_range(least..most) } else { least }
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.dice.random_bool(share.min(1.0))
    }

    pub(crate) fn share(&mut self) -> f64 {
        self.dice.random()
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.dice.random()
    }

    pub(crate) fn dice(&mut self) -> &mut StdRng {
        &mut self.dice
    }

    /// How long a packet takes: a short time, and now and then a long one.
    pub(crate) fn delay(&mut self, _from: Node, _to: Node) -> Micros {
        let (usual, spike) = (self.scenario.delay, self.scenario.spike);
        if self.chance(0.01) { self.between(usual, spike) } else { self.between(100, usual) }
    }

    /// Writes a line into the trace. Lines are part of the hash, so that two traces of a hash are the same.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        let at = self.now;
        if let Some(lines) = &mut self.trace.lines {
            let line = format!("{:>11.6} {}", at as f64 / 1e6, line());
            lines.push(line);
        }
    }
}

/// What happened: a hash of every event, and lines for people when asked for.
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) lines: Option<Vec<String>>,
}

impl Trace {
    /// FNV-1a, a word at a time.
    pub(crate) fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    pub(crate) fn mix_text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.mix(byte.into());
        }
    }
}
