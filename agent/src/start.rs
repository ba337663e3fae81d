//! Puts the parts together, guard first: what is remembered stands in the kernel before the network is touched.

use std::{
    future::Future,
    io::Write as _,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use caps::{CapSet, Capability};
use fleetknock_proto::v1;
use fleetknock_runtime::{
    admin::{self, Admin},
    clock,
    drain::{Drain, Signals},
    exit, log,
    metrics::register_process,
    notify::{Notifier, Pulse},
    otlp::{
        self,
        traces::{Traces, Waiting},
    },
    ready::{Latch, Readiness},
    tls::{self, Connector, Credentials, Expected},
};
use prometheus_client::registry::Registry;
use tokio::{sync::watch, time::interval_at};

use crate::{
    capture::{self, CaptureError},
    certificate::{self, renew::Warden, token::TokenFile},
    config::Settings,
    driver::{Driver, Parts, hand, metrics::Metrics, space, state::StateFile},
    firewall::{self, Firewall, FirewallError, Kind, Options},
    harden::{Hardening, Needs},
    picture::Picture,
};

/// The loop is one task; the second thread answers scrapes and dials.
const WORKERS: usize = 2;
/// What was given to the firewall ends within this time when the agent is stopped.
const GRACE: Duration = Duration::from_secs(10);
/// How often an agent that waits for its certificate shows that it lives.
const TURN: Duration = Duration::from_secs(1);

/// Runs an agent until it is told to stop.
///
/// # Errors
/// When a capability is missing (exit code 77), a part cannot start, or one without which the agent is pointless ends.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    if settings.check_config {
        return Ok(writeln!(std::io::stdout(), "configuration is valid")?);
    }
    // While the environment names its socket, and it can be opened.
    let notifier = Notifier::from_environment();
    check_capabilities(settings.firewall)?;
    let mut hardening = Hardening::begin(settings.harden)?;
    let (traces, spans) = settings.otlp.traces();
    let filter = log::init_with(settings.log_format, &settings.log, &traces)?;
    let telling = (log::Dial::new(filter, &settings.log), traces, spans, notifier);
    tracing::info!(host = %settings.host, version = env!("CARGO_PKG_VERSION"), "the agent starts");
    if settings.insecure {
        tracing::warn!(
            controllers = settings.controller.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            "INSECURE: controllers are spoken to in plain text; whoever is on the way can open doors"
        );
    }

    let options = Options::from(&settings);
    let mut firewall = firewall::choose(settings.firewall, options.clone()).map_err(firewall_error)?;
    let token = certificate::enrol::read_token(&settings);
    // In this thread, before there is another: all of them are to be held by it.
    let needs = Needs::of(&settings, &firewall::programs(&*firewall, &options));
    hardening.give_up_privileges(&settings, &needs)?;
    let state = settings.state.as_deref().map(StateFile::open).transpose();
    let state = state.map_err(|error| exit::coded(exit::IO, error))?;
    hardening.restrict(&needs);
    let mut picture = Picture::new(settings.own_management());
    let remembered = recall(state.as_ref(), &mut picture, &mut *firewall);
    // After the guard, for the same reason as what follows.
    hardening.verdict()?;

    // After the guard, and not within --check-config: a host whose certificate ended while it was off is closed all the
    // same. Whoever restarts services tries again: the files may come any moment.
    let files = settings.tls_files()?;
    exit::block_on(
        Some(WORKERS),
        serve(settings, files, token, firewall, state, (picture, remembered), telling),
    )
}

