//! The other controllers: who follows which source, and the way of knocks to whoever does.
//!
//! ```text
//!   agent_api ──knocks──▶ ┌───────┐ ──here──▶ matching
//!   service ───knocks───▶ │ route │
//!   (from a peer)         └───────┘ ──away──▶ queue ──▶ link ──▶ the peer's service
//! ```
//!
//! Tasks: `run` follows who is a member and keeps one `link` task per peer; `resend` asks the agents for their windows
//! when sources moved. Nothing waits for a peer that does not answer: its knocks are dropped and counted, and the agents
//! send them again as soon as they have somewhere to go.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fleetknock_core::{host::HostName, knock::Observation, source::Source, time::Timestamp};
use fleetknock_proto::v1::{self as pb, peer_service_client::PeerServiceClient};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use self::{
    link::Peer,
    route::{Link, Route, Router},
};
use crate::{
    clock::{Offset, fleet::FleetClock},
    matching::{self, Stopped},
    record::Boot,
    shared::{Shared, local_now},
    store::Revision,
    wire,
};

pub(crate) mod ask;
pub(crate) mod known;
mod link;
pub mod route;
pub mod service;

/// Batches that wait for one peer, each of at most 4,096 observations.
const QUEUE: usize = 64;
/// How long an agent's stream is not read while a peer that is up does not take more. After that its knocks are dropped.
const SLOW_MAX: Duration = Duration::from_secs(1);
/// How long its knocks are dropped at once then, when its queue is full.
const CONGESTED_FOR: Duration = Duration::from_secs(2);
/// Sources often move several times in a row, as one controller sees a peer's end, and then its lease's.
const RESEND_GATHER: Duration = Duration::from_millis(20);
/// The agents are asked for their windows at most this often.
const RESEND_EVERY: Duration = Duration::from_millis(500);
/// When knocks were dropped because a peer was slow, the agents are asked for them after this.
const RESEND_AFTER_SLOW: Duration = Duration::from_secs(2);

/// Knocks of one host's agent on their way to whoever follows their sources.
#[derive(Clone, Debug)]
pub struct Reported {
    /// Whose agent saw them.
    pub host: HostName,
    /// In which run.
    pub boot: Boot,
    /// In capture order, in the fleet's time, all with the same uncertainty.
    pub observations: Vec<Observation>,
}

/// What is on its way to a peer.
#[derive(Debug)]
struct Outgoing {
    hops: u32,
    /// When it came.
    received: Timestamp,
    reported: Reported,
}

/// The same, and where to.
struct Away {
    peer: HostName,
    queue: mpsc::Sender<Outgoing>,
    outgoing: Outgoing,
}

/// All peers of one controller.
pub struct Peers {
    shared: Arc<Shared>,
    matching: matching::Handle,
    table: Mutex<Table>,
    moved: Notify,
    lost: Notify,
}

struct Table {
    router: Router,
    peers: BTreeMap<HostName, Entry>,
    clock: FleetClock,
    /// Which change of the members was taken in last.
    generation: Option<u64>,
}

struct Entry {
    epoch: Revision,
    queue: mpsc::Sender<Outgoing>,
    stop: CancellationToken,
    channel: Option<Channel>,
    status: Status,
    /// When it was last found too slow.
    congested: Option<Instant>,
}

/// How it stands with a peer, for operators.
#[derive(Clone, Debug)]
pub struct Status {
    /// How it can be reached.
    pub link: Link,
    /// Since when.
    pub since: Timestamp,
    /// Why it is not up.
    pub reason: String,
    /// Knocks forwarded to it.
    pub forwarded: u64,
    /// Knocks that could not be.
    pub dropped: u64,
}

impl Peers {
    /// No peers yet; `run` finds them.
    pub fn new(shared: Arc<Shared>, matching: matching::Handle) -> Arc<Self> {
        let table = Table {
            router: Router::new(shared.name.clone()),
            peers: BTreeMap::new(),
            clock: FleetClock::new(),
            generation: None,
        };
        Arc::new(Self {
            shared,
            matching,
            table: Mutex::new(table),
            moved: Notify::new(),
            lost: Notify::new(),
        })
    }

    /// Brings knocks that were forwarded so often to whoever follows their sources.
    ///
    /// # Errors
    /// When the matching has stopped.
    pub async fn observe(self: &Arc<Self>, reported: Reported, hops: u32) -> Result<(), Stopped> {
        let (here, away) = self.split(reported, hops);
        for away in away {
            self.forward(away).await;
        }
        if here.is_empty() { Ok(()) } else { self.matching.observe(here).await }
    }

