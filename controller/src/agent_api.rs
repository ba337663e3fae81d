//! The agent service: one task per connected agent.
//!
//! ```text
//!   Hello ──▶ probes and their answers ──▶ Welcome, Snapshot ──▶ observations, results, reports ◀──▶ deltas
//! ```
//!
//! The task reads; what is sent goes through the session's bounded queue, which the fan-out fills. Everything from the
//! agent is parsed into types in `hello` and in the wire crate before it is used.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fleetknock_core::{host::HostName, identity::Who};
use fleetknock_proto::{
    convert, limits, status as refuse,
    v1::{
        self as pb, agent_message::Kind as Said, agent_service_server::AgentService,
        controller_message::Kind as Tell,
    },
};
use fleetknock_runtime::tls::Peer;
use futures::Stream;
use tokio::{
    sync::mpsc::{self, error::SendTimeoutError},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    audit::denials::Denied,
    clock::{Estimate, Offset, Probe},
    limits::told::{TAKE_MAX, Told},
    metrics::{DeniedLabels, LimitedLabels},
    peers::{Peers, Reported},
    sessions::{SESSION_QUEUE, Session},
    shared::{Shared, Standing, State, local_now},
    status::{Report, State as OnHost},
    trust::{Caller, caller::Whose},
    wire,
};

pub mod hello;
pub mod skew;

use hello::{Greeting, Registered};

/// How long a new stream may take to say Hello and to answer the first probes.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// Probes answered before Welcome.
const FIRST_PROBES: u64 = 4;
/// How often the clock is probed from then on.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// An agent that is not heard for so long is gone: it answers a probe every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How often everything is said again.
const REASSERT_EVERY: Duration = Duration::from_secs(60);

/// Serves agents.
pub struct Service {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    sessions: AtomicU64,
    stop: CancellationToken,
}

impl Service {
    /// `stop` ends all streams when this controller leaves.
    pub fn new(shared: Arc<Shared>, peers: Arc<Peers>, stop: CancellationToken) -> Self {
        Self { shared, peers, sessions: AtomicU64::new(1), stop }
    }
}

/// Without a lease this controller decides nothing: an agent is better off elsewhere, unless there is nobody else. Then
/// its knocks are followed all the same, so that it can be said that they open nothing.
fn check_standing(standing: Standing, last_resort: bool) -> Result<(), Status> {
    match standing {
        Standing::Serving { .. } => Ok(()),
        Standing::Leaving => Err(refuse::unavailable("this controller is leaving")),
        Standing::Joining | Standing::Suspended if last_resort => Ok(()),
        Standing::Joining => Err(refuse::unavailable("this controller has not joined the fleet yet")),
        Standing::Suspended => Err(refuse::unavailable(
            "this controller's lease is gone: it cannot reach its store and decides nothing",
        )),
    }
}

type Outbound = mpsc::Sender<Result<pb::ControllerMessage, Status>>;

#[tonic::async_trait]
impl AgentService for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<pb::ControllerMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        let line = request.extensions().get::<Peer>().map(|peer| peer.line.clone());
        let (outbound, messages) = mpsc::channel(SESSION_QUEUE);
        let (told, end) = Told::new(messages);
        let stream = AgentStream {
            shared: self.shared.clone(),
            peers: self.peers.clone(),
            caller,
            number: self.sessions.fetch_add(1, Ordering::Relaxed),
            stop: self.stop.child_token(),
            inbound: request.into_inner(),
            outbound,
            clock: Estimate::default(),
        };
        let metrics = self.shared.metrics.clone();
        tokio::spawn(async move {
            let status = stream.run().await.err();
            if let Some(status) = &status {
                tracing::info!(reason = status.message(), "an agent's stream ends");
            }
            if end.say(status, line.as_ref()).await {
                metrics.limited.get_or_create(&LimitedLabels { reason: "slow_agent" }).inc();
            }
        });
        Ok(Response::new(Box::pin(told)))
    }
}

struct AgentStream {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    caller: Caller,
    number: u64,
    stop: CancellationToken,
    inbound: Streaming<pb::AgentMessage>,
    outbound: Outbound,
    clock: Estimate,
}

