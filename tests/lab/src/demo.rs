//! The demo: one door across three hosts, told in plain words, each claim checked.

use std::{
    fs,
    io::Write,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    Agent, Fleet, Host, Lab, Reach, Shot, fleet, knock::shoot, probe::connect, programs, wait::within,
    wait_until,
};
use narrator::Narrator;

mod narrator;
mod play;

/// The protected service.
const SERVICE: u16 = 22;
/// The knock: where, and at which port; not in ascending order, since a scan could do that.
const KNOCK: [(&str, &str, u16); 3] =
    [("edge-1", "tcp", 51_003), ("db-1", "udp", 7_412), ("bastion-1", "tcp", 23_981)];
/// For how long the door opens.
const OPEN_FOR: Duration = Duration::from_secs(8);

/// How the demo runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Leave the lab running afterwards, until Ctrl-C or [`stop`].
    pub keep: bool,
    /// Write in colours.
    pub colour: bool,
}

struct Stage<'lab> {
    fleet: Fleet<'lab>,
    agents: Vec<Agent>,
    client: Host,
    stranger: Host,
}

/// Runs the demo.
///
/// # Errors
/// When a claim turns out to be wrong, or the lab cannot be made.
pub fn run(options: Options, out: &mut dyn Write) -> Result<()> {
    let mut tale = Narrator::new(out, options.colour);
    tale.title("Fleetknock: one knock over three hosts, one door")?;
    let lab = Lab::new("demo")?;
    let told = tell(&lab, &mut tale);
    if told.is_err() {
        lab.fail();
    }
    let stage = told?;
    if options.keep {
        play::ground(&lab, &stage, &mut tale)?;
    }
    Ok(())
}

/// Ends a demo that was left running.
///
/// # Errors
/// When the file that says so cannot be written.
pub fn stop() -> Result<()> {
    let path = stop_file()?;
    fs::write(&path, "stop\n").with_context(|| format!("cannot write {}", path.display()))
}

/// A running demo ends when this file appears. A file, because a process id means nothing across user namespaces.
fn stop_file() -> Result<PathBuf> {
    Ok(programs::path("fleetknock-demo")?.with_extension("stop"))
}

