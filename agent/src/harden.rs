//! What the agent gives up before it hears anybody: root, capabilities but two, most of the file system, of the network
//! and of the system calls.
//!
//! ```text
//!   settings ─▶ environment, memory ─▶ firewall chosen ─▶ user, capabilities ─▶ state ─▶ Landlock, seccomp ─▶ threads
//! ```
//!
//! All of it belongs to threads and is inherited, so it is done in the first one before there is another. What a host
//! cannot do is said in one line, and with `--harden require` ends the agent, after the remembered guard was written.

use std::{fs::File, path::PathBuf};

use clap::ValueEnum;
use fleetknock_runtime::{
    exit,
    harden::{self, Capability, HardenError, User},
};

use crate::{certificate::enrol, config::Settings, driver::state::StateFile};

mod calls;
mod environment;
mod owner;
mod reach;

use reach::Reach;

/// Capture needs the one, the firewall the other.
const CAPABILITIES: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
/// Who the agent is when it is started as root and no user is named: the first that there is.
const USERS: [&str; 2] = ["fleetknock-agent", "nobody"];

/// How much the agent gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// As much as this host can do; what is missing is said.
    #[default]
    Auto,
    /// All of it, or the agent does not start.
    Require,
    /// Nothing. To look for the cause of a trouble.
    Off,
}

/// What the agent still does with its host, once it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// It runs iptables.
    pub programs: bool,
    /// It resolves names of controllers.
    pub names: bool,
    /// The files of those programs.
    pub run: Vec<PathBuf>,
    /// Directories and files that it reads.
    pub read: Vec<PathBuf>,
    /// Directories in which it writes.
    pub write: Vec<PathBuf>,
    /// TCP ports that it connects to, anywhere.
    pub connect: Vec<u16>,
    /// TCP ports that it listens on.
    pub listen: Vec<u16>,
}

impl Needs {
    /// By these settings, with a firewall that runs these programs.
    pub fn of(settings: &Settings, programs: &[PathBuf]) -> Self {
        let mut read = Vec::new();
        for file in read_files(settings) {
            // Files are replaced by renaming, so it is their directories that are read; what is behind a link as well.
            let real = file.canonicalize().ok();
            let directories = [Some(file), real].into_iter().flatten();
            read.extend(directories.filter_map(|path| path.parent().map(directory_named)));
        }
        if enrol::is_waited_for(settings) {
            read.extend(settings.enroll_token.iter().filter_map(|file| file.parent().map(directory_named)));
        }
        read.extend(lock(programs));
        let mut write: Vec<_> = settings.state.iter().cloned().collect();
        if settings.writes_certificate() {
            // What it gets lies where the old ones lay.
            write.extend(tls_files(settings).iter().filter_map(|file| file.parent().map(directory_named)));
        }
        Self {
            programs: !programs.is_empty(),
            names: settings.controller.iter().any(|url| url.literal().is_none())
                || settings.otlp.otlp.as_ref().is_some_and(|url| url.literal().is_none()),
            run: programs.iter().filter_map(|path| path.canonicalize().ok()).collect(),
            read,
            write,
            connect: settings
                .controller
                .iter()
                .map(|url| url.port())
                .chain(settings.otlp.otlp.iter().map(|url| url.port()))
                .collect(),
            listen: settings.http.iter().map(|address| address.port()).collect(),
        }
    }
}

/// The parent of a bare file name is the working directory.
fn directory_named(parent: &std::path::Path) -> PathBuf {
    if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() }
}

fn tls_files(settings: &Settings) -> Vec<PathBuf> {
    let tls = &settings.tls;
    tls.tls_cert.iter().chain(&tls.tls_key).chain(&tls.tls_ca).cloned().collect()
}

/// What is read again and again while the agent runs.
fn read_files(settings: &Settings) -> Vec<PathBuf> {
    tls_files(settings).into_iter().chain(settings.otlp.otlp_ca.iter().cloned()).collect()
}

/// The lock of the legacy variant of iptables, when that is what is run.
fn lock(programs: &[PathBuf]) -> Option<PathBuf> {
    let legacy =
        |path: &PathBuf| path.canonicalize().is_ok_and(|path| path.to_string_lossy().contains("legacy"));
    let named = || std::env::var_os("XTABLES_LOCKFILE").map(PathBuf::from);
    programs.iter().any(legacy).then(|| named().unwrap_or_else(|| reach::LOCK.into()))
}

/// What was given up so far, and what could not be.
#[derive(Debug)]
pub struct Hardening {
    level: Level,
    user: String,
    in_force: Vec<&'static str>,
    missing: Vec<String>,
}