    /// Whether this controller follows a source.
    pub fn is_here(&self, source: Source) -> bool {
        self.table().router.is_here(source)
    }

    /// How it stands with each peer.
    pub fn statuses(&self) -> BTreeMap<HostName, Status> {
        self.table().peers.iter().map(|(name, entry)| (name.clone(), entry.status.clone())).collect()
    }

    /// A client of each peer; nothing for one that cannot be reached.
    pub fn clients(&self) -> BTreeMap<HostName, Option<PeerServiceClient<Channel>>> {
        let client = |entry: &Entry| {
            let channel = entry.channel.clone().filter(|_| entry.status.link == Link::Up)?;
            Some(link::client(channel))
        };
        self.table().peers.iter().map(|(name, entry)| (name.clone(), client(entry))).collect()
    }

    /// Whose clock this controller follows; nothing when it leads.
    pub fn clock_leader(&self) -> Option<HostName> {
        self.table().clock.leader().cloned()
    }

    /// Keeps the links, until the process ends.
    pub async fn run(self: Arc<Self>) {
        let mut members = self.shared.members();
        let resending = tokio::spawn(self.clone().resend());
        let _ends_with_this = AbortOnDrop(resending);
        loop {
            members.borrow_and_update();
            self.follow_members();
            self.follow_clock();
            if members.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the oldest of the other members has been measured, so that this controller does not decide by a
    /// clock that nobody shares. Gives up after that long.
    pub async fn clock_measured(&self, at_most: Duration) {
        let measured = async {
            while self.shared.state().fleet.members().keys().any(|name| *name != self.shared.name)
                && self.clock_leader().is_none()
            {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(at_most, measured).await.is_err() {
            tracing::warn!("no other controller answers; this one's own clock is taken for the fleet's");
        }
    }

    fn split(self: &Arc<Self>, reported: Reported, hops: u32) -> (Vec<Observation>, Vec<Away>) {
        // Whoever forwarded these may have waited for the copy to know of a member, which is of no use unless the
        // routes do.
        let generation = self.table().generation;
        if generation != Some(self.shared.members_generation()) {
            self.follow_members();
        }
        let table = self.table();
        if table.router.is_alone() {
            return (reported.observations, Vec::new());
        }
        let received = self.shared.now();
        let Reported { host, boot, observations } = reported;
        let mut here = Vec::new();
        let mut away: BTreeMap<&HostName, Vec<Observation>> = BTreeMap::new();
        for observation in observations {
            match table.router.route(observation.source, hops) {
                Route::Here => here.push(observation),
                Route::To(name) => away.entry(name).or_default().push(observation),
            }
        }
        let away = away.into_iter().filter_map(|(name, observations)| {
            let queue = table.peers.get(name)?.queue.clone();
            let reported = Reported { host: host.clone(), boot, observations };
            Some(Away {
                peer: name.clone(),
                queue,
                outgoing: Outgoing { hops: hops + 1, received, reported },
            })
        });
        (here, away.collect())
    }

    async fn forward(&self, away: Away) {
        let Away { peer, queue, outgoing } = away;
        let count = outgoing.reported.observations.len() as u64;
        let outgoing = match queue.try_send(outgoing) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(outgoing)) if !self.is_congested(&peer) => outgoing,
            Err(_) => {
                self.dropped(&peer, count);
                self.lost.notify_one();
                return;
            }
        };
        // The agent's stream is not read meanwhile, and slows down the agent.
        if timeout(SLOW_MAX, queue.send(outgoing)).await.is_err() {
            tracing::debug!(%peer, "a peer does not take knocks as fast as they come");
            if let Some(entry) = self.table().peers.get_mut(&peer) {
                entry.congested = Some(Instant::now());
            }
            self.dropped(&peer, count);
            self.lost.notify_one();
        }
    }

    /// How each peer can be reached.
    pub fn links(&self) -> Vec<Link> {
        self.table().peers.values().map(|entry| entry.status.link).collect()
    }

    /// Whether nobody shall wait for this peer just now: others' knocks come on the same agents' streams.
    fn is_congested(&self, name: &HostName) -> bool {
        let table = self.table();
        let since = table.peers.get(name).and_then(|entry| entry.congested);
        since.is_some_and(|since| since.elapsed() < CONGESTED_FOR)
    }

    /// Counts what could not be forwarded. The agents still have it.
    fn dropped(&self, name: &HostName, count: u64) {
        self.shared.metrics.forward_dropped.inc_by(count);
        if let Some(entry) = self.table().peers.get_mut(name) {
            entry.status.dropped += count;
        }
    }

    fn forwarded(&self, name: &HostName, count: u64) {
        self.shared.metrics.forwarded.inc_by(count);
        if let Some(entry) = self.table().peers.get_mut(name) {
            entry.status.forwarded += count;
        }
    }

    /// Takes in who is a member: begins and ends links.
    fn follow_members(self: &Arc<Self>) {
        // First the table: of two who take in the members at once, the later one must have looked later.
        let mut table = self.table();
        table.generation = Some(self.shared.members_generation());
        let members: BTreeMap<_, _> = {
            let state = self.shared.state();
            let members = state.fleet.members().iter();
            members.map(|(name, held)| (name.clone(), (held.revision, held.record.address.clone()))).collect()
        };
        let moved = table.router.set_members(members.iter().map(|(name, (epoch, _))| (name.clone(), *epoch)));
        table.peers.retain(|name, entry| {
            let stays = members.get(name).is_some_and(|(epoch, _)| *epoch == entry.epoch);
            if !stays {
                entry.stop.cancel();
            }
            stays
        });
        for (name, (epoch, address)) in members {
            if name == self.shared.name || table.peers.contains_key(&name) {
                continue;
            }
            let (queue, outgoing) = mpsc::channel(QUEUE);
            let stop = CancellationToken::new();
            let status = Status {
                link: Link::Connecting,
                since: self.shared.now(),
                reason: String::new(),
                forwarded: 0,
                dropped: 0,
            };
            table.peers.insert(
                name.clone(),
                Entry { epoch, queue, stop: stop.clone(), channel: None, status, congested: None },
            );
            let peer = Peer { name, epoch, address };
            tokio::spawn(link::run(self.clone(), peer, outgoing, stop));
        }
        drop(table);
        if moved {
            self.moved.notify_one();
        }
    }

    /// Takes in how a peer can be reached now.
    fn link_changed(&self, peer: &Peer, link: Link, channel: Option<Channel>, reason: &str) {
        let now = self.shared.now();
        let mut table = self.table();
        let moved = table.router.set_link(&peer.name, peer.epoch, link);
        let Some(entry) = table.peers.get_mut(&peer.name).filter(|entry| entry.epoch == peer.epoch) else {
            return;
        };
        entry.channel = channel;
        let before = entry.status.link;
        reason.clone_into(&mut entry.status.reason);
        if before != link {
            (entry.status.link, entry.status.since) = (link, now);
        }
        drop(table);
        if moved {
            self.moved.notify_one();
        }
        self.say_link(peer, before, link, reason, now);
    }

    fn say_link(&self, peer: &Peer, before: Link, link: Link, reason: &str, now: Timestamp) {
        let (kind, message) = match (before, link) {
            (Link::Up, Link::Cut | Link::Dead) | (Link::Connecting, Link::Cut | Link::Dead) => {
                tracing::warn!(peer = %peer.name, reason, "a controller cannot be reached");
                (pb::EventKind::PeerLost, format!("controller {} cannot be reached: {reason}", peer.name))
            }
            (Link::Cut | Link::Dead, Link::Up) => {
                tracing::info!(peer = %peer.name, "a controller can be reached again");
                (pb::EventKind::PeerBack, format!("controller {} can be reached again", peer.name))
            }
            (_, Link::Up) => {
                tracing::info!(peer = %peer.name, "a controller can be reached");
                return;
            }
            _ => return,
        };
        self.shared.say(wire::event(kind, now, message));
    }

    /// Takes in a peer's fleet time minus this machine's clock.
    fn clock_of(&self, peer: &Peer, offset: Offset) {
        self.table().clock.measured(peer.name.clone(), offset, local_now());
        self.follow_clock();
    }

    /// Follows the clock of the oldest member that can be measured.
    fn follow_clock(&self) {
        let at = local_now();
        let members: Vec<_> = {
            let state = self.shared.state();
            state.fleet.members().iter().map(|(name, held)| (name.clone(), held.revision)).collect()
        };
        let own = members.iter().find(|(name, _)| *name == self.shared.name).map(|(_, epoch)| *epoch);
        let mut table = self.table();
        table.clock.follow(members.iter().map(|(name, epoch)| (name, *epoch)), own, at);
        let offset = table.clock.offset(at);
        drop(table);
        self.shared.set_clock(offset);
    }

    /// Asks the agents for their windows whenever sources moved, or knocks were lost on the way.
    async fn resend(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.moved.notified() => sleep(RESEND_GATHER).await,
                () = self.lost.notified() => sleep(RESEND_AFTER_SLOW).await,
            }
            self.shared.metrics.resends.inc();
            self.shared.state().sessions.resend();
            sleep(RESEND_EVERY).await;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change under the lock leaves the table whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
