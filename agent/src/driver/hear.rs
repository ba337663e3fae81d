//! What the driver does when the controller speaks.

use std::time::{Duration, Instant};

use fleetknock_proto::{
    FieldError,
    v1::{self, AgentMessage, HostOpeningState, agent_message::Kind as Said, controller_message::Kind},
};
use fleetknock_runtime::clock;

use super::{Driver, hand::Task, space};
use crate::{
    link::{Parting, wire},
    picture::{Changes, Refused},
};

/// The longest window that a controller can ask for.
const KEEP_MAX: Duration = Duration::from_secs(3600);

/// For how long an operator can change what is logged.
const LOG_MIN: Duration = Duration::from_secs(1);
const LOG_MAX: Duration = Duration::from_secs(86_400);

impl Driver {
    /// Takes in a message that came at this time by both clocks.
    pub(super) fn hear(&mut self, kind: Kind, heard: Instant, heard_us: u64) -> Result<(), FieldError> {
        match kind {
            Kind::Probe(probe) => self.answer(&probe, heard_us),
            Kind::Delta(delta) => {
                let keep = delta.guard.as_ref().map(|guard| guard.keep_window_ms);
                self.trail.ordered(&delta.openings);
                let (delta, refused) = wire::delta(delta)?;
                self.keep_as_guard_says(keep);
                self.metrics.openings_withdrawn.inc_by(delta.withdrawn.len() as u64);
                let changes = self.picture.take_delta(delta, heard);
                self.apply(changes, refused, heard);
            }
            Kind::Snapshot(snapshot) => {
                let keep = snapshot.guard.as_ref().map(|guard| guard.keep_window_ms);
                let (part, refused) = wire::snapshot(snapshot)?;
                self.keep_as_guard_says(keep);
                let Some(changes) = self.picture.take_snapshot(part, heard) else {
                    self.refuse(refused);
                    return Ok(());
                };
                self.apply(changes, refused, heard);
                if let Some(session) = self.session.as_mut().filter(|session| !session.told) {
                    session.told = true;
                    self.reconcile();
                }
            }
            Kind::Traced(traced) => self.trace(&traced),
            Kind::Welcome(welcome) => self.begin(&welcome, heard),
            Kind::Acknowledge(acknowledge) => self.window.acknowledge(acknowledge.counter),
            Kind::Goodbye(goodbye) => {
                let reason = format!("it said goodbye: {}", plain(&goodbye.reason));
                self.link.leave(&reason, if goodbye.move_now { Parting::Dismissed } else { Parting::Asked });
                self.detach();
            }
            Kind::Resend(v1::Resend {}) => {
                self.metrics.resends.inc();
                self.window.ask_again(heard);
            }
            // The agent does not ask.
            Kind::ProbeReply(_) => {}
            Kind::Log(order) => self.log(&order),
        }
        Ok(())
    }

    /// Logs as an operator wants it for a while.
    fn log(&self, order: &v1::LogOrder) {
        let within = Duration::from_millis(order.for_ms).clamp(LOG_MIN, LOG_MAX);
        if let Err(error) = self.log_dial.order(&order.filter, within) {
            tracing::warn!(%error, "what is logged cannot be changed as an operator wants it");
        }
    }

    fn answer(&self, probe: &v1::Probe, heard_us: u64) {
        let Some(session) = &self.session else { return };
        let reply = v1::ProbeReply {
            id: probe.id,
            probe_sent_us: probe.sent_us,
            received_us: heard_us,
            sent_us: clock::now_micros(),
        };
        // Without room the answer would come late and measure nothing; the controller asks again.
        let _ = session.outbound.try_send(AgentMessage { kind: Some(Said::ProbeReply(reply)) });
    }

    fn begin(&mut self, welcome: &v1::Welcome, heard: Instant) {
        let Some(session) = self.session.as_mut() else { return };
        session.welcomed = true;
        let name = plain(&welcome.controller);
        self.link.welcomed(&name, Duration::from_millis(welcome.reassert_ms.into()));
        self.keep.welcome = kept_for(welcome.keep_window_ms);
        self.set_age();
        self.window.rewind(heard);
        self.controller_latch.release();
        self.metrics.link_up.set(1);
        self.metrics.links.inc();
        if self.controller.as_ref().is_some_and(|before| *before != name) {
            self.metrics.controller_changes.inc();
        }
        self.controller = Some(name);
    }

    /// What a guard says of the window, when there is a guard in the message.
    fn keep_as_guard_says(&mut self, milliseconds: Option<u32>) {
        if let Some(milliseconds) = milliseconds {
            self.keep.guard = (milliseconds > 0).then(|| kept_for(milliseconds));
            self.set_age();
        }
    }

    fn set_age(&mut self) {
        self.window.set_age(self.keep.guard.unwrap_or(self.keep.welcome));
    }

    fn apply(&mut self, changes: Changes, refused: Vec<Refused>, heard: Instant) {
        self.refuse(refused);
        self.refuse(changes.refused.clone());
        if changes.bans_left_out > 0 {
            tracing::warn!(
                bans = changes.bans_left_out,
                "this host holds as many bans as it can; some are left out"
            );
        }
        self.link.hello_mut().revision = self.picture.revision();
        let space = space(&self.picture);
        if space != self.space {
            self.ears.set_space(space.clone());
            self.space = space;
        }
        if !changes.is_empty() {
            self.remember();
            // There is room: the link is only read when there is.
            if !self.hand.give(Task::Apply(Box::new(changes), heard)) {
                self.reconcile_due = true;
            }
        }
    }

    fn refuse(&mut self, refused: Vec<Refused>) {
        for Refused { id, generation, reason } in refused {
            tracing::warn!(opening = %id.escape_debug(), reason, "an opening was refused");
            self.add_result(v1::OpeningResult {
                id: id.to_string(),
                generation,
                state: HostOpeningState::Failed.into(),
                reason,
                took_us: 0,
            });
        }
    }
}

fn kept_for(milliseconds: u32) -> Duration {
    Duration::from_millis(milliseconds.into()).min(KEEP_MAX)
}

/// Somebody else's words, fit for a log line.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
