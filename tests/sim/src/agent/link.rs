//! How an agent finds a controller: mirrors `agent::link`, around the real round.

use std::time::Duration;

use fleetknock_agent::link::round::Round;
use fleetknock_proto::v1 as pb;
use fleetknock_runtime::backoff::Backoff;

use crate::{
    core::{Core, Timer},
    network::{Message, Node, StreamId},
    time::{Micros, SECOND, micros},
};

const RETRY_LEAST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);
const SILENCE_AT_FIRST: Micros = 10 * SECOND;
const GOOD_AFTER: Micros = 5 * SECOND;
const ALONE_MAX: Micros = 10 * SECOND;
const AMONG_OTHERS_MAX: Micros = 2 * SECOND;
const PING_EVERY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    Asked,
    Broken,
    Dismissed,
}

#[derive(Debug)]
enum State {
    Attached {
        stream: StreamId,
        since: Micros,
        heard: Micros,
        welcomed: bool,
        last_resort: bool,
        asked: bool,
    },
    Connecting {
        stream: StreamId,
        until: Micros,
    },
    Waiting {
        until: Micros,
    },
}

#[derive(Debug)]
pub(super) struct Link {
    round: Round<usize>,
    at: Option<usize>,
    lost: Option<usize>,
    last_resort: bool,
    failures: u32,
    silence: Micros,
    state: State,
}

impl Link {
    pub(super) fn new(core: &mut Core) -> Self {
        Self {
            round: Round::new(Vec::new(), None, false, core.dice()),
            at: None,
            lost: None,
            last_resort: false,
            failures: 0,
            silence: SILENCE_AT_FIRST,
            state: State::Waiting { until: core.now },
        }
    }

    pub(super) fn attached_to(&self) -> Option<usize> {
        self.at
    }

    pub(super) fn waited(&mut self, core: &mut Core, node: Node, hello: pb::Hello) {
        if matches!(self.state, State::Waiting { until } if core.now >= until) {
            self.begin_round(core, node, hello);
        }
    }

    /// The server took the call.
    pub(super) fn accepted(&mut self, core: &mut Core, node: Node, stream: StreamId) -> bool {
        match self.state {
            State::Connecting { stream: dialled, .. } if dialled == stream => {
                self.silence = SILENCE_AT_FIRST;
                self.state = State::Attached {
                    stream,
                    since: core.now,
                    heard: core.now,
                    welcomed: false,
                    last_resort: self.round.is_last_resort(),
                    asked: false,
                };
                core.wake(node, PING_EVERY, Timer::Link(stream));
                true
            }
            _ => false,
        }
    }

    pub(super) fn heard(&mut self, core: &Core) {
        if let State::Attached { heard, .. } = &mut self.state {
            *heard = core.now;
        }
    }

    pub(super) fn pong(&mut self, of: StreamId) {
        if let State::Attached { stream, asked, .. } = &mut self.state
            && *stream == of
        {
            *asked = false;
        }
    }

    pub(super) fn welcomed(&mut self, reassert: Duration) {
        if let State::Attached { welcomed, .. } = &mut self.state {
            *welcomed = true;
            self.round.welcomed();
            self.silence = 3 * micros(reassert.clamp(Duration::from_millis(100), Duration::from_secs(600)));
        }
    }

    /// The deadline of a dial.
    pub(super) fn too_slow(&mut self, core: &mut Core, node: Node, of: StreamId, hello: pb::Hello) {
        if matches!(self.state, State::Connecting { stream, until } if stream == of && core.now >= until) {
            core.close(of, node);
            self.round.refused(false);
            self.dial_next(core, node, hello);
        }
    }

    /// The time for a ping. Whether the stream was given up.
    pub(super) fn tick(&mut self, core: &mut Core, node: Node, of: StreamId, hello: pb::Hello) -> bool {
        let State::Attached { stream, heard, asked, .. } = &mut self.state else { return false };
        if *stream != of {
            return false;
        }
        if *asked || core.now > *heard + self.silence {
            return self.ended(core, node, of, hello, Parting::Broken);
        }
        *asked = true;
        core.send(of, node, Message::Ping);
        core.wake(node, PING_EVERY, Timer::Link(of));
        false
    }

    /// The stream is over, or is left. Whether it was the one attached to.
    pub(super) fn ended(
        &mut self,
        core: &mut Core,
        node: Node,
        of: StreamId,
        hello: pb::Hello,
        parting: Parting,
    ) -> bool {
        match self.state {
            State::Connecting { stream, .. } if stream == of => {
                self.round.refused(parting == Parting::Dismissed);
                self.dial_next(core, node, hello);
                false
            }
            State::Attached { stream, since, welcomed, last_resort, .. } if stream == of => {
                core.close(of, node);
                if !welcomed {
                    self.round.refused(parting == Parting::Dismissed);
                    self.dial_next(core, node, hello);
                    return true;
                }
                let good = core.now - since >= GOOD_AFTER;
                self.lost = self.at.take();
                if good {
                    self.failures = 0;
                }
                if parting == Parting::Asked {
                    self.rest(core, node);
                } else if good {
                    self.begin_round(core, node, hello);
                } else if last_resort {
                    self.rest(core, node);
                } else {
                    self.dial_next(core, node, hello);
                }
                true
            }
            _ => false,
        }
    }

    fn begin_round(&mut self, core: &mut Core, node: Node, hello: pb::Hello) {
        let candidates = (0..core.scenario.controllers.len()).collect();
        let last = self.lost.take();
        self.round = Round::new(candidates, last.as_ref(), self.last_resort, core.dice());
        self.dial_next(core, node, hello);
    }

    fn dial_next(&mut self, core: &mut Core, node: Node, hello: pb::Hello) {
        let Some(candidate) = self.round.next_candidate() else { return self.rest(core, node) };
        let hello = pb::Hello { last_resort: self.round.is_last_resort(), ..hello };
        let most = if self.round.size() > 1 { AMONG_OTHERS_MAX } else { ALONE_MAX };
        self.at = Some(candidate);
        let message = pb::AgentMessage { kind: Some(pb::agent_message::Kind::Hello(hello)) };
        let stream = core.dial(node, Node::Controller(candidate), Message::Agent(Box::new(message)));
        self.state = State::Connecting { stream, until: core.now + most };
        core.wake(node, Duration::from_micros(most), Timer::Attach(stream));
    }

    fn rest(&mut self, core: &mut Core, node: Node) {
        self.failures = self.failures.saturating_add(1);
        self.last_resort = self.round.next_is_last_resort();
        self.at = None;
        let share = core.share();
        let delay =
            Backoff::new(RETRY_LEAST, RETRY_MOST, 0.5).map_or(RETRY_MOST, |b| b.delay(self.failures, share));
        self.state = State::Waiting { until: core.now + micros(delay) };
        core.wake(node, delay, Timer::Dial);
    }
}
