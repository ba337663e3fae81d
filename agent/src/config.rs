//! The agent's settings: flags, environment variables and a file, checked whole before anything is touched.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use fleetknock_core::{
    host::{HostName, Labels},
    identity::{Expected, FleetName},
    network,
};
use fleetknock_proto::limits;
use fleetknock_runtime::{
    config::{ConfigError, listen_address, service_url},
    log, otlp,
    tls::{self, UriRule},
};
use ipnet::IpNet;
use tonic::transport::Uri;

use crate::{
    firewall::{AcceptIn, Kind, MarkBit, Options},
    harden,
};

/// The port of a controller when its URL names none.
pub const CONTROLLER_PORT: u16 = 7600;
/// Controllers that an agent can be told of.
pub const CONTROLLERS_MAX: usize = 64;
/// Reconciling is cheap, but not free: the kernel's rules and elements are read.
const RECONCILE_SHORTEST: Duration = Duration::from_secs(1);
const RECONCILE_LONGEST: Duration = Duration::from_secs(3600);

const EXAMPLES: &str = "\
Examples:
  fleetknock-agent --host edge-1 --label role=edge --controller https://10.0.0.1:7600 \\
      --tls-cert edge-1.crt --tls-key edge-1.key --tls-ca ca.crt
      an agent with the certificate of its host, such as fleetknock pki issue host edge-1 makes
  fleetknock-agent --host edge-1 --controller https://10.0.0.1:7600 --enroll-token /etc/fleetknock/edge-1.token \\
      --tls-cert /var/lib/fleetknock/agent/tls.crt --tls-key /var/lib/fleetknock/agent/tls.key \\
      --tls-ca /var/lib/fleetknock/agent/ca.crt
      an agent that gets its certificate itself, by what fleetknock enroll-token --host edge-1 made, and renews it
  fleetknock-agent --host bastion-1 --controller http://10.0.0.1:7600,http://10.0.0.2:7600 --insecure \\
      --management 192.0.2.0/24 --state /var/lib/fleetknock/agent --http 127.0.0.1:9600
      in a lab, in plain text: with two controllers, a network that always passes, a guard that is up before the
      network, and metrics
  fleetknock-agent --host edge-1 --controller https://controllers.fleetknock.svc:7600 --config tls.yaml
      with all controllers that a name stands for, such as that of a headless service: whichever of them is up
  fleetknock-agent --config /etc/fleetknock/agent.yaml --check-config
      whether the settings are valid
  fleetknock-agent lift
      takes the guard off this host, once no agent runs on it; see fleetknock-agent lift --help
  fleetknock-agent --http 127.0.0.1:9600 --check-ready
      whether the agent that runs here is ready: for a container's health check

Every flag can also be given as FLEETKNOCK_FLAG_NAME in the environment, or as `flag-name:` in the file.";

