//! Puts the parts together and runs them: store, copy, membership, peers, matching, decisions, gRPC, admin.
//!
//! Tasks, all vital: `membership`, `keeper`, `peers`, `balance`, `matching`, `decisions`, `rollbacks`, `denials`, the gRPC server;
//! beside them the admin server, the audit log with its thread, one task per agent's stream, two per peer. When told to
//! stop, the controller first gives up its lease, so that its sources are the others' at once, then sends its agents there,
//! then ends everything else.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use axum::Router;
use fleetknock_core::matcher;
use fleetknock_proto::{
    limits,
    v1::{
        FILE_DESCRIPTOR_SET, agent_service_server::AgentServiceServer,
        control_service_server::ControlServiceServer, enrolment_service_server::EnrolmentServiceServer,
        peer_service_server::PeerServiceServer,
    },
};
use fleetknock_runtime::{
    admin::{self, Admin},
    drain::{Drain, Signals},
    exit,
    log::Dial,
    metrics::register_process,
    notify::Notifier,
    otlp::{
        self,
        traces::{Traces, Waiting},
    },
    ready::{Latch, Readiness},
    tls,
};
use prometheus_client::registry::Registry;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

#[cfg(feature = "operator")]
use crate::operator;
use crate::{
    agent_api,
    audit::{
        denials,
        lines::{Lines, Log},
    },
    balance::{self, run::Pace},
    config::Settings,
    confirm, control_api, decide, enrolment, keeper,
    limits::{CALLS_MAX, HEADERS_MAX, LimitsLayer, REQUEST_MAX, RESETS_MAX},
    matching, membership,
    metrics::{Metrics, store::Metered},
    peers::{self, Peers},
    seal::Sealed,
    sessions::FleetWide,
    shared::{Parts, Pulses, Shared},
    store::{self, Store, Watch},
    trust::{Entrance, Refusals, Trust, gate::GateLayer},
    web::{Api, Web},
};

