//! The controller's settings: flags, environment variables and a file, checked whole before anything is bound.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::Parser;
use fleetknock_core::{
    host::HostName,
    identity::{ControllerName, Expected, FleetName},
    matcher::{self, Limits, MissPolicy},
    network,
    port::PortRange,
};
use fleetknock_runtime::{
    admin::check,
    config::listen_address,
    harden::Capability,
    log::Format,
    otlp,
    tls::{self, Connector, Credentials, UriRule},
};
use ipnet::IpNet;

use crate::{
    audit::lines::Target,
    command::Command,
    enrolment::issuer::Issuer,
    membership,
    seal::{self, Keyring},
    store::StoreSpec,
};

pub use self::{
    etcd::{EtcdSettings, EtcdSettingsError},
    scope::{Scope, ScopeError},
};

pub mod etcd;
mod scope;

/// For how long hosts' certificates may be valid.
const ISSUED_FOR: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(366 * 86_400);

const EXAMPLES: &str = "\
Examples:
  fleetknock-controller --store embedded:/var/lib/fleetknock --insecure
      one controller that keeps its state in a directory, in plain text, for a lab
  fleetknock-controller --store etcd:https://10.0.0.1:2379,https://10.0.0.2:2379 --listen 0.0.0.0:7600 \
      --name ctl-1 --advertise https://10.0.1.1:7600 --tls-cert ctl-1.crt --tls-key ctl-1.key --tls-ca ca.crt \
      --seal-key seal.key
      one of several controllers that share an etcd; each has its own name, address and certificate, such as
      fleetknock pki issue controller ctl-1 makes, and all have the seal key that
      fleetknock-controller seal-key --out seal.key makes
  fleetknock-controller --config /etc/fleetknock/controller.yaml --check-config
      whether the settings are valid
  fleetknock-controller --http-plain 127.0.0.1:7681 --check-ready
      whether the controller that runs here is ready: for a container's health check

Every flag can also be given as FLEETKNOCK_FLAG_NAME in the environment, or as `flag-name:` in the file.";

/// Follows knock sequences across the fleet, decides openings and pushes them to the agents.
#[derive(Clone, Debug, Parser)]
#[command(name = "fleetknock-controller", version, after_help = EXAMPLES)]
pub struct Settings {
    /// Where agents and operators connect (gRPC)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7600", value_parser = listen_address)]
    pub listen: SocketAddr,

