//! The stream of events: this controller's, and what only its peers see.
//!
//! One task per watcher. When the watcher does not read, the task waits for it; meanwhile the bounded buffers behind it
//! fill, here and at the peers, and whoever owns a buffer that ran over says how much is missing. It does not wait for
//! ever: see [`told`](crate::limits::told).

use std::{pin::Pin, sync::Arc, time::Duration};

use fleetknock_core::host::HostName;
use fleetknock_proto::v1 as pb;
use fleetknock_runtime::tls::Line;
use futures::{Stream, StreamExt, future::join_all, stream};
use tokio::{
    sync::mpsc::{self, error::SendTimeoutError},
    time::{sleep, timeout},
};
use tokio_stream::{
    StreamMap,
    wrappers::{BroadcastStream, errors::BroadcastStreamRecvError},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{door_name, optional, source};
use crate::{
    limits::{
        WatcherPlace,
        told::{TAKE_MAX, Told},
    },
    metrics::LimitedLabels,
    peers::{Peers, ask::ANSWER_MAX, route::Link},
    shared::{Said, Shared},
    wire,
};

/// Events on their way to one watcher.
const OUTBOUND: usize = 64;
/// How often it is looked whether a peer's silent stream still is one, and how long to wait before it is begun anew.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(250);

pub(super) type Events = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

/// Whose events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those of the store as well.
    All,
    /// Those that only this controller sees.
    Own,
}

/// Which events.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    door: Option<String>,
    source: Option<String>,
}

impl Chosen {
    pub(crate) fn parse(request: &pb::WatchEventsRequest) -> Result<Self, Status> {
        Ok(Self {
            door: optional("door", &request.door, door_name)?.map(|door| door.to_string()),
            source: optional("source", &request.source, source)?.map(|source| source.to_string()),
        })
    }

    fn has(&self, event: &pb::Event) -> bool {
        self.door.as_ref().is_none_or(|door| event.door == *door)
            && self.source.as_ref().is_none_or(|source| event.source == *source)
    }

    fn request(&self) -> pb::WatchEventsRequest {
        pb::WatchEventsRequest {
            door: self.door.clone().unwrap_or_default(),
            source: self.source.clone().unwrap_or_default(),
        }
    }
}

/// This controller's events from now on. A reader that is too slow is told how many it missed.
pub(crate) fn here(
    shared: Arc<Shared>,
    chosen: Chosen,
    which: Which,
) -> impl Stream<Item = pb::Event> + Send + Unpin {
    BroadcastStream::new(shared.events()).filter_map(move |next| {
        std::future::ready(match next {
            Ok(Said { own, event }) => (chosen.has(&event) && (own || which == Which::All)).then_some(event),
            Err(BroadcastStreamRecvError::Lagged(missed)) => {
                let message = format!("{missed} events were missed: they came faster than they were read");
                Some(missing(&shared, &shared.name, message))
            }
        })
    })
}

fn missing(shared: &Shared, controller: &HostName, message: String) -> pb::Event {
    pb::Event {
        controller: controller.to_string(),
        ..wire::event(pb::EventKind::Lagged, shared.now(), message)
    }
}

/// Who watches.
pub(super) struct Watcher {
    /// Free again when nothing is told any more.
    pub(super) place: WatcherPlace,
    /// The connection, to cut it when nothing is read.
    pub(super) line: Option<Line>,
    /// Cancelled when this controller leaves.
    pub(super) stop: CancellationToken,
}

