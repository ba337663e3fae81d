//! Feeds the matcher: observations in, decisions out. One task owns it.
//!
//! ```text
//!   agent streams ──batches──▶ ┌──────────┐ ──decisions──▶ decide
//!   keeper ──rules changed──▶  │ matching │
//!   control API ──questions──▶ └──────────┘ ──attempts──▶
//! ```

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use fleetknock_core::{
    door::DoorName,
    host::HostId,
    knock::Observation,
    matcher::{self, FailReason, Failure, Matcher, READ_AHEAD, Verdict},
    source::Source,
    time::Timestamp,
};
use fleetknock_proto::v1 as pb;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{MissedTickBehavior, interval},
};

mod notes;

pub use self::notes::Notes;
use crate::{
    decide::{Decision, TOO_FAR_BEHIND},
    grant::Knocked,
    metrics::RefusedLabels,
    recollection::{Remembered, Unanswered},
    shared::Shared,
    traces::Attempt,
    wire,
};

/// Batches that wait, each of at most 4,096 observations. When it is full the agents' streams are not read until there
/// is room, and the agents' own bounded queues fill and count what they lose.
pub const BATCHES_QUEUE: usize = 64;

/// Questions that wait.
const QUESTIONS_QUEUE: usize = 64;

/// How often old sources are dropped, and how many at the most each time.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
const SWEEP_MAX: usize = 200_000;

/// How long a source is ignored while its ban is on its way to the store and back.
const BAN_PENDING: Duration = Duration::from_secs(5);

/// The handle that agent streams and the control API hold. Cloning is cheap.
#[derive(Clone)]
pub struct Handle {
    batches: mpsc::Sender<Vec<Observation>>,
    questions: mpsc::Sender<Question>,
}

/// The matching is gone; the process is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the matching has stopped")]
pub struct Stopped;

enum Question {
    Attempts { filter: AttemptFilter, answer: oneshot::Sender<Attempts> },
    Knocks { source: Source, since: Timestamp, answer: oneshot::Sender<Remembered> },
}

/// Which attempts are asked for.
#[derive(Clone, Debug, Default)]
pub struct AttemptFilter {
    /// Only of this door.
    pub door: Option<DoorName>,
    /// Only of this source.
    pub source: Option<Source>,
    /// None at all: only how full the matcher is.
    pub none: bool,
}

/// Attempts in flight, at most [`ATTEMPTS_MAX`], with their hosts' numbers, and how full the matcher is.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Ordered by door and source.
    pub attempts: Vec<matcher::Attempt>,
    /// Sources followed.
    pub sources: u32,
    /// How many there may be.
    pub limit: u32,
}

/// Attempts in one answer. Under a flood of first knocks there may be a million; nobody reads those.
pub const ATTEMPTS_MAX: usize = 10_000;

impl Handle {
    /// Hands over observations, waiting while the matching is behind.
    ///
    /// # Errors
    /// When the matching has stopped.
    pub async fn observe(&self, batch: Vec<Observation>) -> Result<(), Stopped> {
        self.batches.send(batch).await.map_err(|_| Stopped)
    }

    /// The attempts now in flight.
    ///
    /// # Errors
    /// When the matching has stopped.
    pub async fn attempts(&self, filter: AttemptFilter) -> Result<Attempts, Stopped> {
        let (answer, wait) = oneshot::channel();
        self.questions.send(Question::Attempts { filter, answer }).await.map_err(|_| Stopped)?;
        wait.await.map_err(|_| Stopped)
    }

    /// What is remembered of a source's knocks, judged from then on.
    ///
    /// # Errors
    /// When the matching has stopped.
    pub async fn knocks(&self, source: Source, since: Timestamp) -> Result<Remembered, Stopped> {
        let (answer, wait) = oneshot::channel();
        self.questions.send(Question::Knocks { source, since, answer }).await.map_err(|_| Stopped)?;
        wait.await.map_err(|_| Stopped)
    }
}

/// The matching's own end of the handle's queues.
pub struct Service {
    matcher: Matcher,
    shared: Arc<Shared>,
    decisions: mpsc::Sender<Decision>,
    batches: mpsc::Receiver<Vec<Observation>>,
    questions: mpsc::Receiver<Question>,
    bans: HashMap<Source, Timestamp>,
    notes: Notes,
    /// How many attempts the metrics know of.
    counted: matcher::Attempts,
}

