//! A real etcd, alone or as a cluster of several hosts.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::{host::Host, probe::connect, process::Process, programs, wait_until};

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// The members of one cluster.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<(Host, Process)>,
}

impl Etcd {
    /// Starts one member on each of these hosts, with their data in `directory`, and waits until all are healthy.
    ///
    /// # Errors
    /// When etcd is not installed, or not healthy within 30 seconds.
    pub fn start(hosts: &[Host], directory: &Path) -> Result<Self> {
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
            let (client, peer) =
                (format!("http://{}:{CLIENT_PORT}", host.v4()), format!("http://{}:{PEER_PORT}", host.v4()));
            let data = directory.join(format!("etcd-{}", host.name()));
            let process = host.spawn(
                "etcd",
                &[
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
                ],
            )?;
            members.push((host.clone(), process));
        }
        let etcd = Self { members };
        for (host, process) in &etcd.members {
            wait_until(&format!("etcd on {} to be healthy", host.name()), Duration::from_secs(30), || {
                if !process.is_running() {
                    bail!("etcd on {} ended: {}", host.name(), process.log());
                }
                Ok(is_healthy(host).unwrap_or(false))
            })?;
        }
        Ok(etcd)
    }

    /// Stops every member from answering, as a frozen machine or a cut network would.
    ///
    /// # Errors
    /// When one is gone.
    pub fn pause(&self) -> Result<()> {
        self.members.iter().try_for_each(|(_, process)| process.signal(Signal::SIGSTOP))
    }

    /// Lets every member go on.
    ///
    /// # Errors
    /// When one is gone.
    pub fn resume(&self) -> Result<()> {
        self.members.iter().try_for_each(|(_, process)| process.signal(Signal::SIGCONT))
    }

    /// As the controller's `--store` takes it.
    pub fn store(&self) -> String {
        let urls: Vec<_> =
            self.members.iter().map(|(host, _)| format!("http://{}:{CLIENT_PORT}", host.v4())).collect();
        format!("etcd:{}", urls.join(","))
    }
}

fn is_healthy(host: &Host) -> Result<bool> {
    let to = SocketAddr::new(host.v4(), CLIENT_PORT);
    let mut stream = host.inside(|| connect(None, to, Duration::from_secs(1)))??;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no answer from etcd")?;
    Ok(answer.contains("\"health\":\"true\""))
}
