//! `fleetknock pki init`: makes a fleet's authority.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::identity::{FleetName, authority_uri};
use fleetknock_runtime::{
    exit,
    tls::{
        authority::{Access, Authority, CERTIFICATE_FILE, KEY_FILE, write_new},
        time_text,
    },
};

use super::{cannot_write, failed, timestamp, whole_seconds};
use crate::{args::time, output::Out};

/// Make a fleet's authority (CA): its certificate ca.crt and its key ca.key
///
/// Nothing that is there is replaced.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock pki init --fleet blue
  fleetknock pki init --fleet blue --dir /media/safe/blue --for 730d")]
pub(super) struct Init {
    /// The fleet's name, as in the controllers' --fleet
    #[arg(long, value_name = "NAME")]
    fleet: FleetName,
    /// Where to write; made when it is not there
    #[arg(long, value_name = "DIR", default_value = "pki")]
    dir: PathBuf,
    /// How long it is valid, and with it everything that it signs
    #[arg(long = "for", value_name = "TIME", value_parser = time, default_value = LASTS)]
    valid_for: Duration,
}

/// How long an authority is valid unless told.
pub(super) const LASTS: &str = "1825d";

pub(super) fn run(command: &Init, out: &mut Out) -> anyhow::Result<()> {
    create(&command.fleet, &command.dir, command.valid_for, whole_seconds(SystemTime::now()), out)
}

/// Makes an authority in a directory that has none.
pub(super) fn create(
    fleet: &FleetName,
    directory: &Path,
    valid_for: Duration,
    now: SystemTime,
    out: &mut Out,
) -> anyhow::Result<()> {
    let (certificate_path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
    if let Some(there) = [&certificate_path, &key_path].into_iter().find(|path| path.exists()) {
        let error = anyhow!(
            "{} is already there: without its key, nothing that it signed can be renewed; choose another --dir",
            there.display()
        );
        return Err(exit::coded(exit::IO, error));
    }
    // Two authorities of one fleet, while the one replaces the other, must not have the same name.
    let name = format!("{} CA {}", short(fleet), timestamp(now));
    let (authority, key) = Authority::create(&name, &authority_uri(fleet), valid_for, now).map_err(failed)?;
    fs::create_dir_all(directory).map_err(|error| cannot_write(directory, error))?;
    write_new(&key_path, key.pem(), Access::Owner).map_err(|error| cannot_write(&key_path, error))?;
    write_new(&certificate_path, authority.pem(), Access::Everybody)
        .map_err(|error| cannot_write(&certificate_path, error))?;
    out.line(format!(
        "authority of fleet {fleet} created: {} (until {}) and {}",
        certificate_path.display(),
        time_text(authority.certificate().not_after),
        key_path.display()
    ))?;
    out.remark(format!(
        "{} goes to every host and controller; whoever has {} can be anybody in the fleet: keep it where no daemon runs",
        certificate_path.display(),
        key_path.display()
    ))?;
    Ok(())
}

/// A common name has 64 characters (RFC 5280 appendix A.1), and the time wants 28 of them.
fn short(fleet: &FleetName) -> String {
    fleet.as_str().chars().take(32).collect()
}
