//! Puts the parts together and runs them: store, copy, matching, decisions, gRPC, admin.
//!
//! Tasks: `keeper` (vital), `matching` (vital), `decide` (vital), the gRPC server (vital), the admin server; one task
//! per agent's stream. All end on drain: streams are told to move on, calls under way finish.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use fleetknock_proto::{
    limits,
    v1::{
        FILE_DESCRIPTOR_SET, agent_service_server::AgentServiceServer,
        control_service_server::ControlServiceServer,
    },
};
use fleetknock_runtime::{
    admin::{self, Admin},
    drain::{Drain, Signals},
    exit,
    ready::Readiness,
};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::mpsc};
use tonic::transport::{Server, server::TcpIncoming};

use crate::{
    agent_api, config::Settings, control_api, decide, keeper, matching, metrics::Metrics,
    sessions::FleetWide, shared::Shared, store,
};

/// HTTP/2 pings find out dead peers between an agent's own signs of life.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_MAX: Duration = Duration::from_secs(10);
/// Calls under way on one connection; the rest wait.
const CALLS_MAX: u32 = 256;

/// Runs a controller until it is told to stop.
///
/// # Errors
/// When an address is busy, the store cannot be opened, or a vital task ends.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let signals = Signals::install().context("cannot install the signal handlers")?;
    let listener = admin::listen("--listen", settings.listen).await?;
    let admin = match settings.http {
        Some(address) => Some(Admin::bind("--http", address).await?),
        None => None,
    };
    let readiness = Readiness::new();
    let (store_latch, served) = (readiness.latch("store read"), readiness.latch("gRPC served"));
    let mut registry = Registry::default();
    let metrics = Metrics::default();
    metrics.register(&mut registry);

    let drain = Drain::new();
    if let Some(admin) = admin {
        let (registry, readiness, stop) = (Arc::new(registry), readiness.clone(), drain.token());
        drain.spawn_vital("admin server", async move { Ok(admin.serve(readiness, registry, stop).await?) });
    }

    let store = store::open(&settings.store_of_fleet())
        .await
        .map_err(|error| exit::coded(exit::UNAVAILABLE, error))
        .with_context(|| format!("cannot open --store {}", settings.store))?;
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

    let shared = Arc::new(Shared::new(
        store,
        format!("{:08x}", rand::random::<u32>()),
        FleetWide {
            knock_space: settings.knock_space.clone(),
            management: settings.management.iter().map(ToString::to_string).collect(),
        },
        settings.management.clone(),
        settings.ban_for,
        metrics,
        fleet,
    ));
    let (decisions, decided) = mpsc::channel(decide::DECISIONS_QUEUE);
    let (service, handle) = matching::Service::new(shared.clone(), settings.matcher(), decisions);
    let until = drain.token();
    drain.spawn_vital("keeper", until_cancelled(until.clone(), keeper::run(shared.clone(), watch)));
    drain.spawn_vital("decisions", until_cancelled(until.clone(), decide::run(shared.clone(), decided)));
    drain.spawn_vital("matching", until_cancelled(until, service.run()));

    tracing::warn!(
        listen = %settings.listen,
        "INSECURE: plain-text gRPC; whoever can reach this address can open every door"
    );
    served.release();
    drain.spawn_vital("gRPC server", serve_grpc(listener, shared, handle, drain.clone()));
    drain.wait(signals, settings.grace).await?;
    Ok(())
}

async fn serve_grpc(
    listener: TcpListener,
    shared: Arc<Shared>,
    matching: matching::Handle,
    drain: Drain,
) -> anyhow::Result<()> {
    let agents = agent_api::Service::new(shared.clone(), matching.clone(), drain.token());
    let agents = AgentServiceServer::new(agents)
        .max_decoding_message_size(limits::MESSAGE_MAX)
        .max_encoding_message_size(limits::MESSAGE_MAX);
    let control = ControlServiceServer::new(control_api::Service::new(shared.clone(), matching))
        .max_decoding_message_size(limits::MESSAGE_MAX)
        .max_encoding_message_size(limits::MESSAGE_MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<AgentServiceServer<agent_api::Service>>().await;
    health.set_serving::<ControlServiceServer<control_api::Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("cannot build the reflection service")?;

    let dismissed = drain.clone();
    let leave = async move {
        dismissed.started().await;
        shared.state().sessions.dismiss("this controller is leaving");
    };
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_MAX))
        .max_concurrent_streams(CALLS_MAX)
        .add_service(agents)
        .add_service(control)
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), leave)
        .await
        .context("the gRPC server failed")
}

async fn until_cancelled(
    stop: tokio_util::sync::CancellationToken,
    task: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let _stopped = stop.run_until_cancelled(task).await;
    Ok(())
}