    /// Where the fleet's state is kept: embedded:DIR or etcd:URL[,URL…]
    #[arg(
        global = true,
        long,
        value_name = "STORE",
        default_value = "embedded:/var/lib/fleetknock/controller"
    )]
    pub store: StoreSpec,

    /// The fleet's name in a shared store
    #[arg(global = true, long, value_name = "NAME", default_value = "default")]
    pub fleet: HostName,

    /// This controller's name, unique in the fleet; the machine's host name unless given
    #[arg(long, value_name = "NAME")]
    pub name: Option<HostName>,

    /// Where the other controllers reach this one; https://LISTEN unless given, with --insecure http://LISTEN
    #[arg(long, value_name = "URL", value_parser = url)]
    pub advertise: Option<String>,

    /// How long the others wait before they take over from this one when it is gone without a word
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub lease: Duration,

    /// Seals the doors in the store: files, each with one key, or env:NAME; the first seals, all open
    #[arg(global = true, long, value_name = "SOURCE", value_delimiter = ',')]
    pub seal_key: Vec<String>,

    /// How to use an etcd.
    #[command(flatten)]
    pub etcd: EtcdSettings,

    /// Mutual TLS.
    #[command(flatten)]
    pub tls: tls::Settings,

    /// The certificate of the authority (CA) that signs hosts' certificates, in PEM: that of fleetknock pki init, or one
    /// beneath it; hosts get none from this controller unless given
    #[arg(long, value_name = "FILE")]
    pub issuer_cert: Option<PathBuf>,

    /// Its private key, in PEM. Whoever has it can be anybody in the fleet
    #[arg(long, value_name = "FILE")]
    pub issuer_key: Option<PathBuf>,

    /// Hosts enrol by the word of the Kubernetes cluster in which this runs: pods of this service account get the
    /// certificate of the node on which they run, for a projected token with the audience fleetknock; not unless given
    #[cfg(feature = "operator")]
    #[arg(long, value_name = "NAMESPACE/SERVICEACCOUNT")]
    pub kubernetes_enroll: Option<crate::operator::enroll::ServiceAccount>,

    /// How long the certificates are valid that hosts get; agents renew when two thirds of that are over
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration)]
    pub host_certificates_for: Duration,

    /// Where to serve the dashboard and the control API as JSON, and /live, /ready and /metrics: HTTPS with the files of
    /// --tls-cert, with --insecure HTTP; not at all unless given
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub http: Option<SocketAddr>,

    /// Where to serve /live, /ready and /metrics alone, in plain HTTP, for probes and scrapers on a private address; not
    /// at all unless given
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub http_plain: Option<SocketAddr>,

    /// Append events as JSON lines to this file, - for standard output: who did what, from where, and what changed
    #[arg(long, value_name = "FILE")]
    pub audit_log: Option<Target>,

    /// Plain-text gRPC: anybody who can reach the port is an admin. For labs
    #[arg(long)]
    pub insecure: bool,

    /// Networks that pass every guard and are never banned
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = network::parse)]
    pub management: Vec<IpNet>,

    /// The ports at which a knock counts
    #[arg(long, value_name = "RANGE", value_delimiter = ',', default_value = "tcp/1-65535,udp/1-65535")]
    pub knock_space: Vec<PortRange>,

    /// Misses that ban a source; 0: never ban
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub ban_misses: u32,

    /// Within which time the misses count
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub ban_window: Duration,

    /// How long a ban lasts
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub ban_for: Duration,

    /// Sources followed at the same time; each takes 125 to 237 bytes, 357 right after a whole sequence
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().sources)]
    pub max_sources: u32,

    /// How long to finish work under way when told to stop
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub grace: Duration,

    /// Take the Door resources of this Kubernetes namespace into the fleet, * for every namespace; not at all unless given
    #[cfg(feature = "operator")]
    #[arg(long, value_name = "NAMESPACE")]
    pub kubernetes_doors: Option<Scope>,

    /// What is logged, such as info or fleetknock_controller=debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How it is logged
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Human)]
    pub log_format: Format,

    /// Where traces and metrics are sent.
    #[command(flatten)]
    pub otlp: otlp::Settings,

    /// Read settings from this YAML file too
    #[arg(global = true, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the settings and exit
    #[arg(long)]
    pub check_config: bool,

    /// Ask the controller that serves at --http-plain, or else at --http, whether it is ready, say what it lacks, and exit
    /// with 0 or 1
    #[arg(long)]
    pub check_ready: bool,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Settings {
    /// What one value alone cannot tell.
    ///
    /// # Errors
    /// One line that names the setting, its value and the remedy.
    pub fn check(&self) -> anyhow::Result<()> {
        let usage = |text: String| {
            fleetknock_runtime::exit::coded(fleetknock_runtime::exit::USAGE, anyhow::anyhow!(text))
        };
        self.tls_files(&self.name())?;
        self.otlp.check()?;
        let issuer = self.issuer().map_err(usage)?;
        #[cfg(feature = "operator")]
        if let (Some(account), None) = (&self.kubernetes_enroll, &issuer) {
            return Err(usage(format!(
                "--kubernetes-enroll {account} needs an authority that signs for hosts; give --issuer-cert and --issuer-key"
            )));
        }
        drop(issuer);
        let scheme = if self.insecure { "http" } else { "https" };
        if let Some(advertise) =
            self.advertise.as_ref().filter(|url| !url.starts_with(&format!("{scheme}://")))
        {
            let why = if self.insecure {
                "--insecure is plain text"
            } else {
                "with --tls-cert this one speaks TLS"
            };
            return Err(usage(format!("--advertise '{advertise}' must begin with {scheme}://: {why}")));
        }
        if !(1_000..=16_777_216).contains(&self.max_sources) {
            return Err(usage(format!(
                "--max-sources must be from 1000 to 16777216, not {}",
                self.max_sources
            )));
        }
        let window = Duration::from_secs(1)..=Duration::from_secs(3600);
        if !window.contains(&self.ban_window) {
            return Err(usage(format!("--ban-window must be from 1s to 1h, not {:?}", self.ban_window)));
        }
        if self.ban_misses > 60 {
            return Err(usage(format!(
                "--ban-misses must be at most 60, not {}: no more knocks of one source are remembered",
                self.ban_misses
            )));
        }
        if self.ban_for < Duration::from_secs(1) || self.ban_for > Duration::from_secs(7 * 24 * 3600) {
            return Err(usage(format!("--ban-for must be from 1s to 7days, not {:?}", self.ban_for)));
        }
        let leases = membership::LEASE_MIN..=membership::LEASE_MAX;
        if !leases.contains(&self.lease) {
            return Err(usage(format!(
                "--lease must be from {:?} to {:?}, not {:?}",
                membership::LEASE_MIN,
                membership::LEASE_MAX,
                self.lease
            )));
        }
        if self.advertise.is_none()
            && self.listen.ip().is_unspecified()
            && matches!(self.store, StoreSpec::Etcd(_))
        {
            return Err(usage(format!(
                "--advertise is missing: the other controllers cannot reach this one at --listen {}; give a URL that \
                 they can, such as --advertise {scheme}://10.0.0.1:{}",
                self.listen,
                self.listen.port()
            )));
        }
        self.store_of_fleet()?;
        if self.keyring()?.is_empty() && !self.insecure {
            return Err(usage(
                "--seal-key is missing: without it the steps of all doors lie in the store in the clear; make a key \
                 with `fleetknock-controller seal-key --out FILE` and give --seal-key FILE, the same to every controller \
                 of the fleet"
                    .to_owned(),
            ));
        }
        fleetknock_runtime::log::check(&self.log).map_err(|error| usage(format!("--log: {error}")))
    }

    /// What of root's power is needed: none, but for a port that only root may listen on (ip(7)).
    pub fn capabilities(&self) -> Vec<Capability> {
        let ports = [Some(self.listen), self.http, self.http_plain]
            .into_iter()
            .flatten()
            .map(|address| address.port());
        let reserved = ports.filter(|port| (1..1024).contains(port)).count() > 0;
        reserved.then_some(Capability::CAP_NET_BIND_SERVICE).into_iter().collect()
    }

    /// The name that is given, or the machine's; a random one when that is no name.
    pub fn name(&self) -> HostName {
        let machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let machine = || machine()?.trim().to_ascii_lowercase().parse().ok();
        let random = || format!("controller-{:08x}", rand::random::<u32>()).parse().ok();
        // The random one is a name by its form, so that the last resort never is.
        self.name.clone().or_else(machine).or_else(random).unwrap_or_else(|| self.fleet.clone())
    }

    /// Where the other controllers reach this one.
    pub fn address(&self) -> String {
        let scheme = if self.insecure { "http" } else { "https" };
        self.advertise.clone().unwrap_or_else(|| format!("{scheme}://{}", self.listen))
    }

    /// The fleet, as certificates name it.
    pub fn fleet_name(&self) -> FleetName {
        self.fleet.clone().into()
    }

    /// The files for mutual TLS of the controller of this name; none with `--insecure`.
    ///
    /// # Errors
    /// When neither is chosen, or both, or a file is not named.
    pub fn tls_files(&self, name: &HostName) -> anyhow::Result<Option<tls::Files>> {
        let (fleet, name) = (self.fleet_name(), ControllerName::from(name.clone()));
        let own = UriRule::new(move |uris| {
            let who = Expected::Controller(name.clone()).among(&fleet, uris);
            who.map(|_| ()).map_err(|error| {
                format!("{error}; give the certificate's --name and --fleet, or issue another one")
            })
        });
        Ok(self.tls.files(self.insecure, own)?)
    }

    /// Asks the controller that runs with these settings whether it is ready: its program then has nothing else to do.
    ///
    /// # Errors
    /// [`check::ready`]'s: also when it is ready.
    pub fn check_whether_ready(&self) -> anyhow::Result<()> {
        let tls = || {
            let fleet = self.fleet_name();
            let rule = UriRule::new(move |uris| {
                let who = Expected::AnyController.among(&fleet, uris);
                who.map(|_| ()).map_err(|error| error.to_string())
            });
            // Nothing is shown: whoever asks needs no key, and its own one might not be readable to it.
            let files = self.tls.files(self.insecure, rule.clone())?;
            let Some(files) = files.map(|files| tls::Files { own: None, ..files }) else { return Ok(None) };
            Ok(Some(Connector::new(Credentials::load(files)?, tls::Expected::Uri(rule))))
        };
        match self.http_plain {
            Some(address) => check::ready("--http-plain", Some(address), || Ok(None)),
            None => check::ready("--http-plain or --http", self.http, tls),
        }
    }

    /// Who signs hosts' certificates; nobody unless its files are named.
    ///
    /// # Errors
    /// One line that names the setting, its value and the remedy.
    pub fn issuer(&self) -> Result<Option<Issuer>, String> {
        if !ISSUED_FOR.contains(&self.host_certificates_for) {
            return Err(format!(
                "--host-certificates-for must be from 1m to 366days, not {}",
                humantime::format_duration(self.host_certificates_for)
            ));
        }
        match (&self.issuer_cert, &self.issuer_key) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) if self.insecure => {
                Err("--issuer-cert is for mutual TLS, and --insecure is plain text; choose one of them"
                    .to_owned())
            }
            (Some(certificate), Some(key)) => {
                Ok(Some(Issuer::new(certificate.clone(), key.clone(), self.host_certificates_for)))
            }
            (Some(_), None) => Err("with --issuer-cert give --issuer-key too".to_owned()),
            (None, Some(_)) => Err("with --issuer-key give --issuer-cert too".to_owned()),
        }
    }

    /// The store, with the fleet's place in it, and with what the files for an etcd hold.
    ///
    /// # Errors
    /// One line that names the setting, its value and the remedy.
    pub fn store_of_fleet(&self) -> anyhow::Result<StoreSpec> {
        let completed = self.etcd.complete(self.store.clone(), self.fleet.as_str());
        completed.map_err(|error| fleetknock_runtime::exit::coded(fleetknock_runtime::exit::USAGE, error))
    }

    /// The keys that seal what is secret in the store; none when none is given.
    ///
    /// # Errors
    /// One line that names the source and the remedy, and nothing that it holds.
    pub fn keyring(&self) -> anyhow::Result<Keyring> {
        let keys = seal::source::read(&self.seal_key, &|name| std::env::var_os(name));
        let ring = keys.and_then(|keys| Ok(Keyring::new(self.fleet.as_str(), keys)?));
        ring.map_err(|error| fleetknock_runtime::exit::coded(fleetknock_runtime::exit::USAGE, error))
    }

    /// How the matcher shall follow knocks.
    pub fn matcher(&self) -> matcher::Config {
        let policy = MissPolicy { misses: self.ban_misses, window: self.ban_window };
        matcher::Config {
            limits: Limits { sources: self.max_sources, ..Limits::default() },
            bans: (self.ban_misses > 0).then_some(policy),
            ..matcher::Config::default()
        }
    }
}

