//! Whoever is refused at the gate or in a handshake: counted, logged at a bounded rate, told to the audit trail, and answered
//! late when it happens often.
//!
//! A call is judged before anything else, which costs two hashes at the most, so that somebody with a good certificate or
//! token is never held up, also from behind the same address as one who guesses. What waits is the answer to a call that was
//! refused: [`ANSWER_AFTER`], once a network was refused more than [`FEW`] times in a minute. Answers
//! wait in [`WAITING_MAX`] places; above that they are RESOURCE_EXHAUSTED at once. This does not keep secrets from being
//! guessed, their 256 bits do; it keeps a flood from being worth anything.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fleetknock_proto::v1 as pb;
use fleetknock_runtime::tls::{self, network};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tonic::Status;

use super::gate::{Reason, Refusal};
use crate::{
    audit::denials::Denied,
    limits::rate::{Rate, Rates},
    metrics::{DeniedLabels, FailedLabels, Metrics},
};

#[cfg(test)]
mod tests;

/// Failures of one network within a minute that are answered at once.
pub const FEW: u32 = 5;
const FAILURES: Rate = Rate { burst: FEW, every: Duration::from_secs(60 / FEW as u64) };
/// Networks that are told apart; when there are as many, all others count as one.
const NETWORKS_MAX: usize = 4_096;
/// How long a refused call is kept waiting.
pub const ANSWER_AFTER: Duration = Duration::from_secs(1);
/// Refused calls that wait at the same time, a few hundred bytes each.
pub const WAITING_MAX: usize = 256;
/// Between two lines of the log about refused calls.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Notes refusals. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Refusals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    metrics: Metrics,
    denials: mpsc::Sender<Denied>,
    failures: Mutex<Rates<IpAddr>>,
    said: Mutex<(Option<Instant>, u64)>,
    waiting: Arc<Semaphore>,
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
    /// Nobody was refused yet. `denials` tells the audit trail.
    pub fn new(metrics: Metrics, denials: mpsc::Sender<Denied>) -> Self {
        Self(Arc::new(Inner {
            metrics,
            denials,
            failures: Mutex::new(Rates::new(FAILURES, NETWORKS_MAX)),
            said: Mutex::default(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }))
    }

    /// Notes a refused call, and says when it is answered. `call` is what came as its path, anything.
    pub fn note(&self, refusal: &Refusal, call: &str, address: Option<SocketAddr>) -> Answer {
        let metrics = &self.0.metrics;
        let call: String = call.chars().take(100).filter(|c| !c.is_control()).collect();
        let why = refusal.status.message();
        self.log(&call, why, address);
        match &refusal.reason {
            Reason::Denied { actor } => {
                metrics.denied.get_or_create(&DeniedLabels { reason: "denied" }).inc();
                let message = format!("the call {call} was refused: {why}");
                self.tell(Denied {
                    kind: pb::EventKind::CallDenied,
                    actor: (**actor).clone(),
                    host: None,
                    message,
                });
                Answer::Now
            }
            Reason::NoSuchCall => {
                metrics.denied.get_or_create(&DeniedLabels { reason: "denied" }).inc();
                Answer::Now
            }
            Reason::Unknown { why: label } => {
                metrics.denied.get_or_create(&DeniedLabels { reason: "unknown" }).inc();
                self.failed(label, format!("the call {call} was refused: {why}"), address)
            }
        }
    }

    /// Notes a certificate that was refused in the handshake.
    pub fn note_certificate(&self, refusal: &tls::Refusal) {
        let message = format!("a certificate was refused: {}", refusal.reason);
        // The handshake is over, and is logged where it failed: nothing is to be answered later.
        let _ = self.failed("certificate", message, Some(refusal.address));
    }

    fn failed(&self, label: &'static str, message: String, address: Option<SocketAddr>) -> Answer {
        self.0.metrics.authentication_failures.get_or_create(&FailedLabels { reason: label }).inc();
        // Only a test's connection has no address.
        let Some(address) = address else { return Answer::Now };
        self.tell(Denied::unknown(
            pb::EventKind::AuthenticationFailed,
            "nothing",
            address.to_string(),
            message,
        ));
        if lock(&self.0.failures).take(network(address.ip()), Instant::now()).is_ok() {
            return Answer::Now;
        }
        match self.0.waiting.clone().try_acquire_owned() {
            Ok(permit) => Answer::Later(permit),
            Err(_) => Answer::Exhausted(Status::resource_exhausted(
                "too many calls fail to show who makes them; try again later",
            )),
        }
    }

    fn tell(&self, denied: Denied) {
        // When too many wait it is counted all the same.
        let _full = self.0.denials.try_send(denied);
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

/// What is under these locks is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