impl AgentStream {
    async fn run(mut self) -> Result<(), Status> {
        let greeting = timeout(GREETING_MAX, self.greet()).await;
        let greeting =
            greeting.map_err(|_| Status::deadline_exceeded("no Hello and answers to probes in time"))??;
        let host = greeting.host.clone();
        let registered = hello::register(&self.shared, greeting).await?;
        self.attach(&registered).await;
        tracing::info!(%host, "agent connected");
        let version = self.shared.state().fleet.hosts().get(&host).map(|held| held.record.version.clone());
        if let Some(remark) = version.and_then(|version| skew::remark(&version, env!("CARGO_PKG_VERSION"))) {
            tracing::warn!(%host, "{remark}");
        }
        self.say(&registered, pb::EventKind::HostConnected, "agent connected".to_owned());

        let ended = self.serve(&registered).await;

        let ours = self.shared.state().sessions.remove(&host, self.number).is_some();
        if ours {
            let why = ended.as_ref().err().map_or("it left", |status| status.message()).to_owned();
            tracing::info!(%host, reason = why, "agent disconnected");
            self.say(&registered, pb::EventKind::HostDisconnected, format!("agent disconnected: {why}"));
        }
        ended
    }

    /// Hears Hello and measures the clock.
    async fn greet(&mut self) -> Result<Greeting, Status> {
        let Some(Said::Hello(hello)) = self.next().await? else {
            return Err(refuse::invalid("hello", "the first message of a stream is Hello"));
        };
        let greeting = hello::parse(hello)?;
        self.check_caller(&greeting.host)?;
        check_standing(self.shared.standing(), greeting.last_resort)?;
        let mut answered = 0;
        self.probe().await?;
        while answered < FIRST_PROBES {
            match self.next().await? {
                Some(Said::ProbeReply(reply)) => {
                    self.measure(&reply);
                    answered += 1;
                    if answered < FIRST_PROBES {
                        self.probe().await?;
                    }
                }
                Some(Said::Probe(probe)) => self.reply(&probe).await?,
                Some(Said::Report(_)) => {}
                _ => {
                    return Err(Status::failed_precondition("nothing but probes is said before Welcome"));
                }
            }
        }
        Ok(greeting)
    }

    /// An agent reports for the host that its certificate names, and for no other. That one tries is worth knowing: its
    /// key is in other hands, or its files are another host's.
    fn check_caller(&self, host: &HostName) -> Result<(), Status> {
        self.caller.check_host(host).inspect_err(|_| {
            let Whose::Known(who) = &self.caller.who else { return };
            tracing::warn!(certificate = %who, claimed = %host, "an agent says that it is another host; it is cut off");
            self.shared.metrics.denied.get_or_create(&DeniedLabels { reason: "impostor" }).inc();
            let holder = match who {
                Who::Host(name) => Some(name.clone()),
                _ => None,
            };
            self.shared.deny(Denied {
                kind: pb::EventKind::Impostor,
                actor: self.caller.actor(),
                host: holder,
                message: format!("the agent of {who} said that it is host '{host}' and was cut off"),
            });
        })
    }

    /// Says Welcome, then becomes the host's session, which sends the snapshot.
    async fn attach(&mut self, registered: &Registered) {
        let keep_window = wire::keep_window(&self.shared.state().fleet);
        let welcome = pb::Welcome {
            controller: self.shared.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            keep_window_ms: u32::try_from(convert::millis(keep_window)).unwrap_or(u32::MAX),
            reassert_ms: u32::try_from(convert::millis(REASSERT_EVERY)).unwrap_or(u32::MAX),
        };
        // A closed queue shows when the stream is read next.
        let _gone = self.outbound.send(tell(Tell::Welcome(welcome))).await;
        let at = self.shared.now();
        let mut session = Session::new(self.number, at, self.outbound.clone(), self.stop.clone());
        session.info.offset = self.offset();
        let mut guard = self.shared.state();
        let State { fleet, sessions, .. } = &mut *guard;
        let old = sessions.add(registered.host.clone(), session, fleet, &self.shared.wide, at);
        drop(guard);
        if old.is_some() {
            tracing::warn!(host = %registered.host, "a second agent says it is this host; the first one is let go");
        }
    }