async fn serve(
    settings: Settings,
    files: Option<tls::Files>,
    token: Option<anyhow::Result<TokenFile>>,
    firewall: Box<dyn Firewall>,
    state: Option<StateFile>,
    (picture, remembered): (Picture, Remembered),
    (log_dial, traces, spans, notifier): (log::Dial, Traces, Option<Waiting>, Notifier),
) -> anyhow::Result<()> {
    let mut signals = Signals::install().context("cannot install the signal handlers")?;
    let readiness = Readiness::new();
    let (capture_latch, guard_latch, controller_latch) = (
        readiness.latch("capture open"),
        readiness.latch("guard written"),
        readiness.latch("controller reached"),
    );
    if remembered == Remembered::Guarded {
        guard_latch.release();
    }
    let (pulse, drain) = (Pulse::new(), Drain::new());
    let begun = told(notifier, &readiness, &pulse, (remembered, &guard_latch), &drain);
    let certificate_latch = files.as_ref().map(|_| readiness.latch("certificate"));
    if let (Some(files), Some(latch)) = (&files, &certificate_latch) {
        let enrolment = certificate::enrol::when_needed(&settings, files, token);
        if !has_certificate(enrolment, &mut signals, &pulse, &begun).await? {
            return Ok(());
        }
        latch.release();
    }
    let credentials = files.clone().map(Credentials::load).transpose();
    let credentials = credentials.map_err(|error| exit::coded(exit::UNAVAILABLE, error))?;
    let collector = settings.otlp.collector().map_err(|error| exit::coded(exit::UNAVAILABLE, error))?;
    let admin = match settings.http {
        Some(address) => Some(Admin::bind("--http", address).await?),
        None => None,
    };
    let mut registry = Registry::with_labels([("host".into(), settings.host.to_string().into())].into_iter());
    let metrics = Metrics::default();
    metrics.register(&mut registry);
    traces.register(registry.sub_registry_with_prefix("fleetknock_agent"));
    register_process(&mut registry, "fleetknock_agent", env!("CARGO_PKG_VERSION"));
    let (notice, notices) = watch::channel(None);
    if let (Some(credentials), Some(files)) = (&credentials, files) {
        let registry = registry.sub_registry_with_prefix("fleetknock_agent");
        credentials.register(registry);
        let warden = Warden::new(&settings, credentials.clone(), files, notice);
        warden.metrics().register(registry);
        drain.spawn(warden.run(drain.token()));
        drain.spawn(credentials.clone().follow(tls::FOLLOW_EVERY, drain.token()));
    }
    let connector =
        credentials.map(|credentials| Connector::new(credentials, Expected::Uri(settings.controller_rule())));
    let registry = Arc::new(registry);
    if let Some(collector) = collector {
        let origin = otlp::metrics::Origin {
            service: "fleetknock-agent",
            instance: settings.host.to_string(),
            version: env!("CARGO_PKG_VERSION"),
        };
        let fleet = settings.fleet.to_string();
        collector.serve(&drain, registry.clone(), (traces.clone(), spans), origin, fleet);
    }
    if let Some(admin) = admin {
        let stop = drain.token();
        drain.spawn_vital("admin server", async move {
            Ok(admin.serve(admin::routes(readiness, registry), stop).await?)
        });
    }

    let (ears, sightings) = capture::start(capture::Settings {
        interfaces: settings.interface.iter().cloned().collect(),
        space: space(&picture),
    })
    .map_err(capture_error)?;
    capture_latch.release();
    begun.release();

    let driver = Driver::new(Parts {
        hello: hello(&settings, firewall.name())?,
        controllers: settings.controller.clone(),
        connector,
        picture,
        remembered: remembered != Remembered::Nothing,
        firewall,
        sightings,
        ears: Box::new(ears),
        state,
        reconcile_every: settings.reconcile_interval,
        on_exit: settings.on_exit,
        metrics,
        traces,
        certificate: notices,
        log_dial,
        guard_latch,
        controller_latch,
        pulse,
    })?;
    drain.spawn_vital("driver", driver.run(drain.token()));
    drain.wait(signals, GRACE).await?;
    drop((capture_latch, certificate_latch, begun));
    tracing::info!("the agent stops");
    Ok(())
}

/// Tells the service manager how the agent stands. What is ordered after the agent, the network first of all, waits for
/// the guard that is remembered and for the capture, which is released by what is returned; and never for a controller: a
/// host whose controllers are away starts all the same, as closed as it was.
fn told(
    notifier: Notifier,
    readiness: &Readiness,
    pulse: &Pulse,
    (remembered, guard): (Remembered, &Latch),
    drain: &Drain,
) -> Latch {
    let up = Readiness::new();
    let begun = up.latch("capture open");
    if remembered == Remembered::Unwritten {
        up.needs("remembered guard written", guard);
    }
    drain.spawn(notifier.follow(up, readiness.clone(), vec![pulse.clone()], drain.token()));
    begun
}

