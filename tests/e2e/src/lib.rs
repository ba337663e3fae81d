//! What the end-to-end promises share: a fleet of three hosts with one door across them.
//!
//! The firewall drivers differ from host to host, so that each promise is kept by all of them.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use fleetknock_lab::{Agent, Controller, Fleet, Host, Lab, Reach, Shot, wait_until};

pub mod doors;
pub mod pods;
pub mod queries;
mod several;

pub use self::several::{IN_TIME, Placement, Several};

/// The protected TCP service.
pub const SSH: u16 = 22;
/// The protected UDP service.
pub const VPN: u16 = 4000;
/// A port that another door guards on every host, and nobody opens.
pub const OTHER: u16 = 2222;
/// How long an opening may take to reach every kernel on a busy machine.
pub const SOON: Duration = Duration::from_secs(5);

/// The name of the door that is knocked at.
pub const DOOR: &str = "fleet-ssh";

/// Which of the two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The ports of the three steps: on `edge-1`, `db-1` and `bastion-1`. `UDP` says which one is a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// In order.
    pub ports: [u16; 3],
    /// The step that is UDP.
    pub udp: Option<usize>,
}

/// TCP, UDP, TCP; far apart.
pub const MIXED: Steps = Steps { ports: [51_003, 7_412, 23_981], udp: Some(1) };
/// TCP only; close together, so that a scan of a small range meets all of them.
pub const NEAR: Steps = Steps { ports: [7_412, 7_405, 7_409], udp: None };

/// Three hosts, a client and a stranger. The door opens on `db-1` (iptables) and `bastion-1` (nftables); `edge-1` is
/// guarded by another door.
#[derive(Debug)]
pub struct Three<'lab> {
    /// The controller and the operator's command.
    pub fleet: Fleet<'lab>,
    /// Sees the first step; the door does not open here.
    pub edge: Agent,
    /// Sees the second step; opens.
    pub db: Agent,
    /// Sees the third step; opens.
    pub bastion: Agent,
    /// Knows the knock.
    pub client: Host,
    /// Does not.
    pub stranger: Host,
    /// What the door's knock is.
    pub steps: Steps,
}

impl<'lab> Three<'lab> {
    /// Everything running, agents connected, services behind their ports; no door yet.
    ///
    /// # Errors
    /// When something does not get ready.
    pub fn start(lab: &'lab Lab, steps: Steps) -> Result<Self> {
        Self::with(lab, Fleet::start(lab)?, steps)
    }

    /// The same around a controller that runs already.
    ///
    /// # Errors
    /// When something does not get ready.
    pub fn with(lab: &'lab Lab, fleet: Fleet<'lab>, steps: Steps) -> Result<Self> {
        Self::placed(lab, fleet, steps, Placement::Anywhere)
    }

    /// The same around several controllers, with the agents placed at them.
    ///
    /// # Errors
    /// When something does not get ready.
    pub fn placed(lab: &'lab Lab, fleet: Fleet<'lab>, steps: Steps, placement: Placement) -> Result<Self> {
        let mut placed = Vec::new();
        let mut host = |name: &str, labels: &[&str], firewall: &str| -> Result<Agent> {
            let host = lab.host(name)?;
            host.serve(&[SSH, OTHER], &[VPN])?;
            let number = placed.len();
            let known: Vec<&Controller> = placement.known(number, fleet.controllers());
            placed.push(placement.hold_back(number, &host, fleet.controllers())?);
            fleet.agent_of(&host, labels, &["--firewall", firewall], &known)
        };
        let edge = host("edge-1", &["role=edge"], "auto")?;
        let db = host("db-1", &["role=db", "ssh=by-knock"], "iptables")?;
        let bastion = host("bastion-1", &["role=bastion", "ssh=by-knock"], "nftables")?;
        let (client, stranger) = (lab.client("client")?, lab.client("stranger")?);
        fleet.wait_connected(3)?;
        drop(placed);
        Ok(Self { fleet, edge, db, bastion, client, stranger, steps })
    }

    /// The same with the door applied, opening for so many seconds, and the guard in place.
    ///
    /// # Errors
    /// When something does not get ready.
    pub fn guarded(lab: &'lab Lab, steps: Steps, open_seconds: u32) -> Result<Self> {
        let three = Self::start(lab, steps)?;
        three.apply(open_seconds)?;
        Ok(three)
    }

    /// Applies the doors and waits for the guard.
    ///
    /// # Errors
    /// When they are refused or not guarded in time.
    pub fn apply(&self, open_seconds: u32) -> Result<()> {
        self.fleet.apply(&self.doors(open_seconds))?;
        let mut ports = Vec::new();
        for agent in self.agents() {
            for port in [SSH, OTHER] {
                ports.extend([agent.host().at(port), agent.host().at6(port)]);
            }
        }
        self.fleet.wait_guarded(&self.stranger, &ports)?;
        Ok(())
    }

    /// All agents.
    pub fn agents(&self) -> [&Agent; 3] {
        [&self.edge, &self.db, &self.bastion]
    }

    /// The right knock.
    pub fn knock(&self, family: Family) -> Vec<Shot> {
        self.agents()
            .into_iter()
            .enumerate()
            .map(|(step, agent)| {
                let to = at(agent.host(), self.steps.ports[step], family);
                if self.steps.udp == Some(step) { Shot::Udp(to) } else { Shot::Tcp(to) }
            })
            .collect()
    }

