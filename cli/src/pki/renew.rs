//! `fleetknock pki renew`: a new key and certificate for whom there is one.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use clap::Args;
use fleetknock_runtime::{
    exit,
    tls::{
        authority::{Access, Authority, BACKDATED, Order, PrivateKey},
        time_text,
    },
};

use super::{failed, held::Held, issue, load, whole_seconds};
use crate::{args::time, output::Out};

/// Renew certificates before they end: the same holder and names, a new key
///
/// The key is expected beside its certificate: db-1.key for db-1.crt. Both are replaced, and keep their owner and mode;
/// a daemon that uses them takes the new ones within seconds.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock pki renew db-1/db-1.crt
  fleetknock pki renew hosts/*.crt --dir /media/safe/blue --for 30d")]
pub(super) struct Renew {
    /// Certificates
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The directory of the authority: ca.crt and ca.key
    #[arg(long, value_name = "DIR", default_value = "pki")]
    dir: PathBuf,
    /// How long it is valid [default: as long as the one that it replaces]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    valid_for: Option<Duration>,
}

pub(super) fn run(command: &Renew, out: &mut Out) -> anyhow::Result<()> {
    let now = whole_seconds(SystemTime::now());
    let authority = load(&command.dir, now)?;
    let mut failures = 0;
    for path in &command.files {
        match renew(command, &authority, path, now) {
            Ok(line) => out.line(line)?,
            Err(error) if command.files.len() == 1 => return Err(error),
            Err(error) => {
                failures += 1;
                out.problem(format!("{error:#}"))?;
            }
        }
    }
    if failures > 0 {
        let count = command.files.len();
        return Err(exit::coded(
            exit::DATA,
            anyhow!("{failures} of {count} certificates could not be renewed"),
        ));
    }
    Ok(())
}

fn renew(command: &Renew, authority: &Authority, path: &Path, now: SystemTime) -> anyhow::Result<String> {
    let held = Held::read(path)?.by(authority, &command.dir)?;
    let old = &held.certificate;
    if old.not_after <= now {
        let end = time_text(old.not_after);
        return Err(held.wrong(format!(
            "it ended at {end}, too late to renew; make sure that its holder is who it was, then issue a new one: \
             fleetknock pki issue ... --force"
        )));
    }
    let key_path = path.with_extension("key");
    if !key_path.exists() || key_path == *path {
        return Err(held.wrong(format!("its key is not beside it: there is no {}", key_path.display())));
    }
    let lifetime = old.lifetime().saturating_sub(BACKDATED);
    let order = Order {
        dns_names: old.dns_names.clone(),
        addresses: old.addresses.clone(),
        ..issue::order(&held.identity, command.valid_for.unwrap_or(lifetime))
    };
    let key = PrivateKey::generate().map_err(failed)?;
    let issued = authority.sign(&key.public().map_err(failed)?, &order, now).map_err(failed)?;
    issue::replace(path, &issued.pem, &key_path, key.pem(), Access::Owner)?;
    Ok(issue::summary(&held.identity, &issued, path, &key_path))
}
