//! Certificates of a fleet as Secrets of its namespace: what is absent is made, what is there is left, what is past two
//! thirds of its life is renewed.
//!
//! ```text
//!   Secret fleetknock-tls      ca.crt ca.key seal.key, and POD.crt POD.key for each controller
//!   ConfigMap fleetknock-ca    ca.crt, for agents
//!   Secret fleetknock-admin    tls.crt tls.key ca.crt, for the first admin
//! ```
//!
//! Each object is written whole: it is created if it is not there, or replaced if it is still what was read. Of two that do
//! this at the same time one wins, and the other begins anew from what it finds. An authority and a seal key that are there
//! are never touched: whoever loses them loses the fleet's trust, and its doors.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::{
    host::HostName,
    identity::{ControllerName, FleetName, UserName},
};
use fleetknock_runtime::exit::{self, coded};
use kube::Client;

use super::client::{CallError, connect};

mod leaves;
mod objects;

pub use leaves::LeafError;

/// Where controllers find their files.
pub const TLS: &str = "fleetknock-tls";
/// Where agents find whom they trust.
pub const CA: &str = "fleetknock-ca";
/// Where the first admin finds a certificate.
pub const ADMIN: &str = "fleetknock-admin";
/// Somebody else was faster at most so many times in a row; each time somebody's work was done.
const TRIES_MAX: usize = 8;
/// More controllers than a fleet has.
const CONTROLLERS_MAX: u16 = 99;

const EXAMPLES: &str = "\
Examples:
  fleetknock-controller kubernetes pki --namespace fleetknock --controllers 3
      in a Job with each installation and upgrade, and in a CronJob once a week, which renews
  fleetknock-controller kubernetes pki --namespace fleetknock --controllers 3 --dns knock.example
      certificates that also name what browsers dial

Whoever can read the Secret fleetknock-tls can be anybody in the fleet. Keep a copy of its seal.key where the store is not.
With cert-manager or an authority of your own, leave this out: see fleetknock pki --help.";

/// Make the fleet's certificates, keep them as Secrets, and renew them
///
/// Nothing that is there is replaced but certificates past two thirds of their life, or without a name that is asked for.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Pki {
    /// Where the Secrets are
    #[arg(long, value_name = "NAME", value_parser = namespace)]
    pub namespace: String,

    /// How many controllers there are: PREFIX-0, PREFIX-1 and so on
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=i64::from(CONTROLLERS_MAX)))]
    pub controllers: u16,

    /// What their names begin with: that of their StatefulSet
    #[arg(long, value_name = "PREFIX", default_value = "fleetknock-controller")]
    pub name_prefix: HostName,

    /// Their headless Service
    #[arg(long, value_name = "NAME", default_value = "fleetknock-controller")]
    pub service: HostName,

    /// The domain of the cluster's names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: HostName,

    /// Another name under which browsers and clients dial them; can be given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub dns: Vec<HostName>,

    /// The name of the first admin
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub admin: UserName,

    /// How long the certificates are valid that are made
    #[arg(long = "for", value_name = "TIME", default_value = "90d", value_parser = lifetime)]
    pub valid_for: Duration,

    /// How long a new authority is valid
    #[arg(long, value_name = "TIME", default_value = "1825d", value_parser = lifetime)]
    pub authority_for: Duration,
}

/// What became of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Such as `secret fleetknock-tls: controller fleetknock-controller-0`.
    pub what: String,
    /// What was done.
    pub done: Done,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was not there.
    Made,
    /// It was near its end, or lacked a name.
    Renewed,
    /// It is good.
    Left,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = match self.done {
            Done::Made => "made",
            Done::Renewed => "renewed",
            Done::Left => "left as it is",
        };
        write!(f, "{}: {done}", self.what)
    }
}