    /// Where the door opens: port 22 of `db-1` and `bastion-1`.
    pub fn opened(&self, family: Family) -> [SocketAddr; 2] {
        [at(self.db.host(), SSH, family), at(self.bastion.host(), SSH, family)]
    }

    /// Where it must never open: port 22 of `edge-1`, port 2222 of all.
    pub fn never(&self, family: Family) -> Vec<SocketAddr> {
        let mut all = vec![at(self.edge.host(), SSH, family)];
        all.extend(self.agents().map(|agent| at(agent.host(), OTHER, family)));
        all
    }

    /// Waits until the door is open for this source, TCP and UDP, on both hosts.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_open(&self, client: &Host, source: Option<IpAddr>, family: Family) -> Result<()> {
        self.wait_open_within(SOON, client, source, family)
    }

    /// The same within another deadline.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_open_within(
        &self,
        deadline: Duration,
        client: &Host,
        source: Option<IpAddr>,
        family: Family,
    ) -> Result<()> {
        for to in self.opened(family) {
            wait_until(&format!("{to} to open for {}", client.name()), deadline, || {
                Ok(client.reach_from(source, to)? == Reach::Open
                    && client.udp_answers(source, SocketAddr::new(to.ip(), VPN))?)
            })?;
        }
        Ok(())
    }

    /// Waits until the door is closed for this source on both hosts.
    ///
    /// # Errors
    /// When it is not within `deadline`.
    pub fn wait_closed(&self, client: &Host, family: Family, deadline: Duration) -> Result<()> {
        for to in self.opened(family) {
            wait_until(&format!("{to} to close for {}", client.name()), deadline, || {
                Ok(client.reach(to)? == Reach::Filtered)
            })?;
        }
        Ok(())
    }

    /// Checks that nothing at all is open for this source.
    ///
    /// # Errors
    /// When something is.
    pub fn all_closed(&self, client: &Host, source: Option<IpAddr>, family: Family) -> Result<()> {
        let mut all = self.opened(family).to_vec();
        all.extend(self.never(family));
        for (to, seen) in all.iter().zip(client.reach_each(source, &all)?) {
            ensure!(seen == Reach::Filtered, "{to} is {seen:?} for {} ({source:?})", client.name());
        }
        Ok(())
    }

    /// Checks that nothing is open where the door must never open.
    ///
    /// # Errors
    /// When something is.
    pub fn opens_nowhere_else(&self, client: &Host, family: Family) -> Result<()> {
        let never = self.never(family);
        for (to, seen) in never.iter().zip(client.reach_each(None, &never)?) {
            ensure!(seen != Reach::Open, "{to} is open for {}", client.name());
        }
        Ok(())
    }

    /// Knocks rightly as somebody else and waits until it opens: whatever was sent before has been followed by then.
    ///
    /// # Errors
    /// When it does not open.
    pub fn witness(&self, witness: &Host) -> Result<()> {
        witness.knock(None, &self.knock(Family::V4))?;
        self.wait_open(witness, None, Family::V4).context("the witness's right knock does not open")
    }

    /// How many openings there are or were, for this source or for all.
    ///
    /// # Errors
    /// When the controller does not answer.
    pub fn openings_ever(&self, source: Option<IpAddr>) -> Result<usize> {
        let source = source.map(|source| source.to_string());
        let all = self.fleet.list_with("openings", &["--ended"])?;
        Ok(all
            .iter()
            .filter(|opening| {
                source.is_none() || fleetknock_lab::fleet::text(opening, "source") == source.as_deref()
            })
            .count())
    }

    fn doors(&self, open_seconds: u32) -> String {
        let steps: Vec<_> = self
            .agents()
            .into_iter()
            .enumerate()
            .map(|(step, agent)| {
                let protocol = if self.steps.udp == Some(step) { "udp" } else { "tcp" };
                let (name, port) = (agent.host().name(), self.steps.ports[step]);
                format!("      - {{hosts: {{names: [{name}]}}, port: {protocol}/{port}}}\n")
            })
            .collect();
        format!(
            "apiVersion: fleetknock.io/v1
kind: Door
metadata:
  name: {DOOR}
spec:
  knock:
    sequence:
{}    within: 20s
  opens:
    hosts: {{matchLabels: {{ssh: by-knock}}}}
    ports: [tcp/{SSH}, udp/{VPN}]
    for: {open_seconds}s
---
apiVersion: fleetknock.io/v1
kind: Door
metadata:
  name: other
spec:
  knock:
    sequence:
      - {{port: tcp/40961}}
      - {{port: udp/11273}}
      - {{port: tcp/30011}}
      - {{port: udp/20477}}
    within: 10s
  opens:
    hosts: {{}}
    ports: [tcp/{SSH}, tcp/{OTHER}]
    for: 10s
",
            steps.concat()
        )
    }
}

/// A port of a host in one family.
pub fn at(host: &Host, port: u16, family: Family) -> SocketAddr {
    match family {
        Family::V4 => host.at(port),
        Family::V6 => host.at6(port),
    }
}

/// A host's own address in one family.
pub fn address(host: &Host, family: Family) -> IpAddr {
    match family {
        Family::V4 => host.v4(),
        Family::V6 => host.v6(),
    }
}
