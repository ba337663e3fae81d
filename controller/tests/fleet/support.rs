//! A controller over a store, and an agent that does as the test says.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fleetknock_controller::{
    keeper, membership,
    metrics::{Metrics, store::Metered},
    serve::{self, Entrances},
    sessions::FleetWide,
    shared::{Parts, Shared, local_now},
    store::{Store, memory::MemoryStore},
    trust::{Entrance, Trust},
    web::Web,
};
use fleetknock_core::matcher::{Config, MissPolicy};
use fleetknock_proto::v1::{
    self as pb, agent_message::Kind as Say, agent_service_client::AgentServiceClient,
    control_service_client::ControlServiceClient, controller_message::Kind as Told,
};
use fleetknock_runtime::{
    admin::Admin,
    drain::Drain,
    log::{Dial, Filter},
    metrics::register_process,
    ready::Readiness,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    pub(crate) log_dial: Dial,
    /// Where its dashboard and its API as JSON are.
    pub(crate) http: SocketAddr,
    /// Its parts, for what is started beside them.
    #[allow(dead_code, reason = "not every test program starts something beside")]
    pub(crate) shared: Arc<Shared>,
    #[allow(dead_code, reason = "as above")]
    pub(crate) running: serve::Running,
    drain: Drain,
    registry: Registry,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.drain.start();
    }
}

impl Controller {
    pub(crate) async fn start() -> Self {
        Self::over(Arc::new(MemoryStore::new())).await
    }

    pub(crate) async fn over(store: Arc<dyn Store>) -> Self {
        Self::named("test", store).await
    }

    pub(crate) async fn named(name: &str, store: Arc<dyn Store>) -> Self {
        Self::trusting(name, store, Trust::Plain).await
    }

    pub(crate) async fn trusting(name: &str, store: Arc<dyn Store>, trust: Trust) -> Self {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        register_process(&mut registry, "fleetknock_controller", "test");
        let store: Arc<dyn Store> = Arc::new(Metered::new(store, metrics.store.clone()));
        let (fleet, watch) = keeper::load_patiently(&*store).await.unwrap();
        let wide = FleetWide {
            knock_space: vec!["tcp/1-65535".parse().unwrap(), "udp/1-65535".parse().unwrap()],
            management: Vec::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let entrance = Entrance::new(listener, &trust).unwrap();
        let log_dial = Dial::new(Filter::detached("info").unwrap(), "info");
        let shared = Shared::new(Parts {
            store,
            name: name.parse().unwrap(),
            address: format!("{}://{address}", trust.scheme()),
            fleet_name: "test".to_owned(),
            wide,
            management: Vec::new(),
            ban_for: Duration::from_secs(600),
            trust,
            metrics,
            log_dial: log_dial.clone(),
            fleet,
        });
        let policy = MissPolicy { misses: 10, window: Duration::from_secs(60) };
        let config = Config { bans: Some(policy), ..Config::default() };
        let (drain, readiness) = (Drain::new(), Readiness::new());
        let joined = readiness.latch("joined");
        let web = Web::default();
        let http = Admin::bind("--http", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let http = web.entrance(http, &shared.trust).unwrap();
        let http_address = http.address().unwrap();
        let (routes, stop) = (web.routes(), drain.token());
        drain.spawn_vital("admin server", async move { Ok(http.serve(routes, stop).await?) });
        let entrances = Entrances { grpc: entrance, web: web.clone() };
        let shared = Arc::new(shared);
        let lease = membership::LEASE_MIN;
        let running = serve::start(shared.clone(), watch, config, lease, entrances, joined, &drain);
        let ready = async {
            while !readiness.is_ready() || !web.is_open() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, ready).await.unwrap();
        Self { address, log_dial, http: http_address, shared, running, drain, registry }
    }

    /// As it is scraped.
    pub(crate) fn metrics_text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }

    pub(crate) async fn operator(&self) -> ControlServiceClient<Channel> {
        ControlServiceClient::connect(format!("http://{}", self.address)).await.unwrap()
    }

    pub(crate) async fn agent(&self, host: &str, role: &str) -> Agent {
        Agent::connect(self.address, host, role, false).await
    }

    /// An agent that every other controller has refused.
    pub(crate) async fn agent_without_choice(&self, host: &str, role: &str) -> Agent {
        Agent::connect(self.address, host, role, true).await
    }
}

pub(crate) struct Agent {
    say: mpsc::Sender<pb::AgentMessage>,
    told: Streaming<pb::ControllerMessage>,
    counter: u64,
    /// What it has seen, to be sent again when it is asked to.
    window: Vec<pb::Observation>,
    pub(crate) snapshot: pb::Snapshot,
}

impl Agent {
    pub(crate) async fn connect(address: SocketAddr, host: &str, role: &str, last_resort: bool) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self::over(channel, host, role, last_resort).await.unwrap()
    }

    /// Fails when the controller does not take it.
    pub(crate) async fn over(
        channel: Channel,
        host: &str,
        role: &str,
        last_resort: bool,
    ) -> Result<Self, Status> {
        Self::holding(AgentServiceClient::new(channel), host, role, last_resort, 0).await
    }

