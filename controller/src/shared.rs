//! What the parts of one controller share: the store, the fleet's copy with the sessions, and the event stream.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fleetknock_core::{host::HostName, source::Source, time::Timestamp};
use fleetknock_proto::v1 as pb;
use ipnet::IpNet;
use tokio::sync::{broadcast, watch};

use crate::{
    fleet::Fleet,
    metrics::Metrics,
    sessions::{FleetWide, Sessions},
    status::Statuses,
    store::{Revision, Store},
};

/// Events that a watcher may lag behind before it is told that it missed some.
const EVENTS_KEPT: usize = 4_096;

/// How long a call waits for this controller's own copy to catch up with what it wrote.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Cheap to clone by `Arc`; every part of the controller holds one.
pub struct Shared {
    /// What all controllers share.
    pub store: Arc<dyn Store>,
    /// Names this process to agents and operators.
    pub id: String,
    /// What every host is told.
    pub wide: FleetWide,
    /// Networks that are never banned, beside those that the agents name.
    pub management: Vec<IpNet>,
    /// How long a ban lasts unless said otherwise.
    pub ban_for: Duration,
    /// Counters.
    pub metrics: Metrics,
    state: Mutex<State>,
    revision: watch::Sender<Revision>,
    rules: watch::Sender<u64>,
    events: broadcast::Sender<pb::Event>,
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
    /// The last run of each host's agent, and its number: a later run has a larger one.
    pub boots: HashMap<HostName, ([u8; 16], u32)>,
}

impl Shared {
    /// The shared parts around a store and the fleet as it was read from it.
    pub fn new(
        store: Arc<dyn Store>,
        id: String,
        wide: FleetWide,
        management: Vec<IpNet>,
        ban_for: Duration,
        metrics: Metrics,
        fleet: Fleet,
    ) -> Self {
        let revision = watch::Sender::new(fleet.revision());
        let state = Mutex::new(State { fleet, ..State::default() });
        let (rules, events) = (watch::Sender::new(0), broadcast::Sender::new(EVENTS_KEPT));
        Self { store, id, wide, management, ban_for, metrics, state, revision, rules, events }
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

    /// Tells whoever watches.
    pub fn say(&self, event: pb::Event) {
        // An error only means that nobody watches.
        let _nobody = self.events.send(event);
    }

    /// Whether somebody watches.
    pub fn is_watched(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// The events from now on.
    pub fn events(&self) -> broadcast::Receiver<pb::Event> {
        self.events.subscribe()
    }

    /// The number of a run of a host's agent. Only the last run is known: an earlier one would count as new.
    pub fn boot(&self, host: &HostName, boot: [u8; 16]) -> u32 {
        let mut state = self.state();
        let (last, number) = state.boots.entry(host.clone()).or_insert((boot, 1));
        if *last != boot {
            *last = boot;
            *number += 1;
        }
        *number
    }

    /// Whether a source lies in a network that is never banned.
    pub fn is_management(&self, source: Source) -> bool {
        let address = source.address();
        self.management.iter().any(|network| network.contains(&address))
            || self.state().fleet.management().any(|network| network.contains(&address))
    }
}

/// The time by this machine's clock.
pub fn now() -> Timestamp {
    Timestamp::from_micros(fleetknock_runtime::clock::now_micros())
}
