//! The programs iptables and ip6tables, run through the crate of that name, with a deadline.
//!
//! No text of a user reaches a command line: rules are built from fixed words, numbers and checked chain names. No shell
//! is run: a program is one of a few files, by its whole path.

use std::{
    error::Error,
    io::ErrorKind,
    path::Path,
    process::Output,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use iptables::IPTables;

use super::super::{FirewallError, settings::Variant};

/// The crate waits without limit for the lock of the legacy variant; we do not.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where a program may be: where distributions put it, and where an administrator does.
macro_rules! places {
    ($name:literal) => {
        [
            concat!("/usr/sbin/", $name),
            concat!("/sbin/", $name),
            concat!("/usr/local/sbin/", $name),
            concat!("/usr/bin/", $name),
            concat!("/run/current-system/sw/bin/", $name),
        ]
    };
}

/// Which programs are run. The program's name comes from a fixed list.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Programs {
    variant: Variant,
    deadline: Duration,
}

impl Programs {
    pub(in super::super) fn new(variant: Variant) -> Self {
        Self { variant, deadline: DEADLINE }
    }

    pub(super) fn name(self, six: bool) -> &'static str {
        match (self.variant, six) {
            (Variant::System, false) => "iptables",
            (Variant::System, true) => "ip6tables",
            (Variant::Nft, false) => "iptables-nft",
            (Variant::Nft, true) => "ip6tables-nft",
            (Variant::Legacy, false) => "iptables-legacy",
            (Variant::Legacy, true) => "ip6tables-legacy",
        }
    }

    /// The program's file. When there is none at any of the places, the first: running it says that it is missing.
    pub(in super::super) fn file(self, six: bool) -> &'static str {
        let places = match (self.variant, six) {
            (Variant::System, false) => places!("iptables"),
            (Variant::System, true) => places!("ip6tables"),
            (Variant::Nft, false) => places!("iptables-nft"),
            (Variant::Nft, true) => places!("ip6tables-nft"),
            (Variant::Legacy, false) => places!("iptables-legacy"),
            (Variant::Legacy, true) => places!("ip6tables-legacy"),
        };
        places.into_iter().find(|place| Path::new(place).exists()).unwrap_or(places[0])
    }

    /// What the programs say about themselves: both have to be there.
    pub(super) fn version(self) -> Result<String, FirewallError> {
        self.run(true, "say its version", |program| program.execute("mangle", "--version"))?;
        let output = self.run(false, "say its version", |program| program.execute("mangle", "--version"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether the rules live in nftables.
    pub(super) fn is_nft(self) -> Result<bool, FirewallError> {
        Ok(self.version()?.contains("nf_tables"))
    }

    /// The chains and rules of a table, or of one chain of it, as the program writes them for its own use.
    pub(super) fn list(
        self,
        six: bool,
        table: &'static str,
        chain: Option<&str>,
    ) -> Result<Vec<String>, FirewallError> {
        let command = chain.map_or_else(|| "-S".to_owned(), |chain| format!("-S {chain}"));
        let action = "list its rules";
        let output: Output = self.run(six, action, move |program| program.execute(table, &command))?;
        if !output.status.success() {
            return Err(self.failed(six, action, String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim_end().to_owned()).collect())
    }

    /// Runs the crate's blocking call in a thread of its own. A call that misses the deadline is left behind: it ends when
    /// the lock is free.
    pub(super) fn run<T: Send + 'static>(
        self,
        six: bool,
        action: &'static str,
        call: impl FnOnce(&IPTables) -> Result<T, Box<dyn Error>> + Send + 'static,
    ) -> Result<T, FirewallError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let (name, file) = (self.name(six), self.file(six));
        let thread = thread::Builder::new().name("iptables".to_owned()).spawn(move || {
            let program = IPTables { cmd: file, has_check: true, has_wait: true, is_numeric: true };
            // The crate's errors cannot leave their thread.
            let result = call(&program).map_err(|error| {
                let missing = error
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|error| error.kind() == ErrorKind::NotFound);
                (missing, error.to_string())
            });
            // Nobody listens any more when the deadline has passed.
            let _ = sender.send(result);
        });
        thread.map_err(|error| self.failed(six, action, error.to_string()))?;
        match receiver.recv_timeout(self.deadline) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err((true, _))) => Err(FirewallError::Missing {
                what: format!("the program {name}"),
                remedy: "install iptables, or choose --firewall nftables".to_owned(),
            }),
            Ok(Err((false, message))) => Err(self.failed(six, action, message)),
            Err(RecvTimeoutError::Timeout) => {
                let message = format!(
                    "no answer within {} s; another program may hold its lock",
                    self.deadline.as_secs()
                );
                Err(self.failed(six, action, message))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(self.failed(six, action, "it ended without an answer".to_owned()))
            }
        }
    }

    fn failed(self, six: bool, action: &'static str, message: String) -> FirewallError {
        if message.contains("open lock file") {
            return FirewallError::Missing {
                what: format!("the right to lock {}, which the legacy variant of iptables needs,", "/run/xtables.lock"),
                remedy: "let the agent's group read that file (mode 640; tmpfiles.d keeps it so), start the agent as root, \
                         which sees to it, or choose --firewall nftables"
                    .to_owned(),
            };
        }
        if message.contains("you must be root") || message.contains("Permission denied") {
            return FirewallError::Permission;
        }
        FirewallError::Program { program: self.name(six), action, message: message.trim().to_owned() }
    }
}

#[cfg(test)]
mod tests;
