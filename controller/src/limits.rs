//! What one caller may ask for, so that nobody can keep a controller from the others.
//!
//! | limit                                   | value                               | who exceeds it                  |
//! |-----------------------------------------|-------------------------------------|---------------------------------|
//! | connections, handshakes                 | [`fleetknock_runtime::tls::Limits`] | makes room: its oldest one ends |
//! | calls under way on one connection       | [`CALLS_MAX`]                       | waits                           |
//! | headers of a call                       | [`HEADERS_MAX`]                     | is refused by HTTP/2 (431)      |
//! | calls taken back before they are served | [`RESETS_MAX`]                      | its connection ends (GOAWAY)    |
//! | a message of an operator                | [`REQUEST_MAX`]                     | OUT_OF_RANGE                    |
//! | a message of an agent or a controller   | 4 MiB                               | OUT_OF_RANGE                    |
//! | changes, for each user or address       | [`CHANGES`]                         | RESOURCE_EXHAUSTED              |
//! | time for one answer to an operator      | [`ANSWER_MAX`]                      | DEADLINE_EXCEEDED               |
//! | watchers, and those of one user         | [`WATCHERS_MAX`], [`WATCHERS_OF_ONE`] | RESOURCE_EXHAUSTED            |
//! | a stream that is not read               | [`told`]                            | its stream, then its connection ends |
//!
//! In plain text there are no users, and many agents have one address in a lab: what counts by caller does not then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use fleetknock_core::identity::Role;
use tokio::time::{Instant, timeout};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
};
use tower_layer::Layer;

use crate::{
    metrics::{LimitedLabels, Metrics},
    store::VALUE_MAX,
    trust::{Caller, Trust, caller::Whose, gate::least_role},
};

pub mod rate;
pub mod told;

use rate::{Rate, Rates};

/// Calls under way on one connection; the rest wait. A controller has one connection to each peer, with all its watchers.
pub const CALLS_MAX: u32 = 256;
/// Headers of one call, in bytes: a path, a token and trace context.
pub const HEADERS_MAX: u32 = 16 * 1024;
/// Calls that were taken back before they were served, waiting to be forgotten (CVE-2023-44487); h2's own value.
pub const RESETS_MAX: usize = 20;
/// A message of an operator, in bytes: more than the store takes for one record need not be read.
pub const REQUEST_MAX: usize = VALUE_MAX;
/// Changes by one user, or from one address where it is not known who calls.
pub const CHANGES: Rate = Rate { burst: 1_000, every: Duration::from_millis(20) };
/// Callers whose changes are counted apart; the others are counted together.
pub const CALLERS_MAX: usize = 4_096;
/// How long an operator's call may take; the store is waited for shorter than that.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Watchers of events at a time. Each has a stream from every peer, and those must leave room for other calls on the one
/// connection to it.
pub const WATCHERS_MAX: usize = 128;
/// Those of one user.
pub const WATCHERS_OF_ONE: usize = 16;

/// Puts the limits of callers before services; its place is behind the gate, which says who calls.
#[derive(Clone, Debug)]
pub struct LimitsLayer {
    /// None in plain text.
    changes: Option<Arc<Mutex<Rates<String>>>>,
    metrics: Metrics,
}

impl LimitsLayer {
    /// As this controller is spoken to.
    pub fn new(trust: &Trust, metrics: Metrics) -> Self {
        let counted = matches!(trust, Trust::Mutual { .. });
        let changes = counted.then(|| Arc::new(Mutex::new(Rates::new(CHANGES, CALLERS_MAX))));
        Self { changes, metrics }
    }

    /// Lets a call pass, or says when it may be made.
    fn admit<B>(&self, request: &http::Request<B>) -> Result<(), Status> {
        let Some(changes) = &self.changes else { return Ok(()) };
        if !is_change(request.uri().path()) {
            return Ok(());
        }
        let caller = Caller::of(request.extensions())?;
        let name = name(&caller);
        lock(changes).take(name.clone(), Instant::now()).map_err(|wait| {
            self.count("rate");
            let (burst, each) = (CHANGES.burst, 1_000 / CHANGES.every.as_millis());
            Status::resource_exhausted(format!(
                "{name} changes too much: at most {burst} changes at once and {each} a second; go on in {} ms",
                wait.as_millis().max(1)
            ))
        })
    }