fn tell<'lab>(lab: &'lab Lab, tale: &mut Narrator<'_>) -> Result<Stage<'lab>> {
    let begin = Instant::now();
    tale.step("A small fleet: three hosts with an agent each, one controller on the embedded store")?;
    let stage = set_up(lab)?;
    tale.fact("edge-1", "role=edge")?;
    tale.fact("db-1", "role=db, ssh=by-knock")?;
    tale.fact("bastion-1", "role=bastion, ssh=by-knock")?;
    tale.say("and outside of the fleet a client who knows the knock, and a stranger who does not.")?;
    tale.took("lab, controller and agents ready", begin.elapsed())?;
    let targets = |name: &str| stage.target(name, false);
    let (edge, db, bastion) = (targets("edge-1")?, targets("db-1")?, targets("bastion-1")?);

    tale.step(
        "A door is declared: port 22 of every host with ssh=by-knock, opened by a knock over three hosts",
    )?;
    for target in [edge, db, bastion] {
        ensure!(
            stage.stranger.reach(target)? == Reach::Open,
            "{target} should be open before any door guards it"
        );
    }
    tale.say("Until now port 22 answers everybody. Declaring the door closes it.")?;
    let start = Instant::now();
    stage.fleet.apply(&doors())?;
    let closed = closed_at(&stage.stranger, &[edge, db, bastion], start + fleet::READY)?;
    tale.took("from 'fleetknock apply' to closed on all hosts", closed - start)?;
    for (who, host) in [("client", &stage.client), ("stranger", &stage.stranger)] {
        for (name, target) in [("edge-1", edge), ("db-1", db), ("bastion-1", bastion)] {
            check(tale, host, who, name, target, Reach::Filtered)?;
        }
    }

    tale.step("The stranger sends the same three knocks in another order")?;
    let mut wrong = stage.shots(false)?;
    wrong.reverse();
    stage.stranger.knock(None, &wrong)?;
    check(tale, &stage.stranger, "stranger", "bastion-1", bastion, Reach::Filtered)?;
    let (said, _) = within("fleetknock explain to tell what was wrong", fleet::READY, || {
        let source = stage.stranger.v4().to_string();
        let told = stage.fleet.cli_ok(&["explain", "--source", &source])?;
        let verdict: Vec<_> = told.lines().skip_while(|line| !line.contains(": wrong-order")).collect();
        Ok((!verdict.is_empty())
            .then(|| verdict.iter().take(3).map(|line| line.trim().to_owned()).collect::<Vec<_>>()))
    })?;
    tale.say("Why did it not open? 'fleetknock explain --source' says:")?;
    for line in said {
        tale.say(&line)?;
    }

    tale.step("The client knocks")?;
    let opened = stage.knock_and_time(tale, false, &[db, bastion])?;
    let opened_at = Instant::now();
    check(tale, &stage.client, "client", "db-1", db, Reach::Open)?;
    check(tale, &stage.client, "client", "bastion-1", bastion, Reach::Open)?;
    check(tale, &stage.client, "client", "edge-1", edge, Reach::Filtered)?;
    check(tale, &stage.stranger, "stranger", "bastion-1", bastion, Reach::Filtered)?;
    tale.say("Open on the right hosts, for the right source, and for nobody else. edge-1 saw a knock, but the door")?;
    tale.say("does not open it.")?;
    for (name, took) in ["db-1", "bastion-1"].iter().zip(&opened) {
        tale.took(&format!("last knock to open on {name}, IPv4"), *took)?;
    }

    tale.step("The client stays connected; then the controller and all agents are killed with SIGKILL")?;
    let mut held = stage.client.hold(None, bastion)?;
    stage.fleet.kill_controller()?;
    for agent in &stage.agents {
        agent.kill()?;
    }
    held.echoes()?;
    tale.ok("the connection to bastion-1 works, with nothing of Fleetknock running any more")?;

    tale.step("Nobody is left to close the door. The kernel does, by itself")?;
    tale.say(&format!("The door opens for {} seconds ...", OPEN_FOR.as_secs()))?;
    let deadline = opened_at + OPEN_FOR + Duration::from_secs(4);
    let closed = closed_at(&stage.client, &[db, bastion], deadline)? - opened_at;
    ensure!(closed + Duration::from_secs(1) > OPEN_FOR, "it closed after {closed:?}, too early");
    tale.took("open for", closed)?;
    check(tale, &stage.client, "client", "db-1", db, Reach::Filtered)?;
    check(tale, &stage.client, "client", "bastion-1", bastion, Reach::Filtered)?;
    held.echoes()?;
    tale.ok("the connection made while it was open lives on")?;

    tale.step("Controller and agents start again; the client knocks over IPv6, with 'fleetknock knock'")?;
    let start = Instant::now();
    stage.fleet.start_controller()?;
    for agent in &stage.agents {
        agent.start()?;
    }
    stage.fleet.wait_connected(stage.agents.len())?;
    tale.took("controller and agents back, doors as before", start.elapsed())?;
    let (db6, bastion6) = (stage.target("db-1", true)?, stage.target("bastion-1", true)?);
    check(tale, &stage.client, "client", "bastion-1", bastion6, Reach::Filtered)?;
    let start = Instant::now();
    stage.client.knock_with(crate::Tool::Fleetknock, &stage.shots(true)?)?;
    stage.wait_open(&[db6, bastion6])?;
    tale.took("whole knock with the client program to open, IPv6", start.elapsed())?;
    check(tale, &stage.client, "client", "bastion-1", bastion6, Reach::Open)?;
    check(tale, &stage.stranger, "stranger", "bastion-1", bastion6, Reach::Filtered)?;

    tale.step("The operator closes it before its time: fleetknock close")?;
    let start = Instant::now();
    stage.fleet.cli_ok(&["close", "--source", &stage.client.v6().to_string()])?;
    let closed = closed_at(&stage.client, &[db6, bastion6], start + Duration::from_secs(5))?;
    tale.took("from 'fleetknock close' to closed on both hosts", closed - start)?;
    check(tale, &stage.client, "client", "bastion-1", bastion6, Reach::Filtered)?;

    tale.table("What it took")?;
    tale.done(begin.elapsed())?;
    Ok(stage)
}

fn set_up(lab: &Lab) -> Result<Stage<'_>> {
    let fleet = Fleet::start(lab)?;
    let agents = vec![
        fleet.agent("edge-1", &["role=edge"])?,
        fleet.agent("db-1", &["role=db", "ssh=by-knock"])?,
        fleet.agent("bastion-1", &["role=bastion", "ssh=by-knock"])?,
    ];
    for agent in &agents {
        agent.host().serve(&[SERVICE], &[])?;
    }
    let (client, stranger) = (lab.client("client")?, lab.client("stranger")?);
    fleet.wait_connected(agents.len())?;
    Ok(Stage { fleet, agents, client, stranger })
}