    /// The same for one that holds a picture of this revision.
    pub(crate) async fn holding(
        mut client: AgentServiceClient<Channel>,
        host: &str,
        role: &str,
        last_resort: bool,
        revision: u64,
    ) -> Result<Self, Status> {
        let (say, messages) = mpsc::channel(64);
        let hello = pb::Hello {
            host: host.to_owned(),
            labels: [("role".to_owned(), role.to_owned())].into(),
            boot: rand::random::<[u8; 16]>().to_vec(),
            version: "test".to_owned(),
            firewall: "dry-run".to_owned(),
            management: vec!["192.0.2.0/24".to_owned()],
            last_resort,
            revision,
            ..pb::Hello::default()
        };
        say.send(pb::AgentMessage { kind: Some(Say::Hello(hello)) }).await.unwrap();
        let told = client.attach(ReceiverStream::new(messages)).await?.into_inner();
        let mut agent = Self { say, told, counter: 0, window: Vec::new(), snapshot: pb::Snapshot::default() };
        let snapshot = agent.try_until(|told| match told {
            Told::Snapshot(snapshot) => Some(snapshot.clone()),
            _ => None,
        });
        agent.snapshot = snapshot.await?;
        Ok(agent)
    }

    /// Reads, answering probes and sending its window again when asked, until something that is looked for.
    pub(crate) async fn until<T>(&mut self, wanted: impl Fn(&Told) -> Option<T>) -> T {
        self.try_until(wanted).await.unwrap()
    }

    /// The same, when the stream may end with an error.
    async fn try_until<T>(&mut self, wanted: impl Fn(&Told) -> Option<T>) -> Result<T, Status> {
        let looking = async {
            loop {
                let told = self.told.message().await?.expect("the stream ended").kind.unwrap();
                if let Told::Probe(probe) = &told {
                    let at = local_now().as_micros();
                    let reply = pb::ProbeReply {
                        id: probe.id,
                        probe_sent_us: probe.sent_us,
                        received_us: at,
                        sent_us: at,
                    };
                    self.tell(Say::ProbeReply(reply)).await;
                }
                if let Told::Resend(_) = &told {
                    self.tell_seen(self.window.clone()).await;
                }
                if let Some(found) = wanted(&told) {
                    return Ok(found);
                }
            }
        };
        timeout(PATIENCE, looking).await.expect("the controller did not say what was waited for")
    }

    /// Answers what is asked, for so long.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let _over = timeout(time, self.until(|_| None::<()>)).await;
    }

    pub(crate) async fn opening(&mut self) -> pb::HostOpening {
        self.until(|told| match told {
            Told::Delta(delta) => delta.openings.first().cloned(),
            _ => None,
        })
        .await
    }

    pub(crate) async fn tell(&self, kind: Say) {
        self.say.send(pb::AgentMessage { kind: Some(kind) }).await.unwrap();
    }

    pub(crate) async fn knock(&mut self, source: [u8; 4], port: u32) {
        self.knock_many(&[(source, port)]).await;
    }

    pub(crate) async fn knock_many(&mut self, knocks: &[([u8; 4], u32)]) {
        let observations = knocks.iter().map(|(source, port)| {
            self.counter += 1;
            pb::Observation {
                counter: self.counter,
                time_us: local_now().as_micros(),
                source: source.to_vec(),
                destination: vec![10, 0, 0, 1],
                protocol: pb::Protocol::Tcp.into(),
                port: *port,
                fingerprint: 0,
            }
        });
        let observations: Vec<_> = observations.collect();
        self.window.extend(observations.iter().cloned());
        self.tell_seen(observations).await;
    }

    async fn tell_seen(&self, observations: Vec<pb::Observation>) {
        let batch = pb::ObservationBatch { observations, ..pb::ObservationBatch::default() };
        self.tell(Say::Observations(batch)).await;
    }
}

pub(crate) fn door() -> pb::Door {
    let step = |name: &str, port| pb::Step {
        hosts: Some(pb::HostSelector { names: vec![name.to_owned()], ..pb::HostSelector::default() }),
        port: Some(tcp(port)),
    };
    let steps = vec![step("edge-1", 7412), step("db-1", 23981), step("bastion-1", 5103)];
    let role = [("role".to_owned(), "bastion".to_owned())].into();
    let spec = pb::DoorSpec {
        knock: Some(pb::door_spec::Knock::Sequence(pb::Sequence { steps, within_ms: 15_000, length: 0 })),
        sources: Vec::new(),
        open_hosts: Some(pb::HostSelector { match_labels: role, names: Vec::new() }),
        open_ports: vec![tcp(22)],
        open_for_ms: 30_000,
        ..pb::DoorSpec::default()
    };
    pb::Door { name: "bastion-ssh".to_owned(), spec: Some(spec), ..pb::Door::default() }
}

pub(crate) fn tcp(port: u32) -> pb::Port {
    pb::Port { protocol: pb::Protocol::Tcp.into(), port }
}

pub(crate) fn apply(door: pb::Door) -> pb::ApplyDoorRequest {
    pb::ApplyDoorRequest { door: Some(door), ..pb::ApplyDoorRequest::default() }
}

/// The ports of the steps that an answer shows. `Debug` hides them.
pub(crate) fn shown_steps(door: &pb::Door) -> Vec<u32> {
    let Some(pb::door_spec::Knock::Sequence(sequence)) =
        door.spec.as_ref().and_then(|spec| spec.knock.as_ref())
    else {
        panic!("not a sequence")
    };
    sequence.steps.iter().filter_map(|step| step.port.as_ref()).map(|port| port.port).collect()
}

/// All events up to the one that is looked for, and those that come shortly after.
pub(crate) async fn events_until(
    watcher: &mut Streaming<pb::Event>,
    last: impl Fn(&pb::Event) -> bool,
) -> Vec<pb::Event> {
    let mut seen = Vec::new();
    let looking = async {
        loop {
            seen.push(watcher.message().await.unwrap().expect("the stream ended"));
            if seen.last().is_some_and(&last) {
                return;
            }
        }
    };
    timeout(PATIENCE, looking).await.expect("the event did not come");
    while let Ok(event) = timeout(Duration::from_millis(300), watcher.message()).await {
        seen.push(event.unwrap().expect("the stream ended"));
    }
    seen
}