    fn count(&self, reason: &'static str) {
        self.metrics.limited.get_or_create(&LimitedLabels { reason }).inc();
    }
}

/// Whether a call of these changes anything: what a viewer may not do.
fn is_change(path: &str) -> bool {
    match path.strip_prefix("/fleetknock.v1.").and_then(|path| path.split_once('/')) {
        Some(("ControlService", method)) => least_role(method).is_some_and(|role| role > Role::Viewer),
        Some(("EnrolmentService", _)) => true,
        _ => false,
    }
}

/// Whether it is a call that is answered once, to a person: streams of agents and peers last.
fn is_asked(path: &str) -> bool {
    let path = path.strip_prefix("/fleetknock.v1.").unwrap_or_default();
    path.starts_with("ControlService/") || path.starts_with("EnrolmentService/")
}

/// As whom somebody is counted.
fn name(caller: &Caller) -> String {
    match (&caller.who, caller.address) {
        (Whose::Known(_), _) => caller.actor().who,
        (Whose::Anybody, Some(address)) => address.ip().to_string(),
        (Whose::Anybody, None) => "somebody".to_owned(),
    }
}

impl<S> Layer<S> for LimitsLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, layer: self.clone() }
    }
}

/// The limits before services.
#[derive(Clone, Debug)]
pub struct Limited<S> {
    inner: S,
    layer: LimitsLayer,
}

impl<S> Service<http::Request<Body>> for Limited<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<http::Response<Body>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if let Err(status) = self.layer.admit(&request) {
            return Box::pin(async move { Ok(status.into_http()) });
        }
        let asked = is_asked(request.uri().path());
        let answer = self.inner.call(request);
        if !asked {
            return Box::pin(answer);
        }
        let layer = self.layer.clone();
        // The head of the answer only: a watcher's stream goes on.
        Box::pin(async move {
            timeout(ANSWER_MAX, answer).await.unwrap_or_else(|_| {
                layer.count("deadline");
                let text = format!(
                    "the controller has no answer after {ANSWER_MAX:?}, its limit; whether it was carried out is not \
                     known: look, then try again"
                );
                Ok(Status::deadline_exceeded(text).into_http())
            })
        })
    }
}

/// The watchers that there are.
#[derive(Debug, Default)]
pub struct Watchers {
    held: Arc<Mutex<HashMap<String, usize>>>,
}

/// A watcher's place, free again when it is dropped.
#[derive(Debug)]
pub struct WatcherPlace {
    held: Arc<Mutex<HashMap<String, usize>>>,
    name: String,
}

impl Watchers {
    /// A place for one more.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when all are taken, or this user has as many as one may have.
    pub fn enter(&self, caller: &Caller, metrics: &Metrics) -> Result<WatcherPlace, Status> {
        let name = name(caller);
        let mut held = lock(&self.held);
        let own = held.get(&name).copied().unwrap_or_default();
        let refusal = if held.values().sum::<usize>() >= WATCHERS_MAX {
            Some(format!(
                "{WATCHERS_MAX} watchers are connected to this controller, the limit; ask another one"
            ))
        } else if matches!(caller.who, Whose::Known(_)) && own >= WATCHERS_OF_ONE {
            Some(format!(
                "{name} has {own} watchers at this controller, and one may have {WATCHERS_OF_ONE}; end one of them"
            ))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            metrics.limited.get_or_create(&LimitedLabels { reason: "watchers" }).inc();
            return Err(Status::resource_exhausted(refusal));
        }
        held.insert(name.clone(), own + 1);
        Ok(WatcherPlace { held: self.held.clone(), name })
    }
}

impl Drop for WatcherPlace {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(own) = held.get_mut(&self.name) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.name);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
