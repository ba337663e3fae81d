//! Streams between processes: in order within one, in any order between two, over paths that can be cut.
//!
//! A stream behaves as TCP does: what is sent over a cut path arrives when the path heals, unless somebody gave the
//! stream up meanwhile; a process that was killed has its streams reset by its kernel, a machine that lost its power says
//! nothing at all; an address without a process refuses.

use std::collections::{BTreeMap, VecDeque};

use fleetknock_proto::v1 as pb;

use crate::{
    core::{Core, Event, Input},
    time::Micros,
};

/// A machine, by its number among its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Agent(usize),
    Controller(usize),
    Etcd,
}

/// Whether a machine's process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Up,
    /// `silent`: the machine is off, so nobody refuses or resets.
    Down {
        silent: bool,
    },
    Paused,
}

pub(crate) type StreamId = u64;

/// What is said on a stream.
#[derive(Debug)]
pub(crate) enum Message {
    /// The server took the call.
    Accepted,
    Agent(Box<pb::AgentMessage>),
    Controller(Box<pb::ControllerMessage>),
    Peer(Box<pb::PeerMessage>),
    PeerReply(Box<pb::PeerReply>),
    Ping,
    Pong,
    /// The server ends the call with a status.
    Status(Refused),
}

/// The statuses that make a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Other,
    Precondition,
    Unavailable,
}

#[derive(Debug)]
enum Packet {
    End,
    Say(Message),
}

#[derive(Debug, Default)]
struct Way {
    queue: VecDeque<(Micros, Packet)>,
    last: Micros,
    pumping: bool,
}

#[derive(Debug)]
struct Stream {
    ends: [Node; 2],
    /// Which life of the process has that end; the answering one shows when the first packet arrives.
    lives: [Option<u32>; 2],
    gone: [bool; 2],
    ways: [Way; 2],
}

/// All streams, and which paths are cut.
#[derive(Debug, Default)]
pub(crate) struct Network {
    streams: BTreeMap<StreamId, Stream>,
    next: StreamId,
    cuts: BTreeMap<(Node, Node), u32>,
}

impl Network {
    /// Cuts a path in one direction; cuts add up.
    pub(crate) fn cut(&mut self, from: Node, to: Node) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn heal(&mut self, from: Node, to: Node) {
        if let Some(cuts) = self.cuts.get_mut(&(from, to)) {
            *cuts = cuts.saturating_sub(1);
        }
    }

    pub(crate) fn is_cut(&self, from: Node, to: Node) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|cuts| *cuts > 0)
    }

    /// Whether both directions are open.
    pub(crate) fn is_whole(&self, one: Node, other: Node) -> bool {
        !self.is_cut(one, other) && !self.is_cut(other, one)
    }
}

impl Core {
    /// Opens a stream by saying something on it.
    pub(crate) fn dial(&mut self, from: Node, to: Node, hello: Message) -> StreamId {
        let id = self.net.next;
        self.net.next += 1;
        let life = self.life(from);
        let stream = Stream {
            ends: [from, to],
            lives: [Some(life), None],
            gone: [false; 2],
            ways: [Way::default(), Way::default()],
        };
        self.net.streams.insert(id, stream);
        self.send(id, from, hello);
        id
    }

    pub(crate) fn send(&mut self, id: StreamId, from: Node, message: Message) {
        self.put(id, from, Packet::Say(message));
    }

    /// Gives a stream up: the other end learns of it when it is reached.
    pub(crate) fn close(&mut self, id: StreamId, from: Node) {
        self.put(id, from, Packet::End);
        if let Some(stream) = self.net.streams.get_mut(&id) {
            let end = usize::from(stream.ends[1] == from);
            stream.gone[end] = true;
            stream.ways[1 - end].queue.clear();
        }
    }

