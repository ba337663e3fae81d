//! `fleetknock pki issue`: a key and its certificate for a host, a controller or a user.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use fleetknock_core::{
    host::HostName,
    identity::{FleetName, Identity, Role, Who, authority_fleet},
};
use fleetknock_runtime::{
    exit,
    tls::{
        authority::{Access, Authority, CERTIFICATE_FILE, Issued, Order, PrivateKey, Staged, write_new},
        time_text,
    },
};

use super::{cannot_write, failed, load, whole_seconds};
use crate::{args::time, output::Out};

/// Make a key and a certificate: NAME.key, for its owner only, and NAME.crt
///
/// Short-lived, because nothing takes a certificate back before its end but a change of the authority: 30 days for
/// hosts and controllers, which renew in time, and 12 hours for users, a working day.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock pki issue host db-1.example --out db-1/
  fleetknock pki issue controller c-1 --out c-1/ --for 90d
  fleetknock pki issue controller c-1 --dns knock.example --ip 192.0.2.1
  fleetknock pki issue user alice@example.com --role admin")]
pub(super) struct Issue {
    /// For whom
    kind: Kind,
    /// Its name: a host's or controller's as in its --name, a user's as in the audit trail
    name: String,
    /// What the user may do; for users only, and needed there
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
    /// A DNS name under which clients that go by names dial the controller; repeat it for several
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<HostName>,
    /// An address, likewise
    #[arg(long = "ip", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// How long it is valid [default: 30d for hosts and controllers, 12h for users]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    valid_for: Option<Duration>,
    /// The directory of the authority: ca.crt and ca.key
    #[arg(long, value_name = "DIR", default_value = "pki")]
    dir: PathBuf,
    /// Where to write, with a copy of ca.crt; made when it is not there [default: the authority's directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The fleet, for an authority whose certificate does not name it
    #[arg(long, value_name = "NAME")]
    fleet: Option<FleetName>,
    /// Replace files that are already there
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The agent of a host
    Host,
    /// A controller
    Controller,
    /// A person, or a program that acts like one
    User,
}

/// How long hosts' and controllers' certificates are valid unless told.
pub(super) const DAEMONS_FOR: Duration = Duration::from_secs(30 * 86_400);
/// How long users' certificates are valid unless told.
pub(super) const USERS_FOR: Duration = Duration::from_secs(12 * 3_600);

pub(super) fn run(command: &Issue, out: &mut Out) -> anyhow::Result<()> {
    let now = whole_seconds(SystemTime::now());
    let usage = |error: anyhow::Error| exit::coded(exit::USAGE, error);
    let who = command.who().map_err(usage)?;
    let authority = load(&command.dir, now)?;
    let identity = Identity { fleet: command.fleet(&authority).map_err(usage)?, who };
    let directory = command.out.as_ref().unwrap_or(&command.dir);
    let valid_for =
        command.valid_for.unwrap_or(if command.kind == Kind::User { USERS_FOR } else { DAEMONS_FOR });
    let order = Order {
        dns_names: command.dns_names.iter().map(ToString::to_string).collect(),
        addresses: command.addresses.clone(),
        ..order(&identity, valid_for)
    };
    let key = PrivateKey::generate().map_err(failed)?;
    let issued = authority.sign(&key.public().map_err(failed)?, &order, now).map_err(failed)?;
    // Beside the authority's own files.
    let stem =
        if command.name == "ca" { format!("ca-{}", identity_kind(&identity)) } else { command.name.clone() };
    let (certificate_path, key_path) =
        (directory.join(format!("{stem}.crt")), directory.join(format!("{stem}.key")));
    fs::create_dir_all(directory).map_err(|error| cannot_write(directory, error))?;
    if command.force {
        replace(&certificate_path, &issued.pem, &key_path, key.pem(), Access::Owner)?;
    } else {
        create(&certificate_path, &issued.pem, &key_path, key.pem())?;
    }
    copy_authority(&authority, directory, out)?;
    out.line(summary(&identity, &issued, &certificate_path, &key_path))?;
    if issued.certificate.remaining(now) < valid_for {
        out.warning(format!(
            "the authority itself ends at {}; make a new one before",
            time_text(issued.certificate.not_after)
        ))?;
    }
    Ok(())
}