/// Captures knocks on this host, reports them, keeps guard and applies openings.
#[derive(Clone, Debug, Parser)]
#[command(name = "fleetknock-agent", version, after_help = EXAMPLES)]
pub struct Settings {
    /// This host's name, unique in the fleet
    // Whether an agent is ready is asked of any one: neither name nor controllers are needed then.
    #[arg(
        long,
        value_name = "NAME",
        required = false,
        required_unless_present = "check_ready",
        default_value_if("check_ready", "true", "localhost")
    )]
    pub host: HostName,

    /// A label of this host by which doors choose it; can be given several times
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub label: Vec<Label>,

    /// The controllers, https://HOST:PORT, or http:// with --insecure; give all of them, or a name with all their addresses
    ///
    /// One of them is used at a time, chosen at random. When it is lost or lets the agent go, the others are asked at once.
    /// Every address of a host's name is a controller of its own, and names are looked up anew each time.
    #[arg(long, value_name = "URL", value_delimiter = ',', required_unless_present = "check_ready")]
    pub controller: Vec<ControllerUrl>,

    /// The fleet, as certificates name it
    #[arg(long, value_name = "NAME", default_value_t)]
    pub fleet: FleetName,

    /// Mutual TLS.
    #[command(flatten)]
    pub tls: tls::Settings,

    /// Get the first certificate with the token in this file, and write it, its key and the authorities where the --tls
    /// flags say
    ///
    /// fleetknock enroll-token --host NAME writes the token; with the fleet's ca.crt beneath it in the file nothing else is
    /// needed. It is read only while there is no certificate that counts, and a token is good once. In Kubernetes it is a
    /// projected token with the audience fleetknock, which is read anew for each try, and --tls-ca is there already.
    #[arg(long, value_name = "FILE")]
    pub enroll_token: Option<PathBuf>,

    /// Whether the agent renews its certificate itself, by the controllers: auto does with --enroll-token
    ///
    /// Off is for certificates that something else renews, such as cert-manager. The controllers need --issuer-cert.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Renew::Auto)]
    pub renew: Renew,

    /// How ports are guarded: auto, nftables, iptables or dry-run
    #[arg(long, value_name = "DRIVER", default_value = "auto")]
    pub firewall: Kind,

    /// The only interfaces on which knocks count; all but loopback unless given
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = interface)]
    pub interface: Vec<String>,

    /// Networks that pass this host's guard and are never banned
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = network::parse)]
    pub management: Vec<IpNet>,

    /// A directory in which the agent remembers what to guard, so that guard is up before the network is
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// The user to become when started as root; fleetknock-agent if there is one, else nobody
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Whether the agent gives up what it does not need: auto, as far as this host can; require, or it does not start
    #[arg(long, value_name = "HOW", value_enum, default_value_t = harden::Level::Auto)]
    pub harden: harden::Level,

    /// What becomes of the guard when the agent is stopped
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnExit::Keep)]
    pub on_exit: OnExit,

    /// A chain of this host's own firewall in which openings are accepted, such as inet/filter/input or INPUT
    #[arg(long, value_name = "CHAIN")]
    pub accept_in: Option<AcceptIn>,

    /// The bit of the packet mark by which that chain knows what came through an opening
    #[arg(long, value_name = "BIT", default_value_t = MarkBit::DEFAULT)]
    pub mark: MarkBit,

    /// Where to serve /live, /ready and /metrics over HTTP; not at all unless given
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub http: Option<SocketAddr>,

    /// What is logged, such as info or fleetknock_agent=debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How it is logged
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = log::Format::Human)]
    pub log_format: log::Format,

    /// Where traces and metrics are sent.
    #[command(flatten)]
    pub otlp: otlp::Settings,

    /// A YAML file of settings: `name: value`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the settings and exit
    #[arg(long)]
    pub check_config: bool,

    /// Ask the agent that serves at --http whether it is ready, say what it lacks, and exit with 0 or 1
    #[arg(long)]
    pub check_ready: bool,

    /// Talk to controllers in plain text: anybody on the way can open doors. For labs
    #[arg(long)]
    pub insecure: bool,

    /// How often the kernel is compared with what it should hold
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = reconcile_interval)]
    pub reconcile_interval: Duration,
}

/// What becomes of the guard when the agent is stopped with SIGTERM or SIGINT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnExit {
    /// Guarded ports stay closed; openings end by their time.
    #[default]
    Keep,
    /// Everything of ours is removed: the ports are open to everybody.
    Open,
}

/// Whether the agent renews its certificate itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Renew {
    /// When it got its first one itself.
    #[default]
    Auto,
    /// Yes, wherever the first one came from.
    On,
    /// No: something else puts the next one in its place.
    Off,
}

