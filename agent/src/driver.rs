//! The agent's one loop: it owns the picture and the window, and everything that happens comes by here.
//!
//! ```text
//!   capture thread ──Sighting──▶ ┌────────┐ ──ObservationBatch, results, reports──▶ link ──▶ controller
//!                                │ driver │ ◀──Welcome, Probe, Snapshot, Delta──── link ◀── controller
//!   firewall thread ◀──Task───── │  loop  │
//!   firewall thread ──Outcome──▶ └────────┘ ──▶ state file, metrics
//! ```
//!
//! Every queue is bounded: sightings in front of the loop ([`crate::capture::QUEUE_MAX`]), tasks and outcomes
//! (`hand`), messages to the controller ([`crate::link::OUTBOUND_MAX`]), observations ([`crate::window`]), results
//! (`RESULTS_MAX`). What waits for the link waits in the window; what waits for the kernel stops the link from being
//! read.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fleetknock_proto::v1::{self, AgentMessage};
use fleetknock_runtime::{
    clock, log::Dial, notify::Pulse, otlp::traces::Traces, ready::Latch, tls::Connector,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    capture::{KnockSpace, Sighting},
    config::{ControllerUrl, OnExit},
    firewall::{Firewall, Tally},
    link::{Event, Link, OUTBOUND_URGENT, Parting, names::Names},
    picture::{OpeningId, Picture},
    window::{AGE_DEFAULT, OBSERVATIONS_MAX, Window},
};

mod ears;
pub mod hand;
mod hear;
pub mod metrics;
mod report;
pub mod state;
mod trace;

pub use ears::{Ears, Heard};
use hand::{Hand, Outcome, Task};
use metrics::Metrics;
use state::{Saved, StateError, StateFile};
use trace::Trail;

/// Sightings taken from the queue at once: as many as one message may carry.
const BATCH_MAX: usize = fleetknock_proto::limits::OBSERVATIONS_MAX;
/// Results that wait for the link; the oldest goes, and the next first snapshot brings it again.
const RESULTS_MAX: usize = 65_536;
/// Counters, warnings and the state file are looked at this often.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);
/// Addresses come and go.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(5);
/// What stands in the way of openings changes with other people's firewalls.
const INSPECT_EVERY: Duration = Duration::from_secs(60);
/// What guard dropped is counted by the kernel and asked for this often.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// What a driver is made of.
pub struct Parts {
    /// Says who this host is; addresses and revision are filled in.
    pub hello: v1::Hello,
    /// Whatever they stand for is a candidate; one is attached to at a time.
    pub controllers: Vec<ControllerUrl>,
    /// Dials those with TLS; without it only plain text is spoken.
    pub connector: Option<Connector>,
    /// What this host should hold, as far as is remembered.
    pub picture: Picture,
    /// Whether something is remembered: it is asserted until a controller says what holds.
    pub remembered: bool,
    /// The driver of the kernel's firewall.
    pub firewall: Box<dyn Firewall>,
    /// What is captured.
    pub sightings: mpsc::Receiver<Sighting>,
    /// Steers the capture.
    pub ears: Box<dyn Ears>,
    /// Where the picture is remembered.
    pub state: Option<StateFile>,
    /// How often the kernel is compared with the picture.
    pub reconcile_every: Duration,
    /// What becomes of the guard on a clean stop.
    pub on_exit: OnExit,
    /// Instruments.
    pub metrics: Metrics,
    /// Where spans go.
    pub traces: Traces,
    /// What is to be said of this host's certificate.
    pub certificate: watch::Receiver<Option<String>>,
    /// What this process logs.
    pub log_dial: Dial,
    /// Released when the guard was written.
    pub guard_latch: Latch,
    /// Released when a controller was reached once.
    pub controller_latch: Latch,
    /// Beaten at each turn of the loop.
    pub pulse: Pulse,
}

