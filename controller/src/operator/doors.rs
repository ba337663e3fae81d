//! Doors that are declared as resources of a Kubernetes cluster become doors of the fleet.
//!
//! One task. While its controller is the longest-serving member and holds its lease, it watches the Doors and the secrets
//! of the namespaces that it was told, and does for each resource what `decide` says, through the function that
//! `fleetknock apply` comes to. Nothing is kept: another controller that takes over lists everything and goes on.
//!
//! ```text
//! API server ──watch──▶ mirrors ─┐
//! store ──copy of the fleet──────┼─▶ decide ─▶ the store (fenced), the finalizer, the status
//! agents' words on what they hold┘
//! ```
//!
//! Bounds: `mirror::OBJECTS_MAX` Doors and as many secrets; `AT_ONCE` resources worked on at a time; each call of the
//! API server ends within `CALL_MAX`; what fails is tried again after a second, then less and less often, at least every
//! `RETRY_MAX`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleetknock_core::door::{Door, DoorName};
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1;
use kube::{
    Client,
    api::{Api, ApiResource},
    core::DynamicObject,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::{
    decide::{Step, decide},
    enforced::Holding,
    mirror::{Mirror, Place},
    resource::{Found, Refusal, Resource, Secret},
    write::{Failure, Writer},
};
use super::crd::SECRET_TYPE;
use crate::{config::Scope, operator::metrics::Metrics, peers::Peers, shared::Shared};

mod decide;
mod enforced;
mod mirror;
mod resource;
mod status;
mod write;

/// Resources worked on at the same time.
const AT_ONCE: usize = 8;
/// How often everything is looked at when nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the agents are asked what they hold.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long a call of the API server may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// What fails is tried again at least this often.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A watch that tells nothing ends after this, and begins again: so a dead connection is noticed.
const WATCH_SECONDS: u32 = 60;
/// Steps that one look may take with one resource: finalizer, door, status, and one more.
const STEPS_MAX: usize = 4;
/// Events of a watch that are taken in before anything is done.
const EVENTS_MAX: usize = 10_000;

/// What is needed to take doors from resources.
pub struct Sync {
    /// The controller's own parts.
    pub shared: Arc<Shared>,
    /// The other controllers.
    pub peers: Arc<Peers>,
    /// The cluster's API server.
    pub client: Client,
    /// The namespaces.
    pub scope: Scope,
    /// Counters.
    pub metrics: Metrics,
}

/// A client that watches, with bounds on how long it may be silent.
///
/// # Errors
/// When its certificates cannot be used.
pub fn client(mut config: kube::Config) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(CALL_MAX);
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS)) + CALL_MAX);
    Client::try_from(config)
}