impl Issue {
    fn who(&self) -> anyhow::Result<Who> {
        if self.kind != Kind::User && self.role.is_some() {
            return Err(anyhow!("--role is for users only: what a host or a controller may do is fixed"));
        }
        if self.kind != Kind::Controller && !(self.dns_names.is_empty() && self.addresses.is_empty()) {
            return Err(anyhow!(
                "--dns and --ip are for controllers only: nobody dials a host's agent or a user"
            ));
        }
        Ok(match (self.kind, self.role) {
            (Kind::Host, _) => Who::Host(self.name.parse()?),
            (Kind::Controller, _) => Who::Controller(self.name.parse()?),
            (Kind::User, Some(role)) => Who::User { name: self.name.parse()?, role },
            (Kind::User, None) => {
                return Err(anyhow!("a user needs --role: viewer, operator or admin"));
            }
        })
    }

    fn fleet(&self, authority: &Authority) -> anyhow::Result<FleetName> {
        match (authority_fleet(&authority.certificate().uris), &self.fleet) {
            (Some(of), Some(given)) if of != *given => Err(anyhow!(
                "the authority in {} is of fleet '{of}', not of '{given}' (--fleet); choose its --dir",
                self.dir.display()
            )),
            (Some(fleet), _) => Ok(fleet),
            (None, Some(fleet)) => Ok(fleet.clone()),
            (None, None) => Err(anyhow!(
                "the authority in {} does not name its fleet; name it with --fleet",
                self.dir.display()
            )),
        }
    }
}

/// What a certificate says beside names of the network.
pub(super) fn order(identity: &Identity, valid_for: Duration) -> Order {
    let server = matches!(identity.who, Who::Controller(_));
    Order { server, ..Order::client(identity.who.name(), &identity.to_string(), valid_for) }
}

pub(super) fn summary(identity: &Identity, issued: &Issued, certificate: &Path, key: &Path) -> String {
    format!(
        "{} of fleet {}: {} (until {}) and {}",
        identity.who,
        identity.fleet,
        certificate.display(),
        time_text(issued.certificate.not_after),
        key.display()
    )
}

/// Puts both in their places at nearly the same time.
pub(super) fn replace(
    certificate_path: &Path,
    certificate: &str,
    key_path: &Path,
    key: &str,
    readers: Access,
) -> anyhow::Result<()> {
    let staged_key = Staged::new(key_path, key, readers).map_err(|error| cannot_write(key_path, error))?;
    let staged = Staged::new(certificate_path, certificate, Access::Everybody)
        .map_err(|error| cannot_write(certificate_path, error))?;
    staged_key.commit().map_err(|error| cannot_write(key_path, error))?;
    staged.commit().map_err(|error| cannot_write(certificate_path, error))
}

fn create(certificate_path: &Path, certificate: &str, key_path: &Path, key: &str) -> anyhow::Result<()> {
    if let Some(there) = [certificate_path, key_path].into_iter().find(|path| path.exists()) {
        let error = anyhow!(
            "{} is already there; renew it (fleetknock pki renew), or pass --force to replace it",
            there.display()
        );
        return Err(exit::coded(exit::IO, error));
    }
    write_new(key_path, key, Access::Owner).map_err(|error| cannot_write(key_path, error))?;
    write_new(certificate_path, certificate, Access::Everybody)
        .map_err(|error| cannot_write(certificate_path, error))
}

/// What its holder trusts goes along.
pub(super) fn copy_authority(authority: &Authority, directory: &Path, out: &mut Out) -> anyhow::Result<()> {
    let path = directory.join(CERTIFICATE_FILE);
    match fs::read_to_string(&path) {
        Ok(there) if there.contains(authority.pem().trim()) => Ok(()),
        Ok(_) => {
            out.warning(format!(
                "{} does not hold this authority and was left as it is: add it there",
                path.display()
            ))?;
            Ok(())
        }
        Err(_) => {
            write_new(&path, authority.pem(), Access::Everybody).map_err(|error| cannot_write(&path, error))
        }
    }
}

fn identity_kind(identity: &Identity) -> &'static str {
    match identity.who {
        Who::Host(_) => "host",
        Who::Controller(_) => "controller",
        Who::User { .. } => "user",
    }
}