/// The loop and what it owns.
pub struct Driver {
    link: Link,
    session: Option<Session>,
    /// Who said Welcome last.
    controller: Option<String>,
    picture: Picture,
    remembered: bool,
    window: Window<Sighting>,
    keep: Keep,
    hand: Hand,
    sightings: mpsc::Receiver<Sighting>,
    ears: Box<dyn Ears>,
    space: KnockSpace,
    state: Option<StateFile>,
    saving: Option<JoinHandle<Result<(), StateError>>>,
    save_after: Option<Instant>,
    on_exit: OnExit,
    metrics: Metrics,
    trail: Trail,
    certificate: watch::Receiver<Option<String>>,
    log_dial: Dial,
    guard_latch: Latch,
    controller_latch: Latch,
    pulse: Pulse,
    results: VecDeque<v1::OpeningResult>,
    /// Openings that the kernel did not take; a reconcile that succeeds makes them good.
    failed: HashMap<OpeningId, u64>,
    reconcile_due: bool,
    /// What guard dropped and what it would have dropped.
    tally: Tally,
    repairs: u64,
    last_repair: String,
    inspected: Vec<String>,
    /// What does not work now, by what it is.
    troubles: BTreeMap<&'static str, String>,
    addresses: Vec<String>,
    /// As last looked for.
    in_use: Vec<v1::PortRange>,
    last_report: Option<(Instant, v1::HostReport)>,
    reconcile_every: Duration,
}

/// How long observations are kept, as controllers said.
struct Keep {
    welcome: Duration,
    /// The guard in force outlives the stream that brought it: until another one comes, what it says goes before Welcome.
    guard: Option<Duration>,
}

/// A stream that a controller accepted.
struct Session {
    outbound: mpsc::Sender<AgentMessage>,
    /// Observations wait for Welcome.
    welcomed: bool,
    /// The first complete snapshot was taken in.
    told: bool,
}