/// Takes doors from resources until the process ends.
pub async fn run(sync: Sync) {
    let Sync { shared, peers, client, scope, metrics } = sync;
    shared.leave_doors_to(scope.clone());
    let writer = Writer {
        shared: shared.clone(),
        peers: peers.clone(),
        client: client.clone(),
        metrics: metrics.clone(),
    };
    let worker = Worker { shared, peers, client, scope, metrics, writer };
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if worker.leads() {
            tracing::info!(scope = %worker.scope, "this controller takes the doors of Kubernetes");
            worker.lead().await;
            worker.metrics.forget();
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    client: Client,
    scope: Scope,
    metrics: Metrics,
    writer: Writer,
}

/// What is known while this controller leads.
struct Known {
    doors: Mirror<Resource>,
    secrets: Mirror<Secret>,
    /// The secrets may not be read.
    forbidden: bool,
    memos: BTreeMap<Place, Memo>,
    holding: Holding,
    asked: Option<Instant>,
}

/// What is remembered of a resource between two looks.
#[derive(Default)]
struct Memo {
    /// The door that it declares, as of these versions of it and of its secret.
    door: Option<(Versions, Result<Door, Refusal>)>,
    failed: Option<Failed>,
    /// What was written as its status when it had this version.
    written: Option<(String, Value)>,
    needs: enforced::Needs,
    accepted: Option<bool>,
}

type Versions = (String, Option<String>, bool);

struct Failed {
    refusal: Option<Refusal>,
    tries: u32,
    next: Instant,
}

impl Worker {
    fn leads(&self) -> bool {
        self.shared.fence().is_some() && self.shared.state().fleet.eldest() == Some(&self.shared.name)
    }

    fn doors(&self) -> Api<DynamicObject> {
        write::doors(&self.client, &self.scope)
    }

    fn secrets(&self) -> Api<DynamicObject> {
        let kind = ApiResource::erase::<v1::Secret>(&());
        match &self.scope {
            Scope::All => Api::all_with(self.client.clone(), &kind),
            Scope::Namespace(one) => Api::namespaced_with(self.client.clone(), one, &kind),
        }
    }

    async fn lead(&self) {
        loop {
            let mut known = Known {
                doors: Mirror::new(Resource::read),
                secrets: Mirror::new(Secret::read),
                forbidden: false,
                memos: BTreeMap::new(),
                holding: Holding::default(),
                asked: None,
            };
            let (mut doors, mut secrets) =
                (self.watch(self.doors(), None), self.watch(self.secrets(), Some(SECRET_TYPE)));
            let mut rules = self.shared.rules();
            let mut looks = interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !known.doors.has_room_again() && !known.secrets.has_room_again() {
                tokio::select! {
                    event = doors.next() => self.take_in(&mut known.doors, event, "doors"),
                    event = secrets.next() => self.take_in_secret(&mut known, event),
                    _ = rules.changed() => {}
                    _ = looks.tick() => {}
                }
                for _ in 0..EVENTS_MAX {
                    let Some(event) = doors.next().now_or_never() else { break };
                    self.take_in(&mut known.doors, event, "doors");
                }
                if !self.leads() {
                    return;
                }
                self.look(&mut known).await;
            }
        }
    }

    /// The watch of one kind; it begins again by itself, at first after 0.8 seconds, at the latest after 30.
    fn watch(
        &self,
        api: Api<DynamicObject>,
        kind: Option<&str>,
    ) -> impl Stream<Item = Result<watcher::Event<DynamicObject>, watcher::Error>> + Send + Unpin + use<>
    {
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let config = match kind {
            Some(kind) => config.fields(&format!("type={kind}")),
            None => config,
        };
        watcher(api, config).default_backoff().boxed()
    }

    fn take_in<T>(
        &self,
        mirror: &mut Mirror<T>,
        event: Option<Result<watcher::Event<DynamicObject>, watcher::Error>>,
        what: &str,
    ) {
        match event {
            Some(Ok(event)) => mirror.take_in(event),
            Some(Err(error)) => {
                self.metrics.errors.inc();
                let reason = write::said_of_watch(&error);
                tracing::warn!(what, reason, "cannot watch Kubernetes now; every door stays as it is");
            }
            None => {}
        }
    }

    fn take_in_secret(
        &self,
        known: &mut Known,
        event: Option<Result<watcher::Event<DynamicObject>, watcher::Error>>,
    ) {
        let refused = matches!(&event, Some(Err(error)) if write::is_forbidden(error));
        // Said once for as long as it lasts.
        if refused && std::mem::replace(&mut known.forbidden, true) {
            return;
        }
        if matches!(event, Some(Ok(watcher::Event::InitDone))) {
            known.forbidden = false;
        }
        self.take_in(&mut known.secrets, event, "secrets");
    }

    /// Looks at every resource and does what is to be done.
    async fn look(&self, known: &mut Known) {
        if !known.doors.is_listed() {
            return;
        }
        if known.asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            known.holding = Holding::of(&self.shared, &self.peers, &self.scope).await;
            known.asked = Some(Instant::now());
        }
        if known.doors.is_complete() {
            self.look_for_lost(known.doors.held()).await;
        }
        let mut memos = std::mem::take(&mut known.memos);
        let known_ = &*known;
        let work = known_.doors.held().iter().map(|(place, resource)| {
            let memo = memos.remove(place).unwrap_or_default();
            async move { (place.clone(), self.work_on(known_, resource, memo).await) }
        });
        // Collected before it runs: what borrows the memos is over then.
        let work: Vec<_> = work.collect();
        let done: BTreeMap<_, _> = stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
        let count = |wanted| done.values().filter(|memo: &&Memo| memo.accepted == Some(wanted)).count();
        self.metrics.set(count(true), count(false));
        known.memos = done;
    }

    async fn look_for_lost(&self, resources: &BTreeMap<Place, Resource>) {
        let lost = {
            let state = self.shared.state();
            let is_there = |owner: &crate::record::Owner| {
                resources.contains_key(&(owner.namespace.clone(), owner.name.clone()))
            };
            decide::lost(&state.fleet, |namespace| self.scope.covers(namespace), is_there)
        };
        for (door, owner) in lost.into_iter().take(AT_ONCE) {
            if let Err(error) = self.writer.lose(&door, &owner).await {
                tracing::warn!(%door, reason = error.message(), "cannot note that the door's resource is gone");
            }
        }
    }

    async fn work_on(&self, known: &Known, resource: &Resource, mut memo: Memo) -> Memo {
        let name = match resource.door_name(&self.scope) {
            Ok(name) => Some(name),
            Err(refusal) => {
                memo.door = Some((Versions::default(), Err(refusal)));
                None
            }
        };
        if let Some(name) = &name
            && !self.read(known, resource, name, &mut memo)
        {
            return memo;
        }
        let Some((_, door)) = &memo.door else { return memo };
        let waits = memo.failed.as_ref().is_some_and(|failed| failed.next > Instant::now());
        let outcome = match (waits, &memo.failed) {
            (true, Some(failed)) => Err(Failure { refusal: failed.refusal.clone(), text: String::new() }),
            _ => self.carry_on(resource, name.as_ref(), door).await,
        };
        let verdict = match outcome {
            Ok(None) => return Memo { failed: None, ..memo },
            Ok(Some(verdict)) => {
                memo.failed = None;
                verdict
            }
            Err(failure) => {
                if !waits {
                    self.note(resource, &mut memo, &failure);
                }
                match failure.refusal {
                    Some(refusal) => Err(refusal),
                    None => return memo,
                }
            }
        };
        memo.accepted = Some(verdict.is_ok());
        let seen = known.holding.seen(&self.shared, resource, name.as_ref(), &verdict, &mut memo.needs);
        let status = status::status(resource, &seen);
        let is_written = memo
            .written
            .as_ref()
            .is_some_and(|(version, written)| *version == resource.version && *written == status);
        if status == resource.status || is_written {
            return memo;
        }
        match self.writer.status(resource, &status).await {
            Ok(()) => memo.written = Some((resource.version.clone(), status)),
            Err(failure) => self.note(resource, &mut memo, &failure),
        }
        memo
    }

    /// Reads the door that a resource declares, unless nothing changed since. Nothing is known of it as long as its secret
    /// is not.
    fn read(&self, known: &Known, resource: &Resource, name: &DoorName, memo: &mut Memo) -> bool {
        if resource.deleting {
            // Then it does not matter what it declares.
            let refusal = Refusal::new("Deleting", "the resource is being deleted");
            let is_new = memo.door.as_ref().is_none_or(|(_, before)| *before != Err(refusal.clone()));
            if is_new {
                memo.failed = None;
                memo.door = Some((Versions::default(), Err(refusal)));
            }
            return true;
        }
        let secret = resource
            .secret()
            .and_then(|key| known.secrets.held().get(&(resource.owner.namespace.clone(), key.name)));
        let found = match (known.forbidden, known.secrets.is_listed()) {
            (true, _) => Found::Forbidden,
            (false, true) => Found::Known(secret),
            (false, false) => Found::NotYet,
        };
        let versions =
            (resource.version.clone(), secret.map(|secret| secret.version.clone()), known.forbidden);
        let is_new = memo.door.as_ref().is_none_or(|(of, _)| *of != versions);
        if is_new {
            let Some(door) = resource.door(name, found) else { return false };
            if memo.door.as_ref().is_none_or(|(_, before)| *before != door) {
                memo.failed = None;
            }
            memo.door = Some((versions, door));
        }
        true
    }

    /// Goes from step to step until there is nothing left to do but to say it; nothing when the resource goes.
    async fn carry_on(
        &self,
        resource: &Resource,
        name: Option<&DoorName>,
        door: &Result<Door, Refusal>,
    ) -> Result<Option<Result<(), Refusal>>, Failure> {
        let mut finalized = resource.is_finalized();
        for _ in 0..STEPS_MAX {
            let step = {
                let state = self.shared.state();
                let held = name.and_then(|name| state.fleet.doors().get(name));
                decide(resource, finalized, door, held)
            };
            match (step, name, door) {
                (Step::Rest(_), ..) if resource.deleting => return Ok(None),
                (Step::Rest(verdict), ..) => return Ok(Some(verdict)),
                (Step::Finalize, ..) => {
                    self.writer.finalize(resource).await?;
                    finalized = true;
                }
                (Step::Release, ..) => {
                    self.writer.release(resource).await?;
                    return Ok(None);
                }
                (Step::Withdraw, Some(name), _) if self.writer.is_defined().await? => {
                    self.writer.withdraw(resource, name).await?;
                }
                // Without the definition no resource says anything any more, and nobody has deleted this door.
                (Step::Withdraw, Some(name), _) => {
                    self.writer.lose(name, &resource.owner).await.map_err(|status| Failure::of(&status))?;
                }
                (Step::Apply(over), _, Ok(door)) => self.writer.apply(resource, door, over).await?,
                (Step::Withdraw | Step::Apply(_), ..) => return Ok(None),
            }
        }
        Err(Failure { refusal: None, text: "it changes all the time".to_owned() })
    }

    fn note(&self, resource: &Resource, memo: &mut Memo, failure: &Failure) {
        self.metrics.errors.inc();
        let tries = memo.failed.as_ref().map_or(0, |failed| failed.tries).saturating_add(1);
        let wait = Duration::from_secs(1 << tries.min(7).saturating_sub(1)).min(RETRY_MAX);
        // Once for as long as it lasts.
        if tries == 1 {
            tracing::warn!(door = %resource.owner, reason = failure.said(), "a Door of Kubernetes waits");
        }
        memo.failed = Some(Failed { refusal: failure.refusal.clone(), tries, next: Instant::now() + wait });
    }
}

/// What a definition is called that is being deleted, or not there.
const DEFINITION: &str = "doors.fleetknock.io";
