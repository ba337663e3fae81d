//! The stream to one peer: dials, forwards what is queued, measures the clock, and says how the peer can be reached.

use std::{io, sync::Arc, time::Duration};

use fleetknock_core::host::HostName;
use fleetknock_proto::{
    Seen, limits,
    v1::{
        self as pb, peer_message::Kind as Say, peer_reply::Kind as Said,
        peer_service_client::PeerServiceClient,
    },
};
use fleetknock_runtime::tls::Connector;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};

use super::{Outgoing, Peers, Reported, route::Link};
use crate::{
    clock::{Estimate, Offset, Probe},
    shared::local_now,
    store::Revision,
    traces::Forwarded,
};

/// Messages that wait to be written to the stream. Small: what waits longer is merged into larger ones.
const OUTBOUND: usize = 8;
/// Batches that are merged into one message.
const MERGE_MAX: usize = 64;
/// From dialling to Welcome.
const DIAL_MAX: Duration = Duration::from_secs(1);
/// Between tries.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// How often the clock is probed, and how often at first.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const FIRST_PROBES: u32 = 4;
/// A peer that does not answer probes for so long is cut off. It is less than a lease lasts, so that relays serve
/// before the sources move.
const SILENCE_MAX: Duration = Duration::from_millis(2_500);

/// Whom the stream goes to.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) name: HostName,
    pub(super) epoch: Revision,
    pub(super) address: String,
}

/// Why there is no stream (any more).
struct Ended {
    link: Link,
    reason: String,
}

/// A client of the peer service over this channel.
pub(super) fn client(channel: Channel) -> PeerServiceClient<Channel> {
    PeerServiceClient::new(channel)
        .max_decoding_message_size(limits::MESSAGE_MAX)
        .max_encoding_message_size(limits::MESSAGE_MAX)
}

/// Serves one peer until it is no member any more.
pub(super) async fn run(
    peers: Arc<Peers>,
    peer: Peer,
    mut queue: mpsc::Receiver<Outgoing>,
    stop: CancellationToken,
) {
    let serve = async {
        let mut pause = RETRY_FIRST;
        loop {
            match dial(&peers, &peer).await {
                Ok(mut stream) => {
                    pause = RETRY_FIRST;
                    // What waited for an earlier stream is sent again by the agents.
                    drain(&peers, &peer, &mut queue);
                    peers.link_changed(&peer, Link::Up, Some(stream.channel.clone()), "");
                    let ended = stream.serve(&mut queue).await;
                    peers.link_changed(&peer, ended.link, None, &ended.reason);
                    drain(&peers, &peer, &mut queue);
                }
                Err(ended) => {
                    peers.link_changed(&peer, ended.link, None, &ended.reason);
                    sleep(pause).await;
                    pause = RETRY_LAST.min(pause * 2);
                }
            }
        }
    };
    let _stopped = stop.run_until_cancelled(serve).await;
}

fn drain(peers: &Peers, peer: &Peer, queue: &mut mpsc::Receiver<Outgoing>) {
    let mut dropped = 0;
    while let Ok(outgoing) = queue.try_recv() {
        dropped += outgoing.reported.observations.len() as u64;
    }
    if dropped > 0 {
        peers.dropped(&peer.name, dropped);
    }
}

async fn dial<'a>(peers: &'a Arc<Peers>, peer: &'a Peer) -> Result<Stream<'a>, Ended> {
    let dialling = async {
        let channel = connect(peers, peer).await?;
        let (outbound, messages) = mpsc::channel(OUTBOUND);
        let hello = pb::PeerHello {
            controller: peers.shared.name.to_string(),
            meant: peer.name.to_string(),
            epoch: peer.epoch,
            fleet: peers.shared.fleet_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        // The queue is new: it has room.
        let _ = outbound.try_send(say(Say::Hello(hello)));
        let answer = client(channel.clone()).forward(ReceiverStream::new(messages)).await;
        let mut inbound = answer.map_err(|status| refused(&status))?.into_inner();
        match inbound.message().await {
            Ok(Some(pb::PeerReply { kind: Some(Said::Welcome(_)) })) => {}
            Ok(_) => return Err(Ended { link: Link::Dead, reason: "it speaks another language".to_owned() }),
            Err(status) => return Err(refused(&status)),
        }
        let heard = Instant::now();
        Ok(Stream { peers, peer, channel, outbound, inbound, clock: Estimate::default(), probes: 0, heard })
    };
    let slow = Ended { link: Link::Cut, reason: format!("{} does not answer", peer.address) };
    timeout(DIAL_MAX * 2, dialling).await.unwrap_or(Err(slow))
}

/// To the peer's address, and with TLS to the peer itself.
async fn connect(peers: &Peers, peer: &Peer) -> Result<Channel, Ended> {
    let cut = |reason: String| Ended { link: Link::Cut, reason };
    let Peer { name, address, .. } = peer;
    let trust = &peers.shared.trust;
    let Ok(url) = address.parse::<Uri>() else {
        return Err(cut(format!("its address '{address}' is no URL")));
    };
    if url.scheme_str() != Some(trust.scheme()) {
        let scheme = trust.scheme();
        return Err(cut(format!(
            "its address is {address}, and this controller speaks {scheme}: all controllers of a fleet have TLS, or none"
        )));
    }
    let no_url = |error| cut(format!("its address '{address}' is no URL: {error}"));
    let prepared = |endpoint: Endpoint| endpoint.tcp_nodelay(true).connect_timeout(DIAL_MAX);
    let channel = match trust.connector(name) {
        None => prepared(Endpoint::from(url)).connect().await,
        Some(connector) => {
            let authority = url.authority().map(ToString::to_string).unwrap_or_default();
            let endpoint = Connector::endpoint(&authority, url).map_err(no_url)?;
            prepared(endpoint).connect_with_connector(connector.within(DIAL_MAX)).await
        }
    };
    channel.map_err(|error| unreachable(&error, error.to_string()))
}

struct Stream<'a> {
    peers: &'a Arc<Peers>,
    peer: &'a Peer,
    channel: Channel,
    outbound: mpsc::Sender<pb::PeerMessage>,
    inbound: Streaming<pb::PeerReply>,
    clock: Estimate,
    probes: u32,
    heard: Instant,
}

