//! `fleetknock-agent lift`: takes the guard off this host, for good and on purpose.
//!
//! The kernel keeps guard without an agent, so that nothing opens when one stops, is restarted or replaced. This is the
//! other way: before the agent leaves a host, and for whoever is locked out and still has a console. It works with
//! settings that are wrong or gone.

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use clap::Parser;
use fleetknock_runtime::{config, exit, harden};

use crate::{
    config::Settings,
    driver::state,
    firewall::{self, Lifted, Options},
    harden::Hardening,
};

/// The word after the program's name.
pub const COMMAND: &str = "lift";
/// Where packages put the settings.
const CONFIG: &str = "/etc/fleetknock/agent.yaml";
/// The program's file; after an upgrade the kernel writes ` (deleted)` behind it.
const PROGRAM: &str = "fleetknock-agent";

const EXAMPLES: &str = "\
Examples:
  systemctl disable --now fleetknock-agent && fleetknock-agent lift
      before the agent leaves this host, or from a console when nobody gets in
  fleetknock-agent lift --config agent.yaml
      with settings that lie elsewhere: they name the state directory and the chain of --accept-in

Guarded ports are open to everybody afterwards, as far as this host's own firewall lets them be. An agent that is started
again guards them again as soon as a controller tells it to.";

/// Removes guard, openings and bans from this host's kernel, and what is remembered of them
#[derive(Clone, Debug, Parser)]
#[command(name = "fleetknock-agent lift", version, after_help = EXAMPLES)]
pub struct Lift {
    /// The agent's settings; without any, what they would name stays: the state, and the rule of --accept-in
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,

    /// Lift although an agent runs here, which will put the guard back
    #[arg(long)]
    pub force: bool,
}

/// Whether these arguments ask for it.
pub fn is_asked_for(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == COMMAND)
}

/// Does what the arguments after `lift` ask for, and says what was removed.
///
/// # Errors
/// When an agent runs in this network namespace, the firewall may not be changed, or something could not be removed.
pub fn run(args: &[OsString]) -> anyhow::Result<()> {
    let lift: Lift = config::flags(args.iter().skip(1).cloned())?;
    let mut out = io::stdout().lock();
    let settings = lift.settings(&mut out)?;
    if let Some(process) = running().filter(|_| !lift.force) {
        let error = anyhow::anyhow!(
            "an agent runs on this host (process {process}) and would put the guard back; stop it first: systemctl disable \
             --now fleetknock-agent"
        );
        return Err(exit::coded(exit::TEMPORARY, error));
    }
    // What it runs is not steered by the caller's environment.
    Hardening::begin(crate::harden::Level::Auto)?;
    let options = settings.as_ref().map(Options::from).unwrap_or_default();
    let Lifted { removed, failed } = firewall::lift(&options);
    for thing in &removed {
        writeln!(out, "removed {thing}")?;
    }
    if let Some(directory) = settings.as_ref().and_then(|settings| settings.state.as_deref()) {
        forget(directory, &mut out)?;
    }
    let Some(first) = failed.into_iter().next() else {
        let end = if removed.is_empty() { "there was no guard on this host" } else { "the guard is lifted" };
        return Ok(writeln!(out, "{end}; ports are as open as this host's own firewall leaves them")?);
    };
    let root = if harden::is_root() { "" } else { " (not run as root)" };
    Err(exit::coded(exit::OS, anyhow::anyhow!("not everything could be removed{root}: {first}")))
}

impl Lift {
    /// Wrong settings must not keep a guard: they are said, and done without.
    fn settings(&self, out: &mut impl io::Write) -> io::Result<Option<Settings>> {
        let args = ["fleetknock-agent".into(), "--config".into(), self.config.clone().into_os_string()];
        match config::load::<Settings>(args) {
            Ok(settings) => Ok(Some(settings)),
            Err(error) => {
                writeln!(
                    out,
                    "note: the settings cannot be used, so what they name stays: the state directory, and the rule in the \
                     chain of --accept-in ({error})"
                )?;
                Ok(None)
            }
        }
    }
}

/// Removes what is remembered, which the next start would guard again before any controller is asked.
fn forget(directory: &Path, out: &mut impl io::Write) -> anyhow::Result<()> {
    let path = directory.join(state::FILE_NAME);
    match fs::remove_file(&path) {
        Ok(()) => Ok(writeln!(out, "removed {}", path.display())?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => {
            let error = anyhow::anyhow!("cannot remove {}: {error}", path.display());
            Err(exit::coded(exit::IO, error))
        }
    }
}

/// An agent that runs in this network namespace.
fn running() -> Option<u32> {
    let here = fs::read_link("/proc/self/ns/net").ok()?;
    let own = std::process::id();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        let folder = entry.path();
        // Not the process's name, which a package's own script (fleetknock-agent.prerm) has as well.
        let file = fs::read_link(folder.join("exe")).ok()?;
        let name = file.file_name()?.to_str()?.trim_end_matches(" (deleted)").to_owned();
        let there = fs::read_link(folder.join("ns/net")).ok()?;
        let serves = || {
            let line = fs::read(folder.join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1).is_none_or(|word| word != COMMAND.as_bytes())
        };
        (process != own && name == PROGRAM && there == here && serves()).then_some(process)
    })
}
