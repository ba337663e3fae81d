//! The peer service: takes knocks from the other controllers, and tells them the fleet's time and what only this one
//! knows.

use std::{pin::Pin, sync::Arc, time::Duration};

use fleetknock_core::host::HostName;
use fleetknock_proto::{
    Seen, convert, limits, status as refuse,
    v1::{
        self as pb, peer_message::Kind as Said, peer_reply::Kind as Tell, peer_service_server::PeerService,
    },
};
use futures::{Stream, StreamExt};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Peers, Reported, known};
use crate::{
    control_api::{
        events::{self, Chosen, Which},
        logs, overview,
    },
    matching,
    record::Boot,
    shared::Shared,
    store::Revision,
    trust::Caller,
};

/// Answers that wait to be written: probes are the only question, and beside them it is told of traces.
const ANSWERS: usize = 64;
/// How long a new stream may take to say Hello.
const GREETING_MAX: Duration = Duration::from_secs(5);
/// How long a peer that knows of a later life of this controller waits for it to begin, which it does when the own copy
/// of the fleet knows of it as well. Less than the peer waits for Welcome.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);
/// The longest uncertainty that is believed; beyond it, order across hosts means nothing anyway.
const UNCERTAINTY_MAX_US: u64 = 60_000_000;

/// Serves peers.
pub struct Service {
    shared: Arc<Shared>,
    matching: matching::Handle,
    peers: Arc<Peers>,
    stop: CancellationToken,
}

impl Service {
    /// `stop` ends all streams when this controller has left.
    pub fn new(
        shared: Arc<Shared>,
        matching: matching::Handle,
        peers: Arc<Peers>,
        stop: CancellationToken,
    ) -> Self {
        Self { shared, matching, peers, stop }
    }
}

type Answers = mpsc::Sender<Result<pb::PeerReply, Status>>;

#[tonic::async_trait]
impl PeerService for Service {
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<pb::PeerReply, Status>> + Send>>;

