//! One opening pushed to many agents: from the operator's order until the last agent has it, and until the controller
//! knows that all have applied it. The agents are simulated in this process, each with a connection of its own, against
//! a real controller on loopback; what they would do to a kernel is not part of it.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use fleetknock_lab::programs;
use fleetknock_proto::v1::{
    self as pb, agent_message::Kind as Say, agent_service_client::AgentServiceClient,
    control_service_client::ControlServiceClient, controller_message::Kind as Told,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// Fleets of so many hosts.
const FLEETS: [usize; 2] = [1_000, 10_000];
/// Openings per fleet; the first one warms up.
const ROUNDS: usize = 8;
/// Agents that connect at the same time.
const AT_ONCE: usize = 64;
/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) fn run(out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\none opening pushed to a whole fleet of simulated agents, embedded store")?;
    writeln!(
        out,
        "{:>7}  {:>6}  {:>11}  {:>11}  {:>17}  {:>14}",
        "agents", "rounds", "pushed ms", "(max)", "known applied ms", "KiB per agent"
    )?;
    out.flush()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for agents in FLEETS {
        if room_for_files(agents as u64 + 500) {
            writeln!(out, "{}", runtime.block_on(fleet(agents))?)?;
        } else {
            writeln!(out, "{agents:>7}  not measured: this system allows too few open files (ulimit -Hn)")?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Raises the limit on open files, which the controller inherits.
fn room_for_files(wanted: u64) -> bool {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft >= wanted => true,
        Ok((_, hard)) => {
            let hard = hard.max(wanted);
            setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).is_ok()
        }
        Err(_) => false,
    }
}

async fn fleet(agents: usize) -> Result<String> {
    let controller = Controller::start()?;
    let empty = controller.memory()?;
    let mut operator = controller.operator().await?;
    let applied = pb::ApplyDoorRequest { door: Some(door()), weak: true, ..pb::ApplyDoorRequest::default() };
    operator.apply_door(applied).await?;

    let (heard, mut pushes) = mpsc::channel(agents);
    let (connected, permits) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(AT_ONCE)));
    for number in 0..agents {
        let (address, heard) = (controller.address, heard.clone());
        let (connected, permits) = (connected.clone(), permits.clone());
        tokio::spawn(async move {
            let permit = permits.acquire_owned().await?;
            agent(address, number, heard, move || {
                connected.fetch_add(1, Ordering::Relaxed);
                drop(permit);
            })
            .await
        });
    }
    let all = async {
        while connected.load(Ordering::Relaxed) < agents {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, all).await.with_context(|| {
        format!("only {} of {agents} agents are connected", connected.load(Ordering::Relaxed))
    })?;
    let full = controller.memory()?;

    let (mut pushed, mut known) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let start = Instant::now();
        let source = Ipv4Addr::from(0xCB00_7100 + u32::try_from(round)?).to_string();
        let request = pb::OpenRequest { door: "all".into(), source, ..pb::OpenRequest::default() };
        let opening = operator.open(request).await?.into_inner();
        let last = timeout(PATIENCE, async {
            let mut last = start;
            for _ in 0..agents {
                last = last.max(pushes.recv().await.context("an agent is gone")?);
            }
            anyhow::Ok(last)
        });
        let last = last.await.context("the push did not reach every agent")??;
        while !is_applied(&mut operator, &opening.id).await? {
            ensure!(start.elapsed() < PATIENCE, "not every agent's word came back");
        }
        if round > 0 {
            pushed.push(last - start);
            known.push(start.elapsed());
        }
    }
    pushed.sort_unstable();
    known.sort_unstable();
    let ms = |times: &[Duration]| times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    Ok(format!(
        "{agents:>7}  {:>6}  {:>11.1}  {:>11.1}  {:>17.1}  {:>14.1}",
        pushed.len(),
        ms(&pushed),
        pushed.last().map_or(0.0, |time| time.as_secs_f64() * 1e3),
        ms(&known),
        (full.saturating_sub(empty)) as f64 / 1024.0 / agents as f64,
    ))
}

