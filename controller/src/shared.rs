//! What the parts of one controller share: the store, the fleet's copy with the sessions, and the event stream.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use fleetknock_core::{host::HostName, knock::ObservationId, source::Source, time::Timestamp};
use fleetknock_proto::v1 as pb;
use fleetknock_runtime::{log::Dial, notify::Pulse};
use ipnet::IpNet;
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::Instant,
};

use crate::{
    audit::{
        Stamp,
        denials::{DENIALS_QUEUE, Denied},
        lines::Lines,
    },
    boots::Boots,
    clock::Offset,
    config::Scope,
    fleet::Fleet,
    grant,
    metrics::{Metrics, pushes::Pushes},
    recollection::Refused,
    record::{Actor, Boot, Key, Owner, Packet},
    sessions::{FleetWide, Sessions},
    status::Statuses,
    store::{Expect, Revision, Store},
    tally::Tally,
    traces::Tracing,
    trust::Trust,
};

/// Events that a watcher may lag behind before it is told that it missed some.
const EVENTS_KEPT: usize = 4_096;

/// How long a call waits for this controller's own copy to catch up with what it wrote.
const CATCH_UP: Duration = Duration::from_secs(2);

/// What is shared, as it is at first.
pub struct Parts {
    /// What all controllers share.
    pub store: Arc<dyn Store>,
    /// Names this controller to agents, peers and operators.
    pub name: HostName,
    /// Where peers reach it.
    pub address: String,
    /// The name of the fleet, by which controllers of different fleets refuse each other.
    pub fleet_name: String,
    /// What every host is told.
    pub wide: FleetWide,
    /// Networks that are never banned, beside those that the agents name.
    pub management: Vec<IpNet>,
    /// How long a ban lasts unless said otherwise.
    pub ban_for: Duration,
    /// How it is spoken to, and speaks to its peers.
    pub trust: Trust,
    /// Counters.
    pub metrics: Metrics,
    /// What this process logs.
    pub log_dial: Dial,
    /// As it was read from the store.
    pub fleet: Fleet,
}

/// Beaten by the loops without which a controller does nothing, whatever else still answers.
#[derive(Clone, Debug, Default)]
pub struct Pulses {
    /// Of the task that keeps the copy true, also while the store is away.
    pub keeper: Pulse,
    /// Of the task that follows sequences.
    pub matching: Pulse,
}

impl Pulses {
    /// All of them.
    pub fn all(&self) -> Vec<Pulse> {
        vec![self.keeper.clone(), self.matching.clone()]
    }
}

/// Every part of the controller holds one, by `Arc`.
pub struct Shared {
    /// What all controllers share.
    pub store: Arc<dyn Store>,
    /// Names this controller to agents, peers and operators.
    pub name: HostName,
    /// Where peers reach it.
    pub address: String,
    /// The name of the fleet.
    pub fleet_name: String,
    /// When this process started, by its own clock.
    pub started: Timestamp,
    /// What every host is told.
    pub wide: FleetWide,
    /// Networks that are never banned, beside those that the agents name.
    pub management: Vec<IpNet>,
    /// How long a ban lasts unless said otherwise.
    pub ban_for: Duration,
    /// How it is spoken to, and speaks to its peers.
    pub trust: Trust,
    /// Counters.
    pub metrics: Metrics,
    /// What this process logs.
    pub log_dial: Dial,
    /// Signs of life.
    pub pulses: Pulses,
    /// What is needed for traces.
    pub tracing: Tracing,
    state: Mutex<State>,
    clock: SharedClock,
    standing: watch::Sender<Standing>,
    epoch: AtomicU64,
    revision: watch::Sender<Revision>,
    rules: watch::Sender<u64>,
    members: watch::Sender<u64>,
    events: broadcast::Sender<Said>,
    denials: mpsc::Sender<Denied>,
    denied: Mutex<Option<mpsc::Receiver<Denied>>>,
    lines: OnceLock<Lines>,
    doors_from: OnceLock<Scope>,
    refused: Mutex<Refused>,
    tally: Mutex<Tally>,
}

/// The fleet's copy and what hangs on it, under one lock that is never held across an await.
#[derive(Default)]
pub struct State {
    /// What the store holds.
    pub fleet: Fleet,
    /// The agents connected here.
    pub sessions: Sessions,
    /// What they said about openings.
    pub statuses: Statuses,
    /// What they have not said anything about yet.
    pub pushes: Pushes,
    boots: Boots,
}

/// Whether this controller may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not joined yet.
    Joining,
    /// It is leaving, and does not come back.
    Leaving,
    /// Its lease holds.
    Serving {
        /// Of its key in the store.
        epoch: Revision,
        /// Until when it is safe to decide, unless the lease is renewed.
        until: Instant,
    },
    /// Its lease could not be renewed.
    Suspended,
}

