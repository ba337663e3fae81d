//! One trace per knock: what this controller says of it, and how it tells those who have seen its packets.
//!
//! ```text
//!   knock (who follows the source)
//!    ├─ capture, report   (each host's agent, once it is told)
//!    ├─ forward           (each controller that passed knocks on)
//!    ├─ match, store      (who follows the source)
//!    └─ push ── apply     (each controller with target hosts; their agents)
//! ```
//!
//! Whether a trace is kept is known only at its end, so it is made then: the controller that follows the source draws its
//! id when an attempt is completed or has failed beyond its first step, and tells the other controllers, and they their
//! agents, which packets belonged to it. Of noise nobody says a word. What an opening is pushed with lies in its record.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fleetknock_core::{host::HostName, knock::ObservationId, matcher::Failure, time::Timestamp};
use fleetknock_proto::{
    limits,
    v1::{self as pb, controller_message::Kind as Tell, peer_reply::Kind as TellPeer},
};
use fleetknock_runtime::otlp::traces::{self, Context, Span, Traces};
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    fleet::Effect,
    grant::Request,
    record::{Boot, OpeningRecord, Packet},
    sessions::Sessions,
    shared::Shared,
};

/// Batches of forwarded knocks that are remembered: some minutes of a fleet's ordinary noise. When there are more, the
/// oldest go, and their spans will be missing.
const FORWARDED_MAX: usize = 4_096;

/// What a controller needs for traces.
#[derive(Debug, Default)]
pub struct Tracing {
    sink: OnceLock<Traces>,
    /// The peers that forward knocks to this controller, by name, with the number of their stream.
    peers: Mutex<BTreeMap<HostName, (u64, Answers)>>,
    forwarded: Mutex<VecDeque<Forwarded>>,
}

/// What a peer that forwards knocks is told on that stream.
pub type Answers = mpsc::Sender<Result<pb::PeerReply, Status>>;

/// A peer that listens, until it is dropped.
pub struct Listening<'a> {
    tracing: &'a Tracing,
    peer: HostName,
    stream: u64,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let mut peers = lock(&self.tracing.peers);
        if peers.get(&self.peer).is_some_and(|(stream, _)| *stream == self.stream) {
            peers.remove(&self.peer);
        }
    }
}

/// Knocks of one run of a host's agent that were passed on together.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// Whose agent saw them.
    pub host: HostName,
    /// In which run.
    pub boot: Boot,
    /// Of the first and the last.
    pub counters: (u64, u64),
    /// When they came, and when they went on.
    pub times: (Timestamp, Timestamp),
}

/// An attempt that ends, and what is known of it before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Of its first span.
    pub context: Context,
    first: Timestamp,
    judged: (Timestamp, Timestamp),
    packets: Vec<Packet>,
}

impl Attempt {
    /// Of a trace that begins now; nothing when nobody takes traces.
    pub fn begin(
        shared: &Shared,
        first: Timestamp,
        judged: Timestamp,
        knocks: impl IntoIterator<Item = ObservationId>,
    ) -> Option<Self> {
        shared.tracing.is_on().then(|| Self {
            context: Context::random(),
            first,
            judged: (judged, shared.now()),
            packets: knocks.into_iter().filter_map(|id| shared.packet(id)).collect(),
        })
    }

    /// What is under way from here on: log lines within it carry the trace's id.
    pub fn store(&self) -> tracing::Span {
        live_store(self.context)
    }

    /// Says how a complete knock was answered.
    pub fn answered(self, shared: &Shared, request: &Request, refused: Option<String>) {
        let (door, source) = (request.door.to_string(), request.source.to_string());
        self.end(shared, shared.now(), refused, |span| {
            span.with("fleetknock.door", door).with("client.address", source)
        });
    }

    /// Says that an attempt failed.
    pub fn failed(self, shared: &Shared, failure: &Failure) {
        let Failure { door, source, step, of, reason, at, .. } = failure;
        let count = |steps: usize| i64::try_from(steps).unwrap_or(i64::MAX);
        self.end(shared, *at, Some(reason.name().to_owned()), |span| {
            span.with("fleetknock.door", door.to_string())
                .with("client.address", source.to_string())
                .with("fleetknock.step", count(*step))
                .with("fleetknock.steps", count(*of))
        });
    }

    fn end(self, shared: &Shared, at: Timestamp, why: Option<String>, describe: impl FnOnce(Span) -> Span) {
        let Some(sink) = shared.tracing.sink.get() else { return };
        let outcome = if why.is_none() { "opened" } else { "failed" };
        let root = Span::root("knock", self.context, system(self.first), system(at.max(self.judged.0)));
        let root = describe(root).with("fleetknock.outcome", outcome);
        sink.add(match why {
            Some(why) => root.failed(why),
            None => root,
        });
        let judged = (system(self.judged.0), system(self.judged.1));
        sink.add(Span::beneath(self.context, "match", judged.0, judged.1));
        let mut hosts: BTreeMap<(&HostName, [u8; 16]), Vec<u64>> = BTreeMap::new();
        for packet in &self.packets {
            hosts.entry((&packet.host, packet.boot.0)).or_default().push(packet.counter);
        }
        for ((host, boot), counters) in hosts {
            let traceparent = self.context.to_string();
            let traced = pb::Traced { traceparent, boot: boot.to_vec(), counters };
            shared.tracing.tell(shared, host, &traced);
        }
    }
}

/// An operator's opening, from the call to the commit.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Of its first span.
    pub context: Context,
    since: Timestamp,
}