async fn is_applied(operator: &mut ControlServiceClient<Channel>, id: &str) -> Result<bool> {
    let opening = operator.get_opening(pb::GetOpeningRequest { id: id.to_owned() }).await?.into_inner();
    Ok(opening.hosts.iter().all(|host| host.state() == pb::HostOpeningState::Applied))
}

/// Attaches, answers probes, applies what comes, and tells when.
async fn agent(
    address: SocketAddr,
    number: usize,
    heard: mpsc::Sender<Instant>,
    ready: impl FnOnce(),
) -> Result<()> {
    let mut ready = Some(ready);
    let (say, messages) = mpsc::channel(16);
    let tell = |kind| say.send(pb::AgentMessage { kind: Some(kind) });
    let boot = (number as u128 + 1).to_be_bytes().to_vec();
    let hello = pb::Hello { host: format!("host-{number}"), boot, ..pb::Hello::default() };
    tell(Say::Hello(hello)).await?;
    let channel = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
    let mut told = AgentServiceClient::new(channel).attach(ReceiverStream::new(messages)).await?.into_inner();
    while let Some(message) = told.message().await? {
        let openings = match message.kind {
            Some(Told::Probe(probe)) => {
                let at = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
                let reply = pb::ProbeReply {
                    id: probe.id,
                    probe_sent_us: probe.sent_us,
                    received_us: at,
                    sent_us: at,
                };
                tell(Say::ProbeReply(reply)).await?;
                continue;
            }
            Some(Told::Snapshot(snapshot)) => {
                if let Some(ready) = ready.take() {
                    ready();
                }
                snapshot.openings
            }
            Some(Told::Delta(delta)) => {
                if !delta.openings.is_empty() {
                    heard.send(Instant::now()).await?;
                }
                delta.openings
            }
            _ => continue,
        };
        let results = openings.into_iter().map(|opening| pb::OpeningResult {
            id: opening.id,
            generation: opening.generation,
            state: pb::HostOpeningState::Applied.into(),
            ..pb::OpeningResult::default()
        });
        let results: Vec<_> = results.collect();
        if !results.is_empty() {
            tell(Say::Results(pb::ResultBatch { results })).await?;
        }
    }
    Ok(())
}

fn door() -> pb::Door {
    let tcp = |port| pb::Port { protocol: pb::Protocol::Tcp.into(), port };
    let steps = [7412, 23981, 5103].map(|port| pb::Step { hosts: None, port: Some(tcp(port)) }).to_vec();
    let sequence = pb::Sequence { steps, within_ms: 15_000, length: 0 };
    let spec = pb::DoorSpec {
        knock: Some(pb::door_spec::Knock::Sequence(sequence)),
        sources: Vec::new(),
        open_hosts: Some(pb::HostSelector::default()),
        open_ports: vec![tcp(22)],
        open_for_ms: 3_600_000,
        ..pb::DoorSpec::default()
    };
    pb::Door { name: "all".to_owned(), spec: Some(spec), ..pb::Door::default() }
}

/// A real controller on a free port of loopback, ended when dropped.
struct Controller {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Controller {
    fn start() -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let directory = tempfile::tempdir()?;
        let child = Command::new(programs::path("fleetknock-controller")?)
            .args(["--listen", &address.to_string(), "--insecure", "--log", "error"])
            .args(["--store", &format!("embedded:{}", directory.path().display())])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start the controller")?;
        Ok(Self { child, address, _directory: directory })
    }

    async fn operator(&self) -> Result<ControlServiceClient<Channel>> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?;
        let start = Instant::now();
        loop {
            match endpoint.connect().await {
                Ok(channel) => {
                    return Ok(ControlServiceClient::new(channel).max_decoding_message_size(64 << 20));
                }
                Err(error) if start.elapsed() > PATIENCE => bail!("the controller does not answer: {error}"),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Resident memory in bytes.
    fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
