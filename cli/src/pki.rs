//! `fleetknock pki`: an authority (CA) of the fleet's own, and certificates by it. No controller is asked.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use fleetknock_core::time::Timestamp;
use fleetknock_runtime::{
    exit,
    tls::{
        FileError,
        authority::{self, Authority, AuthorityError},
    },
};

use crate::output::Out;

mod ensure;
mod held;
mod init;
mod issue;
mod renew;
mod show;

/// Make and look at certificates for mutual TLS, without a CA of your own
///
/// Whoever has the authority's key (ca.key) can be anybody in the fleet: keep it where no daemon runs.
#[derive(Args, Debug)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Pki {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "With a CA of your own, such as cert-manager or Vault, issue certificates with
  - one URI among the subject alternative names, and no other that begins with fleetknock://
      agents       fleetknock://FLEET/host/NAME
      controllers  fleetknock://FLEET/controller/NAME
      users        fleetknock://FLEET/user/NAME?role=viewer|operator|admin
  - key usage digitalSignature; extended key usage clientAuth, and for controllers serverAuth too
  - an ECDSA P-256 or P-384, Ed25519 or RSA key (2048 bits or more), in PEM
Controllers need no DNS name: agents and other controllers know them by their URI. The fleet must trust that CA \
alone, and it must let nobody choose the URI: whoever gets one is who it says.

To change authorities: make a new one in another directory, put both ca.crt into one file wherever ca.crt is trusted, \
issue everything anew, then trust the new one only. Daemons follow their files; none restarts.

Examples:
  fleetknock pki init --fleet blue
  fleetknock pki issue controller c-1 --out c-1/
  fleetknock pki issue host db-1 --out db-1/
  fleetknock pki issue user alice --role operator --for 8h
  fleetknock pki renew db-1/db-1.crt
  fleetknock pki ensure --fleet blue controller/c-1 host/db-1 user/alice?role=operator
  fleetknock pki show db-1/db-1.crt -o json";

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Issue(issue::Issue),
    Renew(renew::Renew),
    Ensure(ensure::Ensure),
    Show(show::Show),
}

/// Runs the command.
pub(crate) fn run(pki: &Pki, out: &mut Out) -> anyhow::Result<()> {
    match &pki.command {
        Command::Init(command) => init::run(command, out),
        Command::Issue(command) => issue::run(command, out),
        Command::Renew(command) => renew::run(command, out),
        Command::Ensure(command) => ensure::run(command, out),
        Command::Show(command) => show::run(command, out),
    }
}

/// The authority in a directory.
fn load(directory: &Path, now: SystemTime) -> anyhow::Result<Authority> {
    let certificate = directory.join(authority::CERTIFICATE_FILE);
    if !certificate.exists() {
        let error = anyhow!(
            "{} is not there; name the authority's directory with --dir, or make one: fleetknock pki init --fleet NAME",
            certificate.display()
        );
        return Err(exit::coded(exit::NO_INPUT, error));
    }
    Authority::load(directory, now).map_err(failed)
}

/// An error about files or signing, with its code.
fn failed(error: AuthorityError) -> anyhow::Error {
    let code = match &error {
        AuthorityError::Files(FileError::Unreadable { .. }) => exit::NO_INPUT,
        _ => exit::DATA,
    };
    exit::coded(code, error)
}

fn cannot_write(path: &Path, error: std::io::Error) -> anyhow::Error {
    let code =
        if error.kind() == std::io::ErrorKind::PermissionDenied { exit::NO_PERMISSION } else { exit::IO };
    exit::coded(code, anyhow::Error::new(error).context(format!("cannot write {}", path.display())))
}

/// Milliseconds since 1970, as everything that the command shows.
fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::ZERO + time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whole seconds: certificates know no less.
fn whole_seconds(now: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}
