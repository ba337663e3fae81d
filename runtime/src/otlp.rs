//! Where traces and metrics go: one OTLP collector over gRPC (OpenTelemetry Protocol 1), named by two flags.
//!
//! The collector is optional and trusted with nothing: it is sent to, never listened to. One channel serves all that is
//! sent, dials when something is to be sent, and again when that failed.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use clap::Args;
use prometheus_client::registry::Registry;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    config::{ConfigError, service_url},
    drain::Drain,
    tls::{Connector, Credentials, Expected, FOLLOW_EVERY, FileError, Files},
};

pub mod metrics;
pub mod traces;

#[cfg(test)]
mod tests;

/// Where collectors take OTLP over gRPC unless a URL says otherwise (OTLP specification, "OTLP/gRPC Default Port").
pub const COLLECTOR_PORT: u16 = 4317;
/// From dialling to the end of the handshake.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// For one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A collector that vanished is found out by HTTP/2 pings while something is under way.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);

/// `--otlp` and `--otlp-ca`, the same for every program.
// A group of clap's would have the name of the struct, as the settings of a program have that it is part of.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct Settings {
    /// Send traces and metrics to this OTLP collector over gRPC, such as http://10.0.0.9:4317; not at all unless given
    #[arg(long, value_name = "URL")]
    pub otlp: Option<CollectorUrl>,

    /// The certificates of the authorities (CA) that vouch for an https:// collector, in PEM; followed as they change
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub otlp_ca: Vec<PathBuf>,
}

impl Settings {
    /// Checks what no single flag can.
    ///
    /// # Errors
    /// When the authorities are missing for https://, or given for nothing.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |reason: String| Err(ConfigError::Flags { reason });
        match &self.otlp {
            Some(url) if url.is_secure() && self.otlp_ca.is_empty() => refuse(format!(
                "otlp: with '{url}' give --otlp-ca too: the file with the authorities (CA) that vouch for the collector"
            )),
            Some(url) if !url.is_secure() && !self.otlp_ca.is_empty() => refuse(format!(
                "otlp-ca: '{url}' (--otlp) is plain text, for which there is no authority; write https://, or leave \
                 --otlp-ca out"
            )),
            None if !self.otlp_ca.is_empty() => refuse(
                "otlp-ca: without --otlp there is no collector to vouch for; give --otlp https://HOST:PORT too"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// Takes spans when there is a collector, and what [`traces::run`] sends of them.
    pub fn traces(&self) -> (traces::Traces, Option<traces::Waiting>) {
        if self.otlp.is_none() {
            return Default::default();
        }
        let (traces, waiting) = traces::Traces::new();
        (traces, Some(waiting))
    }

    /// The collector; none unless `--otlp` names one. Nothing is dialled before something is sent. Called within the
    /// runtime on which it is to run.
    ///
    /// # Errors
    /// When the files of `--otlp-ca` cannot be used.
    pub fn collector(&self) -> Result<Option<Collector>, FileError> {
        let Some(url) = &self.otlp else { return Ok(None) };
        let endpoint = |address: Uri| {
            Endpoint::from(address)
                .connect_timeout(CONNECT_MAX)
                .timeout(ANSWER_MAX)
                .http2_keep_alive_interval(KEEPALIVE_EVERY)
                .keep_alive_timeout(ANSWER_MAX)
        };
        if !url.is_secure() {
            let channel = endpoint(url.uri.clone()).connect_lazy();
            return Ok(Some(Collector { channel, credentials: None }));
        }
        let credentials = Credentials::load(Files { own: None, authorities: self.otlp_ca.clone() })?;
        let connector = Connector::new(credentials.clone(), Expected::Name).within(CONNECT_MAX);
        let channel = endpoint(url.dialled.clone()).origin(url.uri.clone());
        let channel = channel.connect_with_connector_lazy(connector);
        Ok(Some(Collector { channel, credentials: Some(credentials) }))
    }
}

/// A collector that is dialled when something is sent. Cloning shares the connection.
#[derive(Clone, Debug)]
pub struct Collector {
    channel: Channel,
    credentials: Option<Credentials>,
}

impl Collector {
    /// What a gRPC client sends through.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Sends it a registry's metrics, and the spans that wait when there are any, until the drain ends; follows the
    /// authorities' files meanwhile. `fleet` is the namespace in which `origin` is one of several.
    pub fn serve(
        self,
        drain: &Drain,
        registry: Arc<Registry>,
        (traces, spans): (traces::Traces, Option<traces::Waiting>),
        origin: metrics::Origin,
        fleet: String,
    ) {
        if let Some(credentials) = self.credentials.clone() {
            drain.spawn(credentials.follow(FOLLOW_EVERY, drain.token()));
        }
        if let Some(spans) = spans {
            let (collector, origin) = (self.clone(), origin.clone());
            drain.spawn(traces::run(collector, traces, spans, origin, Some(fleet), drain.token()));
        }
        drain.spawn(metrics::run(self, registry, origin, drain.token()));
    }
}

/// Where a collector is: `http://HOST[:PORT]` or `https://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl {
    uri: Uri,
    /// The same with the scheme http: tonic takes https for a wish for its own TLS.
    dialled: Uri,
}

impl CollectorUrl {
    /// Whether it asks for TLS.
    pub fn is_secure(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The port; [`COLLECTOR_PORT`] when none was given.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(COLLECTOR_PORT)
    }

    /// The host, when it is an address and no name that must be looked up.
    pub fn literal(&self) -> Option<IpAddr> {
        let host = self.uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        bare.parse().ok()
    }
}

impl FromStr for CollectorUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "a collector is written http://HOST:PORT or https://HOST:PORT without a path, such as http://10.0.0.9:4317 \
             (OTLP over gRPC)"
                .to_owned()
        };
        let uri = service_url(text, COLLECTOR_PORT).ok_or_else(wrong)?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let dialled = format!("http://{authority}/").parse().map_err(|_| wrong())?;
        Ok(Self { uri, dialled })
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}", self.uri.authority().map_or("", |authority| authority.as_str()))
    }
}
