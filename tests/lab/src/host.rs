//! One host: a network namespace with a name, addresses, and programs inside.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Read, Seek, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::{
    lab::ip_batch,
    process::{Process, shell_code},
    programs,
};

/// How long a tool may take that is run without a stated limit.
const TOOL_TIMEOUT: Duration = Duration::from_secs(20);

/// A host of a lab. Handles are cheap to clone.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    namespace: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    directory: PathBuf,
    processes: Arc<Mutex<Vec<Process>>>,
    starts: AtomicU32,
}

/// What a tool said.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; 128 plus the signal when one ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Output {
    /// Standard output of a tool that succeeded.
    ///
    /// # Errors
    /// When it did not: with everything it said.
    pub fn success(self) -> Result<String> {
        if self.code != 0 {
            bail!("exit code {}: {} {}", self.code, self.stdout.trim(), self.stderr.trim());
        }
        Ok(self.stdout)
    }
}

impl Host {
    pub(crate) fn new(
        name: &str,
        namespace: String,
        (v4, v6): (Ipv4Addr, Ipv6Addr),
        directory: PathBuf,
        processes: Arc<Mutex<Vec<Process>>>,
    ) -> Self {
        let name = name.to_owned();
        Self(Arc::new(Inner { name, namespace, v4, v6, directory, processes, starts: AtomicU32::new(0) }))
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its network namespace, as `ip netns` knows it.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Its first IPv4 address.
    pub fn v4(&self) -> IpAddr {
        self.0.v4.into()
    }

    /// Its first IPv6 address.
    pub fn v6(&self) -> IpAddr {
        self.0.v6.into()
    }

    /// Its address of the same family as `other`.
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.v4() } else { self.v6() }
    }

    /// A port at its IPv4 address.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v4(), port)
    }

    /// A port at its IPv6 address.
    pub fn at6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v6(), port)
    }

    /// Gives it more addresses, to be used as sources.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Result<()> {
        let lines: Vec<_> = addresses
            .into_iter()
            .map(|address| match address {
                IpAddr::V4(address) => format!("addr add {address}/16 dev eth0"),
                IpAddr::V6(address) => format!("addr add {address}/48 dev eth0 nodad"),
            })
            .collect();
        ip_batch(Some(self.namespace()), &lines)
    }

    /// Runs a tool inside and waits for it, at most 20 seconds.
    ///
    /// # Errors
    /// When it cannot be run or takes too long. A tool that fails is an [`Output`] with its code.
    pub fn run<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<Output> {
        self.run_with(command, None, TOOL_TIMEOUT)
    }

    /// Runs a tool inside with this on its standard input, at most `timeout` long; then it is killed.
    ///
    /// # Errors
    /// When it cannot be run or takes too long.
    pub fn run_with<S: AsRef<OsStr>>(
        &self,
        command: &[S],
        input: Option<&str>,
        timeout: Duration,
    ) -> Result<Output> {
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let stdin = match input {
            None => Stdio::null(),
            Some(text) => {
                let mut file = tempfile::tempfile()?;
                file.write_all(text.as_bytes())?;
                file.rewind()?;
                file.into()
            }
        };
        let start = Instant::now();
        let mut child = self
            .command(command)
            .stdin(stdin)
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .process_group(0)
            .spawn()
            .context("cannot run ip netns exec")?;
        let mut pause = Duration::from_micros(500);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > timeout {
                let _ = nix::sys::signal::killpg(
                    nix::unistd::Pid::from_raw(child.id().cast_signed()),
                    nix::sys::signal::Signal::SIGKILL,
                );
                child.wait()?;
                break None;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        let (stdout, stderr) = (text_of(&mut stdout)?, text_of(&mut stderr)?);
        let Some(status) = status else {
            bail!("{} on {} took longer than {timeout:?}: {stdout} {stderr}", words(command), self.name());
        };
        Ok(Output { code: shell_code(status), stdout, stderr, took: start.elapsed() })
    }

    /// Runs a tool inside and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn ok<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<String> {
        self.run(command)?.success().with_context(|| format!("{} failed on {}", words(command), self.name()))
    }

    /// Starts a program inside; its output goes to a log file named after `label`. The lab ends it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn<S: AsRef<OsStr>>(&self, label: &str, command: &[S]) -> Result<Process> {
        let number = self.0.starts.fetch_add(1, Ordering::Relaxed);
        let log = self.0.directory.join(format!("{}.{label}.{number}.log", self.0.name));
        let process = Process::start(self.command(command), log)?;
        Self::wait_inside(&process)?;
        self.0.processes.lock().unwrap_or_else(PoisonError::into_inner).push(process.clone());
        Ok(process)
    }

    /// Waits until a program has entered its namespace: from then on whoever takes the namespace away finds it there.
    fn wait_inside(process: &Process) -> Result<()> {
        let number = |path: String| fs::metadata(path).map(|namespace| (namespace.dev(), namespace.ino()));
        let outside = number("/proc/self/ns/net".to_owned())?;
        crate::wait_until("a program to enter its namespace", Duration::from_secs(10), || {
            // A program that ended already has nothing to enter.
            Ok(number(format!("/proc/{}/ns/net", process.pid())).map_or(true, |there| there != outside))
        })?;
        Ok(())
    }

    /// Starts the lab's echo service on these TCP and UDP ports, IPv4 and IPv6, and waits until it listens.
    ///
    /// # Errors
    /// When it does not listen within ten seconds.
    pub fn serve(&self, tcp: &[u16], udp: &[u16]) -> Result<Process> {
        let program = programs::path("fleetknock-lab")?;
        let mut command = vec![program.into_os_string(), "serve".into(), "--name".into(), self.name().into()];
        for port in tcp {
            command.extend(["--tcp".into(), port.to_string().into()]);
        }
        for port in udp {
            command.extend(["--udp".into(), port.to_string().into()]);
        }
        let process = self.spawn("serve", &command)?;
        crate::wait_until("the echo service to listen", Duration::from_secs(10), || {
            if !process.is_running() {
                bail!("the echo service ended: {}", process.log());
            }
            Ok(process.log().contains("serving"))
        })?;
        Ok(process)
    }

    /// Does something in a thread inside this host's network namespace. Sockets made there stay in it.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.namespace());
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        thread::scope(|scope| {
            let worker = scope.spawn(|| -> Result<T> {
                setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {path}"))?;
                Ok(work())
            });
            match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new("ip");
        command.env("PATH", programs::search_path()).args(["netns", "exec", self.namespace()]).args(words);
        command
    }
}

fn text_of(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn words<S: AsRef<OsStr>>(command: &[S]) -> String {
    command.iter().map(|word| word.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ")
}
