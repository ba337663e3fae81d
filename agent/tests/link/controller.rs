//! A controller that does what a test says.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use fleetknock_agent::config::ControllerUrl;
use fleetknock_proto::v1::{
    self, AgentMessage, ControllerMessage,
    agent_message::Kind as Said,
    agent_service_server::{AgentService, AgentServiceServer},
    controller_message::Kind,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    task::JoinHandle,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use super::host::within;

/// Listens on loopback.
pub(crate) struct Controller {
    address: SocketAddr,
    streams: Mutex<mpsc::UnboundedReceiver<AgentStream>>,
    server: JoinHandle<()>,
}

/// One agent's stream.
pub(crate) struct AgentStream {
    inbound: Streaming<AgentMessage>,
    outbound: mpsc::UnboundedSender<Result<ControllerMessage, Status>>,
    /// Results that came and were not asked for yet.
    results: std::collections::VecDeque<v1::OpeningResult>,
}

struct Service(mpsc::UnboundedSender<AgentStream>);

#[tonic::async_trait]
impl AgentService for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ControllerMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (outbound, messages) = mpsc::unbounded_channel();
        let stream = AgentStream { inbound: request.into_inner(), outbound, results: Default::default() };
        self.0.send(stream).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(messages))))
    }
}

impl Controller {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, streams) = mpsc::unbounded_channel();
        let serving = Server::builder()
            .add_service(AgentServiceServer::new(Service(sender)))
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(async move { serving.await.expect("the server runs") });
        Self { address, streams: Mutex::new(streams), server }
    }

    pub(crate) fn url(&self) -> ControllerUrl {
        format!("http://{}", self.address).parse().expect("a URL")
    }

    /// The next stream; nothing was said on it yet.
    pub(crate) async fn stream(&self) -> AgentStream {
        within("a stream", async { self.streams.lock().await.recv().await.expect("the server runs") }).await
    }

    /// The next stream, its Hello heard and Welcome said.
    pub(crate) async fn attach(&self, reassert: Duration) -> AgentStream {
        let mut stream = self.stream().await;
        assert!(matches!(stream.hear().await, Said::Hello(_)));
        stream.welcome(reassert);
        stream
    }

    /// Stops listening, and all connections with it.
    pub(crate) async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

impl AgentStream {
    pub(crate) fn say(&mut self, kind: Kind) {
        // An agent that has left does not hear.
        let _ = self.outbound.send(Ok(ControllerMessage { kind: Some(kind) }));
    }

    pub(crate) fn welcome(&mut self, reassert: Duration) {
        self.say(Kind::Welcome(v1::Welcome {
            controller: "scripted".into(),
            version: "0".into(),
            keep_window_ms: 60_000,
            reassert_ms: u32::try_from(reassert.as_millis()).expect("a short time"),
        }));
    }

    pub(crate) async fn hear(&mut self) -> Said {
        let message = within("a message of the agent", self.inbound.next()).await;
        message.expect("the stream lives").expect("no error").kind.expect("a known kind")
    }

    /// The next observations; reports and results in between are passed over.
    pub(crate) async fn observations(&mut self) -> v1::ObservationBatch {
        loop {
            if let Said::Observations(batch) = self.hear().await {
                return batch;
            }
        }
    }

    pub(crate) async fn result(&mut self) -> v1::OpeningResult {
        loop {
            if let Some(result) = self.results.pop_front() {
                return result;
            }
            if let Said::Results(batch) = self.hear().await {
                self.results.extend(batch.results);
            }
        }
    }

    pub(crate) async fn report_where(&mut self, holds: impl Fn(&v1::HostReport) -> bool) -> v1::HostReport {
        loop {
            if let Said::Report(report) = self.hear().await
                && holds(&report)
            {
                return report;
            }
        }
    }
}

pub(crate) fn snapshot(revision: u64, guarded: &[&str], openings: Vec<v1::HostOpening>) -> v1::Snapshot {
    v1::Snapshot { revision, guard: Some(guard(guarded)), openings, ..v1::Snapshot::default() }
}

pub(crate) fn guard(guarded: &[&str]) -> v1::Guard {
    v1::Guard {
        ports: guarded.iter().map(|text| port(text)).collect(),
        knock_space: vec![v1::PortRange { protocol: v1::Protocol::Tcp.into(), first: 1, last: 65_535 }],
        ..v1::Guard::default()
    }
}

pub(crate) fn opening(id: &str, source: &str, to: &str, generation: u64) -> v1::HostOpening {
    v1::HostOpening {
        id: id.into(),
        source: source.into(),
        ports: vec![port(to)],
        remaining_ms: 600_000,
        generation,
    }
}

pub(crate) fn withdrawal(id: &str, kill_connections: bool) -> v1::Withdrawal {
    v1::Withdrawal { id: id.into(), kill_connections }
}

fn port(text: &str) -> v1::Port {
    text.parse::<fleetknock_core::port::Port>().expect("a port").into()
}
