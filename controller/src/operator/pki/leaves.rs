//! What lies in the objects: an authority, and certificates by it with their keys. Pure but for randomness.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fleetknock_core::{
    identity::{FleetName, Identity, Who, authority_fleet, authority_uri},
    time::Timestamp,
};
use fleetknock_runtime::tls::{
    Certificate, CertificateError,
    authority::{Authority, AuthorityError, Order, PrivateKey},
};
use zeroize::Zeroizing;

/// A certificate, and its key.
pub(super) struct Leaf {
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
}

/// Why a part cannot be used or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeafError {
    /// The authority cannot be used.
    #[error("the authority (ca.crt, ca.key) cannot be used: {0}")]
    Authority(#[from] AuthorityError),
    /// What should be a certificate is none.
    #[error(
        "{key} is no certificate: {source}; remove it and its key from the object to have both made again"
    )]
    Certificate {
        /// Where.
        key: String,
        /// Why.
        source: CertificateError,
    },
    /// The authority is another fleet's.
    #[error("the authority is of fleet '{of}', not of '{wanted}' (--fleet)")]
    Fleet {
        /// Whose it is.
        of: FleetName,
        /// Whose it should be.
        wanted: FleetName,
    },
    /// It is somebody else's.
    #[error("{key} is the certificate of {of}, not of {wanted}; remove it and its key from the object")]
    Other {
        /// Where.
        key: String,
        /// Whose it is.
        of: String,
        /// Whose it should be.
        wanted: String,
    },
    /// A part is not text.
    #[error("{key} is not text")]
    NoText {
        /// Which.
        key: String,
    },
    /// The seal key is none.
    #[error("seal.key is no seal key: {0}")]
    Seal(#[from] crate::seal::SealKeyError),
}

/// A new authority of a fleet, and its key.
pub(super) fn authority(
    fleet: &FleetName,
    valid_for: Duration,
    now: SystemTime,
) -> Result<(Authority, PrivateKey), AuthorityError> {
    // Two authorities of one fleet must not have the same name; a common name has 64 characters.
    let short: String = fleet.as_str().chars().take(32).collect();
    let at = Timestamp::ZERO + now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Authority::create(&format!("{short} CA {at}"), &authority_uri(fleet), valid_for, now)
}

/// An authority that is there, when it is this fleet's and goes on.
pub(super) fn check(
    certificate: &str,
    key: &str,
    fleet: &FleetName,
    now: SystemTime,
) -> Result<Authority, LeafError> {
    let authority = Authority::from_pem(certificate, key)?;
    if let Some(of) = authority_fleet(&authority.certificate().uris).filter(|of| of != fleet) {
        return Err(LeafError::Fleet { of, wanted: fleet.clone() });
    }
    let not_after = authority.certificate().not_after;
    if not_after <= now { Err(AuthorityError::Over { not_after }.into()) } else { Ok(authority) }
}

/// What a certificate shall say.
pub(super) fn order(identity: &Identity, dns_names: Vec<String>, valid_for: Duration) -> Order {
    let server = matches!(identity.who, Who::Controller(_));
    Order { server, dns_names, ..Order::client(identity.who.name(), &identity.to_string(), valid_for) }
}

/// A new key, and a certificate for it.
pub(super) fn sign(authority: &Authority, order: &Order, now: SystemTime) -> Result<Leaf, AuthorityError> {
    let key = PrivateKey::generate()?;
    let issued = authority.sign(&key.public()?, order, now)?;
    Ok(Leaf { certificate: issued.pem, key: Zeroizing::new(key.pem().to_owned()) })
}

/// Whether a certificate that is there stays: it is by this authority, has every name that is asked for, and lasts. `at`
/// says where it is.
///
/// # Errors
/// When it is none, or somebody else's.
pub(super) fn stays(
    text: &str,
    authority: &Authority,
    order: &Order,
    now: SystemTime,
    at: &str,
) -> Result<bool, LeafError> {
    let broken = |source| LeafError::Certificate { key: at.to_owned(), source };
    let certificates = Certificate::from_pem(text.as_bytes()).map_err(broken)?;
    let Some(first) = certificates.first() else { return Ok(false) };
    if first.uris != [order.uri.as_str()] {
        let (key, of, wanted) = (at.to_owned(), first.holder(), order.uri.clone());
        return Err(LeafError::Other { key, of, wanted });
    }
    let names: BTreeSet<_> = first.dns_names.iter().collect();
    let named = order.dns_names.iter().all(|name| names.contains(name));
    Ok(named && authority.lasts(first, now) && authority.has_signed(text.as_bytes())?)
}
