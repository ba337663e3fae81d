//! The fleet of `deploy/compose.yaml` as a test drives it: by the commands that people type.

use std::{
    collections::BTreeMap,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use fleetknock_deploy::{docker::Engine, run::run, tree};
use serde_json::Value;

use crate::images;

/// Everything that has to happen happens sooner, unless it is broken or the machine very busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// The project's name, of `compose/core.env`.
pub(crate) const PROJECT: &str = "fleetknock";

/// A container that stays, from whose address knocks come and which looks at what opens.
const VISITOR: &str = "compose-test-visitor";

/// The knock of the README.
pub(crate) const KNOCK: &[&str] = &["tcp/7412@edge-1", "udp/23981@db-1", "tcp/51003@edge-1"];

/// A fleet of containers.
pub(crate) struct Fleet {
    pub(crate) engine: Engine,
}

impl Fleet {
    /// Starts an engine and makes the images. Nothing else runs yet.
    pub(crate) fn prepare() -> Result<Self> {
        let engine = Engine::start()?;
        images::make(&engine)?;
        Ok(Self { engine })
    }

    /// `docker-compose`, in `deploy/`, without the extras.
    pub(crate) fn compose(&self, arguments: &[&str]) -> Result<String> {
        run(self.composing().args(arguments)).map(|said| said.trim_end().to_owned())
    }

    fn composing(&self) -> Command {
        let deploy = tree::top().join("deploy");
        let mut compose = self.engine.compose();
        compose.envs(images::NAMES.iter().copied()).current_dir(&deploy);
        compose.env_remove("COMPOSE_PROFILES").arg("--env-file").arg("compose/core.env");
        compose
    }

    /// `docker`.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Result<String> {
        self.engine.run(arguments)
    }

    /// The command of an admin.
    pub(crate) fn operator(&self, arguments: &[&str]) -> Result<String> {
        self.compose(&[&["run", "--rm", "-T", "operator"], arguments].concat())
    }

    /// What the command of an admin lists, as JSON.
    pub(crate) fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let said = self.operator(&["get", kind, "-o", "json"])?;
        serde_json::from_str(&said).with_context(|| format!("fleetknock get {kind} wrote: {said}"))
    }

    /// All containers of the project, by their services.
    pub(crate) fn containers(&self) -> Result<BTreeMap<String, Value>> {
        let filter = format!("label=com.docker.compose.project={PROJECT}");
        let ids = self.docker(&["ps", "--all", "--quiet", "--filter", &filter])?;
        let ids: Vec<&str> = ids.lines().collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let said = self.docker(&[&["inspect"], &ids[..]].concat())?;
        let all: Vec<Value> = serde_json::from_str(&said)?;
        let named = all.into_iter().map(|container| {
            let service = container.pointer("/Config/Labels/com.docker.compose.service");
            (service.and_then(Value::as_str).unwrap_or_default().to_owned(), container)
        });
        Ok(named.collect())
    }

    /// Waits until what shall run is healthy, and what runs once has succeeded.
    pub(crate) fn wait_until_well(&self) -> Result<()> {
        eventually("every container is healthy", || {
            let containers = self.containers()?;
            let ill = containers.iter().find(|(_, container)| {
                let state = &container["State"];
                let once = container["HostConfig"]["RestartPolicy"]["Name"] == "no";
                let well = if once {
                    state["Status"] == "exited" && state["ExitCode"] == 0
                } else {
                    state["Health"]["Status"] == "healthy"
                };
                !well
            });
            match ill {
                None => Ok(()),
                Some((service, container)) => bail!("{service}: {}", container["State"]),
            }
        })
    }

    /// Somebody arrives on the network outside, with an address of theirs, which is returned.
    pub(crate) fn visitor_arrives(&self) -> Result<String> {
        let network = format!("{PROJECT}_outside");
        self.docker(&[
            "run",
            "--detach",
            "--init",
            "--name",
            VISITOR,
            "--network",
            &network,
            images::HOST,
            "sleep",
            "3600",
        ])?;
        self.docker(&[
            "inspect",
            "--format",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            VISITOR,
        ])
    }

    /// They leave.
    pub(crate) fn visitor_leaves(&self) -> Result<()> {
        self.docker(&["rm", "--force", VISITOR]).map(drop)
    }

    /// Whether a TCP port takes a connection of theirs within this many seconds.
    pub(crate) fn visitor_reaches(&self, port: &str, seconds: u32) -> bool {
        self.reaches(VISITOR, port, seconds)
    }

    /// They knock, and wait until they are in.
    pub(crate) fn visitor_knocks(&self, options: &[&str]) -> Result<String> {
        let network = format!("container:{VISITOR}");
        let start = ["run", "--rm", "--network", &network, images::CLI, "knock"];
        let wait = ["--then-wait", "tcp/22@bastion-1"];
        self.docker(&[&start[..], KNOCK, &wait, options].concat())
    }

    /// Whether a TCP port (`HOST/PORT`) takes a connection from the network of a container.
    pub(crate) fn reaches(&self, container: &str, port: &str, seconds: u32) -> bool {
        let network = format!("container:{container}");
        let (limit, connect) = (seconds.to_string(), format!("</dev/tcp/{port}"));
        let start = ["run", "--rm", "--network", &network, images::HOST];
        self.docker(&[&start[..], &["timeout", &limit, "bash", "-c", &connect]].concat()).is_ok()
    }

    /// The name of a service's container.
    pub(crate) fn container(service: &str) -> String {
        format!("{PROJECT}_{service}_1")
    }

    /// The controller that follows somebody's knocks now.
    pub(crate) fn following(&self) -> Result<String> {
        let controllers = self.list("controllers")?;
        let follows = |controller: &&Value| controller["status"]["sourcesInFlight"].as_u64() > Some(0);
        let name =
            controllers.iter().find(follows).and_then(|controller| controller["metadata"]["name"].as_str());
        name.map(str::to_owned).with_context(|| format!("nobody follows anybody: {controllers:?}"))
    }

    /// The member of etcd that leads, asked of a member that runs.
    pub(crate) fn leading(&self, ask: &str) -> Result<String> {
        let said = self.docker(&[
            "exec",
            &Self::container(ask),
            "etcdctl",
            "endpoint",
            "status",
            "--cluster",
            "-w",
            "json",
        ])?;
        let members: Vec<Value> = serde_json::from_str(&said)?;
        let leads = |member: &&Value| member["Status"]["leader"] == member["Status"]["header"]["member_id"];
        let endpoint = members.iter().find(leads).and_then(|member| member["Endpoint"].as_str());
        let name = endpoint.and_then(|url| url.strip_prefix("https://")?.strip_suffix(":2379"));
        name.map(str::to_owned).with_context(|| format!("nobody leads: {said}"))
    }

    /// What the first process of a container may, as its kernel says.
    pub(crate) fn status_of_process(&self, container: &str) -> Result<BTreeMap<String, String>> {
        let pid = format!("container:{container}");
        let said = self.docker(&["run", "--rm", "--pid", &pid, images::HOST, "cat", "/proc/1/status"])?;
        let pairs = said.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }
}

/// Tries until it succeeds.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() > PATIENCE => {
                return Err(
                    error.context(format!("in {} s it did not come true that {what}", PATIENCE.as_secs()))
                );
            }
            Err(_) => thread::sleep(Duration::from_millis(300)),
        }
    }
}
