//! Whoever is refused at the gate or in a handshake: counted, logged and told at a bounded rate, and answered late when it
//! happens often.
//!
//! A call is judged before anything else, which costs two hashes at the most, so that somebody with a good certificate or
//! token is never held up, also from behind the same address as one who guesses. What waits is the answer to a call that was
//! refused: [`ANSWER_AFTER`], once a network was refused more than [`FEW`](super::tally::FEW) times in a minute. Answers
//! wait in [`WAITING_MAX`] places; above that they are RESOURCE_EXHAUSTED at once. This does not keep secrets from being
//! guessed, their 256 bits do; it keeps a flood from being worth anything.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fleetknock_core::source::Source;
use fleetknock_proto::v1 as pb;
use fleetknock_runtime::tls::{self, network};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{MissedTickBehavior, interval},
};
use tonic::Status;

use super::{
    gate::{Reason, Refusal},
    tally::{Tally, Telling},
};
use crate::{
    audit,
    metrics::{DeniedLabels, FailedLabels},
    record::Actor,
    shared::Shared,
};

#[cfg(test)]
mod tests;

/// How long a refused call is kept waiting.
pub const ANSWER_AFTER: Duration = Duration::from_secs(1);
/// Refused calls that wait at the same time, a few hundred bytes each.
pub const WAITING_MAX: usize = 256;
/// Tellings that wait for the store. The tally lets a burst of 20 through; what comes when it is full is in the log only.
const TELLINGS_MAX: usize = 128;
/// How often what is due is looked for.
const TICK: Duration = Duration::from_secs(5);
/// Between two lines of the log about refused calls.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Notes refusals. Cloning shares it.
#[derive(Clone)]
pub struct Refusals(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// Who could not show who it is, by network.
    failed: Mutex<Tally<IpAddr, Failed>>,
    /// Who is known and tried what it may not, by name.
    denied: Mutex<Tally<String, Denied>>,
    said: Mutex<(Option<Instant>, u64)>,
    waiting: Arc<Semaphore>,
    tellings: mpsc::Sender<Word>,
}

#[derive(Clone)]
struct Failed {
    network: IpAddr,
    reason: String,
}

#[derive(Clone)]
struct Denied {
    actor: Actor,
    reason: String,
}

/// What is written to the audit trail.
struct Word {
    kind: pb::EventKind,
    source: Option<Source>,
    actor: Option<Actor>,
    message: String,
}

/// What becomes of a refused call.
#[derive(Debug)]
pub enum Answer {
    /// It is answered.
    Now,
    /// It is answered after [`ANSWER_AFTER`], and holds its place until then.
    Later(OwnedSemaphorePermit),
    /// Too many wait already.
    Exhausted(Status),
}

