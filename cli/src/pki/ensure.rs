//! `fleetknock pki ensure`: everything that a whole fleet needs, where it is not there yet.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::{
    host::HostName,
    identity::{FleetName, Identity, Who, authority_fleet},
};
use fleetknock_runtime::{
    exit,
    tls::authority::{Access, Authority, CERTIFICATE_FILE, KEY_FILE, Order, PrivateKey},
};

use super::{cannot_write, failed, held::Held, init, issue, load, whole_seconds};
use crate::{args::time, output::Out};

/// Make what a fleet lacks: its authority, and a key and a certificate for each holder; leave what is there
///
/// For what runs at every start, such as a container beside a fleet. Each holder gets a directory of its own below
/// --out: NAME/NAME.crt, NAME/NAME.key and NAME/ca.crt. A certificate with less than a third of its time left, unless
/// it ends with the authority, or with other names than asked for is replaced, with a new key; one of another holder or
/// another authority is refused.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock pki ensure --fleet blue controller/c-1 host/db-1 'user/alice?role=operator'
  fleetknock pki ensure --fleet blue --dir /authority --out /pki --group controller/c-1 --dns localhost --ip 127.0.0.1")]
pub(super) struct Ensure {
    /// For whom: host/NAME, controller/NAME or user/NAME?role=ROLE, as in their certificates' URI
    #[arg(required = true, value_name = "HOLDER")]
    holders: Vec<String>,
    /// The fleet's name, as in the controllers' --fleet
    #[arg(long, value_name = "NAME")]
    fleet: FleetName,
    /// The directory of the authority: ca.crt and ca.key
    #[arg(long, value_name = "DIR", default_value = "pki")]
    dir: PathBuf,
    /// Where the holders' directories are, or are made [default: the authority's directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A DNS name under which clients that go by names dial the controllers, beside each one's own; repeat it
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<HostName>,
    /// An address, likewise
    #[arg(long = "ip", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// How long what is made is valid [default: 30d for hosts and controllers, 12h for users]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    valid_for: Option<Duration>,
    /// Let the group of the files read new keys too (mode 640): for daemons that run as another user of that group
    #[arg(long)]
    group: bool,
}

pub(super) fn run(command: &Ensure, out: &mut Out) -> anyhow::Result<()> {
    let now = whole_seconds(SystemTime::now());
    // All of them are read before the first is written.
    let holders =
        command.holders.iter().map(|text| command.holder(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let authority = command.authority(now, out)?;
    let mut left = 0_usize;
    for holder in &holders {
        match ensure(command, &authority, holder, now, out)? {
            Some(line) => out.line(line)?,
            None => left += 1,
        }
    }
    if left > 0 {
        out.line(format!("{left} of {} were there already and were left as they are", holders.len()))?;
    }
    Ok(())
}

impl Ensure {
    fn holder(&self, text: &str) -> anyhow::Result<Identity> {
        format!("fleetknock://{}/{text}", self.fleet).parse().map_err(|error| {
            let error = anyhow!(
                "'{text}' is nobody who can have a certificate: {error}; write host/NAME, controller/NAME or \
                 user/NAME?role=ROLE"
            );
            exit::coded(exit::USAGE, error)
        })
    }

    fn authority(&self, now: SystemTime, out: &mut Out) -> anyhow::Result<Authority> {
        let is_there = |name: &str| self.dir.join(name).exists();
        if !is_there(CERTIFICATE_FILE) && !is_there(KEY_FILE) {
            let valid_for = time(init::LASTS).map_err(anyhow::Error::msg)?;
            init::create(&self.fleet, &self.dir, valid_for, now, out)?;
        }
        let authority = load(&self.dir, now)?;
        match authority_fleet(&authority.certificate().uris) {
            Some(of) if of != self.fleet => {
                let error = anyhow!(
                    "the authority in {} is of fleet '{of}', not of '{}' (--fleet); choose its --dir",
                    self.dir.display(),
                    self.fleet
                );
                Err(exit::coded(exit::USAGE, error))
            }
            _ => Ok(authority),
        }
    }

    fn order(&self, identity: &Identity) -> Order {
        let is_user = matches!(identity.who, Who::User { .. });
        let usual = if is_user { issue::USERS_FOR } else { issue::DAEMONS_FOR };
        let order = issue::order(identity, self.valid_for.unwrap_or(usual));
        if !order.server {
            return order;
        }
        let mut dns_names = vec![order.common_name.clone()];
        dns_names.extend(self.dns_names.iter().map(ToString::to_string));
        Order { dns_names, addresses: self.addresses.clone(), ..order }
    }
}

/// Makes one holder's files, and says so, unless they are there and last.
fn ensure(
    command: &Ensure,
    authority: &Authority,
    identity: &Identity,
    now: SystemTime,
    out: &mut Out,
) -> anyhow::Result<Option<String>> {
    let order = command.order(identity);
    let directory = command.out.as_ref().unwrap_or(&command.dir).join(&order.common_name);
    let file = |extension: &str| directory.join(format!("{}.{extension}", order.common_name));
    let (certificate_path, key_path) = (file("crt"), file("key"));
    fs::create_dir_all(&directory).map_err(|error| cannot_write(&directory, error))?;
    issue::copy_authority(authority, &directory, out)?;
    if key_path.exists() && lasts(command, &certificate_path, authority, identity, &order, now)? {
        return Ok(None);
    }
    let key = PrivateKey::generate().map_err(failed)?;
    let issued = authority.sign(&key.public().map_err(failed)?, &order, now).map_err(failed)?;
    let readers = if command.group { Access::Group } else { Access::Owner };
    issue::replace(&certificate_path, &issued.pem, &key_path, key.pem(), readers)?;
    Ok(Some(issue::summary(identity, &issued, &certificate_path, &key_path)))
}

/// Whether a certificate is there and need not be replaced.
fn lasts(
    command: &Ensure,
    path: &Path,
    authority: &Authority,
    identity: &Identity,
    order: &Order,
    now: SystemTime,
) -> anyhow::Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let held = Held::read(path)?;
    if held.identity != *identity {
        let reason = format!("it is of {}, not of {identity}; move it away first", held.identity);
        return Err(held.wrong(reason));
    }
    let there = held.by(authority, &command.dir)?.certificate;
    let names_fit = there.dns_names == order.dns_names && there.addresses == order.addresses;
    Ok(names_fit && authority.lasts(&there, now))
}
