//! A controller that does what a test says.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use fleetknock_agent::config::ControllerUrl;
use fleetknock_proto::v1::{
    self, AgentMessage, ControllerMessage,
    agent_message::Kind as Said,
    agent_service_server::{AgentService, AgentServiceServer},
    controller_message::Kind,
};
use fleetknock_runtime::tls::Incoming;
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    codegen::{Service as HttpService, http},
    server::NamedService,
    transport::{
        Server,
        server::{Connected, TcpIncoming},
    },
};

use super::host::within;

/// Listens on loopback.
pub(crate) struct Controller {
    address: SocketAddr,
    /// With TLS, what is counted of handshakes.
    registry: Option<Registry>,
    streams: tokio::sync::Mutex<mpsc::UnboundedReceiver<AgentStream>>,
    seen: Arc<Mutex<Seen>>,
    server: JoinHandle<()>,
}

/// How a controller receives agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A test goes on with the stream.
    #[default]
    Accept,
    /// It answers the call with an error.
    Refuse(Code),
    /// It accepts the call and ends the stream with an error.
    EndWith(Code),
    /// It accepts the call and says Goodbye, to move now.
    Dismiss,
    /// It says Welcome first.
    WelcomeAndDismiss,
    /// It answers that it is unavailable, unless it is the last resort.
    LastResortOnly,
}

/// What a controller was asked.
#[derive(Default)]
pub(crate) struct Seen {
    manner: Manner,
    /// The Hellos of all streams, and when they came.
    pub(crate) hellos: Vec<(std::time::Instant, v1::Hello)>,
    /// The authorities of all calls.
    pub(crate) authorities: Vec<String>,
}

/// One agent's stream.
pub(crate) struct AgentStream {
    /// Of the controller.
    name: String,
    /// What came first; it was looked at to decide.
    first: Option<AgentMessage>,
    inbound: Streaming<AgentMessage>,
    outbound: mpsc::UnboundedSender<Result<ControllerMessage, Status>>,
    /// Results that came and were not asked for yet.
    results: std::collections::VecDeque<v1::OpeningResult>,
}

struct Service {
    name: String,
    seen: Arc<Mutex<Seen>>,
    streams: mpsc::UnboundedSender<AgentStream>,
}

#[tonic::async_trait]
impl AgentService for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ControllerMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.expect("a first message");
        let manner = {
            let mut seen = self.seen.lock().expect("not poisoned");
            let Some(Said::Hello(hello)) = &first.kind else { panic!("the first message is not Hello") };
            seen.hellos.push((std::time::Instant::now(), hello.clone()));
            match seen.manner {
                Manner::LastResortOnly if hello.last_resort => Manner::Accept,
                Manner::LastResortOnly => Manner::Refuse(Code::Unavailable),
                manner => manner,
            }
        };
        let (outbound, messages) = mpsc::unbounded_channel();
        let mut stream = AgentStream {
            name: self.name.clone(),
            first: Some(first),
            inbound,
            outbound,
            results: Default::default(),
        };
        match manner {
            Manner::Refuse(code) => return Err(Status::new(code, "not now")),
            Manner::EndWith(code) => {
                let _ = stream.outbound.send(Err(Status::new(code, "not now")));
            }
            Manner::Dismiss => stream.dismiss(),
            Manner::WelcomeAndDismiss => {
                stream.welcome(Duration::from_secs(60));
                stream.dismiss();
            }
            Manner::Accept | Manner::LastResortOnly => {
                self.streams.send(stream).map_err(|_| Status::unavailable("the test is over"))?;
            }
        }
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(messages))))
    }
}

/// Notes under which name a controller is called.
#[derive(Clone)]
struct Named<S>(S, Arc<Mutex<Seen>>);

impl<S: HttpService<http::Request<Body>>> HttpService<http::Request<Body>> for Named<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        self.1.lock().expect("not poisoned").authorities.push(authority);
        self.0.call(request)
    }
}

impl<S: NamedService> NamedService for Named<S> {
    const NAME: &'static str = S::NAME;
}

impl Controller {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub(crate) async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        Self::serve(TcpIncoming::from(listener), address, None)
    }

    /// With TLS; the registry is that of its acceptor.
    pub(crate) fn secure(incoming: Incoming, address: SocketAddr, registry: Registry) -> Self {
        Self::serve(incoming, address, Some(registry))
    }

    fn serve<I, C>(incoming: I, address: SocketAddr, registry: Option<Registry>) -> Self
    where
        I: Stream<Item = std::io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let (sender, streams) = mpsc::unbounded_channel();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let service = Service { name: address.to_string(), seen: Arc::clone(&seen), streams: sender };
        let serving = Server::builder()
            .add_service(Named(AgentServiceServer::new(service), Arc::clone(&seen)))
            .serve_with_incoming(incoming);
        let server = tokio::spawn(async move { serving.await.expect("the server runs") });
        Self { address, registry, streams: tokio::sync::Mutex::new(streams), seen, server }
    }

    pub(crate) async fn start_as(manner: Manner) -> Self {
        let controller = Self::start().await;
        controller.become_one(manner);
        controller
    }

    /// From now on it receives agents like this.
    pub(crate) fn become_one(&self, manner: Manner) {
        self.seen().manner = manner;
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("not poisoned")
    }

    /// Whether each Hello came as a last resort.
    pub(crate) fn last_resorts(&self) -> Vec<bool> {
        self.seen().hellos.iter().map(|(_, hello)| hello.last_resort).collect()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> ControllerUrl {
        let scheme = if self.registry.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address).parse().expect("a URL")
    }

    /// Handshakes that the other side ended because it did not like this controller's certificate.
    pub(crate) fn turned_away(&self) -> u64 {
        let mut text = String::new();
        let registry = self.registry.as_ref().expect("a controller with TLS");
        prometheus_client::encoding::text::encode(&mut text, registry).expect("metrics");
        let line = "tls_handshakes_total{outcome=\"turned_away\"} ";
        text.lines().find_map(|text| text.strip_prefix(line)?.parse().ok()).unwrap_or_default()
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

    pub(crate) fn dismiss(&mut self) {
        self.say(Kind::Goodbye(v1::Goodbye { reason: "leaving".into(), move_now: true }));
    }

    pub(crate) fn welcome(&mut self, reassert: Duration) {
        self.welcome_with(reassert, 60_000);
    }

    pub(crate) fn welcome_with(&mut self, reassert: Duration, keep_window_ms: u32) {
        self.say(Kind::Welcome(v1::Welcome {
            controller: self.name.clone(),
            version: "0".into(),
            keep_window_ms,
            reassert_ms: u32::try_from(reassert.as_millis()).expect("a short time"),
        }));
    }

    pub(crate) async fn hear(&mut self) -> Said {
        if let Some(first) = self.first.take() {
            return first.kind.expect("a known kind");
        }
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
        traceparent: String::new(),
    }
}

pub(crate) fn withdrawal(id: &str, kill_connections: bool) -> v1::Withdrawal {
    v1::Withdrawal { id: id.into(), kill_connections }
}

fn port(text: &str) -> v1::Port {
    text.parse::<fleetknock_core::port::Port>().expect("a port").into()
}