impl Settings {
    /// Checks what no single setting can.
    ///
    /// # Errors
    /// When settings contradict each other or are too many.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let refuse = |reason: String| Err(ConfigError::Flags { reason });
        if let Err(error) = self.labels() {
            return refuse(format!("label: {error}"));
        }
        if let Err(error) = log::check(&self.log) {
            return refuse(error.to_string());
        }
        if self.management.len() > limits::ADDRESSES_MAX {
            return refuse(format!("management: more than {} networks", limits::ADDRESSES_MAX));
        }
        if self.controller.len() > CONTROLLERS_MAX {
            return refuse(format!(
                "controller: {} URLs are given, at most {CONTROLLERS_MAX} can be; give a name that stands for several \
                 addresses instead",
                self.controller.len()
            ));
        }
        if let (Some(user), harden::Level::Off) = (&self.user, self.harden) {
            return refuse(format!(
                "user: with --harden off the agent does not become '{user}'; give one of them"
            ));
        }
        self.tls_files()?;
        self.otlp.check()?;
        if self.insecure && (self.enroll_token.is_some() || self.renew == Renew::On) {
            return refuse(
                "--enroll-token and --renew on are for certificates, and --insecure is plain text without any; choose one \
                 of them"
                    .to_owned(),
            );
        }
        if let Some(url) = self.controller.iter().find(|url| url.is_secure() == self.insecure) {
            return refuse(if self.insecure {
                format!("controller: '{url}' asks for TLS, and --insecure for plain text; choose one of them")
            } else {
                format!(
                    "controller: '{url}' is plain text, with which anybody on the way can open doors; write https://, or \
                     give --insecure instead of --tls-cert to accept that"
                )
            });
        }
        Ok(self)
    }

    /// The files for mutual TLS; none with `--insecure`. The certificate must be this host's: a controller would not take
    /// another one.
    ///
    /// # Errors
    /// When neither is chosen, or both, or a file is not named.
    pub fn tls_files(&self) -> Result<Option<tls::Files>, ConfigError> {
        let (fleet, host) = (self.fleet.clone(), self.host.clone());
        let own = UriRule::new(move |uris| {
            let who = Expected::Host(host.clone()).among(&fleet, uris);
            who.map(|_| ()).map_err(|error| {
                format!("{error}; give the certificate's --host and --fleet, or issue another one")
            })
        });
        self.tls.files(self.insecure, own)
    }

    /// Whether the agent renews its certificate itself.
    pub fn renews(&self) -> bool {
        match self.renew {
            Renew::Auto => self.enroll_token.is_some(),
            Renew::On => true,
            Renew::Off => false,
        }
    }

    /// Whether the agent writes its own certificate, now or later.
    pub fn writes_certificate(&self) -> bool {
        self.renews() || self.enroll_token.is_some()
    }

    /// Whom a controller must be: any one of the fleet.
    pub fn controller_rule(&self) -> UriRule {
        let fleet = self.fleet.clone();
        UriRule::new(move |uris| {
            Expected::AnyController.among(&fleet, uris).map(|_| ()).map_err(|error| error.to_string())
        })
    }

    /// This host's labels.
    ///
    /// # Errors
    /// When a key comes twice with different values, or there are too many.
    pub fn labels(&self) -> Result<Labels, fleetknock_core::host::LabelError> {
        Labels::new(self.label.iter().map(|label| (label.key.clone(), label.value.clone())))
    }

    /// The networks that pass this host's guard.
    pub fn own_management(&self) -> BTreeSet<IpNet> {
        self.management.iter().copied().collect()
    }
}

impl From<&Settings> for Options {
    fn from(settings: &Settings) -> Self {
        Self { accept_in: settings.accept_in.clone(), mark: settings.mark, ..Self::default() }
    }
}

/// One label, written `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            return Err("a label is written KEY=VALUE, such as role=edge".to_owned());
        };
        Labels::new([(key.to_owned(), value.to_owned())]).map_err(|error| error.to_string())?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// Where a controller is: `https://HOST[:PORT]`, or `http://` in plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerUrl(Uri);

impl ControllerUrl {
    /// The URL with its port.
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The host, when it is an address and no name.
    pub fn literal(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// The port; [`CONTROLLER_PORT`] when none was given.
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(CONTROLLER_PORT)
    }

    /// Whether it asks for TLS.
    pub fn is_secure(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

impl FromStr for ControllerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a controller is written https://HOST:PORT, such as https://10.0.0.1:7600".to_owned();
        service_url(text, CONTROLLER_PORT).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ControllerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}", self.0.authority().map_or("", |authority| authority.as_str()))
    }
}

/// Linux's names of interfaces: 1 to 15 bytes (IFNAMSIZ) without `/`, `:` and blanks.
fn interface(text: &str) -> Result<String, String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
    if text.is_empty() || text.len() > 15 || text.contains(odd) || text == "." || text == ".." {
        return Err(
            "an interface's name has 1 to 15 characters without blanks, '/' and ':', such as eth0".to_owned()
        );
    }
    Ok(text.to_owned())
}

fn reconcile_interval(text: &str) -> Result<Duration, String> {
    let interval: Duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 10s or 1m"))?;
    if !(RECONCILE_SHORTEST..=RECONCILE_LONGEST).contains(&interval) {
        return Err("it must be from 1s to 1h".to_owned());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests;