impl Service {
    /// The matching and the handle to it. Nothing happens before [`run`](Self::run).
    pub fn new(
        shared: Arc<Shared>,
        config: matcher::Config,
        decisions: mpsc::Sender<Decision>,
    ) -> (Self, Handle) {
        let (batches_in, batches) = mpsc::channel(BATCHES_QUEUE);
        let (questions_in, questions) = mpsc::channel(QUESTIONS_QUEUE);
        let matcher = Matcher::new(config, rand::random());
        let (notes, bans) = (Notes::new(shared.now()), HashMap::new());
        let counted = matcher::Attempts::default();
        let service = Self { matcher, shared, decisions, batches, questions, bans, notes, counted };
        (service, Handle { batches: batches_in, questions: questions_in })
    }

    /// Follows knocks until every handle is gone.
    pub async fn run(mut self) {
        let mut rules = self.shared.rules();
        let mut sweeps = interval(SWEEP_EVERY);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.read_rules();
        loop {
            self.shared.pulses.matching.beat();
            tokio::select! {
                biased;
                changed = rules.changed() => match changed {
                    Ok(()) => self.read_rules(),
                    Err(_) => return,
                },
                question = self.questions.recv() => match question {
                    Some(question) => self.answer(question),
                    None => return,
                },
                _ = sweeps.tick() => self.sweep(),
                batch = self.batches.recv() => match batch {
                    Some(batch) => self.judge(&batch),
                    None => return,
                },
            }
        }
    }

    fn read_rules(&mut self) {
        let state = self.shared.state();
        let fleet = &state.fleet;
        self.matcher.set_doors(fleet.doors().values().map(|held| &held.record.door));
        let hosts = fleet.hosts().values().map(|held| &held.record);
        self.matcher
            .set_hosts(hosts.filter_map(|host| Some((fleet.host_id(&host.name)?, &host.name, &host.labels))));
        let bans: HashMap<_, _> =
            fleet.bans().values().map(|h| (h.record.source, h.record.expires)).collect();
        drop(state);
        let (now, mut ended) = (self.shared.now(), Vec::new());
        let changed: HashSet<_> = bans.keys().chain(self.bans.keys()).copied().collect();
        for source in
            changed.into_iter().filter(|source| bans.contains_key(source) != self.bans.contains_key(source))
        {
            self.matcher.forget(source, now, &mut ended);
        }
        self.bans = bans;
        self.say_failed(ended);
    }

    /// Lets time pass for sources that are silent.
    fn sweep(&mut self) {
        let mut ended = Vec::new();
        self.matcher.sweep(self.shared.now(), SWEEP_MAX, &mut ended);
        self.say_failed(ended);
        self.count();
    }

    /// Says of attempts that they failed, where decisions can be nothing else.
    fn say_failed(&self, ended: Vec<matcher::Decision>) {
        for decision in ended {
            if let matcher::Decision::Failed(failure) = decision {
                self.say_failure(&failure);
            }
        }
    }

    fn count(&mut self) {
        let stats = self.matcher.stats();
        self.shared.metrics.sources.set(stats.sources.into());
        self.shared.metrics.sources_limit.set(stats.limit.into());
        self.shared.metrics.count_attempts(&self.counted, &stats.attempts);
        self.counted = stats.attempts;
    }

    fn judge(&mut self, batch: &[Observation]) {
        let now = self.shared.now();
        let mut found = Vec::new();
        let mut refused = 0;
        for (position, observation) in batch.iter().enumerate() {
            if position % READ_AHEAD == 0 {
                let next = (position + READ_AHEAD).min(batch.len());
                self.matcher.read_ahead(&batch[position..next]);
            }
            if self.bans.get(&observation.source).is_some_and(|until| *until > now) {
                self.notes.banned(observation, now);
                continue;
            }
            let verdict = self.matcher.observe(observation, now, &mut found);
            self.say_progress(&verdict, observation, now);
            for decision in found.drain(..) {
                if let matcher::Decision::Complete(complete) = &decision {
                    self.notes.completed(observation, now, complete);
                }
                let Some(decision) = self.decision(decision, observation, now) else { continue };
                if let Err(TrySendError::Full(lost) | TrySendError::Closed(lost)) =
                    self.decisions.try_send(decision)
                {
                    refused += 1;
                    self.note_refused(lost);
                }
            }
            self.notes.judged(observation, now, verdict);
        }
        if refused > 0 {
            let queue = RefusedLabels { reason: "queue" };
            self.shared.metrics.refused.get_or_create(&queue).inc_by(refused);
            tracing::warn!(refused, "the store is too far behind: decisions were refused");
        }
        self.count();
        let counts = self.notes.publish(&self.shared.metrics);
        self.shared.tally().add(now, counts);
    }

