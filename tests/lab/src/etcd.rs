//! A real etcd, alone or as a cluster of several hosts.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::{
    host::Host,
    http,
    pki::{Identity, Pki},
    process::Process,
    programs, wait_until, within,
};

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// Health and metrics, in plain text whatever the clients speak.
const HTTP_PORT: u16 = 2381;
/// How long a cluster may take to become healthy, or to elect a leader, on a busy machine.
const READY: Duration = Duration::from_secs(30);

/// The members of one cluster.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    /// What its clients show; none in plain text.
    client: Option<Identity>,
}

/// One member and the host it runs on.
#[derive(Debug)]
pub struct Member {
    host: Host,
    command: Vec<String>,
    process: Mutex<Process>,
}

impl Etcd {
    /// Starts one member on each of these hosts, with their data in `directory`, and waits until all are healthy.
    ///
    /// # Errors
    /// When etcd is not installed, or not healthy within 30 seconds.
    pub fn start(hosts: &[Host], directory: &Path) -> Result<Self> {
        Self::start_as(hosts, directory, None)
    }

    /// The same with mutual TLS at the clients' port, by this authority. It should vouch for nobody else: who has a
    /// certificate of its may change everything.
    ///
    /// # Errors
    /// The same.
    pub fn start_trusted(hosts: &[Host], directory: &Path, pki: &Pki) -> Result<Self> {
        Self::start_as(hosts, directory, Some(pki))
    }

    fn start_as(hosts: &[Host], directory: &Path, pki: Option<&Pki>) -> Result<Self> {
        if !programs::has_tool("etcd") {
            bail!("etcd is not installed; install it with: apt-get install etcd-server (or run: make deps)");
        }
        let cluster = hosts
            .iter()
            .map(|host| format!("{}=http://{}:{PEER_PORT}", host.name(), host.v4()))
            .collect::<Vec<_>>()
            .join(",");
        let mut members = Vec::new();
        for host in hosts {
            let scheme = if pki.is_some() { "https" } else { "http" };
            let client = format!("{scheme}://{}:{CLIENT_PORT}", host.v4());
            let peer = format!("http://{}:{PEER_PORT}", host.v4());
            let data = directory.join(format!("etcd-{}", host.name()));
            let mut command = [
                "etcd",
                "--name",
                host.name(),
                "--data-dir",
                &data.to_string_lossy(),
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
                "--initial-cluster",
                &cluster,
                "--initial-cluster-token",
                "fleetknock-lab",
                "--listen-metrics-urls",
                &format!("http://{}:{HTTP_PORT}", host.v4()),
            ]
            .map(str::to_owned)
            .to_vec();
            if let Some(pki) = pki {
                let own = pki.controller(host.name(), host.v4())?;
                let file = |path: PathBuf| path.to_string_lossy().into_owned();
                command.extend(["--cert-file".to_owned(), file(own.certificate())]);
                command.extend(["--key-file".to_owned(), file(own.key())]);
                command.extend(["--trusted-ca-file".to_owned(), file(own.authorities())]);
                command.push("--client-cert-auth".to_owned());
            }
            let process = host.spawn("etcd", &command)?;
            members.push(Member { host: host.clone(), command, process: Mutex::new(process) });
        }
        let client = pki.map(|pki| pki.user("controllers", "admin")).transpose()?;
        let etcd = Self { members, client };
        etcd.wait_healthy()?;
        Ok(etcd)
    }

    /// All members, in the order of their hosts.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member that leads.
    ///
    /// # Errors
    /// When none does within 30 seconds.
    pub fn leader(&self) -> Result<&Member> {
        within("etcd to have a leader", READY, || {
            Ok(self.members.iter().find(|member| member.leads().unwrap_or(false)))
        })
        .map(|(leader, _)| leader)
    }

    /// A member that does not lead.
    ///
    /// # Errors
    /// When none leads within 30 seconds, or there is only one.
    pub fn follower(&self) -> Result<&Member> {
        let leader = self.leader()?.host.name();
        self.members.iter().find(|member| member.host.name() != leader).context("etcd has only one member")
    }

    /// Waits until every member is healthy.
    ///
    /// # Errors
    /// When one has ended, or is not healthy within 30 seconds.
    pub fn wait_healthy(&self) -> Result<()> {
        for Member { host, process, .. } in &self.members {
            let process = process.lock().unwrap_or_else(PoisonError::into_inner).clone();
            wait_until(&format!("etcd on {} to be healthy", host.name()), READY, || {
                if !process.is_running() {
                    bail!("etcd on {} ended: {}", host.name(), process.log());
                }
                Ok(is_healthy(host).unwrap_or(false))
            })?;
        }
        Ok(())
    }

    /// Stops every member from answering, as a frozen machine or a cut network would.
    ///
    /// # Errors
    /// When one is gone.
    pub fn pause(&self) -> Result<()> {
        self.members.iter().try_for_each(Member::pause)
    }

    /// Lets every member go on.
    ///
    /// # Errors
    /// When one is gone.
    pub fn resume(&self) -> Result<()> {
        self.members.iter().try_for_each(Member::resume)
    }

    /// As the controller's `--store` takes it.
    pub fn store(&self) -> String {
        let scheme = if self.client.is_some() { "https" } else { "http" };
        let url = |member: &Member| format!("{scheme}://{}:{CLIENT_PORT}", member.host.v4());
        format!("etcd:{}", self.members.iter().map(url).collect::<Vec<_>>().join(","))
    }

    /// What the controller takes beside it.
    pub fn flags(&self) -> Vec<String> {
        let Some(client) = &self.client else { return Vec::new() };
        let files = [
            ("--etcd-cert", client.certificate()),
            ("--etcd-key", client.key()),
            ("--etcd-ca", client.authorities()),
        ];
        files
            .into_iter()
            .flat_map(|(flag, file)| [flag.to_owned(), file.to_string_lossy().into_owned()])
            .collect()
    }
}

impl Member {
    /// Where it runs.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Kills it with SIGKILL; its data stays.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.lock().kill()
    }

    /// Starts it again with its data. Does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&self) -> Result<()> {
        *self.lock() = self.host.spawn("etcd", &self.command)?;
        Ok(())
    }

    /// Stops it from answering, as a frozen machine would.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pause(&self) -> Result<()> {
        self.lock().signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resume(&self) -> Result<()> {
        self.lock().signal(Signal::SIGCONT)
    }

    /// Its port for clients.
    pub fn client_port(&self) -> SocketAddr {
        SocketAddr::new(self.host.v4(), CLIENT_PORT)
    }

    /// Its port for health and metrics, in plain text.
    pub fn http(&self) -> SocketAddr {
        http_of(&self.host)
    }

    /// Whether it says that it leads.
    fn leads(&self) -> Result<bool> {
        let metrics = http::get(&self.host, http_of(&self.host), "/metrics")?.text;
        Ok(metrics.lines().any(|line| line == "etcd_server_is_leader 1"))
    }

    fn lock(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_healthy(host: &Host) -> Result<bool> {
    Ok(http::get(host, http_of(host), "/health")?.text.contains("\"health\":\"true\""))
}

fn http_of(host: &Host) -> SocketAddr {
    SocketAddr::new(host.v4(), HTTP_PORT)
}

#[cfg(test)]
mod tests;
