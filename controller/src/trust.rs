//! Who may call this controller, and whom it calls: mutual TLS within one fleet, or plain text for labs.
//!
//! The handshake takes whoever the fleet's authorities vouch for; who may make which call is for the [`gate`], and what
//! a caller may say in another's name for the services, which ask the [`Caller`] of each request.

use std::sync::Arc;

use fleetknock_core::{
    host::HostName,
    identity::{ControllerName, Expected, FleetName},
};
use fleetknock_runtime::tls::{
    self, Acceptor, Clients, Connector, Credentials, Files, Incoming, Limits, NoCertificate, UriRule,
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::enrolment::{cluster::Cluster, issuer::Issuer};

pub mod bearer;
pub mod caller;
pub mod gate;
pub mod refusals;
pub mod ticket;
pub mod token;

pub use self::{caller::Caller, refusals::Refusals};

/// How this controller is spoken to, and how it speaks to its peers.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Plain text: anybody may do everything.
    Plain,
    /// Mutual TLS.
    Mutual {
        /// Whose certificates count.
        fleet: FleetName,
        /// What this controller shows, and whose word counts.
        credentials: Credentials,
        /// Who signs hosts' certificates; nobody unless the operator says.
        issuer: Option<Arc<Issuer>>,
        /// Whose word makes hosts of those who show its tokens; nobody's unless the operator says.
        cluster: Option<Arc<dyn Cluster>>,
    },
}

impl Trust {
    /// Mutual TLS with these files; without any, plain text.
    ///
    /// # Errors
    /// When they cannot be read, are broken, or out of their time.
    pub fn load(fleet: &FleetName, files: Option<Files>) -> Result<Self, tls::FileError> {
        let Some(files) = files else { return Ok(Self::Plain) };
        let credentials = Credentials::load(files)?;
        Ok(Self::Mutual { fleet: fleet.clone(), credentials, issuer: None, cluster: None })
    }

    /// With an authority that signs hosts' certificates; in plain text there are none.
    #[must_use]
    pub fn with_issuer(mut self, by: Issuer) -> Self {
        if let Self::Mutual { issuer, .. } = &mut self {
            *issuer = Some(Arc::new(by));
        }
        self
    }

    /// With a cluster by whose word hosts enrol; in plain text nobody does.
    #[must_use]
    pub fn with_cluster(mut self, by: Arc<dyn Cluster>) -> Self {
        if let Self::Mutual { cluster, .. } = &mut self {
            *cluster = Some(by);
        }
        self
    }

    /// The scheme of a controller's URL.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Mutual { .. } => "https",
        }
    }

    /// How browsers and scrapers are let in at the port of the dashboard; nothing in plain text. They may come without a
    /// certificate: the dashboard's files are for everybody, and a call may show a token.
    ///
    /// # Errors
    /// When there is no certificate to show.
    pub fn browsers(&self) -> Result<Option<Acceptor>, NoCertificate> {
        let Self::Mutual { fleet, credentials, .. } = self else { return Ok(None) };
        let clients = Clients::Optional(rule(fleet, Expected::Anybody));
        Acceptor::new(credentials.clone(), clients).map(Some)
    }

    /// Why browsers and curl refuse the certificate that is shown, if they do: agents and controllers go by its URI, they go
    /// by the name or the address that was dialled.
    pub fn foreign_to_browsers(&self) -> Option<String> {
        let Self::Mutual { credentials, .. } = self else { return None };
        let shown = credentials.current();
        let certificate = &shown.own.as_ref()?.certificate;
        (certificate.dns_names.is_empty() && certificate.addresses.is_empty()).then(|| {
            "the certificate (--tls-cert) names no DNS name and no address, so browsers and curl refuse the dashboard; issue \
             one that names what they dial (fleetknock pki issue controller --dns NAME --ip ADDRESS)"
                .to_owned()
        })
    }

    /// Dials a peer of this name and nobody else; nothing in plain text.
    pub fn connector(&self, peer: &HostName) -> Option<Connector> {
        let Self::Mutual { fleet, credentials, .. } = self else { return None };
        let expected = Expected::Controller(ControllerName::from(peer.clone()));
        Some(Connector::new(credentials.clone(), tls::Expected::Uri(rule(fleet, expected))))
    }
}

/// Whether the URIs of a certificate are those of whom a program expects.
pub fn rule(fleet: &FleetName, expected: Expected) -> UriRule {
    let fleet = fleet.clone();
    UriRule::new(move |uris| expected.among(&fleet, uris).map(|_| ()).map_err(|error| error.to_string()))
}

/// Where calls come in.
#[derive(Debug)]
pub struct Entrance {
    listener: TcpListener,
    acceptor: Option<Acceptor>,
}

impl Entrance {
    /// Over a listener that is bound; nobody is let in before [`open`](Self::open).
    ///
    /// # Errors
    /// When there is no certificate to show.
    pub fn new(listener: TcpListener, trust: &Trust) -> Result<Self, NoCertificate> {
        let acceptor = match trust {
            Trust::Plain => None,
            Trust::Mutual { fleet, credentials, .. } => {
                // Health and reflection are for anybody; who makes any other call must have shown a certificate.
                let clients = Clients::Optional(rule(fleet, Expected::Anybody));
                Some(Acceptor::new(credentials.clone(), clients)?)
            }
        };
        Ok(Self { listener, acceptor })
    }

    /// Adds the instruments of handshakes and certificates to a registry; a prefix is the caller's.
    pub fn register(&self, trust: &Trust, registry: &mut Registry) {
        if let Some(acceptor) = &self.acceptor {
            acceptor.register(registry);
        }
        if let Trust::Mutual { credentials, .. } = trust {
            credentials.register(registry);
        }
    }

    /// Connections from now on; whose certificate is refused is noted.
    pub fn open(self, refusals: Refusals) -> Incoming {
        match self.acceptor {
            // Everybody is anybody, and many agents of a lab have one address.
            None => {
                let limits = Limits::default();
                Incoming::plain(self.listener, Limits { of_one: limits.connections, ..limits })
            }
            Some(acceptor) => {
                let acceptor = acceptor.on_refusal(move |refusal| refusals.note_certificate(refusal));
                Incoming::tls(self.listener, acceptor, Limits::default())
            }
        }
    }
}
