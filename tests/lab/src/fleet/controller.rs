//! A controller and the host it runs on.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitStatus,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use fleetknock_proto::v1::{
    ListAttemptsRequest, OpenRequest, control_service_client::ControlServiceClient,
    peer_service_client::PeerServiceClient,
};
use nix::sys::signal::Signal;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    HTTP_PORT, HTTPS_PORT, Operator, PORT, READY,
    trust::{self, Trust},
};
use crate::{host::Host, http, pki::Identity, process::Process, programs, wait::wait_until};

/// How long a controller may take to answer a call of the lab.
const ANSWER: Duration = Duration::from_secs(2);
/// How long one that was told to stop may take: its grace period, and what a busy machine adds.
const STOP: Duration = Duration::from_secs(30);

/// A controller and the host it runs on.
#[derive(Debug)]
pub struct Controller {
    host: Host,
    /// As env(1) takes variables.
    environment: Vec<String>,
    flags: Vec<String>,
    /// What it shows, and what the lab's operators do; none in plain text.
    shown: Option<Shown>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Shown {
    own: Identity,
    operator: Identity,
}

#[derive(Debug, Default)]
struct State {
    process: Option<Process>,
    paused: bool,
}

impl Controller {
    /// The controller on this host and this store, with more flags; not started yet.
    pub(super) fn new(host: Host, store: &str, more: &[String]) -> Self {
        Self::showing(host, store, more, None)
    }

    /// The same as its fleet trusts: with a certificate of its own and, unless the flags name others, a key of the fleet
    /// that seals what it stores; or in plain text.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub(super) fn trusted(host: Host, store: &str, more: &[String], trust: &Trust) -> Result<Self> {
        let Trust::Mutual { pki, operator } = trust else { return Ok(Self::new(host, store, more)) };
        let own = pki.controller(host.name(), host.v4())?;
        let mut more = more.to_vec();
        if !more.iter().any(|flag| flag == "--seal-key") {
            more.extend(["--seal-key".to_owned(), pki.seal_key("lab")?]);
        }
        Ok(Self::showing(host, store, &more, Some(Shown { own, operator: operator.clone() })))
    }

    fn showing(host: Host, store: &str, more: &[String], shown: Option<Shown>) -> Self {
        let mut flags = vec!["--listen".to_owned(), format!("0.0.0.0:{PORT}")];
        flags.extend(["--store".to_owned(), store.to_owned()]);
        let local = |port: u16| format!("127.0.0.1:{port}");
        if shown.is_some() {
            flags.extend(["--http".to_owned(), local(HTTPS_PORT)]);
        }
        let plain = if shown.is_some() { "--http-plain" } else { "--http" };
        // Somebody else's Prometheus comes from elsewhere.
        if !more.iter().any(|flag| flag == plain) {
            flags.extend([plain.to_owned(), local(HTTP_PORT)]);
        }
        flags.extend(trust::flags(shown.as_ref().map(|shown| &shown.own)));
        flags.extend_from_slice(more);
        Self { host, environment: Vec::new(), flags, shown, state: Mutex::default() }
    }

    /// The same with these variables in its environment.
    pub(super) fn within(mut self, environment: &[String]) -> Self {
        self.environment = environment.to_vec();
        self
    }

    /// The certificate that it shows.
    ///
    /// # Errors
    /// When its fleet speaks plain text.
    pub fn identity(&self) -> Result<&Identity> {
        let shown = self.shown.as_ref().map(|shown| &shown.own);
        shown.with_context(|| format!("the controller on {} shows no certificate", self.name()))
    }

    /// Where it runs.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its name in the fleet, which is its host's.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Its address for agents, operators and other controllers.
    pub fn url(&self) -> String {
        let scheme = if self.shown.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{PORT}", self.host.v4())
    }

    /// An operator beside it who asks it.
    pub fn operator(&self) -> Operator {
        Operator::new(&self.host, &self.url(), self.shown.as_ref().map(|shown| &shown.operator))
    }

