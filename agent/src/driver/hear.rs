//! What the driver does when the controller speaks.

use std::time::{Duration, Instant};

use fleetknock_proto::{
    FieldError,
    v1::{self, AgentMessage, HostOpeningState, agent_message::Kind as Said, controller_message::Kind},
};
use fleetknock_runtime::clock;

use super::{Driver, hand::Task, space};
use crate::{
    link::wire,
    picture::{Changes, Refused},
};

/// The longest window that a controller can ask for.
const KEEP_MAX: Duration = Duration::from_secs(3600);

impl Driver {
    /// Takes in a message that came at this time by both clocks.
    pub(super) fn hear(&mut self, kind: Kind, heard: Instant, heard_us: u64) -> Result<(), FieldError> {
        match kind {
            Kind::Probe(probe) => self.answer(&probe, heard_us),
            Kind::Delta(delta) => {
                let (delta, refused) = wire::delta(delta)?;
                let changes = self.picture.take_delta(delta, heard);
                self.apply(changes, refused, heard);
            }
            Kind::Snapshot(snapshot) => {
                let (part, refused) = wire::snapshot(snapshot)?;
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
            Kind::Welcome(welcome) => self.begin(&welcome, heard),
            Kind::Acknowledge(acknowledge) => self.window.acknowledge(acknowledge.counter),
            Kind::Goodbye(goodbye) => {
                let reason: String = goodbye.reason.chars().filter(|c| !c.is_control()).take(200).collect();
                self.link.leave(&format!("it said goodbye: {reason}"), goodbye.move_now);
                self.detach();
            }
            Kind::Resend(v1::Resend {}) => self.window.rewind(heard),
            // The agent does not ask.
            Kind::ProbeReply(_) => {}
        }
        Ok(())
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
        self.link.welcomed(Duration::from_millis(welcome.reassert_ms.into()));
        self.window.set_age(Duration::from_millis(welcome.keep_window_ms.into()).min(KEEP_MAX));
        self.window.rewind(heard);
        self.controller_latch.release();
        self.metrics.link_up.set(1);
        self.metrics.links.inc();
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
