//! The programs iptables and ip6tables, run through the crate of that name, with a deadline.
//!
//! No text of a user reaches a command line: rules are built from fixed words, numbers and checked chain names.

use std::{
    error::Error,
    io::ErrorKind,
    process::Output,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use iptables::IPTables;

use super::super::{FirewallError, settings::Variant};

/// The crate waits without limit for the lock of the legacy variant; we do not.
const DEADLINE: Duration = Duration::from_secs(10);

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
        let name = self.name(six);
        let thread = thread::Builder::new().name("iptables".to_owned()).spawn(move || {
            let program = IPTables { cmd: name, has_check: true, has_wait: true, is_numeric: true };
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
        if message.contains("you must be root") || message.contains("Permission denied") {
            return FirewallError::Permission;
        }
        FirewallError::Program { program: self.name(six), action, message: message.trim().to_owned() }
    }
}

#[cfg(test)]
mod tests;