    /// Starts it (again). Does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self) -> Result<Process> {
        let program = programs::path("fleetknock-controller")?.to_string_lossy().into_owned();
        let mut command = Vec::new();
        if !self.environment.is_empty() {
            command.push("env".to_owned());
            command.extend_from_slice(&self.environment);
        }
        command.push(program);
        command.extend_from_slice(&self.flags);
        let process = self.host.spawn("controller", &command)?;
        *self.lock() = State { process: Some(process.clone()), paused: false };
        Ok(process)
    }

    /// Waits until it accepts connections.
    ///
    /// # Errors
    /// When it ends, or does not accept connections in time.
    pub fn wait_listening(&self) -> Result<()> {
        let process = self.process()?;
        wait_until(&format!("the controller on {} to listen", self.name()), READY, || {
            if !process.is_running() {
                bail!("the controller on {} ended: {}", self.name(), process.log());
            }
            self.host.reaches(self.host.at(PORT))
        })?;
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub fn wait_ready(&self) -> Result<()> {
        self.wait_listening()?;
        let process = self.process()?;
        wait_until(&format!("the controller on {} to be ready", self.name()), READY, || {
            if !process.is_running() {
                bail!("the controller on {} ended: {}", self.name(), process.log());
            }
            Ok(self.http("/ready").is_ok_and(|answer| answer.code == 200))
        })?;
        Ok(())
    }

    /// The running controller.
    ///
    /// # Errors
    /// When it has been killed.
    pub fn process(&self) -> Result<Process> {
        self.lock().process.clone().with_context(|| format!("no controller runs on {}", self.name()))
    }

    /// Whether it runs and has not been paused.
    pub fn is_up(&self) -> bool {
        let state = self.lock();
        !state.paused && state.process.as_ref().is_some_and(Process::is_running)
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.lock().process.take().map_or(Ok(()), |process| process.kill())
    }

    /// Tells it to stop, with SIGTERM. Does not wait.
    ///
    /// # Errors
    /// When it does not run, or the kernel refuses.
    pub fn tell_to_stop(&self) -> Result<()> {
        self.process()?.signal(Signal::SIGTERM)
    }

    /// Waits until it has ended after it was told to.
    ///
    /// # Errors
    /// When it has not within 30 seconds, or says that something failed.
    pub fn wait_stopped(&self) -> Result<ExitStatus> {
        let process = self.process()?;
        let status = process.wait(STOP).with_context(|| format!("the controller on {}", self.name()))?;
        if !status.success() {
            bail!("the controller on {} ended with {status}: {}", self.name(), process.log());
        }
        self.lock().process = None;
        Ok(status)
    }

    /// Stops it from doing anything, as a frozen machine would.
    ///
    /// # Errors
    /// When it does not run, or the kernel refuses.
    pub fn pause(&self) -> Result<()> {
        self.process()?.signal(Signal::SIGSTOP)?;
        self.lock().paused = true;
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run, or the kernel refuses.
    pub fn resume(&self) -> Result<()> {
        self.process()?.signal(Signal::SIGCONT)?;
        self.lock().paused = false;
        Ok(())
    }

    /// The sum of one of its metrics, such as `openings_total`, over all its series whose labels contain `label`. What
    /// it does not export counts as zero.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metric(&self, name: &str, label: &str) -> Result<u64> {
        let text = self.http("/metrics")?.text;
        Ok(sum(&text, &format!("fleetknock_controller_{name}"), label))
    }

    /// Whether it follows a knock of this source that is under way.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn follows(&self, source: IpAddr) -> Result<bool> {
        let own = self.shown.as_ref().map(|shown| &shown.own);
        let answer = self.attempts_as(own, source).and_then(|answer| Ok(answer?));
        Ok(answer.with_context(|| format!("the controller on {} does not answer", self.name()))? > 0)
    }

    /// How many knocks of this source it follows, asked as a peer asks, with this certificate. The inner error is its
    /// refusal.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn attempts_as(
        &self,
        shown: Option<&Identity>,
        source: IpAddr,
    ) -> Result<std::result::Result<usize, Status>> {
        let request = ListAttemptsRequest { source: source.to_string(), ..ListAttemptsRequest::default() };
        self.ask(shown, async move |channel| {
            let answer = PeerServiceClient::new(channel).own_attempts(request).await?;
            Ok(answer.into_inner().attempts.len())
        })
    }

    /// Opens a door for a source, asked as an operator asks, with this certificate; the operator's own command would not
    /// show one that is no user's. The inner error is its refusal.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn open_as(
        &self,
        shown: Option<&Identity>,
        door: &str,
        source: IpAddr,
    ) -> Result<std::result::Result<(), Status>> {
        let request =
            OpenRequest { door: door.to_owned(), source: source.to_string(), ..OpenRequest::default() };
        self.ask(shown, async move |channel| {
            ControlServiceClient::new(channel).open(request).await?;
            Ok(())
        })
    }

    fn ask<T: Send>(
        &self,
        shown: Option<&Identity>,
        call: impl AsyncFnOnce(Channel) -> std::result::Result<T, Status> + Send,
    ) -> Result<std::result::Result<T, Status>> {
        let url = self.url();
        let plain = Endpoint::from_shared(url.clone())?.connect_timeout(ANSWER);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.host.inside(|| {
            runtime.block_on(async {
                let ask = async {
                    let channel = match shown {
                        None => plain.connect().await?,
                        Some(identity) => identity.channel(&url).await?,
                    };
                    anyhow::Ok(call(channel).await)
                };
                tokio::time::timeout(ANSWER, ask).await?
            })
        })?
    }

    fn http(&self, path: &str) -> Result<http::Answer> {
        http::get(&self.host, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), HTTP_PORT), path)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds up the samples of one metric in Prometheus's text format.
pub(super) fn sum(text: &str, name: &str, label: &str) -> u64 {
    let samples = text.lines().filter_map(|line| line.strip_prefix(name));
    samples
        .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