/// HTTP/2 pings find out dead peers between an agent's own signs of life.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_MAX: Duration = Duration::from_secs(10);
/// How long joining waits for another controller's word on the fleet's time.
const CLOCK_MAX: Duration = Duration::from_secs(2);
/// How long the agents are kept while the lease is given up.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// Runs a controller until it is told to stop.
///
/// # Errors
/// When an address is busy, the store cannot be opened, or a vital task ends.
pub async fn run(
    settings: Settings,
    log_dial: Dial,
    traces: Traces,
    spans: Option<Waiting>,
    notifier: Notifier,
) -> anyhow::Result<()> {
    let signals = Signals::install().context("cannot install the signal handlers")?;
    let name = settings.name();
    let trust = Trust::load(&settings.fleet_name(), settings.tls_files(&name)?)
        .map_err(|error| exit::coded(exit::UNAVAILABLE, error))?;
    let audit_log = settings.audit_log.clone().map(Log::open).transpose();
    let audit_log = audit_log.map_err(|error| exit::coded(exit::UNAVAILABLE, error))?;
    let trust = with_issuer(trust, &settings)?;
    #[cfg(feature = "operator")]
    let trust = with_cluster(trust, &settings).await?;
    let listener = admin::listen("--listen", settings.listen).await?;
    let entrance = Entrance::new(listener, &trust)?;
    let collector = settings.otlp.collector().map_err(|error| exit::coded(exit::UNAVAILABLE, error))?;
    let web = Web::default();
    let mut admins = Vec::new();
    if let Some(address) = settings.http {
        let admin = web.entrance(Admin::bind("--http", address).await?, &trust)?;
        if let Some(why) = trust.foreign_to_browsers() {
            tracing::warn!(http = %address, "{why}");
        }
        admins.push(("dashboard", admin, web.routes()));
    }
    if let Some(address) = settings.http_plain {
        admins.push(("admin server", Admin::bind("--http-plain", address).await?, Router::new()));
    }
    let readiness = Readiness::new();
    let (store_latch, served) = (readiness.latch("store read"), readiness.latch("gRPC served"));
    let joined = readiness.latch("joined the fleet");
    let mut registry = Registry::with_labels([("controller".into(), name.to_string().into())].into_iter());
    let metrics = Metrics::default();
    metrics.register(&mut registry);
    traces.register(registry.sub_registry_with_prefix("fleetknock_controller"));
    register_process(&mut registry, "fleetknock_controller", env!("CARGO_PKG_VERSION"));
    #[cfg(feature = "operator")]
    let from_kubernetes = operator::of_doors(&settings, &mut registry).await?;
    entrance.register(&trust, registry.sub_registry_with_prefix("fleetknock_controller"));

    let drain = Drain::new();
    // A store that is away keeps the controller from being ready, and so does nothing else that can be waited for; the
    // service manager wants signs of life only once it is.
    let pulses = Pulses::default();
    let ready = readiness.clone();
    drain.spawn(notifier.follow(ready.clone(), ready, pulses.all(), drain.token()));
    if let Trust::Mutual { credentials, .. } = &trust {
        drain.spawn(credentials.clone().follow(tls::FOLLOW_EVERY, drain.token()));
    }
    let registry = Arc::new(registry);
    if let Some(collector) = collector {
        let origin = otlp::metrics::Origin {
            service: "fleetknock-controller",
            instance: name.to_string(),
            version: env!("CARGO_PKG_VERSION"),
        };
        let fleet = settings.fleet.to_string();
        collector.serve(&drain, registry.clone(), (traces.clone(), spans), origin, fleet);
    }
    for (name, admin, more) in admins {
        let routes = admin::routes(readiness.clone(), registry.clone()).merge(more);
        let stop = drain.token();
        drain.spawn_vital(name, async move { Ok(admin.serve(routes, stop).await?) });
    }

    let store = store::open(&settings.store_of_fleet()?)
        .await
        .map_err(|error| exit::coded(exit::UNAVAILABLE, error))
        .with_context(|| format!("cannot open --store {}", settings.store))?;
    let keyring = settings.keyring()?;
    if keyring.is_empty() {
        tracing::warn!(
            store = %settings.store,
            "NOT SEALED: no --seal-key, so the steps of all doors lie in the store in the clear"
        );
    }
    let store = Arc::new(Metered::new(store, metrics.store.clone()));
    let store: Arc<dyn Store> = Arc::new(Sealed::new(store, keyring));
    let Some(read) = drain.token().run_until_cancelled(keeper::load_patiently(&*store)).await else {
        return Ok(());
    };
    let (fleet, watch) = read
        .map_err(|error| exit::coded(exit::UNAVAILABLE, error))
        .with_context(|| format!("cannot read --store {}", settings.store))?;
    store_latch.release();
    tracing::info!(
        doors = fleet.doors().len(),
        hosts = fleet.hosts().len(),
        openings = fleet.openings().len(),
        bans = fleet.bans().len(),
        revision = fleet.revision(),
        "the store was read"
    );

    let mut shared = Shared::new(Parts {
        store,
        name,
        address: settings.address(),
        fleet_name: settings.fleet.to_string(),
        wide: FleetWide {
            knock_space: settings.knock_space.clone(),
            management: settings.management.iter().map(ToString::to_string).collect(),
        },
        management: settings.management.clone(),
        ban_for: settings.ban_for,
        trust,
        metrics,
        log_dial,
        fleet,
    });
    shared.pulses = pulses;
    let shared = Arc::new(shared);
    shared.tracing.send_to(traces);
    if settings.insecure {
        tracing::warn!(
            listen = %settings.listen,
            "INSECURE: plain-text gRPC; whoever can reach this address can open every door"
        );
    }
    served.release();
    let logging = match audit_log {
        Some(log) => {
            let (lines, running) =
                Lines::start(log, shared.metrics.clone()).context("cannot start a thread")?;
            shared.log_to(lines);
            Some(running)
        }
        None => None,
    };
    let entrances = Entrances { grpc: entrance, web };
    let running = start(shared.clone(), watch, settings.matcher(), settings.lease, entrances, joined, &drain);
    #[cfg(feature = "operator")]
    if let Some(doors) = from_kubernetes {
        let sync = doors.sync(shared, running.peers.clone());
        let task = until_cancelled(running.over.clone(), operator::doors::run(sync));
        drain.spawn_vital("doors of Kubernetes", task);
    }
    if let Some(logging) = logging {
        drain.spawn_vital("audit log", logging.until(running.over.clone()));
    }
    drain.wait(signals, settings.grace).await?;
    Ok(())
}

/// With who signs hosts' certificates, when somebody does, and can.
fn with_issuer(trust: Trust, settings: &Settings) -> anyhow::Result<Trust> {
    let issuer = settings.issuer().map_err(|reason| exit::coded(exit::USAGE, anyhow::anyhow!(reason)))?;
    let (Some(issuer), Trust::Mutual { fleet, credentials, .. }) = (issuer, &trust) else {
        return Ok(trust);
    };
    issuer
        .try_out(fleet, &credentials.current(), SystemTime::now())
        .map_err(|error| exit::coded(exit::UNAVAILABLE, error))
        .context("--issuer-cert and --issuer-key cannot be used")?;
    Ok(trust.with_issuer(issuer))
}

/// With the cluster by whose word hosts enrol, when they do. That it answers is not waited for: it may come later.
#[cfg(feature = "operator")]
async fn with_cluster(trust: Trust, settings: &Settings) -> anyhow::Result<Trust> {
    let Some(account) = &settings.kubernetes_enroll else { return Ok(trust) };
    let client = operator::client::connect()
        .await
        .map_err(|error| exit::coded(exit::UNAVAILABLE, error))
        .with_context(|| format!("--kubernetes-enroll {account}"))?;
    tracing::info!(%account, "pods of this service account enrol the nodes on which they run");
    Ok(trust.with_cluster(Arc::new(operator::enroll::Reviewer::new(client, account.clone()))))
}

/// Where calls come in.
#[derive(Debug)]
pub struct Entrances {
    /// As gRPC.
    pub grpc: Entrance,
    /// As JSON over HTTP, and the dashboard.
    pub web: Web,
}

