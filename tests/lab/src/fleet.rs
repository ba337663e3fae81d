//! A controller and agents inside a lab, and the operator's command to ask them.

use std::{
    fs,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    host::{Host, Output},
    lab::Lab,
    probe::Reach,
    process::Process,
    programs,
    wait::{wait_until, within},
};

/// How long the programs may take to get ready on a busy machine.
pub const READY: Duration = Duration::from_secs(20);
/// The controller's port for agents and operators.
pub const PORT: u16 = 7600;
/// The controller's port for readiness and metrics.
pub const HTTP_PORT: u16 = 7680;

/// A controller on a host of its own, and the agents.
#[derive(Debug)]
pub struct Fleet<'lab> {
    lab: &'lab Lab,
    control: Host,
    store: String,
    controller: Mutex<Option<Process>>,
}

/// An agent and the host it runs on.
#[derive(Debug)]
pub struct Agent {
    host: Host,
    command: Vec<String>,
    process: Mutex<Option<Process>>,
}

impl<'lab> Fleet<'lab> {
    /// A controller on the embedded store, ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start(lab: &'lab Lab) -> Result<Self> {
        let store = format!("embedded:{}", lab.directory().join("store").display());
        Self::start_with(lab, lab.host("control")?, store)
    }

    /// A controller on this host and this store, ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_with(lab: &'lab Lab, control: Host, store: String) -> Result<Self> {
        let fleet = Self { lab, control, store, controller: Mutex::default() };
        fleet.start_controller()?;
        for kind in ["doors", "hosts", "openings", "bans", "attempts"] {
            let command = fleet.command(&["get", kind, "-o", "json"])?;
            lab.ask_on_failure(&format!("fleetknock get {kind}"), &fleet.control, command);
        }
        Ok(fleet)
    }

    /// Where the controller runs.
    pub fn control(&self) -> &Host {
        &self.control
    }

    /// The controller's address for agents and operators.
    pub fn url(&self) -> String {
        format!("http://{}:{PORT}", self.control.v4())
    }

    /// Starts the controller (again) and waits until it accepts connections.
    ///
    /// # Errors
    /// When it ends, or does not accept connections in time.
    pub fn start_controller(&self) -> Result<Process> {
        let program = programs::path("fleetknock-controller")?.to_string_lossy().into_owned();
        let process = self.control.spawn(
            "controller",
            &[
                &program,
                "--listen",
                &format!("0.0.0.0:{PORT}"),
                "--store",
                &self.store,
                "--http",
                &format!("127.0.0.1:{HTTP_PORT}"),
                "--insecure",
            ],
        )?;
        wait_until("the controller to listen", READY, || {
            if !process.is_running() {
                bail!("the controller ended: {}", process.log());
            }
            self.control.reaches(SocketAddr::new(self.control.v4(), PORT))
        })?;
        *self.lock() = Some(process.clone());
        Ok(process)
    }

    /// The running controller.
    ///
    /// # Errors
    /// When it has been killed.
    pub fn controller(&self) -> Result<Process> {
        self.lock().clone().context("the controller does not run")
    }

    /// Kills the controller with SIGKILL.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill_controller(&self) -> Result<()> {
        self.lock().take().map_or(Ok(()), |process| process.kill())
    }

    /// Plugs in a host with these labels (`key=value`) and starts an agent there. Does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn agent(&self, name: &str, labels: &[&str]) -> Result<Agent> {
        self.agent_with(&self.lab.host(name)?, labels, &["--firewall", "auto"])
    }

    /// Starts an agent on a host that is there already, with more flags.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn agent_with(&self, host: &Host, labels: &[&str], flags: &[&str]) -> Result<Agent> {
        let program = programs::path("fleetknock-agent")?;
        let state = self.lab.directory().join(format!("state-{}", host.name()));
        fs::create_dir_all(&state)?;
        let mut command =
            vec![program.to_string_lossy().into_owned(), "--host".to_owned(), host.name().to_owned()];
        for label in labels {
            command.extend(["--label".to_owned(), (*label).to_owned()]);
        }
        command.extend(["--controller".to_owned(), self.url(), "--insecure".to_owned()]);
        command.extend(["--state".to_owned(), state.to_string_lossy().into_owned()]);
        command.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let agent = Agent { host: host.clone(), command, process: Mutex::default() };
        agent.start()?;
        Ok(agent)
    }

    /// Waits until the controller sees exactly this many agents connected.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_connected(&self, count: usize) -> Result<Duration> {
        wait_until(&format!("{count} agents to be connected"), READY, || {
            let hosts = match self.list("hosts") {
                Ok(hosts) => hosts,
                Err(_) => return Ok(false),
            };
            Ok(hosts.iter().filter(|host| field(host, "connected") == Some(&Value::Bool(true))).count()
                == count)
        })
    }

    /// Applies a door.
    ///
    /// # Errors
    /// When it is refused.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let command = self.command(&["apply", "-f", "-"])?;
        self.control.run_with(&command, Some(yaml), READY)?.success().context("fleetknock apply failed")
    }

    /// Waits until connects from `stranger` to all these ports are dropped.
    ///
    /// # Errors
    /// When one is not in time.
    pub fn wait_guarded(&self, stranger: &Host, ports: &[SocketAddr]) -> Result<Duration> {
        wait_until("the guard to be in place", READY, || {
            for port in ports {
                if stranger.reach(*port)? != Reach::Filtered {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Runs the operator's command against this controller.
    ///
    /// # Errors
    /// When it cannot be run. A command that fails is an [`Output`] with its code.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        self.control.run(&self.command(arguments)?)
    }

    /// The same for a command that must succeed.
    ///
    /// # Errors
    /// When it fails.
    pub fn cli_ok(&self, arguments: &[&str]) -> Result<String> {
        self.cli(arguments)?.success().with_context(|| format!("fleetknock {} failed", arguments.join(" ")))
    }

    /// What `fleetknock get KIND -o json` lists.
    ///
    /// # Errors
    /// When the command fails or prints something that is no list.
    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        self.list_with(kind, &[])
    }

    /// The same with more flags.
    ///
    /// # Errors
    /// When the command fails or prints something that is no list.
    pub fn list_with(&self, kind: &str, flags: &[&str]) -> Result<Vec<Value>> {
        let mut arguments = vec!["get", kind, "-o", "json"];
        arguments.extend(flags);
        let text = self.cli_ok(&arguments)?;
        let json: Value =
            serde_json::from_str(&text).with_context(|| format!("get {kind} printed no JSON: {text}"))?;
        match json {
            Value::Array(items) => Ok(items),
            _ => bail!("get {kind} printed no list: {text}"),
        }
    }

    /// The one opening that this source has.
    ///
    /// # Errors
    /// When there is none within `deadline`, or more than one.
    pub fn opening_of(&self, source: &str, deadline: Duration) -> Result<Value> {
        let (mut found, _) = within(&format!("an opening for {source}"), deadline, || {
            let mut openings = self.list("openings")?;
            openings.retain(|opening| text(opening, "source") == Some(source));
            Ok((!openings.is_empty()).then_some(openings))
        })?;
        ensure!(found.len() == 1, "{source} has {} openings instead of one", found.len());
        found.pop().context("there is none")
    }

    fn command(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let program = programs::path("fleetknock")?;
        let mut command = vec![program.to_string_lossy().into_owned()];
        command.extend(["--controller".to_owned(), self.url(), "--insecure".to_owned()]);
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Ok(command)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// Where it runs.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Starts it (again). Does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Process> {
        let process = self.host.spawn("agent", &self.command)?;
        *self.lock() = Some(process.clone());
        Ok(process)
    }

    /// The running agent.
    ///
    /// # Errors
    /// When it has been killed.
    pub fn process(&self) -> Result<Process> {
        self.lock().clone().with_context(|| format!("no agent runs on {}", self.host.name()))
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.lock().take().map_or(Ok(()), |process| process.kill())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A field of what the operator's command printed, by its name in snake or camel case; also found under `metadata`,
/// `spec` and `status`.
pub fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let camel = camel_case(name);
    let direct = |value: &'v Value| value.get(name).or_else(|| value.get(&camel));
    direct(value)
        .or_else(|| ["metadata", "spec", "status"].iter().find_map(|part| value.get(part).and_then(direct)))
}

/// A text field.
pub fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    field(value, name)?.as_str()
}

/// A number; 64-bit numbers may be printed as texts.
pub fn number(value: &Value, name: &str) -> Option<u64> {
    let found = field(value, name)?;
    found.as_u64().or_else(|| found.as_str()?.parse().ok())
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests;