    fn put(&mut self, id: StreamId, from: Node, packet: Packet) {
        let Some(stream) = self.net.streams.get(&id) else { return };
        let way = usize::from(stream.ends[1] == from);
        if stream.gone[way] {
            return;
        }
        let to = stream.ends[1 - way];
        let ready = self.now + self.delay(from, to);
        let mut start = None;
        if let Some(stream) = self.net.streams.get_mut(&id) {
            let way = &mut stream.ways[way];
            way.last = ready.max(way.last + 1);
            way.queue.push_back((way.last, packet));
            if !way.pumping {
                way.pumping = true;
                start = Some(way.last);
            }
        }
        if let Some(at) = start {
            self.at(at, Event::Pump { stream: id, way });
        }
    }

    /// A process is gone with all its streams.
    pub(crate) fn kill_streams(&mut self, node: Node, silent: bool) {
        let ids: Vec<_> =
            self.net.streams.iter().filter(|(_, s)| s.ends.contains(&node)).map(|(id, _)| *id).collect();
        for id in ids {
            if silent {
                if let Some(stream) = self.net.streams.get_mut(&id) {
                    let end = usize::from(stream.ends[1] == node);
                    stream.gone[end] = true;
                }
                continue;
            }
            // What was written and not sent is lost when the kernel resets, as often as not.
            let lost = self.chance(0.5);
            if lost && let Some(stream) = self.net.streams.get_mut(&id) {
                let end = usize::from(stream.ends[1] == node);
                if !stream.gone[end] {
                    stream.ways[end].queue.clear();
                }
            }
            self.close(id, node);
        }
    }

    /// Moves the next packet of a way on: what is to be given to the process at its end.
    pub(crate) fn pump(&mut self, id: StreamId, way: usize) -> Option<(Node, u32, Input)> {
        let retry = self.now + self.between(50_000, 250_000);
        let stream = self.net.streams.get_mut(&id)?;
        let (from, to) = (stream.ends[way], stream.ends[1 - way]);
        let Some((ready, _)) = stream.ways[way].queue.front() else {
            stream.ways[way].pumping = false;
            if stream.gone == [true, true] {
                self.net.streams.remove(&id);
            }
            return None;
        };
        if *ready > self.now {
            let ready = *ready;
            self.at(ready, Event::Pump { stream: id, way });
            return None;
        }
        let (run, life) = self.state(to);
        if self.net.is_cut(from, to) || run == (Run::Down { silent: true }) {
            self.at(retry, Event::Pump { stream: id, way });
            return None;
        }
        let stream = self.net.streams.get_mut(&id)?;
        let known = stream.lives[1 - way];
        let dead = stream.gone[1 - way] || known.is_some_and(|known| known != life);
        if dead || matches!(run, Run::Down { .. }) {
            return self.reset(id, way, known.is_none(), retry);
        }
        stream.lives[1 - way] = Some(life);
        let (_, packet) = stream.ways[way].queue.pop_front()?;
        self.at(self.now, Event::Pump { stream: id, way });
        let input = match packet {
            Packet::End => Input::Ended(id, false),
            Packet::Say(message) => Input::Heard(id, from, message),
        };
        Some((to, life, input))
    }

    /// Nobody takes what arrives: whoever sent it is told, when that is possible.
    fn reset(
        &mut self,
        id: StreamId,
        way: usize,
        refused: bool,
        retry: Micros,
    ) -> Option<(Node, u32, Input)> {
        let stream = self.net.streams.get_mut(&id)?;
        let (from, to) = (stream.ends[way], stream.ends[1 - way]);
        let life = stream.lives[way];
        if !stream.gone[way] && self.net.is_cut(to, from) {
            self.at(retry, Event::Pump { stream: id, way });
            return None;
        }
        let back = self.now + self.delay(to, from);
        let mut removed = self.net.streams.remove(&id)?;
        if let (Some(life), false) = (life, removed.gone[way]) {
            // What the other end had said before comes first.
            let back = back.max(removed.ways[1 - way].last + 1);
            for (ready, packet) in std::mem::take(&mut removed.ways[1 - way].queue) {
                if let Packet::Say(message) = packet {
                    let heard = Input::Heard(id, to, message);
                    self.at(ready.max(self.now), Event::Give { node: from, life, input: Box::new(heard) });
                }
            }
            self.at(back, Event::Give { node: from, life, input: Box::new(Input::Ended(id, refused)) });
        }
        None
    }
}
