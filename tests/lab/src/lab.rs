//! The lab: a switch, the hosts plugged into it, and the promise that all of it goes away again.
//!
//! ```text
//!   host edge-1        host db-1         client
//!      eth0              eth0             eth0
//!        │                 │                │        each in a network namespace of its own
//!   ─────┴─────────────────┴────────────────┴─────   bridge br0, in the switch's namespace
//!        10.77.0.0/16   fd77::/48
//! ```

use std::{
    env, fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{host::Host, process::Process, programs, signals, wait::wait_until};

mod dump;
mod leftovers;

/// The beginning of the name of everything that labs make on the machine; the process id follows.
const PREFIX: &str = "fnl-";

/// How long the kernel may take to bring up a link.
const LINK_UP: Duration = Duration::from_secs(10);

/// Labs that this process has made so far.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A question whose answer helps to understand a failure: a label, where to ask, and the command.
type Question = (String, Host, Vec<String>);

/// A switch and the hosts plugged into it. Dropping it ends every program inside and removes it all.
#[derive(Debug)]
pub struct Lab {
    name: String,
    prefix: String,
    directory: PathBuf,
    hosts: Mutex<Vec<Host>>,
    processes: Arc<Mutex<Vec<Process>>>,
    questions: Mutex<Vec<Question>>,
    failed: AtomicBool,
    keep: bool,
}

impl Lab {
    /// Makes an empty lab. With `FLEETKNOCK_LAB_KEEP=1` in the environment it is left standing at the end.
    ///
    /// # Errors
    /// When this process may not make network namespaces.
    pub fn new(name: &str) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a lab needs root or a user namespace; run it through: tests/scripts/in-lab COMMAND");
        }
        signals::tear_down_on_signal(leftovers::remove_own)?;
        leftovers::remove_of_the_dead();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}-", std::process::id());
        let directory = leftovers::home().join(format!("{prefix}{name}"));
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let lab = Self {
            name: name.to_owned(),
            prefix,
            directory,
            hosts: Mutex::default(),
            processes: Arc::default(),
            questions: Mutex::default(),
            failed: AtomicBool::new(false),
            keep: env::var_os("FLEETKNOCK_LAB_KEEP").is_some_and(|value| value == "1"),
        };
        let switch = lab.switch();
        {
            // The first use of /run/netns on a machine makes it a mount point; two at once would do so twice.
            let _lock = leftovers::lock()?;
            ip(&["netns", "add", &switch])
                .context("cannot make a network namespace (does this system forbid it to this user?)")?;
        }
        // Without multicast snooping, spanning tree and forward delay a port forwards from the first packet on.
        ip_batch(
            Some(&switch),
            &[
                "link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0".to_owned(),
                "link set lo up".to_owned(),
                "link set br0 up".to_owned(),
            ],
        )?;
        Ok(lab)
    }

    /// Runs one scenario in a lab of its own. When it fails, the lab's state is written to standard error.
    ///
    /// # Errors
    /// Those of the scenario.
    pub fn scenario(name: &str, play: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let lab = Self::new(name)?;
        let result = play(&lab);
        if result.is_err() {
            lab.fail();
        }
        result
    }

    /// Marks the lab as failed: its state is written to standard error before it goes.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Leaves it standing when this process ends.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// A folder for this lab's files; it goes with the lab.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The beginning of the names of this lab's namespaces.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Plugs in a host: addresses 10.77.0.N and `fd77::N`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.plug(name, |number| {
            (Ipv4Addr::new(10, 77, 0, number), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()))
        })
    }

    /// Plugs in a client: addresses 10.77.N.10 and `fd77:0:0:N00::10`, so that each client is in a /24 and a /56 of its
    /// own.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn client(&self, name: &str) -> Result<Host> {
        self.plug(name, |number| {
            let network = u16::from(number) << 8;
            (Ipv4Addr::new(10, 77, number, 10), Ipv6Addr::new(0xfd77, 0, 0, network, 0, 0, 0, 0x10))
        })
    }

    /// Makes a namespace that is not plugged into the switch, such as a container's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn island(&self, name: &str) -> Result<Host> {
        let namespace = format!("{}{name}", self.prefix);
        ip(&["netns", "add", &namespace])?;
        ip_batch(Some(&namespace), &["link set lo up".to_owned()])?;
        Ok(self.adopt(name, namespace, (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)))
    }

    /// Asks this, too, when the lab's state is written out after a failure.
    pub fn ask_on_failure(&self, label: &str, host: &Host, command: Vec<String>) {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).push((
            label.to_owned(),
            host.clone(),
            command,
        ));
    }

    fn plug(&self, name: &str, addresses: impl FnOnce(u8) -> (Ipv4Addr, Ipv6Addr)) -> Result<Host> {
        let namespace = format!("{}{name}", self.prefix);
        // 1 to 9 stay free, 255 would be a broadcast address of narrower networks.
        let number = u8::try_from(self.hosts().len() + 10).ok().filter(|number| *number < 250);
        let number = number.context("a lab holds at most 240 hosts")?;
        let (v4, v6) = addresses(number);
        ip(&["netns", "add", &namespace])?;
        ip_batch(
            Some(&self.switch()),
            &[
                format!("link add port{number} type veth peer name eth0 netns {namespace}"),
                format!("link set port{number} master br0 up"),
            ],
        )?;
        ip_batch(
            Some(&namespace),
            &[
                "link set lo up".to_owned(),
                format!("addr add {v4}/16 dev eth0"),
                format!("addr add {v6}/48 dev eth0 nodad"),
                "link set eth0 up".to_owned(),
            ],
        )?;
        self.wait_plugged(&namespace, number)?;
        Ok(self.adopt(name, namespace, (v4, v6)))
    }

    /// The kernel lets packets through a moment after the links are up. Until then the first question for a neighbour's
    /// hardware address is lost, and what waits for the answer is sent a second later: after what was sent after it.
    fn wait_plugged(&self, namespace: &str, number: u8) -> Result<()> {
        wait_until(&format!("the link of {namespace} to carry packets"), LINK_UP, || {
            let own = ip(&["-n", namespace, "link", "show", "eth0"])?;
            let port = ip(&["-d", "-n", &self.switch(), "link", "show", &format!("port{number}")])?;
            Ok(own.contains("state UP") && port.contains("state forwarding"))
        })?;
        Ok(())
    }

    fn adopt(&self, name: &str, namespace: String, addresses: (Ipv4Addr, Ipv6Addr)) -> Host {
        let host = Host::new(name, namespace, addresses, self.directory.clone(), Arc::clone(&self.processes));
        self.hosts().push(host.clone());
        host
    }

    fn switch(&self) -> String {
        format!("{}switch", self.prefix)
    }

    fn hosts(&self) -> MutexGuard<'_, Vec<Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() || self.failed.load(Ordering::Relaxed) {
            dump::write(
                &self.name,
                &self.directory,
                &self.hosts(),
                &self.questions.lock().unwrap_or_else(PoisonError::into_inner),
            );
        }
        if self.keep {
            return;
        }
        for process in self.processes.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = process.kill();
        }
        leftovers::remove(&self.prefix);
    }
}

/// Runs `ip` in the machine's own namespace.
pub(crate) fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .env("PATH", programs::search_path())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot run ip; install it with: apt-get install iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs many `ip` commands in one process, inside a namespace.
pub(crate) fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    use std::io::Write;

    let mut command = Command::new("ip");
    command.env("PATH", programs::search_path());
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip; install it with: apt-get install iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all((lines.join("\n") + "\n").as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip {}: {}", lines.join("; "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