impl Call {
    /// Of a trace that begins now; nothing when nobody takes traces.
    pub fn begin(shared: &Shared) -> Option<Self> {
        shared.tracing.is_on().then(|| Self { context: Context::random(), since: shared.now() })
    }

    /// What is under way from here on.
    pub fn store(&self) -> tracing::Span {
        live_store(self.context)
    }

    /// Says how it was answered.
    pub fn answered(self, shared: &Shared, request: &Request, refused: Option<String>) {
        let Some(sink) = shared.tracing.sink.get() else { return };
        let root = Span::root("open", self.context, system(self.since), system(shared.now()))
            .with("fleetknock.door", request.door.to_string())
            .with("client.address", request.source.to_string());
        sink.add(match refused {
            Some(why) => root.failed(why),
            None => root,
        });
    }
}

fn live_store(context: Context) -> tracing::Span {
    // The level is the one that no log filter leaves out.
    let span = tracing::error_span!(target: traces::TARGET, "store", trace_id = %context.trace_id());
    traces::adopt(&span, context);
    span
}

impl Tracing {
    /// Sends spans there from now on. Once; a second place is not taken.
    pub fn send_to(&self, sink: Traces) {
        if sink.is_on() {
            let _second = self.sink.set(sink);
        }
    }

    /// Whether somebody takes traces.
    pub fn is_on(&self) -> bool {
        self.sink.get().is_some()
    }

    /// A peer forwards knocks here from now on, and listens on this queue.
    pub fn listens(&self, peer: HostName, answers: Answers) -> Listening<'_> {
        let stream = rand::random();
        lock(&self.peers).insert(peer.clone(), (stream, answers));
        Listening { tracing: self, peer, stream }
    }

    /// Remembers that knocks were passed on.
    pub fn forwarded(&self, batch: Forwarded) {
        if !self.is_on() {
            return;
        }
        let mut forwarded = lock(&self.forwarded);
        if forwarded.len() >= FORWARDED_MAX {
            forwarded.pop_front();
        }
        forwarded.push_back(batch);
    }

    /// Tells whoever may have passed these knocks on, or has the host's agent.
    fn tell(&self, shared: &Shared, host: &HostName, traced: &pb::Traced) {
        tell_agent(&shared.state().sessions, host, traced);
        for (_, answers) in lock(&self.peers).values() {
            let traced = pb::PeerTraced { host: host.to_string(), traced: Some(traced.clone()) };
            // A peer that does not read has more to worry about than traces.
            let _full = answers.try_send(Ok(pb::PeerReply { kind: Some(TellPeer::Traced(traced)) }));
        }
    }

    /// Takes in what a peer tells of an attempt, whatever it is.
    pub fn hear(&self, shared: &Shared, told: pb::PeerTraced) {
        let Some(traced) = told.traced.filter(|traced| traced.counters.len() <= limits::OBSERVATIONS_MAX)
        else {
            return;
        };
        let parsed = (told.host.parse::<HostName>(), traced.traceparent.parse::<Context>());
        let (Ok(host), Ok(context), Ok(boot)) = (parsed.0, parsed.1, <[u8; 16]>::try_from(&*traced.boot))
        else {
            return;
        };
        tell_agent(&shared.state().sessions, &host, &traced);
        let Some(sink) = self.sink.get() else { return };
        let is_of = |batch: &&Forwarded| {
            let (first, last) = batch.counters;
            batch.host == host
                && batch.boot.0 == boot
                && traced.counters.iter().any(|counter| (first..=last).contains(counter))
        };
        for batch in lock(&self.forwarded).iter().filter(is_of) {
            let (came, went) = batch.times;
            let span = Span::beneath(context, "forward", system(came), system(went));
            sink.add(span.with("fleetknock.host", batch.host.to_string()));
        }
    }

    /// Puts a span of this controller between what it pushes now and the trace that it belongs to.
    pub fn pushing(&self, effects: &mut [Effect]) -> HashMap<String, Context> {
        let mut parents = HashMap::new();
        for effect in effects {
            if let Effect::Opening { after, .. } = effect
                && let Some(parent) = after.trace.as_deref().and_then(|trace| trace.parse::<Context>().ok())
                && self.is_on()
            {
                let own = parent.sibling();
                parents.insert(own.to_string(), parent);
                after.trace = Some(own.to_string());
            }
        }
        parents
    }

    /// Says that an opening was pushed to so many hosts.
    pub fn pushed(
        &self,
        parents: &HashMap<String, Context>,
        opening: &OpeningRecord,
        hosts: usize,
        times: (Timestamp, Timestamp),
    ) {
        let Some(own) = opening.trace.as_ref() else { return };
        let (Some(sink), Some(parent), Ok(own)) = (self.sink.get(), parents.get(own), own.parse()) else {
            return;
        };
        let span = Span::at(own, *parent, "push", system(times.0), system(times.1));
        let span = span.with("fleetknock.opening", opening.id.clone());
        sink.add(span.with("fleetknock.hosts", i64::try_from(hosts).unwrap_or(i64::MAX)));
    }
}

fn tell_agent(sessions: &Sessions, host: &HostName, traced: &pb::Traced) {
    if let Some(session) = sessions.of(host) {
        // An agent that does not read is cut off by what matters more.
        session.tell(Tell::Traced(traced.clone()));
    }
}

/// The fleet's time as the system's clocks count.
fn system(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(at.as_micros())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