/// An event, and whether only this controller knows it.
#[derive(Clone, Debug)]
pub struct Said {
    /// It comes from an agent or the matching of this controller, not from the store.
    pub own: bool,
    /// What happened.
    pub event: pb::Event,
}

/// What is added to this machine's clock to make it the fleet's.
#[derive(Default)]
struct SharedClock {
    offset_us: AtomicI64,
    uncertainty_us: AtomicU64,
}

impl State {
    /// The run of a host's agent that has this number, if it is known still.
    pub fn boot(&self, host: &HostName, number: u32) -> Option<Boot> {
        self.boots.of_number(host, number)
    }
}

impl Shared {
    /// The shared parts around a store and the fleet as it was read from it.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            store,
            name,
            address,
            fleet_name,
            wide,
            management,
            ban_for,
            trust,
            metrics,
            log_dial,
            fleet,
        } = parts;
        let (denials, denied) = mpsc::channel(DENIALS_QUEUE);
        Self {
            store,
            name,
            address,
            fleet_name,
            started: local_now(),
            wide,
            management,
            ban_for,
            trust,
            metrics,
            log_dial,
            pulses: Pulses::default(),
            tracing: Tracing::default(),
            clock: SharedClock::default(),
            standing: watch::Sender::new(Standing::Joining),
            epoch: AtomicU64::new(0),
            revision: watch::Sender::new(fleet.revision()),
            state: Mutex::new(State { fleet, ..State::default() }),
            rules: watch::Sender::new(0),
            members: watch::Sender::new(0),
            events: broadcast::Sender::new(EVENTS_KEPT),
            denials,
            denied: Mutex::new(Some(denied)),
            lines: OnceLock::new(),
            doors_from: OnceLock::new(),
            refused: Mutex::default(),
            tally: Mutex::default(),
        }
    }

    /// The fleet's time.
    pub fn now(&self) -> Timestamp {
        local_now().shifted(self.clock.offset_us.load(Ordering::Relaxed))
    }

    /// Within what the fleet's time is certain here.
    pub fn now_uncertainty(&self) -> Duration {
        Duration::from_micros(self.clock.uncertainty_us.load(Ordering::Relaxed))
    }

    /// The fleet's time minus this machine's clock.
    pub fn clock_offset_us(&self) -> i64 {
        self.clock.offset_us.load(Ordering::Relaxed)
    }

    /// Sets what is added to this machine's clock.
    pub fn set_clock(&self, offset: Offset) {
        self.clock.offset_us.store(offset.micros, Ordering::Relaxed);
        let uncertainty = u64::try_from(offset.uncertainty.as_micros()).unwrap_or(u64::MAX);
        self.clock.uncertainty_us.store(uncertainty, Ordering::Relaxed);
    }

    /// What an event that this controller writes begins with.
    pub fn stamp<'a>(&'a self, at: Timestamp, actor: Option<&'a Actor>) -> Stamp<'a> {
        Stamp { at, random: rand::random(), controller: &self.name, actor }
    }

    /// Whether this controller may decide now, and until when.
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// Says whether this controller may decide from now on. It never comes back from leaving.
    pub fn set_standing(&self, standing: Standing) {
        if let Standing::Serving { epoch, .. } = standing {
            self.epoch.store(epoch, Ordering::Relaxed);
        }
        self.standing.send_if_modified(|now| {
            let changed = *now != standing && *now != Standing::Leaving;
            if changed {
                *now = standing;
            }
            changed
        });
    }

    /// The epoch of the current or the last membership.
    pub fn epoch(&self) -> Option<Revision> {
        Some(self.epoch.load(Ordering::Relaxed)).filter(|epoch| *epoch > 0)
    }

    /// Tells when that changes.
    pub fn standings(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// What a decision expects of the store, so that it is carried out only while this controller is a member; nothing
    /// when it must not decide.
    pub fn fence(&self) -> Option<Expect> {
        match self.standing() {
            Standing::Serving { epoch, until } if Instant::now() < until => {
                Some(grant::expect(&Key::Controller(self.name.clone()), Some(epoch)))
            }
            _ => None,
        }
    }

    /// The fleet's copy. Keep it short: everything waits for this lock.
    pub fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock leaves the state whole, so a panic elsewhere does not make it wrong.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the copy is now true up to this revision.
    pub fn advance(&self, revision: Revision) {
        self.revision.send_replace(revision);
    }

    /// Waits until the copy is true up to this revision, so that a caller sees what it wrote. Gives up after
    /// two seconds: the write stands all the same.
    pub async fn caught_up(&self, revision: Revision) {
        let mut seen = self.revision.subscribe();
        let reached = seen.wait_for(|now| *now >= revision);
        let _late = tokio::time::timeout(CATCH_UP, reached).await;
    }

    /// Waits until the copy changes, at most that long.
    pub async fn moved(&self, from: Revision, at_most: Duration) {
        let mut seen = self.revision.subscribe();
        let _late = tokio::time::timeout(at_most, seen.wait_for(|now| *now > from)).await;
    }

    /// Says that doors, hosts or bans changed: the matching reads them anew.
    pub fn rules_changed(&self) {
        self.rules.send_modify(|generation| *generation += 1);
    }

    /// Tells when doors, hosts or bans changed.
    pub fn rules(&self) -> watch::Receiver<u64> {
        self.rules.subscribe()
    }

    /// Says that a controller joined or left.
    pub fn members_changed(&self) {
        self.members.send_modify(|generation| *generation += 1);
    }

    /// How often a controller has joined or left so far.
    pub fn members_generation(&self) -> u64 {
        *self.members.borrow()
    }

    /// Tells when a controller joined or left.
    pub fn members(&self) -> watch::Receiver<u64> {
        self.members.subscribe()
    }

    /// Tells whoever watches, here or through another controller, what only this one knows.
    pub fn say(&self, mut event: pb::Event) {
        event.controller = self.name.to_string();
        // Those tell watchers of what they see; they say nothing of the fleet.
        let seen = [pb::EventKind::AttemptAdvanced, pb::EventKind::AttemptFailed, pb::EventKind::Lagged];
        if !seen.contains(&event.kind()) {
            self.log(event.clone());
        }
        // An error only means that nobody watches.
        let _nobody = self.events.send(Said { own: true, event });
    }

    /// Tells whoever watches here what every controller learns from the store.
    pub fn say_of_store(&self, event: pb::Event) {
        let _nobody = self.events.send(Said { own: false, event });
    }

    /// Writes an event to this controller's audit log, if there is one.
    pub fn log(&self, event: pb::Event) {
        if let Some(lines) = self.lines.get() {
            lines.log(event);
        }
    }

    /// Keeps an audit log from now on. Once; a second one is not kept.
    pub fn log_to(&self, lines: Lines) {
        let _second = self.lines.set(lines);
    }

    /// Leaves the doors that resources of these namespaces declare to those resources from now on. Once.
    pub fn leave_doors_to(&self, scope: Scope) {
        let _second = self.doors_from.set(scope);
    }

    /// Whether a door's owner speaks for it here. One that is lost, or whose namespace nobody here reads, does not: then
    /// the door is the control API's.
    pub fn is_left_to(&self, owner: &Owner) -> bool {
        !owner.lost && self.doors_from.get().is_some_and(|scope| scope.covers(&owner.namespace))
    }

    /// Tells the audit trail who was refused. When too many wait it is only counted, as every refusal is.
    pub fn deny(&self, denied: Denied) {
        let _full = self.denials.try_send(denied);
    }

    /// Where [`deny`](Self::deny) tells it.
    pub fn denials(&self) -> mpsc::Sender<Denied> {
        self.denials.clone()
    }

    /// What comes of that; for one reader.
    pub fn denied(&self) -> Option<mpsc::Receiver<Denied>> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether somebody watches.
    pub fn is_watched(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// How many streams of events are read.
    pub fn watchers(&self) -> usize {
        self.events.receiver_count()
    }

    /// The events from now on.
    pub fn events(&self) -> broadcast::Receiver<Said> {
        self.events.subscribe()
    }

    /// What knocks became, second by second. Held for a moment once a batch, and once an overview.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Complete knocks that were not answered. Few: nothing that is fast waits for this lock.
    pub fn refused(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a run of a host's agent. Only the last few runs are known: an earlier one would count as new.
    pub fn boot(&self, host: &HostName, boot: Boot) -> u32 {
        self.state().boots.number(host, boot)
    }

    /// A packet as every controller names it; nothing when its host or the run of its agent is no longer known.
    pub fn packet(&self, id: ObservationId) -> Option<Packet> {
        let state = self.state();
        let host = state.fleet.host_name(id.host)?.clone();
        Some(Packet { boot: state.boots.of_number(&host, id.boot)?, counter: id.counter, host })
    }

    /// Whether a source lies in a network that is never banned.
    pub fn is_management(&self, source: Source) -> bool {
        let address = source.address();
        self.management.iter().any(|network| network.contains(&address))
            || self.state().fleet.management().any(|network| network.contains(&address))
    }
}

/// The time by this machine's clock.
pub fn local_now() -> Timestamp {
    Timestamp::from_micros(fleetknock_runtime::clock::now_micros())
}