impl Stage<'_> {
    fn host(&self, name: &str) -> Result<&Host> {
        let agent = self.agents.iter().find(|agent| agent.host().name() == name);
        Ok(agent.with_context(|| format!("no host {name}"))?.host())
    }

    fn target(&self, name: &str, v6: bool) -> Result<SocketAddr> {
        let host = self.host(name)?;
        Ok(if v6 { host.at6(SERVICE) } else { host.at(SERVICE) })
    }

    fn shots(&self, v6: bool) -> Result<Vec<Shot>> {
        let mut shots = Vec::new();
        for (name, protocol, port) in KNOCK {
            let host = self.host(name)?;
            let to = if v6 { host.at6(port) } else { host.at(port) };
            shots.push(if protocol == "udp" { Shot::Udp(to) } else { Shot::Tcp(to) });
        }
        Ok(shots)
    }

    /// Knocks, telling where but not at which port; returns the time from the last knock to open for each target.
    fn knock_and_time(
        &self,
        tale: &mut Narrator<'_>,
        v6: bool,
        targets: &[SocketAddr],
    ) -> Result<Vec<Duration>> {
        let shots = self.shots(v6)?;
        for (number, ((name, protocol, _), _)) in KNOCK.iter().zip(&shots).enumerate() {
            tale.say(&format!(
                "knock {} of {}: {protocol}, to {name} (the port is the secret)",
                number + 1,
                KNOCK.len()
            ))?;
        }
        self.client.inside(|| -> Result<Vec<Duration>> {
            for (number, shot) in shots.iter().enumerate() {
                if number > 0 {
                    thread::sleep(Duration::from_millis(50));
                }
                shoot(None, *shot)?;
            }
            let start = Instant::now();
            let mut opened = vec![None; targets.len()];
            while opened.contains(&None) {
                ensure!(
                    start.elapsed() < Duration::from_secs(5),
                    "the door did not open within five seconds"
                );
                for (target, opened) in targets.iter().zip(&mut opened) {
                    if opened.is_none() && connect(None, *target, Duration::from_millis(1)).is_ok() {
                        *opened = Some(start.elapsed());
                    }
                }
            }
            Ok(opened.into_iter().flatten().collect())
        })?
    }

    fn wait_open(&self, targets: &[SocketAddr]) -> Result<()> {
        for target in targets {
            wait_until(&format!("{target} to open"), Duration::from_secs(5), || {
                self.client.reaches(*target)
            })?;
        }
        Ok(())
    }
}

/// When the last of these ports was closed: the time of the first connect that was not answered any more.
fn closed_at(host: &Host, targets: &[SocketAddr], deadline: Instant) -> Result<Instant> {
    host.inside(|| {
        let mut last = Instant::now();
        for target in targets {
            loop {
                let sent = Instant::now();
                if connect(None, *target, Duration::from_millis(20)).is_err() {
                    last = last.max(sent);
                    break;
                }
                ensure!(sent < deadline, "{target} does not close");
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(last)
    })?
}

/// Looks at a port and tells what was seen; it must be what is claimed.
fn check(
    tale: &mut Narrator<'_>,
    host: &Host,
    who: &str,
    name: &str,
    target: SocketAddr,
    claim: Reach,
) -> Result<()> {
    let seen = host.reach(target)?;
    let family = if matches!(target.ip(), IpAddr::V4(_)) { "" } else { " (IPv6)" };
    let word = if seen == Reach::Open { "open" } else { "closed" };
    ensure!(seen == claim, "{who} finds {name} {word} ({seen:?}) where {claim:?} was promised");
    tale.ok(&format!("{who:<8} -> {name:<9} port {SERVICE}{family}: {word}"))
}

/// Two doors: the one that is knocked at, and one that only keeps edge-1 closed.
fn doors() -> String {
    let steps: Vec<_> = KNOCK
        .iter()
        .map(|(host, protocol, port)| {
            format!("      - {{hosts: {{names: [{host}]}}, port: {protocol}/{port}}}\n")
        })
        .collect();
    format!(
        "apiVersion: fleetknock.io/v1
kind: Door
metadata:
  name: fleet-ssh
spec:
  knock:
    sequence:
{}    within: 15s
  opens:
    hosts: {{matchLabels: {{ssh: by-knock}}}}
    ports: [tcp/{SERVICE}]
    for: {}s
---
apiVersion: fleetknock.io/v1
kind: Door
metadata:
  name: edge-ssh
spec:
  knock:
    sequence:
      - {{hosts: {{names: [edge-1]}}, port: tcp/40961}}
      - {{hosts: {{names: [db-1]}}, port: udp/11273}}
      - {{hosts: {{names: [edge-1]}}, port: tcp/30011}}
    within: 15s
  opens:
    hosts: {{names: [edge-1]}}
    ports: [tcp/{SERVICE}]
    for: 10s
",
        steps.concat(),
        OPEN_FOR.as_secs()
    )
}

/// The program that runs inside, as people type it.
fn typed(path: &Path) -> String {
    path.display().to_string()
}