/// Waits for the certificate of a host that has none; whether there is one, or the agent was told to stop before. It comes
/// over the network, so who waits for the agent before the network comes up is not kept waiting.
async fn has_certificate(
    enrolment: impl Future<Output = anyhow::Result<()>>,
    signals: &mut Signals,
    pulse: &Pulse,
    begun: &Latch,
) -> anyhow::Result<bool> {
    let mut enrolment = pin!(enrolment);
    let mut turns = interval_at(tokio::time::Instant::now() + TURN, TURN);
    loop {
        tokio::select! {
            biased;
            enrolled = &mut enrolment => return enrolled.map(|()| true),
            signal = signals.next() => {
                tracing::info!(?signal, "the agent stops before it has a certificate");
                return Ok(false);
            }
            _ = turns.tick() => {
                pulse.beat();
                begun.release();
            }
        }
    }
}

/// What came of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remembered {
    /// There is none: what the kernel holds stays until a controller speaks.
    Nothing,
    /// It could not be written to the kernel yet.
    Unwritten,
    /// It stands in the kernel.
    Guarded,
}

/// Brings back what was guarded before the restart. Nothing is taken out of the kernel: the memory may be older.
fn recall(state: Option<&StateFile>, picture: &mut Picture, firewall: &mut dyn Firewall) -> Remembered {
    let saved = match state.map(StateFile::load).transpose() {
        Ok(saved) => saved.flatten(),
        Err(error) => {
            // The guard in the kernel outlives the agent, so starting without a memory opens nothing.
            tracing::error!(%error, "nothing is remembered");
            None
        }
    };
    let Some(saved) = saved else { return Remembered::Nothing };
    let now = Instant::now();
    picture.take_delta(saved.into_delta(clock::now_micros()), now);
    let desired = picture.desired(now);
    match hand::assert(firewall, &desired) {
        Ok(()) => {
            tracing::info!(
                ports = desired.guard.ports.len(),
                openings = desired.openings.len(),
                bans = desired.bans.len(),
                "the remembered guard stands"
            );
            Remembered::Guarded
        }
        Err(error) => {
            tracing::error!(%error, "the remembered guard cannot be written yet");
            Remembered::Unwritten
        }
    }
}

fn hello(settings: &Settings, firewall: &str) -> anyhow::Result<v1::Hello> {
    Ok(v1::Hello {
        host: settings.host.to_string(),
        labels: fleetknock_proto::convert::labels_message(&settings.labels()?),
        boot: rand::random::<[u8; 16]>().to_vec(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        addresses: Vec::new(),
        firewall: firewall.to_owned(),
        revision: 0,
        management: settings.own_management().iter().map(ToString::to_string).collect(),
        last_resort: false,
    })
}

fn check_capabilities(firewall: Kind) -> anyhow::Result<()> {
    let needed = [
        (Capability::CAP_NET_RAW, "capture packets", true),
        (Capability::CAP_NET_ADMIN, "change the firewall", firewall != Kind::DryRun),
    ];
    let mut missing = Vec::new();
    for (capability, use_of_it, _) in needed.into_iter().filter(|(_, _, needed)| *needed) {
        if !caps::has_cap(None, CapSet::Effective, capability).context("cannot read the capabilities")? {
            missing.push(format!("{capability} (to {use_of_it})"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let error = anyhow::anyhow!(
        "the capability {} is missing; run the agent as root, or give it to it, with systemd: AmbientCapabilities=CAP_NET_RAW \
         CAP_NET_ADMIN",
        missing.join(" and ")
    );
    Err(exit::coded(exit::NO_PERMISSION, error))
}

fn firewall_error(error: FirewallError) -> anyhow::Error {
    let code = match error {
        FirewallError::Permission => exit::NO_PERMISSION,
        FirewallError::Missing { .. } => exit::UNAVAILABLE,
        _ => exit::OS,
    };
    exit::coded(code, error)
}

fn capture_error(error: CaptureError) -> anyhow::Error {
    let code = match error {
        CaptureError::Permission => exit::NO_PERMISSION,
        _ => exit::OS,
    };
    exit::coded(code, error)
}