fn url(text: &str) -> Result<String, String> {
    let wrong = || "write it like https://10.0.0.1:7600, without a path".to_owned();
    let uri: tonic::transport::Uri = text.parse().map_err(|_| wrong())?;
    let plain = uri.path_and_query().is_none_or(|path| path == "/");
    let whole = matches!(uri.scheme_str(), Some("http" | "https")) && uri.port_u16().is_some() && plain;
    let named = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if whole && named { Ok(text.trim_end_matches('/').to_owned()) } else { Err(wrong()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 30s, 10m or 1h"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Settings::command().debug_assert();
    }

    #[test]
    fn plain_text_needs_the_explicit_flag() {
        let parse =
            |args: &[&str]| Settings::try_parse_from([&["fleetknock-controller"], args].concat()).unwrap();
        let neither = parse(&[]).check().unwrap_err().to_string();
        assert!(
            neither.contains("--tls-cert, --tls-key and --tls-ca") && neither.contains("--insecure"),
            "{neither}"
        );
        assert!(neither.contains("fleetknock pki"), "{neither}");
        assert!(parse(&["--insecure"]).check().is_ok());
        assert!(parse(&["--insecure", "--ban-misses", "61"]).check().is_err());
        assert!(parse(&["--insecure", "--max-sources", "1"]).check().is_err());
        assert!(parse(&["--insecure", "--ban-misses", "0"]).matcher().bans.is_none());
    }

    #[test]
    fn what_the_store_needs_may_stand_after_the_command() {
        let args =
            ["x", "reseal", "--store=etcd:https://h:2379", "--etcd-ca=c", "--fleet=f", "--seal-key=n,o"];
        let settings = Settings::try_parse_from(args).unwrap();
        assert!(matches!(settings.command, Some(Command::Seal(seal::command::Command::Reseal))));
        assert_eq!(
            (settings.store.to_string().as_str(), settings.fleet.as_str()),
            ("etcd:https://h:2379", "f")
        );
        assert_eq!((settings.seal_key.join(" ").as_str(), settings.etcd.authority.is_some()), ("n o", true));
    }

    #[test]
    fn with_tls_the_address_for_peers_is_https() {
        let tls = ["fleetknock-controller", "--tls-cert=c", "--tls-key=k", "--tls-ca=a,b"];
        let parse = |args: &[&str]| Settings::try_parse_from(args).unwrap();
        let settings = parse(&tls);
        assert_eq!(settings.address(), "https://127.0.0.1:7600");
        assert_eq!(settings.tls_files(&settings.name()).unwrap().unwrap().authorities.len(), 2);
        assert_eq!(parse(&["x", "--insecure"]).address(), "http://127.0.0.1:7600");
        for (wrong, said) in [
            ([&tls[..], &["--advertise=http://10.0.0.1:7600"]].concat(), "must begin with https://"),
            (vec!["x", "--insecure", "--advertise=https://10.0.0.1:7600"], "must begin with http://"),
            ([&tls[..], &["--insecure"]].concat(), "are both given"),
            (vec!["x", "--tls-cert=c"], "with --tls-cert give --tls-key and --tls-ca too"),
            ([&tls[..], &["--issuer-cert=i"]].concat(), "with --issuer-cert give --issuer-key too"),
            ([&tls[..], &["--issuer-key=k"]].concat(), "with --issuer-key give --issuer-cert too"),
            ([&tls[..], &["--host-certificates-for=1s"]].concat(), "must be from 1m to 366days, not 1s"),
            (vec!["x", "--insecure", "--issuer-cert=i", "--issuer-key=k"], "--issuer-cert is for mutual TLS"),
            (tls.to_vec(), "--seal-key is missing"),
        ] {
            let error = parse(&wrong).check().unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(fleetknock_runtime::exit::code_of(&error), fleetknock_runtime::exit::USAGE);
        }
    }
}