    /// What is to be carried out. A source that shall be banned is ignored at once: until the store says so, the rest
    /// of its flood would ask for the same ban again and again.
    fn decision(
        &mut self,
        decision: matcher::Decision,
        observation: &Observation,
        now: Timestamp,
    ) -> Option<Decision> {
        match decision {
            matcher::Decision::Complete(complete) => Some(Decision::Open {
                door: complete.door,
                source: complete.source,
                knocked: Knocked {
                    at: complete.last,
                    uncertainty: observation.uncertainty,
                    end: self.shared.packet(complete.end),
                    packets: complete.knocks.iter().filter_map(|id| self.shared.packet(*id)).collect(),
                },
                trace: Attempt::begin(&self.shared, complete.first, now, complete.knocks),
            }),
            matcher::Decision::Ban { source, .. } if self.shared.is_management(source) => {
                tracing::debug!("a management network's source is not banned");
                None
            }
            matcher::Decision::Ban { source, misses, window } => {
                self.bans.insert(source, now + BAN_PENDING);
                let reason = format!("{misses} misses in {} s", window.as_secs());
                Some(Decision::Ban { source, reason })
            }
            matcher::Decision::Failed(failure) => {
                self.say_failure(&failure);
                None
            }
        }
    }

    /// Remembers of a complete knock that nobody had time for it.
    fn note_refused(&self, lost: Decision) {
        if let Decision::Open { door, source, knocked: Knocked { end: Some(end), .. }, .. } = lost {
            let reason = TOO_FAR_BEHIND.to_owned();
            self.shared.refused().add(Unanswered { source, door, end, reason, waits: false });
        }
    }

    /// Tells of an attempt that failed beyond its first step: watchers, and who takes traces.
    fn say_failure(&self, failure: &Failure) {
        let knocks = failure.knocks.iter().chain(&failure.wrong).copied();
        if let Some(trace) = Attempt::begin(&self.shared, failure.first, self.shared.now(), knocks) {
            trace.failed(&self.shared, failure);
        }
        if !self.shared.is_watched() {
            return;
        }
        let Failure { door, source, step, of, reason, at, wrong, .. } = failure;
        let why = match reason {
            FailReason::Banned => "its source was banned",
            FailReason::DoorGone => "its door is gone",
            FailReason::NoRoom => "there was no room to follow it",
            FailReason::TooSlow => "its time was over",
            FailReason::WrongKnock => "a wrong knock came between",
        };
        self.shared.say(pb::Event {
            door: door.to_string(),
            source: source.to_string(),
            host: wrong.map(|id| self.host(id.host)).unwrap_or_default(),
            ..wire::event(
                pb::EventKind::AttemptFailed,
                *at,
                format!("failed after step {step} of {of}: {why}"),
            )
        });
    }

    /// Tells watchers of progress beyond a first step; first steps are too many in a flood.
    fn say_progress(&self, verdict: &Verdict, observation: &Observation, now: Timestamp) {
        let Verdict::Advanced { door, step, of } = verdict else {
            return;
        };
        if *step < 2 || !self.shared.is_watched() {
            return;
        }
        self.shared.say(pb::Event {
            door: door.to_string(),
            source: observation.source.to_string(),
            host: self.host(observation.id.host),
            ..wire::event(pb::EventKind::AttemptAdvanced, now, format!("step {step} of {of}"))
        });
    }

    fn host(&self, id: HostId) -> String {
        self.shared.state().fleet.host_name(id).map(ToString::to_string).unwrap_or_default()
    }

    fn answer(&self, question: Question) {
        let (filter, answer) = match question {
            Question::Attempts { filter, answer } => (filter, answer),
            Question::Knocks { source, since, answer } => {
                let _gone = answer.send(self.notes.memory().of(source, since));
                return;
            }
        };
        let stats = self.matcher.stats();
        if filter.none {
            let _gone =
                answer.send(Attempts { attempts: Vec::new(), sources: stats.sources, limit: stats.limit });
            return;
        }
        let chosen = |attempt: &matcher::Attempt| {
            filter.door.as_ref().is_none_or(|door| attempt.door == *door)
                && filter.source.is_none_or(|source| attempt.source == source)
        };
        let found: Box<dyn Iterator<Item = matcher::Attempt>> = match filter.source {
            Some(source) => Box::new(self.matcher.attempts_of(source, self.shared.now()).into_iter()),
            None => Box::new(self.matcher.attempts(self.shared.now())),
        };
        let mut attempts: Vec<_> = found.filter(chosen).take(ATTEMPTS_MAX).collect();
        attempts.sort_by(|a, b| (&a.door, a.source).cmp(&(&b.door, b.source)));
        // Whoever asked may be gone.
        let _gone = answer.send(Attempts { attempts, sources: stats.sources, limit: stats.limit });
    }
}
