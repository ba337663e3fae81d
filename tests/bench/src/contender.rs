//! Those that are compared: each has its own host or hosts in one lab, and opens port 22 after the same kind of knock.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use fleetknock_lab::{Fleet, Host, Lab, Reach, Shot, etcd::Etcd, programs, wait_until};

/// What is opened.
pub(crate) const SERVICE: u16 = 22;
/// The knock's ports.
const PORTS: [u16; 3] = [51_003, 7_412, 23_981];
/// For how long; longer than a round, far shorter than the run.
const OPEN_SECONDS: u32 = 10;

/// One of them, running.
pub(crate) struct Contender<'lab> {
    /// For the table.
    pub(crate) name: &'static str,
    /// What to send.
    pub(crate) knock: Vec<Shot>,
    /// What opens.
    pub(crate) target: SocketAddr,
    /// Kept alive.
    _fleet: Option<Fleet<'lab>>,
}

/// The in-kernel nftables pattern: timed sets of candidates, moved on by rules.
pub(crate) fn in_kernel(lab: &Lab) -> Result<Contender<'_>> {
    let host = lab.host("kernel")?;
    host.serve(&[SERVICE], &[])?;
    let set = |name: &str| {
        format!(
            "add set ip knock {name} {{ type ipv4_addr; flags dynamic,timeout; timeout {OPEN_SECONDS}s; size 65535; }}"
        )
    };
    let [one, two, three] = PORTS;
    let rules = [
        "add table ip knock".to_owned(),
        set("first"),
        set("second"),
        set("allowed"),
        "add chain ip knock in { type filter hook prerouting priority -150; }".to_owned(),
        format!("add rule ip knock in tcp dport {three} ip saddr @second add @allowed {{ ip saddr }} drop"),
        format!("add rule ip knock in tcp dport {two} ip saddr @first add @second {{ ip saddr }} drop"),
        format!("add rule ip knock in tcp dport {one} add @first {{ ip saddr }} drop"),
        format!("add rule ip knock in tcp dport {SERVICE} ip saddr != @allowed ct state new drop"),
    ];
    host.run_with(&["nft", "-f", "-"], Some(&(rules.join("\n") + "\n")), Duration::from_secs(5))?
        .success()?;
    Ok(on_one_host("in-kernel nftables pattern", &host))
}

/// knockd as its manual shows it: an iptables rule per opening.
pub(crate) fn knockd(lab: &Lab) -> Result<Contender<'_>> {
    if !programs::has_tool("knockd") {
        bail!("knockd is not installed; install it with: apt-get install knockd (or run: make deps)");
    }
    let host = lab.host("knockd")?;
    host.serve(&[SERVICE], &[])?;
    host.ok(&["iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"])?;
    host.ok(&["iptables", "-A", "INPUT", "-p", "tcp", "--dport", &SERVICE.to_string(), "-j", "DROP"])?;
    let file = lab.directory().join("knockd.conf");
    let sequence = PORTS.map(|port| port.to_string()).join(",");
    fs::write(
        &file,
        format!(
            "[options]\n\tlogfile = {}\n[ssh]\n\tsequence = {sequence}\n\tseq_timeout = 10\n\ttcpflags = syn\n\
             \tstart_command = iptables -I INPUT -s %IP% -p tcp --dport {SERVICE} -j ACCEPT\n\
             \tcmd_timeout = {OPEN_SECONDS}\n\
             \tstop_command = iptables -D INPUT -s %IP% -p tcp --dport {SERVICE} -j ACCEPT\n",
            lab.directory().join("knockd.log").display()
        ),
    )?;
    let process = host.spawn("knockd", &["knockd", "-i", "eth0", "-c", &file.to_string_lossy()])?;
    // It writes to its log when its capture has begun.
    wait_until("knockd to listen", Duration::from_secs(5), || {
        if !process.is_running() {
            bail!("knockd ended: {}", process.log());
        }
        let log = fs::read_to_string(lab.directory().join("knockd.log")).unwrap_or_default();
        Ok(log.contains("starting up"))
    })?;
    Ok(on_one_host("knockd", &host))
}