impl Stream<'_> {
    async fn serve(&mut self, queue: &mut mpsc::Receiver<Outgoing>) -> Ended {
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::with_capacity(MERGE_MAX);
        let outbound = self.outbound.clone();
        loop {
            tokio::select! {
                biased;
                said = self.inbound.message() => match said {
                    Ok(Some(reply)) => self.hear(reply),
                    Ok(None) => return Ended { link: Link::Cut, reason: "it ended the stream".to_owned() },
                    Err(status) => return refused(&status),
                },
                _ = ticks.tick() => {
                    if self.heard.elapsed() > SILENCE_MAX {
                        let reason = format!("it has not answered for {SILENCE_MAX:?}");
                        return Ended { link: Link::Cut, reason };
                    }
                    self.probe();
                }
                permit = outbound.reserve(), if !taken.is_empty() => match permit {
                    Ok(permit) => {
                        let (batch, count) = merge(&mut taken, self.peers);
                        permit.send(say(Say::Batch(batch)));
                        self.peers.forwarded(&self.peer.name, count);
                    }
                    Err(_) => return Ended { link: Link::Cut, reason: "the stream broke".to_owned() },
                },
                _ = queue.recv_many(&mut taken, MERGE_MAX), if taken.is_empty() => {}
            }
        }
    }

    fn hear(&mut self, reply: pb::PeerReply) {
        self.heard = Instant::now();
        let (reply, uncertainty_us) = match reply.kind {
            Some(Said::ProbeReply(pb::PeerProbeReply { reply: Some(reply), uncertainty_us })) => {
                (reply, uncertainty_us)
            }
            Some(Said::Traced(told)) => {
                return self.peers.shared.tracing.hear(&self.peers.shared, told);
            }
            _ => return,
        };
        self.clock.add(Probe {
            sent: reply.probe_sent_us,
            heard: reply.received_us,
            answered: reply.sent_us,
            received: local_now().as_micros(),
        });
        if let Some(offset) = self.clock.offset(local_now()) {
            let uncertainty = offset.uncertainty + Duration::from_micros(uncertainty_us);
            self.peers.clock_of(self.peer, Offset { uncertainty, ..offset });
        }
        if self.probes < FIRST_PROBES {
            self.probe();
        }
    }

    fn probe(&mut self) {
        self.probes = self.probes.saturating_add(1);
        let sent_us = local_now().as_micros();
        // Without room the answer would come late and measure nothing.
        let _ = self.outbound.try_send(say(Say::Probe(pb::Probe { id: sent_us, sent_us })));
    }
}

/// One message of as many batches as it may hold, at least of one; the others stay.
fn merge(taken: &mut Vec<Outgoing>, peers: &Peers) -> (pb::ForwardBatch, u64) {
    let hops = taken.first().map_or(1, |first| first.hops);
    let mut count = 0;
    let fits = taken.iter().take_while(|outgoing| {
        count += outgoing.reported.observations.len();
        outgoing.hops == hops && count <= limits::OBSERVATIONS_MAX
    });
    let fitting = fits.count().max(1);
    let batches: Vec<_> = taken.drain(..fitting).collect();
    let count = batches.iter().map(|outgoing| outgoing.reported.observations.len() as u64).sum();
    for Outgoing { received, reported, .. } in &batches {
        let counters = reported.observations.iter().map(|observation| observation.id.counter);
        if let (Some(first), Some(last)) = (counters.clone().min(), counters.max()) {
            peers.shared.tracing.forwarded(Forwarded {
                host: reported.host.clone(),
                boot: reported.boot,
                counters: (first, last),
                times: (*received, peers.shared.now()),
            });
        }
    }
    let hosts = batches.into_iter().map(|outgoing| host_observations(outgoing.reported)).collect();
    let revision = peers.shared.state().fleet.revision();
    (pb::ForwardBatch { revision, hops, hosts }, count)
}

fn host_observations(reported: Reported) -> pb::HostObservations {
    let Reported { host, boot, observations } = reported;
    let uncertainty = observations.first().map_or(Duration::ZERO, |first| first.uncertainty);
    pb::HostObservations {
        host: host.to_string(),
        boot: boot.0.to_vec(),
        uncertainty_us: crate::wire::micros(uncertainty),
        observations: observations.iter().map(|observation| Seen::from(observation).into()).collect(),
    }
}

fn say(kind: Say) -> pb::PeerMessage {
    pb::PeerMessage { kind: Some(kind) }
}

/// What a refusal says of the peer: somebody who answers, but is not the one that is meant, took the address over.
fn refused(status: &Status) -> Ended {
    match status.code() {
        Code::FailedPrecondition => Ended { link: Link::Dead, reason: status.message().to_owned() },
        _ => unreachable(status, format!("{}: {}", status.code(), status.message())),
    }
}

/// A refused connection shows that no process listens; everything else may be the network.
fn unreachable(error: &(dyn std::error::Error + 'static), said: String) -> Ended {
    let mut cause = Some(error);
    let mut innermost = said;
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            return Ended { link: Link::Dead, reason: "its address refuses connections".to_owned() };
        }
        innermost = error.to_string();
        cause = error.source();
    }
    Ended { link: Link::Cut, reason: innermost }
}