/// All events of the fleet, until the watcher or this controller leaves, or the watcher does not read. Returns when the peers that can be reached have
/// begun to tell theirs.
pub(super) async fn watch(
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    request: pb::WatchEventsRequest,
    watcher: Watcher,
) -> Result<Events, Status> {
    let chosen = Chosen::parse(&request)?;
    let here = here(shared.clone(), chosen.clone(), Which::All);
    let mut members = shared.members();
    members.borrow_and_update();
    let begun = others(&shared).into_iter().map(|name| {
        let mut peer = Peer::new(&shared, &peers, &chosen, name.clone());
        async move {
            peer.begin().await;
            (name, peer.events())
        }
    });
    let mut elsewhere: StreamMap<HostName, PeerEvents> = join_all(begun).await.into_iter().collect();

    let (out, events) = mpsc::channel(OUTBOUND);
    let (told, end) = Told::new(events);
    let metrics = shared.metrics.clone();
    let merging = async move {
        let mut here = here;
        loop {
            let event = tokio::select! {
                () = out.closed() => return None,
                changed = members.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    follow(&mut elsewhere, &shared, &peers, &chosen);
                    continue;
                }
                Some(event) = here.next() => event,
                Some((_, event)) = elsewhere.next(), if !elsewhere.is_empty() => event,
            };
            match out.send_timeout(Ok(event), TAKE_MAX).await {
                Ok(()) => {}
                Err(SendTimeoutError::Closed(_)) => return None,
                Err(SendTimeoutError::Timeout(_)) => {
                    let text = format!(
                        "no event was taken for {TAKE_MAX:?}, the limit; watch again, and read faster"
                    );
                    return Some(Status::resource_exhausted(text));
                }
            }
        }
    };
    tokio::spawn(async move {
        let Watcher { place, line, stop } = watcher;
        let status = stop.run_until_cancelled_owned(merging).await.flatten();
        if status.is_some() {
            metrics.limited.get_or_create(&LimitedLabels { reason: "slow_watcher" }).inc();
        }
        end.say(status, line.as_ref()).await;
        drop(place);
    });
    Ok(Box::pin(told))
}

fn others(shared: &Shared) -> Vec<HostName> {
    let state = shared.state();
    state.fleet.members().keys().filter(|name| **name != shared.name).cloned().collect()
}

/// Begins to hear whoever joined, and lets go whoever left.
fn follow(
    elsewhere: &mut StreamMap<HostName, PeerEvents>,
    shared: &Arc<Shared>,
    peers: &Arc<Peers>,
    chosen: &Chosen,
) {
    let names = others(shared);
    let gone: Vec<_> = elsewhere.keys().filter(|name| !names.contains(name)).cloned().collect();
    for name in gone {
        elsewhere.remove(&name);
    }
    for name in names {
        if !elsewhere.contains_key(&name) {
            elsewhere.insert(name.clone(), Peer::new(shared, peers, chosen, name).events());
        }
    }
}

type PeerEvents = Pin<Box<dyn Stream<Item = pb::Event> + Send>>;

/// What one peer sees, for as long as this is polled: begun anew whenever it ends.
struct Peer {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    name: HostName,
    request: pb::WatchEventsRequest,
    open: Option<Open>,
}

struct Open {
    /// Of the link over which it came: a link that broke takes its streams along, though they may not notice.
    since: fleetknock_core::time::Timestamp,
    events: Streaming<pb::Event>,
}

impl Peer {
    fn new(shared: &Arc<Shared>, peers: &Arc<Peers>, chosen: &Chosen, name: HostName) -> Self {
        let request = chosen.request();
        Self { shared: shared.clone(), peers: peers.clone(), name, request, open: None }
    }

    fn up_since(&self) -> Option<fleetknock_core::time::Timestamp> {
        let status = self.peers.statuses().remove(&self.name)?;
        (status.link == Link::Up).then_some(status.since)
    }

    async fn begin(&mut self) {
        let (Some(since), Some(Some(mut client))) =
            (self.up_since(), self.peers.clients().remove(&self.name))
        else {
            return;
        };
        if let Ok(Ok(answer)) = timeout(ANSWER_MAX, client.watch_own_events(self.request.clone())).await {
            self.open = Some(Open { since, events: answer.into_inner() });
        }
    }

    fn events(self) -> PeerEvents {
        Box::pin(stream::unfold(self, async |mut peer| Some((peer.next().await, peer))))
    }

    async fn next(&mut self) -> pb::Event {
        loop {
            let Some(open) = &mut self.open else {
                self.begin().await;
                if self.open.is_none() {
                    sleep(RETRY_AFTER).await;
                }
                continue;
            };
            match timeout(LOOK_EVERY, open.events.message()).await {
                Ok(Ok(Some(event))) => return pb::Event { controller: self.name.to_string(), ..event },
                Err(_) if Some(open.since) == self.up_since() => {}
                _ => {
                    self.open = None;
                    let message = format!(
                        "the connection to controller {} broke: what only it sees is missing until it can be reached",
                        self.name
                    );
                    return missing(&self.shared, &self.name, message);
                }
            }
        }
    }
}