    async fn forward(
        &self,
        request: Request<Streaming<pb::PeerMessage>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        let (answers, outbound) = mpsc::channel(ANSWERS);
        let stream = PeerStream {
            shared: self.shared.clone(),
            peers: self.peers.clone(),
            caller,
            inbound: request.into_inner(),
            answers: answers.clone(),
        };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            if let Some(Err(status)) = stop.run_until_cancelled(stream.run()).await {
                tracing::debug!(reason = status.message(), "a peer's stream ends");
                let _gone = answers.try_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }

    async fn describe(&self, _: Request<pb::DescribeRequest>) -> Result<Response<pb::Controller>, Status> {
        known::describe(&self.shared, &self.matching, &self.peers).await.map(Response::new)
    }

    async fn connected_hosts(
        &self,
        request: Request<pb::ConnectedHostsRequest>,
    ) -> Result<Response<pb::ConnectedHostsResponse>, Status> {
        let names = known::names(&request.into_inner().names)?;
        let hosts = match names.as_slice() {
            [] => known::connected_hosts(&self.shared),
            names => known::hosts(&self.shared, names),
        };
        Ok(Response::new(pb::ConnectedHostsResponse { hosts }))
    }

    async fn opening_reports(
        &self,
        request: Request<pb::OpeningReportsRequest>,
    ) -> Result<Response<pb::OpeningReportsResponse>, Status> {
        let ids = request.into_inner().ids;
        if ids.len() > known::ASKED_MAX {
            return Err(refuse::invalid("ids", format!("at most {} at once", known::ASKED_MAX)));
        }
        let openings = known::opening_reports(&self.shared, ids);
        Ok(Response::new(pb::OpeningReportsResponse { openings }))
    }

    async fn own_attempts(
        &self,
        request: Request<pb::ListAttemptsRequest>,
    ) -> Result<Response<pb::ListAttemptsResponse>, Status> {
        let request = request.into_inner();
        known::attempts(&self.shared, &self.matching, &self.peers, &request).await.map(Response::new)
    }

    async fn own_knocks(
        &self,
        request: Request<pb::OwnKnocksRequest>,
    ) -> Result<Response<pb::OwnKnocksResponse>, Status> {
        known::knocks(&self.shared, &self.matching, request.get_ref()).await.map(Response::new)
    }

    async fn own_overview(
        &self,
        request: Request<pb::OverviewRequest>,
    ) -> Result<Response<pb::OwnOverviewResponse>, Status> {
        let seconds = overview::seconds(request.get_ref())?;
        known::overview(&self.shared, &self.matching, seconds).await.map(Response::new)
    }

    async fn set_own_log(
        &self,
        request: Request<pb::SetLogRequest>,
    ) -> Result<Response<pb::SetLogResponse>, Status> {
        logs::own(&self.shared, request.get_ref()).map(Response::new)
    }

    type WatchOwnEventsStream = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

    async fn watch_own_events(
        &self,
        request: Request<pb::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchOwnEventsStream>, Status> {
        let chosen = Chosen::parse(&request.into_inner())?;
        let events = events::here(self.shared.clone(), chosen, Which::Own).map(Ok);
        Ok(Response::new(Box::pin(events.take_until(self.stop.clone().cancelled_owned()))))
    }
}

struct PeerStream {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    caller: Caller,
    inbound: Streaming<pb::PeerMessage>,
    answers: Answers,
}

impl PeerStream {
    async fn run(mut self) -> Result<(), Status> {
        let greeting = timeout(GREETING_MAX, self.inbound.message()).await;
        let greeting = greeting.map_err(|_| Status::deadline_exceeded("no Hello in time"))??;
        let Some(pb::PeerMessage { kind: Some(Said::Hello(hello)) }) = greeting else {
            return Err(refuse::invalid("hello", "the first message of a stream is Hello"));
        };
        self.caller.check_controller(&hello.controller)?;
        self.begun(hello.epoch).await;
        self.check(&hello)?;
        let welcome = pb::PeerWelcome {
            controller: self.shared.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.tell(Tell::Welcome(welcome)).await?;
        let shared = self.shared.clone();
        let name: Result<HostName, _> = hello.controller.parse();
        let _listening = name.ok().map(|name| shared.tracing.listens(name, self.answers.clone()));
        while let Some(message) = self.inbound.message().await? {
            match message.kind {
                Some(Said::Batch(batch)) => self.take_in(batch).await?,
                Some(Said::Probe(probe)) => self.answer(&probe).await?,
                Some(Said::Hello(_)) => return Err(refuse::invalid("hello", "a stream has one Hello")),
                None => {}
            }
        }
        Ok(())
    }

    /// Waits until the life of that epoch has begun, if it is still to come.
    async fn begun(&self, epoch: Revision) {
        let mut standings = self.shared.standings();
        let begun = standings.wait_for(|_| self.shared.epoch() >= Some(epoch));
        let _late = timeout(BEGINS_WITHIN, begun).await;
    }

    /// Whether the peer means this controller in this life of it. Another fleet's knocks must not get mixed in, and a
    /// controller that is restarted knows nothing of what its former self was told.
    fn check(&self, hello: &pb::PeerHello) -> Result<(), Status> {
        let Shared { name, fleet_name, .. } = &*self.shared;
        if hello.fleet != *fleet_name {
            let reason = format!("this is a controller of the fleet '{fleet_name}'");
            return Err(refuse::precondition("fleet", fleet_name, reason));
        }
        if hello.meant != name.as_str() || Some(hello.epoch) != self.shared.epoch() {
            let reason = format!("this is the controller '{name}', in another life of it if that was meant");
            return Err(refuse::precondition("controller", name.as_str(), reason));
        }
        Ok(())
    }

    async fn take_in(&self, batch: pb::ForwardBatch) -> Result<(), Status> {
        let count: usize = batch.hosts.iter().map(|host| host.observations.len()).sum();
        if count > limits::OBSERVATIONS_MAX {
            let reason = format!("a batch has at most {} observations", limits::OBSERVATIONS_MAX);
            return Err(refuse::invalid("batch.hosts", reason));
        }
        // The sender may know of a door or a host that this controller learns a moment later.
        self.shared.caught_up(batch.revision).await;
        for host in batch.hosts {
            let Some(reported) = self.reported(host)? else {
                continue;
            };
            let observed = self.peers.observe(reported, batch.hops.max(1)).await;
            observed.map_err(|stopped| Status::unavailable(stopped.to_string()))?;
        }
        Ok(())
    }

    /// The knocks in this controller's terms; nothing when their host has been forgotten.
    fn reported(&self, message: pb::HostObservations) -> Result<Option<Reported>, Status> {
        let host: HostName = convert::parsed(&message.host, "batch.hosts.host")?;
        let boot = Boot::try_from(message.boot.as_slice())
            .map_err(|error| refuse::invalid("batch.hosts.boot", error.to_string()))?;
        let Some(id) = self.shared.state().fleet.host_id(&host) else {
            return Ok(None);
        };
        let number = self.shared.boot(&host, boot);
        let uncertainty = Duration::from_micros(message.uncertainty_us.min(UNCERTAINTY_MAX_US));
        let mut observations = Vec::with_capacity(message.observations.len());
        for observation in message.observations {
            let seen = Seen::try_from(observation)?;
            observations.push(seen.observed(id, number, seen.time, uncertainty));
        }
        Ok(Some(Reported { host, boot, observations }))
    }

    async fn answer(&self, probe: &pb::Probe) -> Result<(), Status> {
        let at = self.shared.now().as_micros();
        let reply =
            pb::ProbeReply { id: probe.id, probe_sent_us: probe.sent_us, received_us: at, sent_us: at };
        let uncertainty_us = crate::wire::micros(self.shared.now_uncertainty());
        self.tell(Tell::ProbeReply(pb::PeerProbeReply { reply: Some(reply), uncertainty_us })).await
    }

    async fn tell(&self, kind: Tell) -> Result<(), Status> {
        let reply = Ok(pb::PeerReply { kind: Some(kind) });
        self.answers.send(reply).await.map_err(|_| Status::aborted("the peer left"))
    }
}