impl Driver {
    /// Puts the parts together; the link dials as soon as the driver runs.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn new(parts: Parts) -> anyhow::Result<Self> {
        let addresses = report::addresses();
        let revision = parts.picture.revision();
        let hello = v1::Hello { addresses: addresses.clone(), revision, ..parts.hello };
        Ok(Self {
            trail: Trail::new(parts.traces, &hello),
            link: Link::new(Names::new(parts.controllers), parts.connector, hello)?,
            session: None,
            controller: None,
            space: space(&parts.picture),
            picture: parts.picture,
            remembered: parts.remembered,
            window: Window::new(OBSERVATIONS_MAX),
            keep: Keep { welcome: AGE_DEFAULT, guard: None },
            hand: Hand::start(parts.firewall).context("cannot start the firewall's thread")?,
            sightings: parts.sightings,
            ears: parts.ears,
            state: parts.state,
            saving: None,
            save_after: None,
            on_exit: parts.on_exit,
            metrics: parts.metrics,
            certificate: parts.certificate,
            log_dial: parts.log_dial,
            guard_latch: parts.guard_latch,
            controller_latch: parts.controller_latch,
            pulse: parts.pulse,
            results: VecDeque::new(),
            failed: HashMap::new(),
            reconcile_due: false,
            tally: Tally::default(),
            repairs: 0,
            last_repair: String::new(),
            inspected: Vec::new(),
            troubles: BTreeMap::new(),
            addresses,
            in_use: Vec::new(),
            last_report: None,
            reconcile_every: parts.reconcile_every,
        })
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the capture or the firewall's thread ends, without which an agent is pointless.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut housekeeping = calm(interval(HOUSEKEEPING_EVERY));
        let mut look_around = calm(interval(LOOK_AROUND_EVERY));
        let mut inspect = calm(interval(INSPECT_EVERY));
        let mut count = calm(interval(COUNT_EVERY));
        let begin = tokio::time::Instant::now() + self.reconcile_every;
        let mut reconcile = calm(interval_at(begin, self.reconcile_every));
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            // Housekeeping alone turns the loop often enough.
            self.pulse.beat();
            // Fair: no source of events, however busy, keeps the others from their turn.
            tokio::select! {
                () = stop.cancelled() => break,
                outcome = self.hand.outcome() => {
                    self.settle(outcome.context("the firewall's thread ended; the log above says why")?);
                }
                event = self.link.next(), if self.hand.has_room() => self.follow(event),
                _ = housekeeping.tick() => self.keep_house().await,
                _ = reconcile.tick() => self.reconcile(),
                _ = look_around.tick() => self.look_around(),
                _ = inspect.tick() => drop(self.hand.give(Task::Inspect)),
                _ = count.tick() => drop(self.hand.give(Task::Count)),
                taken = self.sightings.recv_many(&mut batch, BATCH_MAX) => {
                    anyhow::ensure!(taken > 0, "the capture ended; the log above says why");
                    let now = Instant::now();
                    for sighting in batch.drain(..) {
                        self.window.push(sighting, now);
                    }
                    self.say();
                }
                () = room(self.session.as_ref()), if self.has_unsaid() => self.say(),
                () = due(self.window.pass_at()), if self.is_welcomed() => self.say(),
            }
        }
        self.stop().await
    }

    fn follow(&mut self, event: Event) {
        match event {
            Event::Attached(outbound) => {
                self.session = Some(Session { outbound, welcomed: false, told: false });
            }
            Event::Heard(message) => {
                let heard = Instant::now();
                let heard_us = clock::now_micros();
                if let Some(kind) = message.kind
                    && let Err(error) = self.hear(kind, heard, heard_us)
                {
                    self.link.leave(&format!("it said something wrong: {error}"), Parting::Broken);
                    self.detach();
                }
            }
            Event::Lost => self.detach(),
        }
        self.say();
    }

    /// The stream is gone: guard and openings stay as they are.
    fn detach(&mut self) {
        self.session = None;
        self.results.clear();
        self.trail.forget_orders();
        self.last_report = None;
        self.picture.stream_ended();
        self.metrics.link_up.set(0);
    }

    fn settle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Applied { results, failures, guarded } => {
                if guarded {
                    self.guard_latch.release();
                }
                for failure in failures {
                    self.metrics.firewall_failures.inc();
                    self.trouble("order", Some(failure));
                    self.reconcile_due = true;
                }
                for result in results {
                    self.add_result(result);
                }
            }
            Outcome::Asserted(result) => {
                if result.is_ok() {
                    self.guard_latch.release();
                }
                self.trouble(
                    "guard",
                    result.err().map(|error| format!("the guard cannot be written: {error}")),
                );
            }
            Outcome::Counted(Ok(counts)) => {
                self.tally.take(counts);
                self.trouble("counts", None);
                self.tell_first_counts();
            }
            Outcome::Counted(Err(error)) => {
                self.trouble("counts", Some(format!("what guard dropped cannot be counted: {error}")));
            }
            Outcome::Inspected(Ok(warnings)) => {
                for warning in warnings.iter().filter(|warning| !self.inspected.contains(warning)) {
                    tracing::warn!("{warning}");
                }
                self.inspected = warnings;
                self.trouble("inspection", None);
            }
            Outcome::Inspected(Err(error)) => {
                self.trouble("inspection", Some(format!("the firewall cannot be inspected: {error}")));
            }
            Outcome::Reconciled(Ok(repairs)) => {
                self.guard_latch.release();
                self.trouble("order", None);
                self.trouble("reconcile", None);
                self.make_good();
                if !repairs.said.is_empty() {
                    self.repairs += 1;
                    self.last_repair = repairs.said.join("; ");
                    self.metrics.repairs.inc();
                    tracing::warn!(
                        repairs = self.last_repair,
                        "the kernel differed from the picture and was repaired"
                    );
                }
            }
            Outcome::Reconciled(Err(error)) => {
                self.metrics.firewall_failures.inc();
                self.trouble("reconcile", Some(format!("the kernel cannot be reconciled: {error}")));
            }
            Outcome::Removed(Ok(removed)) => {
                let removed = removed.join(", ");
                tracing::info!(%removed, "guard and openings were removed: the ports are open");
            }
            Outcome::Removed(Err(error)) => tracing::error!(%error, "guard and openings cannot be removed"),
        }
        self.say();
    }

    /// Notes that something does not work, or works again, and says so once.
    fn trouble(&mut self, what: &'static str, said: Option<String>) {
        match said {
            Some(said) => {
                if self.troubles.get(what) != Some(&said) {
                    tracing::error!("{said}");
                    self.troubles.insert(what, said);
                }
            }
            None => {
                if let Some(old) = self.troubles.remove(what) {
                    tracing::info!("no longer: {old}");
                }
            }
        }
    }

    /// Compares the kernel with the picture; before any controller has spoken, only adds what is remembered.
    fn reconcile(&mut self) {
        let given = if self.picture.was_told() {
            self.hand.give(Task::Reconcile(Box::new(self.picture.desired(Instant::now()))))
        } else if self.remembered {
            self.hand.give(Task::Assert(Box::new(self.picture.desired(Instant::now()))))
        } else {
            true
        };
        self.reconcile_due = !given;
    }

    async fn keep_house(&mut self) {
        let now = Instant::now();
        self.window.forget(now);
        self.picture.expire(now);
        let picture = &self.picture;
        self.failed
            .retain(|id, generation| picture.opening(id).is_some_and(|held| held.generation == *generation));
        if self.reconcile_due {
            self.reconcile();
        }
        self.show();
        self.save_if_due(now).await;
        self.say();
    }

    /// The picture changed: it is written soon. A full one is written less often.
    fn remember(&mut self) {
        if self.state.is_some() && self.save_after.is_none() {
            let patience = Duration::from_millis(self.picture.openings().count() as u64 / 5);
            self.save_after = Some(Instant::now() + patience);
        }
    }

    async fn save_if_due(&mut self, now: Instant) {
        if let Some(saving) = self.saving.take_if(|saving| saving.is_finished()) {
            let said = match saving.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(format!("the picture cannot be written: {error}")),
            };
            self.trouble("state", said);
        }
        if self.saving.is_none()
            && self.save_after.is_some_and(|after| after <= now)
            && let Some(file) = self.state.clone()
        {
            self.save_after = None;
            let saved = Saved::of(&self.picture, now, clock::now_micros());
            self.saving = Some(tokio::task::spawn_blocking(move || file.save(&saved)));
        }
    }

    /// Ends in order: what was given to the firewall is done, the picture is written.
    async fn stop(mut self) -> anyhow::Result<()> {
        self.session = None;
        let last = (self.on_exit == OnExit::Open).then_some(Task::Remove);
        for outcome in self.hand.finish(last).await {
            self.settle(outcome);
        }
        if let Some(saving) = self.saving.take() {
            let _ = saving.await;
        }
        if let Some(file) = self.state.take() {
            let saved = Saved::of(&self.picture, Instant::now(), clock::now_micros());
            tokio::task::spawn_blocking(move || file.save(&saved)).await??;
        }
        Ok(())
    }
}

/// The ports on which knocks count; until a controller has named them, all.
pub fn space(picture: &Picture) -> KnockSpace {
    let guard = picture.fleet_guard();
    let guarded = &guard.ports | &guard.observed;
    let mut space = KnockSpace { guarded, ..KnockSpace::default() };
    if !guard.knock_space.is_empty() || picture.was_told() {
        space.ranges = guard.knock_space.clone();
        space.icmp = guard.icmp;
    }
    space
}

/// Done when observations can be sent: answers to probes, results and reports keep some room for themselves.
async fn room(session: Option<&Session>) {
    let closed = match session {
        Some(session) => session.outbound.reserve_many(OUTBOUND_URGENT + 1).await.is_err(),
        None => true,
    };
    if closed {
        // The link says so when it is read next.
        std::future::pending::<()>().await;
    }
}

/// Done at this time; never without one.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn calm(mut interval: Interval) -> Interval {
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
