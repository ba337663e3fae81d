//! Controllers and agents inside a lab, and the operator's command to ask them.

use std::{fs, net::IpAddr, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    host::{Host, Output},
    lab::Lab,
    pki::Pki,
    probe::Reach,
    process::Process,
    programs,
    wait::{wait_until, within},
};

mod agent;
mod controller;
mod operator;
mod trust;

use self::trust::Trust;
pub use self::{agent::Agent, controller::Controller, operator::Operator};

/// How long the programs may take to get ready on a busy machine.
pub const READY: Duration = Duration::from_secs(20);
/// The controller's port for agents and operators.
pub const PORT: u16 = 7600;
/// The controller's port for readiness and metrics in plain text; of a fleet without TLS for the dashboard too.
pub const HTTP_PORT: u16 = 7680;
/// The controller's port for the dashboard in a fleet with TLS.
pub const HTTPS_PORT: u16 = 7681;
/// How long the membership of a controller outlives it, where there are several.
pub const LEASE: Duration = Duration::from_secs(5);

/// One controller or several, each on a host of its own, and the agents.
#[derive(Debug)]
pub struct Fleet<'lab> {
    lab: &'lab Lab,
    trust: Trust,
    /// Never empty.
    controllers: Vec<Controller>,
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
        let mut more = Vec::new();
        if store.starts_with("etcd:") {
            more.extend(["--advertise".to_owned(), format!("http://{}:{PORT}", control.v4())]);
        }
        Self::alone(lab, Controller::new(control, &store, &more), Trust::Plain)
    }

    /// A controller on the embedded store, with mutual TLS by this authority, ready. The lab's own operators are admins.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_trusted(lab: &'lab Lab, pki: &Pki) -> Result<Self> {
        Self::start_trusted_with(lab, pki, lab.host("control")?, &[], &[])
    }

    /// The same on this host, with more flags, and with variables in its environment (`KUBECONFIG=…`).
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_trusted_with(
        lab: &'lab Lab,
        pki: &Pki,
        control: Host,
        flags: &[String],
        environment: &[String],
    ) -> Result<Self> {
        let store = format!("embedded:{}", lab.directory().join("store").display());
        let trust = Trust::mutual(pki)?;
        let mut more = vec!["--name".to_owned(), control.name().to_owned()];
        more.extend_from_slice(flags);
        let controller = Controller::trusted(control, &store, &more, &trust)?.within(environment);
        Self::alone(lab, controller, trust)
    }

    fn alone(lab: &'lab Lab, controller: Controller, trust: Trust) -> Result<Self> {
        let fleet = Self { lab, trust, controllers: vec![controller] };
        fleet.start_controller()?;
        fleet.ask_on_failure(&["doors", "hosts", "openings", "bans", "attempts"])?;
        Ok(fleet)
    }

    /// One controller on each of these hosts, all on this store, ready. Each has its host's name.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn start_several(lab: &'lab Lab, hosts: &[Host], store: &str) -> Result<Self> {
        Self::several(lab, hosts, store, &[], Trust::Plain)
    }

    /// The same with mutual TLS by this authority, and the flags that lead to the store.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn start_several_trusted(
        lab: &'lab Lab,
        pki: &Pki,
        hosts: &[Host],
        store: &str,
        flags: &[String],
    ) -> Result<Self> {
        Self::several(lab, hosts, store, flags, Trust::mutual(pki)?)
    }

    fn several(lab: &'lab Lab, hosts: &[Host], store: &str, flags: &[String], trust: Trust) -> Result<Self> {
        ensure!(!hosts.is_empty(), "a fleet needs a controller");
        let mut controllers = Vec::new();
        for host in hosts {
            let mut more = vec!["--name".to_owned(), host.name().to_owned()];
            more.extend(["--advertise".to_owned(), format!("{}://{}:{PORT}", trust.scheme(), host.v4())]);
            more.extend(["--lease".to_owned(), format!("{}s", LEASE.as_secs())]);
            more.extend_from_slice(flags);
            controllers.push(Controller::trusted(host.clone(), store, &more, &trust)?);
        }
        let fleet = Self { lab, trust, controllers };
        for controller in &fleet.controllers {
            controller.spawn()?;
        }
        fleet.ask_on_failure(&["controllers", "hosts", "openings", "bans", "attempts"])?;
        for controller in &fleet.controllers {
            controller.wait_ready()?;
        }
        Ok(fleet)
    }

    fn ask_on_failure(&self, kinds: &[&str]) -> Result<()> {
        for controller in &self.controllers {
            for kind in kinds {
                let command =
                    controller.operator().command(&["get", kind, "-o", "json", "--timeout", "3s"])?;
                let label = format!("fleetknock get {kind}, asking {}", controller.name());
                self.lab.ask_on_failure(&label, controller.host(), command);
            }
            let metrics = ["curl", "-s", &format!("http://127.0.0.1:{HTTP_PORT}/metrics")].map(str::to_owned);
            let label = format!("metrics of {}", controller.name());
            self.lab.ask_on_failure(&label, controller.host(), metrics.to_vec());
        }
        Ok(())
    }

    /// All controllers, in the order of their hosts.
    pub fn controllers(&self) -> &[Controller] {
        &self.controllers
    }

    /// The controller of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(&self, name: &str) -> Result<&Controller> {
        let found = self.controllers.iter().find(|controller| controller.name() == name);
        found.with_context(|| format!("no controller is named {name}"))
    }

    /// An operator who asks the first controller that runs.
    pub fn operator(&self) -> Operator {
        let up = self.controllers.iter().find(|controller| controller.is_up());
        up.unwrap_or(&self.controllers[0]).operator()
    }

    /// The controller that follows this source's knock, which is under way.
    ///
    /// # Errors
    /// When it does not become exactly one in time.
    pub fn owner_of(&self, source: IpAddr) -> Result<&Controller> {
        let what = format!("one controller to follow the knock of {source}");
        let (owner, _) = within(&what, READY, || {
            let mut owners = Vec::new();
            for controller in self.controllers.iter().filter(|controller| controller.is_up()) {
                if controller.follows(source)? {
                    owners.push(controller);
                }
            }
            Ok((owners.len() == 1).then(|| owners[0]))
        })?;
        Ok(owner)
    }

    /// The controller that this host's agent is connected to.
    ///
    /// # Errors
    /// When it is connected to none in time.
    pub fn controller_of(&self, host: &Host) -> Result<&Controller> {
        let what = format!("the agent on {} to be connected", host.name());
        let (name, _) = within(&what, READY, || {
            let Ok(hosts) = self.list("hosts") else { return Ok(None) };
            let own = hosts.iter().find(|found| text(found, "name") == Some(host.name()));
            Ok(own
                .filter(|own| field(own, "connected") == Some(&Value::Bool(true)))
                .and_then(|own| text(own, "controller"))
                .map(str::to_owned))
        })?;
        self.named(&name)
    }

    /// Where the first controller runs.
    pub fn control(&self) -> &Host {
        self.controllers[0].host()
    }

    /// The first controller's address for agents and operators.
    pub fn url(&self) -> String {
        self.controllers[0].url()
    }

    /// Starts the first controller (again) and waits until it accepts connections.
    ///
    /// # Errors
    /// When it ends, or does not accept connections in time.
    pub fn start_controller(&self) -> Result<Process> {
        let process = self.controllers[0].spawn()?;
        self.controllers[0].wait_listening()?;
        Ok(process)
    }

    /// The first controller, running.
    ///
    /// # Errors
    /// When it has been killed.
    pub fn controller(&self) -> Result<Process> {
        self.controllers[0].process()
    }

    /// Kills the first controller with SIGKILL.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill_controller(&self) -> Result<()> {
        self.controllers[0].kill()
    }

    /// Plugs in a host with these labels (`key=value`) and starts an agent there. Does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn agent(&self, name: &str, labels: &[&str]) -> Result<Agent> {
        self.agent_with(&self.lab.host(name)?, labels, &["--firewall", "auto"])
    }

    /// Starts an agent on a host that is there already, with more flags. It knows all controllers.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn agent_with(&self, host: &Host, labels: &[&str], flags: &[&str]) -> Result<Agent> {
        self.agent_of(host, labels, flags, &self.controllers.iter().collect::<Vec<_>>())
    }

    /// The same for an agent that knows only these controllers.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn agent_of(
        &self,
        host: &Host,
        labels: &[&str],
        flags: &[&str],
        controllers: &[&Controller],
    ) -> Result<Agent> {
        let program = programs::path("fleetknock-agent")?;
        let state = self.lab.directory().join(format!("state-{}", host.name()));
        fs::create_dir_all(&state)?;
        let mut command =
            vec![program.to_string_lossy().into_owned(), "--host".to_owned(), host.name().to_owned()];
        for label in labels {
            command.extend(["--label".to_owned(), (*label).to_owned()]);
        }
        let urls: Vec<_> = controllers.iter().map(|controller| controller.url()).collect();
        let identity = self.trust.host(host.name())?;
        command.extend(["--controller".to_owned(), urls.join(",")]);
        command.extend(trust::flags(identity.as_ref()));
        command.extend(["--state".to_owned(), state.to_string_lossy().into_owned()]);
        command.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let agent = Agent::new(host, command, identity);
        agent.start()?;
        Ok(agent)
    }

    /// Waits until exactly this many agents are seen connected.
    ///
    /// # Errors
    /// When they are not in time.
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
        self.operator().apply(yaml)
    }

    /// Waits until connects from `stranger` to all these ports are dropped.
    ///
    /// # Errors
    /// When one is not in time.
    pub fn wait_guarded(&self, stranger: &Host, ports: &[SocketAddr]) -> Result<Duration> {
        wait_until("the guard to be in place", READY, || {
            Ok(stranger.reach_each(None, ports)?.into_iter().all(|reach| reach == Reach::Filtered))
        })
    }

    /// Runs the operator's command.
    ///
    /// # Errors
    /// When it cannot be run. A command that fails is an [`Output`] with its code.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        self.operator().cli(arguments)
    }

    /// The same for a command that must succeed.
    ///
    /// # Errors
    /// When it fails.
    pub fn cli_ok(&self, arguments: &[&str]) -> Result<String> {
        self.operator().cli_ok(arguments)
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
        self.operator().list(kind, flags)
    }

    /// The one opening that this source has.
    ///
    /// # Errors
    /// When there is none within `deadline`, or more than one.
    pub fn opening_of(&self, source: &str, deadline: Duration) -> Result<Value> {
        self.operator().opening_of(source, deadline)
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