/// One host, the embedded store.
pub(crate) fn one_host<'lab>(lab: &'lab Lab, client: &Host) -> Result<Contender<'lab>> {
    let fleet = Fleet::start(lab)?;
    let agent = fleet.agent("single", &[])?;
    let host = agent.host().clone();
    host.serve(&[SERVICE], &[])?;
    fleet.wait_connected(1)?;
    fleet.apply(&door(&["single"; 3], "single"))?;
    fleet.wait_guarded(client, &[host.at(SERVICE)])?;
    let mut contender = on_one_host("fleetknock, one host, embedded store", &host);
    contender._fleet = Some(fleet);
    Ok(contender)
}

/// Steps on three hosts, a real etcd of three members; measured is the slowest host.
pub(crate) fn three_hosts<'lab>(lab: &'lab Lab, client: &Host) -> Result<Contender<'lab>> {
    let store = etcd(lab, ["etcd-1", "etcd-2", "etcd-3"])?;
    let fleet = Fleet::start_with(lab, lab.host("control-etcd")?, store)?;
    let name = "fleetknock, three hosts, three-member etcd";
    over_three_hosts(lab, client, name, fleet, ["edge-1", "db-1", "bastion-1"])
}

/// The same with three controllers, and each host's agent at another one: two of three knocks are forwarded, and the
/// opening reaches the host through a controller that mostly is not the one that decided.
pub(crate) fn three_controllers<'lab>(lab: &'lab Lab, client: &Host) -> Result<Contender<'lab>> {
    let store = etcd(lab, ["etcd-4", "etcd-5", "etcd-6"])?;
    let hosts = hosts(lab, ["control-1", "control-2", "control-3"])?;
    let fleet = Fleet::start_several(lab, &hosts, &store)?;
    let name = "fleetknock, the same and three controllers";
    over_three_hosts(lab, client, name, fleet, ["edge-2", "db-2", "bastion-2"])
}

fn etcd(lab: &Lab, names: [&str; 3]) -> Result<String> {
    Ok(Etcd::start(&hosts(lab, names)?, lab.directory())?.store())
}

fn hosts(lab: &Lab, names: [&str; 3]) -> Result<Vec<Host>> {
    names.into_iter().map(|name| lab.host(name)).collect()
}

/// A step on each host; the last one opens. Each agent is at a controller of its own, if there are several.
fn over_three_hosts<'lab>(
    lab: &'lab Lab,
    client: &Host,
    name: &'static str,
    fleet: Fleet<'lab>,
    names: [&str; 3],
) -> Result<Contender<'lab>> {
    let mut agents = Vec::new();
    for (host, controller) in hosts(lab, names)?.iter().zip(fleet.controllers().iter().cycle()) {
        agents.push(fleet.agent_of(host, &[], &["--firewall", "auto"], &[controller])?);
    }
    let target = agents.last().context("no agents")?.host().clone();
    target.serve(&[SERVICE], &[])?;
    fleet.wait_connected(3)?;
    fleet.apply(&door(&names, names[2]))?;
    fleet.wait_guarded(client, &[target.at(SERVICE)])?;
    let knock = agents.iter().zip(PORTS).map(|(agent, port)| Shot::Tcp(agent.host().at(port))).collect();
    Ok(Contender { name, knock, target: target.at(SERVICE), _fleet: Some(fleet) })
}

/// Checks that it is closed for a client that did not knock.
pub(crate) fn check_closed(contender: &Contender<'_>, client: &Host) -> Result<()> {
    match client.reach(contender.target)? {
        Reach::Filtered => Ok(()),
        seen => bail!("{} leaves its port {seen:?}: nothing could be measured", contender.name),
    }
}

fn on_one_host<'lab>(name: &'static str, host: &Host) -> Contender<'lab> {
    Contender {
        name,
        knock: PORTS.map(|port| Shot::Tcp(host.at(port))).to_vec(),
        target: host.at(SERVICE),
        _fleet: None,
    }
}

fn door(steps: &[&str; 3], opens: &str) -> String {
    let steps: Vec<_> = steps
        .iter()
        .zip(PORTS)
        .map(|(host, port)| format!("      - {{hosts: {{names: [{host}]}}, port: tcp/{port}}}\n"))
        .collect();
    format!(
        "apiVersion: fleetknock.io/v1
kind: Door
metadata: {{name: ssh}}
spec:
  knock:
    sequence:
{}    within: 10s
  opens:
    hosts: {{names: [{opens}]}}
    ports: [tcp/{SERVICE}]
    for: {OPEN_SECONDS}s
",
        steps.concat()
    )
}