/// Why it is not done, or not all of it. What was written stays, and is gone on from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// The API server did not do what it was asked.
    #[error("{object}: {source}")]
    Call {
        /// About what.
        object: String,
        /// Why.
        source: CallError,
    },
    /// There is something of that name that this has not made.
    #[error(
        "{object} is there and was not made by this command (it has no label {}={}); move it away, or keep it and do not \
         run this",
        objects::LABEL.0,
        objects::LABEL.1
    )]
    Foreign {
        /// What.
        object: String,
    },
    /// A part is gone that cannot be made again.
    #[error(
        "{object} lacks {key}, which cannot be made again as it was; put it back from a copy, or delete the whole object to \
         begin anew: {loss}"
    )]
    Gone {
        /// Where.
        object: String,
        /// What.
        key: &'static str,
        /// What beginning anew costs.
        loss: &'static str,
    },
    /// What agents trust is another authority.
    #[error(
        "{object} holds another authority than secret {TLS}: agents that trust it would not believe these controllers; put \
         both certificates into it, or delete it to have it made again"
    )]
    OtherAuthority {
        /// Where.
        object: String,
    },
    /// A part cannot be read, or be signed.
    #[error("{object}: {source}")]
    Part {
        /// Where.
        object: String,
        /// Why.
        source: LeafError,
    },
    /// Others write it again and again.
    #[error("{object}: others changed it {TRIES_MAX} times while it was to be changed here; try again")]
    Contended {
        /// What.
        object: String,
    },
}

impl PkiError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Call { source: CallError::Away { .. }, .. } => exit::UNAVAILABLE,
            Self::Call { source: CallError::Forbidden { .. }, .. } => exit::NO_PERMISSION,
            Self::Contended { .. } => exit::TEMPORARY,
            _ => exit::DATA,
        }
    }
}

impl Pki {
    /// Carries it out with the account of this pod, in a fleet of this name, and says what it did.
    ///
    /// # Errors
    /// One line that names the object and the remedy.
    pub async fn run(&self, fleet: &FleetName) -> anyhow::Result<()> {
        use std::io::Write as _;
        let client = connect().await.map_err(|error| coded(exit::UNAVAILABLE, error))?;
        let done = self.reconcile(&client, fleet, SystemTime::now()).await;
        let done = done.map_err(|error| coded(error.exit_code(), anyhow!(error)))?;
        let mut out = std::io::stdout().lock();
        for deed in done {
            // A reader that went away is no error.
            let _ = writeln!(out, "{deed}");
        }
        Ok(())
    }

    /// Makes what is absent, and renews what is near its end.
    ///
    /// # Errors
    /// When an object is somebody else's or broken, or the API server does not do what it is asked. It can be run again.
    pub async fn reconcile(
        &self,
        client: &Client,
        fleet: &FleetName,
        now: SystemTime,
    ) -> Result<Vec<Deed>, PkiError> {
        let desk = objects::Desk { pki: self, client, fleet, now: whole_seconds(now) };
        let (authority, mut deeds) = desk.tls().await?;
        deeds.extend(desk.ca(&authority).await?);
        deeds.extend(desk.admin(&authority).await?);
        Ok(deeds)
    }

    /// The names of the controllers, which are those of their pods.
    pub fn controller_names(&self) -> impl Iterator<Item = ControllerName> {
        (0..self.controllers).filter_map(|number| format!("{}-{number}", self.name_prefix).parse().ok())
    }

    /// Under which names one of them is dialled, by those who go by names.
    pub fn dns_names(&self, controller: &ControllerName) -> Vec<String> {
        let (service, namespace, domain) = (&self.service, &self.namespace, &self.cluster_domain);
        let within = [
            service.to_string(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.{domain}"),
        ];
        let own = within[2..].iter().map(|name| format!("{controller}.{name}"));
        let mut names: Vec<_> = own.chain(within.iter().cloned()).collect();
        names.extend(self.dns.iter().map(ToString::to_string));
        names
    }
}

/// Whole seconds: certificates know no less.
fn whole_seconds(now: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

fn namespace(text: &str) -> Result<String, String> {
    let named = text.parse::<HostName>().is_ok_and(|_| text.len() <= 63 && !text.contains('.'));
    let form = "a namespace has 1 to 63 lower-case letters, digits and hyphens";
    named.then(|| text.to_owned()).ok_or_else(|| form.to_owned())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 90d"))?;
    let most = Duration::from_secs(20 * 366 * 86_400);
    let fits = (Duration::from_secs(3600)..=most).contains(&time);
    fits.then_some(time).ok_or_else(|| "from 1h to 20 years".to_owned())
}