impl Hardening {
    /// Cleans the environment and makes the memory private. Called in the first thread before there is another.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn begin(level: Level) -> anyhow::Result<Self> {
        if level != Level::Off {
            environment::clean();
            harden::keep_memory_private().map_err(|error| exit::coded(exit::OS, error))?;
        }
        Ok(Self { level, user: String::new(), in_force: Vec::new(), missing: Vec::new() })
    }

    /// Becomes an ordinary user, when it is root, and keeps two capabilities.
    ///
    /// # Errors
    /// When there is no user of the name that was given, or the kernel refuses what it has to allow.
    pub fn give_up_privileges(&mut self, settings: &Settings, needs: &Needs) -> anyhow::Result<()> {
        if self.level == Level::Off {
            return Ok(());
        }
        let wanted = self.wanted(settings)?;
        if let Some(lock) = lock(&needs.run) {
            owner::share_lock(&lock, wanted.as_ref());
        }
        match wanted {
            Some(user) => self.become_user(&user, settings).map_err(refused)?,
            None => self.user = "as it was started".to_owned(),
        }
        // Programs get the two only when they are run at all.
        let bounded = harden::keep_capabilities(&CAPABILITIES, needs.programs).map_err(refused)?;
        if !bounded {
            self.missing.push(
                "the bounding set holds other capabilities (with systemd: CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW)"
                    .to_owned(),
            );
        }
        harden::no_new_privileges().map_err(refused)?;
        // A change of the user has undone it.
        harden::keep_memory_private().map_err(refused)?;
        self.in_force.extend(["two capabilities", "no new privileges"]);
        Ok(())
    }

    /// Whom to become; nobody when the agent was not started as root.
    fn wanted(&mut self, settings: &Settings) -> anyhow::Result<Option<User>> {
        let named = |name: &str| User::named(name).map_err(refused);
        if let Some(name) = &settings.user {
            let Some(user) = named(name)? else {
                let error = anyhow::anyhow!(
                    "user: this host has no user '{name}'; make one with: useradd --system {name}"
                );
                return Err(exit::coded(exit::USAGE, error));
            };
            if !harden::is_root() && user.uid != nix::unistd::geteuid().as_raw() {
                let error = anyhow::anyhow!(
                    "user: only root can become '{name}'; start the agent as that user or as root"
                );
                return Err(exit::coded(exit::NO_PERMISSION, error));
            }
            if user.uid == 0 {
                self.missing.push("it stays root (--user)".to_owned());
                return Ok(None);
            }
            return Ok(harden::is_root().then_some(user));
        }
        if !harden::is_root() {
            return Ok(None);
        }
        for name in USERS {
            if let Some(user) = named(name)? {
                return Ok(Some(user));
            }
        }
        self.missing.push(format!("it stays root: make the user {0} (useradd --system {0})", USERS[0]));
        Ok(None)
    }

    /// Becomes this user, when that user can do what the agent does with its files; else it stays root, without root's
    /// capabilities.
    fn become_user(&mut self, user: &User, settings: &Settings) -> Result<(), HardenError> {
        let reason = match Self::obstacle(user, settings)? {
            None => {
                self.user = user.name.clone();
                return user.become_it();
            }
            Some(reason) => reason,
        };
        self.user = "root".to_owned();
        self.missing.push(format!("it stays root: {reason}"));
        if let Some(state) = &settings.state {
            // What an earlier start gave to another user: root without its capabilities cannot write there.
            let _ = owner::hand_over(state, 0, 0);
        }
        Ok(())
    }

    /// Why this user cannot be the agent's.
    fn obstacle(user: &User, settings: &Settings) -> Result<Option<String>, HardenError> {
        let unreadable = || {
            read_files(settings).into_iter().find_map(|path| {
                // One that root cannot read either is said where it is used.
                let error = File::open(&path).err()?;
                (error.kind() == std::io::ErrorKind::PermissionDenied).then_some(path)
            })
        };
        let unreadable = match user.for_a_while(unreadable) {
            Ok(unreadable) => unreadable,
            Err(error @ HardenError::User { .. }) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        if let Some(path) = unreadable {
            let (path, name) = (path.display(), &user.name);
            return Ok(Some(format!(
                "{path} cannot be read by the user {name}; let its group read it (chgrp, mode 640), or name another --user"
            )));
        }
        let Some(state) = &settings.state else { return Ok(None) };
        let handed = owner::hand_over(state, user.uid, user.gid);
        let written = user.for_a_while(|| StateFile::open(state).map(drop))?;
        Ok(match (written, handed) {
            (Ok(()), _) => None,
            (Err(_), Err(reason)) => Some(reason),
            (Err(error), Ok(())) => Some(error.to_string()),
        })
    }

    /// Restricts the file system, the network and the system calls of the calling thread and those that it starts.
    pub fn restrict(&mut self, needs: &Needs) {
        if self.level == Level::Off {
            return;
        }
        match reach::restrict(needs) {
            Ok(Reach::Whole) => self.in_force.push("Landlock"),
            Ok(Reach::Part) => {
                self.in_force.push("Landlock in part");
                self.missing.push(
                    "the kernel enforces Landlock only in part (all of it from Linux 6.12 on)".to_owned(),
                );
            }
            Ok(Reach::Nothing) => {
                self.missing.push("the kernel has no Landlock (lsm=landlock, Linux 5.13)".to_owned())
            }
            Err(error) => self.missing.push(format!("Landlock: {error}")),
        }
        match calls::restrict(needs) {
            Ok(()) => self.in_force.push(if needs.programs {
                "seccomp with programs"
            } else {
                "seccomp without programs"
            }),
            Err(reason) => self.missing.push(format!("seccomp: {reason}")),
        }
    }

    /// Says what is in force, in one line.
    ///
    /// # Errors
    /// When something is missing and all of it is required.
    pub fn verdict(self) -> anyhow::Result<()> {
        let (user, in_force, missing) = (&self.user, self.in_force.join(", "), self.missing.join("; "));
        match self.level {
            Level::Off => tracing::warn!(
                "NOT HARDENED (--harden off): whoever breaks into the agent has all of its privileges; leave that flag out"
            ),
            _ if missing.is_empty() => tracing::info!(%user, %in_force, "hardened"),
            Level::Auto => tracing::warn!(%user, %in_force, %missing, "hardened in part"),
            Level::Require => {
                let error = anyhow::anyhow!("--harden require: {missing}; right that, or give --harden auto");
                return Err(exit::coded(exit::UNAVAILABLE, error));
            }
        }
        Ok(())
    }
}

fn refused(error: HardenError) -> anyhow::Error {
    exit::coded(exit::OS, error)
}

#[cfg(test)]
mod tests;
