//! A Docker engine of the tests' own, beside whatever the machine runs: its own data, sockets, bridges and addresses.
//!
//! It lives in a network namespace of its own, so nothing of the machine's network changes: what shall reach a container
//! runs in one, or [inside](Engine::inside) that namespace; a port that a container publishes is published there.
//! Containers reach the outside, as builds need to. Its data (images, build cache) is kept from one run to the next.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{run::run, tree};

#[cfg(test)]
mod tests;

const SCRIPT: &str = include_str!("docker/engine.sh");
/// An engine starts in a second; a machine under load is given time.
const STARTS_WITHIN: Duration = Duration::from_secs(120);
/// Containers are given 15 s by the engine that ends, and then killed.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const SYSTEM_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// A running engine. It ends when this is dropped, and all that it runs with it; also when the test's process is killed.
#[derive(Debug)]
pub struct Engine {
    process: Child,
    folder: TempDir,
    client: PathBuf,
}

impl Engine {
    /// Starts the engine, without containers, networks and volumes of earlier runs. There is one at a time for a target
    /// folder: whoever starts another one waits.
    ///
    /// # Errors
    /// When this is not root, a program is missing (with what to install), or the engine does not start (with its log).
    pub fn start() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a Docker engine can be started by root only: run these tests as root");
        }
        for (program, package) in
            [("dockerd", "docker.io"), ("slirp4netns", "slirp4netns"), ("docker-compose", "docker-compose")]
        {
            if find(program).is_none() {
                bail!("there is no {program}; install what is needed with: make deps (package {package})");
            }
        }
        // The package's client builds with BuildKit by itself; newer ones, found first on some machines, need a plugin.
        let client = Some(PathBuf::from("/usr/bin/docker")).filter(|client| client.exists());
        let client = client.or_else(|| find("docker"));
        let client = client.context("there is no docker; install what is needed with: make deps")?;

        let data = tree::kept().join("docker");
        std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let log = lock(&data.with_extension("log"))?;
        let folder = tempfile::Builder::new().prefix("fleetknock-docker-").tempdir()?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", SCRIPT, "engine.sh"]).arg(folder.path()).arg(&data);
        command.env("PATH", path()).stdin(Stdio::piped());
        // The log is the lock: it is held until the last process is gone that writes to it.
        command.stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().context("cannot run unshare")?;
        let mut engine = Self { process, folder, client };
        engine.wait_for_start(&data.with_extension("log"))?;
        engine.remove_what_was_left()?;
        Ok(engine)
    }

    /// The command `docker`, speaking to this engine.
    pub fn docker(&self) -> Command {
        self.client_command(&self.client)
    }

    /// The command `docker-compose`, speaking to this engine.
    pub fn compose(&self) -> Command {
        self.client_command(Path::new("docker-compose"))
    }

    /// Runs `docker` with these arguments, and returns what it wrote without the last line's end.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        Ok(run(self.docker().args(arguments))?.trim_end().to_owned())
    }

    /// A program in the engine's network: it reaches containers by their addresses, and published ports on 127.0.0.1.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = self.client_command(Path::new("nsenter"));
        // The file is a mount point in the engine's own mount namespace only.
        let first = self.first_process().unwrap_or_default();
        command.arg(format!("--net=/proc/{first}/root{}", self.folder.path().join("net").display()));
        command.arg(program);
        command
    }

    /// Makes an image of this name of a tar file with a file system, unless it was made of the same file before.
    ///
    /// # Errors
    /// When the file cannot be read, or the engine refuses it.
    pub fn import(&self, tar: &Path, name: &str) -> Result<()> {
        let file = tar.metadata().with_context(|| format!("cannot read {}", tar.display()))?;
        let made = file.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let origin = format!("of {} bytes at {} s", file.len(), made.as_secs());
        if self.run(&["image", "inspect", "--format", "{{.Comment}}", name]).is_ok_and(|old| old == origin) {
            return Ok(());
        }
        let mut import = self.docker();
        run(import.args(["import", "--message", &origin]).arg(tar).arg(name)).map(drop)
    }

    fn client_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", format!("unix://{}", self.folder.path().join("docker.sock").display()));
        // Nothing of what the user has set for the machine's engine.
        command.env("DOCKER_CONFIG", self.folder.path().join("client"));
        for variable in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            command.env_remove(variable);
        }
        command.env("DOCKER_BUILDKIT", "1").env("COMPOSE_DOCKER_CLI_BUILD", "1").env("PATH", path());
        command
    }

    /// The first process of the engine's namespaces, by the number that it has out here.
    fn first_process(&self) -> Option<u32> {
        let outer = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    fn wait_for_start(&mut self, log: &Path) -> Result<()> {
        let begun = Instant::now();
        loop {
            let ended = self.process.try_wait()?;
            let why = match self.run(&["version", "--format", "{{.Server.Version}}"]) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if ended.is_some() || begun.elapsed() > STARTS_WITHIN {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<&str> = said.lines().rev().take(30).collect();
                let last = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
                bail!("the Docker engine does not start: {why:#}\n{}:\n{last}", log.display());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Of runs that were killed; images and the build cache stay.
    fn remove_what_was_left(&self) -> Result<()> {
        let containers = self.run(&["ps", "--all", "--quiet"])?;
        for container in containers.lines() {
            self.run(&["rm", "--force", "--volumes", container])?;
        }
        self.run(&["network", "prune", "--force"])?;
        self.run(&["volume", "prune", "--force"])?;
        self.run(&["image", "prune", "--force"])?;
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let begun = Instant::now();
        while begun.elapsed() < ENDS_WITHIN {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        // All of its processes end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Opens the engine's log anew when nobody else has it.
fn lock(path: &Path) -> Result<File> {
    let log = OpenOptions::new().create(true).append(true).open(path);
    let log = log.with_context(|| format!("cannot write {}", path.display()))?;
    log.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    log.set_len(0)?;
    Ok(log)
}

/// Where programs are looked for: also where Debian keeps those for root.
fn path() -> String {
    format!("{}:{SYSTEM_FOLDERS}", std::env::var("PATH").unwrap_or_default())
}

fn find(program: &str) -> Option<PathBuf> {
    path().split(':').map(|folder| Path::new(folder).join(program)).find(|file| file.is_file())
}