impl Refusals {
    /// Nobody was refused yet; `run` on the second part tells of those who will be.
    pub fn new(shared: Arc<Shared>) -> (Self, Teller) {
        let (tellings, told) = mpsc::channel(TELLINGS_MAX);
        let now = Instant::now();
        let refusals = Self(Arc::new(Inner {
            shared,
            failed: Mutex::new(Tally::new(now)),
            denied: Mutex::new(Tally::new(now)),
            said: Mutex::new((None, 0)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            tellings,
        }));
        (refusals.clone(), Teller { refusals, told })
    }

    /// Notes a refused call, and says when it is answered. `call` is what came as its path, anything.
    pub fn note(&self, refusal: &Refusal, call: &str, address: Option<SocketAddr>) -> Answer {
        let metrics = &self.0.shared.metrics;
        let call: String = call.chars().take(100).filter(|c| !c.is_control()).collect();
        self.log(&call, refusal.status.message(), address);
        match &refusal.reason {
            Reason::Denied { actor } => {
                metrics.denied.get_or_create(&DeniedLabels { reason: "denied" }).inc();
                let denied = Denied { actor: (**actor).clone(), reason: refusal.status.message().to_owned() };
                let noted = lock(&self.0.denied).note(actor.who.clone(), denied, Instant::now());
                self.tell(noted.tell.map(of_denied));
                Answer::Now
            }
            Reason::NoSuchCall => {
                metrics.denied.get_or_create(&DeniedLabels { reason: "denied" }).inc();
                Answer::Now
            }
            Reason::Unknown { why } => {
                metrics.denied.get_or_create(&DeniedLabels { reason: "unknown" }).inc();
                self.failed(why, refusal.status.message(), address)
            }
        }
    }

    /// Notes a certificate that was refused in the handshake.
    pub fn note_certificate(&self, refusal: &tls::Refusal) {
        // The handshake is over, and is logged where it failed: nothing is to be answered later.
        let _ = self.failed("certificate", &refusal.reason, Some(refusal.address));
    }

    fn failed(&self, why: &'static str, reason: &str, address: Option<SocketAddr>) -> Answer {
        self.0.shared.metrics.authentication_failures.get_or_create(&FailedLabels { reason: why }).inc();
        // Only a test's connection has no address.
        let Some(address) = address else { return Answer::Now };
        let network = network(address.ip());
        let failed = Failed { network, reason: reason.to_owned() };
        let noted = lock(&self.0.failed).note(network, failed, Instant::now());
        self.tell(noted.tell.map(of_failed));
        if !noted.often {
            return Answer::Now;
        }
        match self.0.waiting.clone().try_acquire_owned() {
            Ok(permit) => Answer::Later(permit),
            Err(_) => Answer::Exhausted(Status::resource_exhausted(
                "too many calls fail to show who makes them; try again later",
            )),
        }
    }

    fn tell(&self, word: Option<Word>) {
        if let Some(word) = word {
            tracing::warn!(event = audit::code(word.kind), "{}", word.message);
            // When it is full the store has been away for minutes, and the log has the line.
            let _full = self.0.tellings.try_send(word);
        }
    }

    fn log(&self, call: &str, reason: &str, address: Option<SocketAddr>) {
        let mut said = lock(&self.0.said);
        if said.0.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            said.1 += 1;
            return;
        }
        let unsaid = std::mem::take(&mut said.1);
        said.0 = Some(Instant::now());
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        tracing::info!(address, call, reason, unsaid, "a call is refused");
    }
}

/// Tells of refusals, until it is dropped.
pub struct Teller {
    refusals: Refusals,
    told: mpsc::Receiver<Word>,
}

impl Teller {
    /// Never ends.
    pub async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let inner = self.refusals.0.clone();
        loop {
            tokio::select! {
                Some(word) = self.told.recv() => write(&inner.shared, &word).await,
                _ = ticks.tick() => {
                    let failed = lock(&inner.failed).due(Instant::now());
                    let denied = lock(&inner.denied).due(Instant::now());
                    let words = failed.into_iter().map(of_failed).chain(denied.into_iter().map(of_denied));
                    words.for_each(|word| self.refusals.tell(Some(word)));
                }
            }
        }
    }
}

/// Into the audit trail, from which all watchers hear of it.
async fn write(shared: &Shared, word: &Word) {
    let written = audit::write(shared, |at| {
        let event = audit::entry(word.kind, shared.stamp(at, word.actor.as_ref()), word.message.clone());
        match word.source {
            Some(source) => event.about_source(source),
            None => event,
        }
    });
    if let Err(error) = written.await {
        tracing::warn!(%error, event = audit::code(word.kind), "an event is not in the audit trail");
    }
}

fn of_failed(telling: Telling<Failed>) -> Word {
    let Telling { what: Failed { network, reason }, times, others } = telling;
    let from = from(network, others);
    Word {
        kind: pb::EventKind::AuthenticationFailed,
        source: (others <= 1).then(|| network.to_string().parse().ok()).flatten(),
        actor: None,
        message: format!("{from} could not show who it is{}: {reason}", times_text(times)),
    }
}

fn of_denied(telling: Telling<Denied>) -> Word {
    let Telling { what: Denied { actor, reason }, times, others } = telling;
    let others = if others > 1 { format!(" and {} others", others - 1) } else { String::new() };
    let message = format!("{}{others} tried what it may not{}: {reason}", actor.who, times_text(times));
    Word { kind: pb::EventKind::CallDenied, source: None, actor: Some(actor), message }
}

/// What is under these locks is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn from(network: IpAddr, others: usize) -> String {
    let wide = if network.is_ipv6() { "/64" } else { "" };
    match others {
        0 | 1 => format!("somebody at {network}{wide}"),
        _ => format!("somebody at {network}{wide} and {} other networks", others - 1),
    }
}

fn times_text(times: u64) -> String {
    if times > 1 { format!(", {times} times") } else { String::new() }
}