    async fn serve(&mut self, registered: &Registered) -> Result<(), Status> {
        let mut probes = interval(PROBE_EVERY);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reassert = tokio::time::interval_at(Instant::now() + REASSERT_EVERY, REASSERT_EVERY);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                _ = probes.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Err(Status::deadline_exceeded("the agent is not heard any more"));
                    }
                    self.probe().await?;
                }
                _ = reassert.tick() => {
                    let mut guard = self.shared.state();
                    let State { fleet, sessions, .. } = &mut *guard;
                    sessions.reassert(&registered.host, self.number, fleet, &self.shared.wide, self.shared.now());
                }
                said = self.inbound.message() => {
                    let Some(message) = said? else { return Ok(()) };
                    heard = Instant::now();
                    if let Some(said) = message.kind {
                        self.take_in(registered, said).await?;
                    }
                }
            }
        }
    }

    async fn take_in(&mut self, registered: &Registered, said: Said) -> Result<(), Status> {
        match said {
            Said::Observations(batch) => self.observe(registered, batch).await,
            Said::ProbeReply(reply) => {
                self.measure(&reply);
                let (at, offset) = (self.shared.now(), self.offset());
                if let Some(session) = self.shared.state().sessions.current(&registered.host, self.number) {
                    session.info.offset = offset;
                    session.info.last_seen = at;
                }
                Ok(())
            }
            Said::Probe(probe) => self.reply(&probe).await,
            Said::Results(batch) => {
                self.results(registered, batch);
                Ok(())
            }
            Said::Report(report) => self.report(registered, report),
            Said::Hello(_) => Err(refuse::invalid("hello", "a stream has one Hello")),
        }
    }

    async fn observe(&self, registered: &Registered, batch: pb::ObservationBatch) -> Result<(), Status> {
        if batch.observations.len() > limits::OBSERVATIONS_MAX {
            let reason = format!("a batch has at most {} observations", limits::OBSERVATIONS_MAX);
            return Err(refuse::invalid("observations.observations", reason));
        }
        let at = self.shared.now();
        let Some(offset) = self.offset() else {
            return Err(Status::failed_precondition("the clock is not measured yet"));
        };
        let uncertainty = offset.uncertainty + self.shared.now_uncertainty();
        let mut observations = Vec::with_capacity(batch.observations.len());
        for observation in batch.observations {
            let seen = fleetknock_proto::Seen::try_from(observation)?;
            observations.push(seen.observed(
                registered.id,
                registered.boot,
                offset.correct(seen.time),
                uncertainty,
            ));
        }
        if let Some(session) = self.shared.state().sessions.current(&registered.host, self.number) {
            session.info.observations += observations.len() as u64;
            session.info.last_seen = at;
        }
        let last = observations.last().map(|observation| observation.id.counter);
        let reported = Reported { host: registered.host.clone(), boot: registered.boot_id, observations };
        self.peers.observe(reported, 0).await.map_err(|stopped| Status::unavailable(stopped.to_string()))?;
        if let Some(counter) = last {
            // Losing an acknowledgement only makes the agent keep more.
            let _full = self.outbound.try_send(tell(Tell::Acknowledge(pb::Acknowledge { counter })));
        }
        Ok(())
    }

    fn results(&self, registered: &Registered, batch: pb::ResultBatch) {
        let (at, heard) = (self.shared.now(), std::time::Instant::now());
        for result in batch.results.into_iter().take(limits::OPENINGS_MAX) {
            let state = match result.state() {
                pb::HostOpeningState::Applied => OnHost::Applied,
                pb::HostOpeningState::Failed => {
                    OnHost::Failed { reason: result.reason.chars().take(300).collect() }
                }
                _ => continue,
            };
            let failed = match &state {
                OnHost::Failed { reason } => Some(reason.clone()),
                _ => None,
            };
            let report = Report { generation: result.generation, state, at, took_us: result.took_us };
            let (metrics, applied) = (&self.shared.metrics, failed.is_none());
            let event = {
                let mut guard = self.shared.state();
                let State { fleet, statuses, pushes, .. } = &mut *guard;
                let answer = pushes.answered(&result.id, result.generation, self.number, applied, heard);
                if let Some(answer) = answer {
                    metrics.answered(&answer, at);
                }
                let Some(held) = fleet.opening(&result.id) else {
                    continue;
                };
                if !statuses.add(&held.record, &registered.host, report) {
                    continue;
                }
                metrics.doors.count(&held.record.door, |counts| match applied {
                    true => counts.applied += 1,
                    false => counts.failed += 1,
                });
                let (kind, message) = match &failed {
                    Some(reason) => (pb::EventKind::OpeningFailed, reason.clone()),
                    None => (
                        pb::EventKind::OpeningApplied,
                        format!("open, {} us after the order came", result.took_us),
                    ),
                };
                // The record of an opening on many hosts is large: only the event is made of it here.
                wire::opening_event(kind, &held.record, Some(&registered.host), at, message)
            };
            if let Some(reason) = failed {
                tracing::warn!(host = %registered.host, opening = result.id, reason, "an opening failed");
            }
            self.shared.say(event);
        }
    }

    fn report(&self, registered: &Registered, report: pb::HostReport) -> Result<(), Status> {
        let report = hello::bounded(report)?;
        let repaired = {
            let mut state = self.shared.state();
            let Some(session) = state.sessions.current(&registered.host, self.number) else {
                return Ok(());
            };
            session.info.last_seen = self.shared.now();
            let news = report.repairs > session.info.report.repairs;
            let repaired = news.then(|| report.last_repair.clone());
            session.info.report = report;
            repaired
        };
        if let Some(what) = repaired {
            tracing::warn!(host = %registered.host, what, "a host's kernel differed and was repaired");
            self.say(registered, pb::EventKind::Repaired, what);
        }
        Ok(())
    }

    fn say(&self, registered: &Registered, kind: pb::EventKind, message: String) {
        self.shared.say(pb::Event {
            host: registered.host.to_string(),
            ..wire::event(kind, self.shared.now(), message)
        });
    }

    async fn next(&mut self) -> Result<Option<Said>, Status> {
        let message = self.inbound.message().await?;
        message.map(|message| message.kind).ok_or_else(|| Status::aborted("the agent left"))
    }

    async fn probe(&self) -> Result<(), Status> {
        let sent_us = local_now().as_micros();
        self.tell(Tell::Probe(pb::Probe { id: sent_us, sent_us })).await
    }

    async fn reply(&self, probe: &pb::Probe) -> Result<(), Status> {
        let at = self.shared.now().as_micros();
        let reply =
            pb::ProbeReply { id: probe.id, probe_sent_us: probe.sent_us, received_us: at, sent_us: at };
        self.tell(Tell::ProbeReply(reply)).await
    }

    async fn tell(&self, kind: Tell) -> Result<(), Status> {
        match self.outbound.send_timeout(tell(kind), TAKE_MAX).await {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => Err(Status::aborted("the agent left")),
            Err(SendTimeoutError::Timeout(_)) => Err(Status::resource_exhausted(format!(
                "the agent has taken nothing for {TAKE_MAX:?} while {SESSION_QUEUE} messages wait for it, the limit"
            ))),
        }
    }

    fn measure(&mut self, reply: &pb::ProbeReply) {
        self.clock.add(Probe {
            sent: reply.probe_sent_us,
            heard: reply.received_us,
            answered: reply.sent_us,
            received: local_now().as_micros(),
        });
    }

    /// The agent's clock minus the fleet's. It is measured against this machine's clock, which nobody sets: what was
    /// measured before this controller began to follow another one's clock stays true.
    fn offset(&self) -> Option<Offset> {
        Some(self.clock.offset(local_now())?.against(self.shared.clock_offset_us()))
    }
}

fn tell(kind: Tell) -> Result<pb::ControllerMessage, Status> {
    Ok(pb::ControllerMessage { kind: Some(kind) })
}
