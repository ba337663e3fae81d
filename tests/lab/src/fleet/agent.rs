//! An agent and the host it runs on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use crate::{host::Host, pki::Identity, process::Process, programs};

/// An agent and the host it runs on.
#[derive(Debug)]
pub struct Agent {
    host: Host,
    command: Vec<String>,
    identity: Option<Identity>,
    process: Mutex<Option<Process>>,
}

impl Agent {
    /// The agent with this command line, not started yet.
    pub(super) fn new(host: &Host, command: Vec<String>, identity: Option<Identity>) -> Self {
        Self { host: host.clone(), command, identity, process: Mutex::default() }
    }

    /// The certificate that it shows.
    ///
    /// # Errors
    /// When its fleet speaks plain text.
    pub fn identity(&self) -> Result<&Identity> {
        self.identity
            .as_ref()
            .with_context(|| format!("the agent on {} shows no certificate", self.host.name()))
    }

    /// Where it runs.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Starts it (again). Does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Process> {
        let mut command = self.command.clone();
        // The one that is chosen by now, where versions are mixed.
        if let Some(program) = command.first_mut() {
            *program = programs::path("fleetknock-agent")?.to_string_lossy().into_owned();
        }
        let process = self.host.spawn("agent", &command)?;
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