/// A controller that runs.
pub struct Running {
    /// Its way to the others.
    pub peers: Arc<Peers>,
    /// Cancelled when it has left.
    pub over: CancellationToken,
}

/// Starts everything but the store and the admin server. `joined` is released when the lease is held.
pub fn start(
    shared: Arc<Shared>,
    watch: Watch,
    matcher: matcher::Config,
    lease: Duration,
    entrances: Entrances,
    joined: Latch,
    drain: &Drain,
) -> Running {
    let (decisions, decided) = mpsc::channel(decide::DECISIONS_QUEUE);
    let (service, matching) = matching::Service::new(shared.clone(), matcher, decisions);
    let peers = Peers::new(shared.clone(), matching.clone());
    shared.metrics.view.of(&shared, &peers);
    // Cancelled when this controller has left and its agents are on their way.
    let over = CancellationToken::new();
    // Cancelled when the lease has been given up.
    let left = CancellationToken::new();

    let until = || over.clone();
    drain.spawn_vital("keeper", until_cancelled(until(), keeper::run(shared.clone(), watch)));
    drain.spawn_vital("decisions", until_cancelled(until(), decide::run(shared.clone(), decided)));
    drain.spawn_vital("rollbacks", until_cancelled(until(), confirm::deadline::run(shared.clone())));
    drain.spawn_vital("matching", until_cancelled(until(), service.run()));
    drain.spawn_vital("peers", until_cancelled(until(), peers.clone().run()));
    let balancing = balance::run::run(shared.clone(), peers.clone(), Pace::default());
    drain.spawn_vital("balance", until_cancelled(until(), balancing));
    if let Some(denied) = shared.denied() {
        drain.spawn_vital("denials", until_cancelled(until(), denials::run(shared.clone(), denied)));
    }
    let (member, others, leaving) = (shared.clone(), peers.clone(), drain.token());
    let said_when_left = left.clone().drop_guard();
    drain.spawn_vital("membership", async move {
        let _left = said_when_left;
        others.clock_measured(CLOCK_MAX).await;
        membership::run(member, lease, joined, leaving).await;
        Ok(())
    });
    let running = Running { peers: peers.clone(), over: over.clone() };
    let server = Grpc { shared, matching, peers, left, over };
    drain.spawn_vital("gRPC server", server.serve(entrances, drain.clone()));
    running
}

struct Grpc {
    shared: Arc<Shared>,
    matching: matching::Handle,
    peers: Arc<Peers>,
    left: CancellationToken,
    over: CancellationToken,
}

impl Grpc {
    async fn serve(self, entrances: Entrances, drain: Drain) -> anyhow::Result<()> {
        let Self { shared, matching, peers, left, over } = self;
        let agents = agent_api::Service::new(shared.clone(), peers.clone(), over.clone());
        let agents = AgentServiceServer::new(agents)
            .max_decoding_message_size(limits::MESSAGE_MAX)
            .max_encoding_message_size(limits::MESSAGE_MAX);
        let control =
            control_api::Service::new(shared.clone(), matching.clone(), peers.clone(), over.clone());
        let control = ControlServiceServer::new(control)
            .max_decoding_message_size(REQUEST_MAX)
            .max_encoding_message_size(limits::MESSAGE_MAX);
        let peer = peers::service::Service::new(shared.clone(), matching, peers, over.clone());
        let peer = PeerServiceServer::new(peer)
            .max_decoding_message_size(limits::MESSAGE_MAX)
            .max_encoding_message_size(limits::MESSAGE_MAX);
        let enrolment = EnrolmentServiceServer::new(enrolment::Service::new(shared.clone()))
            .max_decoding_message_size(enrolment::REQUEST_MAX);
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<AgentServiceServer<agent_api::Service>>().await;
        health.set_serving::<ControlServiceServer<control_api::Service>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .context("cannot build the reflection service")?;

        let refusals = Refusals::new(shared.metrics.clone(), shared.denials());
        let gate = GateLayer::new(shared.clone(), refusals.clone());
        let callers = LimitsLayer::new(&shared.trust, shared.metrics.clone());
        let Entrances { grpc: entrance, web } = entrances;
        let api = Api::new(control.clone(), gate.clone(), &callers, refusals.clone());
        web.open(api.context("cannot serve the API as JSON")?);
        let leave = async move {
            drain.started().await;
            // The others must know that the sources are theirs before the agents come to them.
            let _late = timeout(LEAVE_MAX, left.cancelled()).await;
            shared.state().sessions.dismiss("this controller is leaving");
            over.cancel();
        };
        Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_MAX))
            .max_concurrent_streams(CALLS_MAX)
            .http2_max_header_list_size(HEADERS_MAX)
            .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
            .layer(gate)
            .layer(callers)
            .add_service(agents)
            .add_service(control)
            .add_service(peer)
            .add_service(enrolment)
            .add_service(health_service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(entrance.open(refusals), leave)
            .await
            .context("the gRPC server failed")
    }
}

async fn until_cancelled(stop: CancellationToken, task: impl Future<Output = ()>) -> anyhow::Result<()> {
    let _stopped = stop.run_until_cancelled(task).await;
    Ok(())
}
