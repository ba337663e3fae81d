//! What an agent does when its controller speaks: mirrors `agent::driver::hear`.

use std::time::Duration;

use fleetknock_agent::{link::wire, picture::Changes};
use fleetknock_proto::v1::{self as pb, agent_message::Kind as Said, controller_message::Kind};

use super::{Agent, Session, link};
use crate::{
    core::Core,
    network::{Message, StreamId},
    time::Clock,
};

impl Agent {
    pub(super) fn heard(
        &mut self,
        core: &mut Core,
        stream: StreamId,
        message: Message,
        clock: Clock,
        work: &mut Vec<Changes>,
        reconcile: &mut bool,
    ) {
        match message {
            Message::Accepted if self.link.accepted(core, self.node, stream) => {
                self.session = Some(Session { stream, welcomed: false, told: false });
            }
            Message::Ping => core.send(stream, self.node, Message::Pong),
            Message::Pong => self.link.pong(stream),
            Message::Status(refused) => {
                let hello = self.hello(core);
                let unavailable = refused == crate::network::Refused::Unavailable;
                let parting = if unavailable { link::Parting::Dismissed } else { link::Parting::Broken };
                if self.link.ended(core, self.node, stream, hello, parting) {
                    self.detach();
                }
            }
            Message::Controller(message) => {
                if self.session.as_ref().is_some_and(|session| session.stream == stream)
                    && let Some(kind) = message.kind
                {
                    self.link.heard(core);
                    self.hear(core, kind, clock, work, reconcile);
                }
            }
            _ => {}
        }
    }

    fn hear(
        &mut self,
        core: &mut Core,
        kind: Kind,
        clock: Clock,
        work: &mut Vec<Changes>,
        reconcile: &mut bool,
    ) {
        let now = clock.instant(core.now);
        match kind {
            Kind::Probe(probe) => {
                let at = clock.wall(core.now).as_micros();
                let reply = pb::ProbeReply {
                    id: probe.id,
                    probe_sent_us: probe.sent_us,
                    received_us: at,
                    sent_us: at,
                };
                self.tell(core, Said::ProbeReply(reply));
            }
            Kind::Delta(delta) => {
                let keep = delta.guard.as_ref().map(|guard| guard.keep_window_ms);
                match wire::delta(delta) {
                    Ok((delta, _)) => {
                        self.keep_as_guard_says(keep);
                        let changes = self.picture.take_delta(delta, now);
                        self.unsaved |= !changes.is_empty();
                        work.push(changes);
                    }
                    Err(error) => core.fail(format!("an agent does not understand a delta: {error}")),
                }
            }
            Kind::Snapshot(snapshot) => {
                let keep = snapshot.guard.as_ref().map(|guard| guard.keep_window_ms);
                match wire::snapshot(snapshot) {
                    Ok((part, _)) => {
                        self.keep_as_guard_says(keep);
                        let Some(changes) = self.picture.take_snapshot(part, now) else { return };
                        self.unsaved |= !changes.is_empty();
                        work.push(changes);
                        if let Some(session) = self.session.as_mut().filter(|session| !session.told) {
                            session.told = true;
                            *reconcile = true;
                        }
                    }
                    Err(error) => core.fail(format!("an agent does not understand a snapshot: {error}")),
                }
            }
            Kind::Welcome(welcome) => {
                let Some(session) = self.session.as_mut() else { return };
                session.welcomed = true;
                self.link.welcomed(Duration::from_millis(welcome.reassert_ms.into()));
                self.keep = Duration::from_millis(welcome.keep_window_ms.into());
                self.set_age();
                self.window.rewind(now);
                core.say(|| format!("{:?} is welcome at {}", self.node, welcome.controller));
            }
            Kind::Acknowledge(acknowledge) => self.window.acknowledge(acknowledge.counter),
            Kind::Goodbye(goodbye) => {
                let parting = if goodbye.move_now { link::Parting::Dismissed } else { link::Parting::Asked };
                let hello = self.hello(core);
                if let Some(stream) = self.session.as_ref().map(|session| session.stream) {
                    self.link.ended(core, self.node, stream, hello, parting);
                }
                self.detach();
            }
            Kind::Resend(pb::Resend {}) => self.window.ask_again(now),
            Kind::ProbeReply(_) | Kind::Traced(_) | Kind::Log(_) => {}
        }
    }

    fn keep_as_guard_says(&mut self, milliseconds: Option<u32>) {
        if let Some(milliseconds) = milliseconds {
            self.keep_guard = (milliseconds > 0).then(|| Duration::from_millis(milliseconds.into()));
            self.set_age();
        }
    }

    fn set_age(&mut self) {
        self.window.set_age(self.keep_guard.unwrap_or(self.keep));
    }
}
