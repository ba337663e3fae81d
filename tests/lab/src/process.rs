//! A program that runs inside a host, with its output in a file.

use std::{
    fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::wait::within;

/// A running program. Handles are cheap to clone; the lab ends the program when it ends itself.
#[derive(Clone, Debug)]
pub struct Process(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pid: u32,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts a command in a process group of its own, so that a Ctrl-C at the terminal goes to the lab only, and so that
    /// what it starts ends with it. Output goes to `log`, appended.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        Ok(Self(Arc::new(Inner { pid: child.id(), log, child: Mutex::new(child) })))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.0.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Where it writes.
    pub fn log_path(&self) -> &Path {
        &self.0.log
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Its resident memory in bytes, from proc(5).
    ///
    /// # Errors
    /// When it no longer runs.
    pub fn memory(&self) -> Result<u64> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.0.pid)).context("the process is gone")?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in its status")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Sends a signal to the program alone.
    ///
    /// # Errors
    /// When the kernel refuses; a program that is gone already is fine.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = self.child();
        if child.try_wait()?.is_none() {
            nix::sys::signal::kill(self.group(), signal)?;
        }
        Ok(())
    }

    /// Ends it with SIGKILL, with everything it started, and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses; a program that is gone already is fine.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child();
        // The group is only addressed while its leader is not reaped: until then nobody else can have that number.
        if child.try_wait()?.is_none() {
            match killpg(self.group(), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).context("cannot kill a process group"),
            }
            child.wait()?;
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it has not ended within `deadline`.
    pub fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        within("a program to end", deadline, || Ok(self.child().try_wait()?)).map(|(status, _)| status)
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.0.pid.cast_signed())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.0.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// An exit status as a shell writes it: the code, or 128 plus the signal.
pub(crate) fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
