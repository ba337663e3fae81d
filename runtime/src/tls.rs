//! Mutual TLS: files that are followed as they change, a server that knows who calls, a client that knows whom it
//! reached.
//!
//! ```text
//!   certificate, key, authorities ──read──▶ Credentials ──current at each handshake──▶ Incoming  (server)
//!            ▲ every few seconds, on reload ───┘      └────────────────────────────▶ Connector (client)
//! ```
//!
//! Who somebody is stands in a URI among the subject alternative names of a certificate. What a URI means is not known
//! here: programs give [`UriRule`]s. A rule is asked after the chain was verified, within the handshake, on both sides.
//!
//! TLS 1.3 only. Both ends are programs of ours or tools of this decade, and an eavesdropper of TLS 1.2 reads the
//! certificates, hence the names of hosts and users, off the wire. Sessions are never resumed: a resumed one would not
//! be verified against the authorities of today. The provider is ring, given explicitly everywhere.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::crypto::CryptoProvider;

pub mod authority;
mod certificate;
mod client;
mod connection;
mod credentials;
mod crowd;
mod files;
mod incoming;
mod server;
mod sessions;
mod settings;
mod vouch;
mod words;

pub use self::{
    certificate::{Certificate, CertificateError, time_text},
    client::{ClientStream, ConnectError, Connector, Expected},
    connection::{Connection, Line, Peer},
    credentials::{Credentials, FOLLOW_EVERY},
    crowd::network,
    files::{FileError, Files, Material, Own, OwnFiles},
    incoming::{Incoming, Limits, Outcome, Refusal},
    server::{Acceptor, Clients, NoCertificate, Spoken},
    settings::Settings,
    vouch::NotVouchedFor,
};

#[cfg(test)]
pub(crate) mod tests;

/// HTTP/2 as negotiated in the handshake (RFC 9113 section 3.2).
const ALPN: &[u8] = b"h2";

/// Decides about the URIs of a verified certificate; gives the reason in plain words when it does not like them, such
/// as `it is of another fleet`.
#[derive(Clone)]
pub struct UriRule(Arc<Judge>);

type Judge = dyn Fn(&[String]) -> Result<(), String> + Send + Sync;

impl UriRule {
    /// A rule of the program's.
    pub fn new(judge: impl Fn(&[String]) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(judge))
    }

    /// Whoever an authority vouches for, with or without a URI.
    pub fn anybody() -> Self {
        Self::new(|_| Ok(()))
    }

    /// # Errors
    /// The reason against these URIs.
    pub fn judge(&self, uris: &[String]) -> Result<(), String> {
        (self.0)(uris)
    }
}

impl fmt::Debug for UriRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UriRule")
    }
}

/// The provider of every configuration, so that none depends on what a process installed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What was made of the credentials of now, until they change.
#[derive(Debug)]
struct Derived<T> {
    made: Mutex<Option<Made<T>>>,
}

#[derive(Debug)]
struct Made<T> {
    of: Arc<Material>,
    what: Arc<T>,
}

impl<T> Derived<T> {
    fn new() -> Self {
        Self { made: Mutex::new(None) }
    }

    /// What was made of just this, or made now.
    fn of(
        &self,
        material: &Arc<Material>,
        make: impl FnOnce(&Material) -> Result<T, rustls::Error>,
    ) -> Result<Arc<T>, rustls::Error> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some(made) if Arc::ptr_eq(&made.of, material) => Ok(made.what.clone()),
            _ => {
                let what = Arc::new(make(material)?);
                *made = Some(Made { of: material.clone(), what: what.clone() });
                Ok(what)
            }
        }
    }
}
