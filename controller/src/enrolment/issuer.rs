//! The authority that signs hosts' certificates: files that are read each time, so that a new one counts at once.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fleetknock_core::identity::{FleetName, Identity, Who};
use fleetknock_proto::v1 as pb;
use fleetknock_runtime::tls::{
    Material, NotVouchedFor,
    authority::{Authority, AuthorityError, Order, PrivateKey, PublicKey},
};

#[cfg(test)]
mod tests;

/// Where it is, and for how long it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    certificate: PathBuf,
    key: PathBuf,
    valid_for: Duration,
}

/// Why it does not sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
    /// Its files cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The fleet would not take what it signs.
    #[error(
        "{path}: the fleet does not take what this authority signs, because controllers do not trust it ({reason}); add it, \
         or what stands above it, to --tls-ca of every controller",
        path = .path.display()
    )]
    NotTrusted {
        /// Of the authority's certificate.
        path: PathBuf,
        /// What a controller would say.
        reason: NotVouchedFor,
    },
}

impl Issuer {
    /// With these files: a certificate, and after it what leads up to one that the fleet trusts; and its key. What it
    /// signs is valid for that long.
    pub fn new(certificate: PathBuf, key: PathBuf, valid_for: Duration) -> Self {
        Self { certificate, key, valid_for }
    }

    /// For how long.
    pub fn valid_for(&self) -> Duration {
        self.valid_for
    }

    /// Signs a certificate that nobody gets: whether it could sign one.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn try_out(&self, fleet: &FleetName, trusted: &Material, now: SystemTime) -> Result<(), IssuerError> {
        let name = fleet.as_str().parse().map_err(|_| AuthorityError::NoText)?;
        let key = PrivateKey::generate()?.public()?;
        let identity = Identity { fleet: fleet.clone(), who: Who::Host(name) };
        self.issue(&identity, &key, trusted, now).map(|_| ())
    }

    /// Signs a certificate for a host. `trusted` is what the controllers trust, and hosts shall.
    ///
    /// # Errors
    /// When the files cannot be used, or the controllers would not take the certificate.
    pub fn issue(
        &self,
        identity: &Identity,
        key: &PublicKey,
        trusted: &Material,
        now: SystemTime,
    ) -> Result<pb::IssuedCertificate, IssuerError> {
        let authority = Authority::load_files(&self.certificate, &self.key, now)?;
        let Who::Host(name) = &identity.who else { return Err(AuthorityError::NoText.into()) };
        let order = Order::client(name.as_str(), &identity.to_string(), self.valid_for);
        let issued = authority.sign(key, &order, now)?;
        let mut certificate = issued.pem;
        if !trusted.authorities.contains(authority.certificate()) {
            certificate.push_str(authority.pem());
        }
        let not_trusted = |reason| IssuerError::NotTrusted { path: self.certificate.clone(), reason };
        trusted.vouch(certificate.as_bytes(), now).map_err(not_trusted)?;
        let since = issued.certificate.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(pb::IssuedCertificate {
            certificate,
            authorities: trusted.authorities_pem(),
            not_after_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        })
    }
}
