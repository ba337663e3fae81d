//! What a certificate says (RFC 5280), read once and kept in plain types.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
    public_key::PublicKey,
    time::ASN1Time,
};

#[cfg(test)]
mod tests;

/// The contents of a certificate. That it can be read says nothing about whether it can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The distinguished name of whom it is for, such as `CN=db-1`.
    pub subject: String,
    /// The distinguished name of who issued it.
    pub issuer: String,
    /// The serial number in hexadecimal; unique per issuer.
    pub serial: String,
    /// Subject alternative names that are URIs, in their order.
    pub uris: Vec<String>,
    /// Subject alternative names that are DNS names.
    pub dns_names: Vec<String>,
    /// Subject alternative names that are addresses.
    pub addresses: Vec<IpAddr>,
    /// It is valid from here.
    pub not_before: SystemTime,
    /// It is valid until here.
    pub not_after: SystemTime,
    /// Whether it may issue others.
    pub is_authority: bool,
    /// What it may be used for (extended key usage): `server`, `client` or an object identifier; empty: anything.
    pub purposes: Vec<String>,
    /// Kind of the key, such as `EC 256 bit`.
    pub key: String,
}

impl Certificate {
    /// Reads one in DER.
    ///
    /// # Errors
    /// When it is none, or bytes follow.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let broken = |reason: String| CertificateError { reason };
        let (rest, read) = X509Certificate::from_der(der).map_err(|error| broken(error.to_string()))?;
        if !rest.is_empty() {
            return Err(broken("bytes follow it".to_owned()));
        }
        let mut certificate = Self {
            subject: read.subject().to_string(),
            issuer: read.issuer().to_string(),
            serial: read.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            uris: vec![],
            dns_names: vec![],
            addresses: vec![],
            not_before: system_time(read.validity().not_before),
            not_after: system_time(read.validity().not_after),
            is_authority: read.is_ca(),
            purposes: vec![],
            key: key(&read),
        };
        let names = read.subject_alternative_name().map_err(|error| broken(error.to_string()))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => certificate.uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => certificate.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => certificate.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        let usage = read.extended_key_usage().map_err(|error| broken(error.to_string()))?;
        if let Some(usage) = usage.map(|usage| usage.value) {
            let known = [(usage.server_auth, "server"), (usage.client_auth, "client"), (usage.any, "any")];
            let named = known.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
            certificate.purposes = named.chain(usage.other.iter().map(ToString::to_string)).collect();
        }
        Ok(certificate)
    }

    /// Reads every certificate of a PEM text (RFC 7468), in their order; text around them is passed over.
    ///
    /// # Errors
    /// When the text holds none, or one that cannot be read.
    pub fn from_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        ders(text)?.iter().map(|der| Self::from_der(der)).collect()
    }

    /// How long it is still valid; zero when it is not.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// The lifetime from the one end to the other.
    pub fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    /// Whom it is for, in few words: its URIs, or else its subject.
    pub fn holder(&self) -> String {
        if self.uris.is_empty() { self.subject.clone() } else { self.uris.join(", ") }
    }
}

/// Every certificate of a PEM text in DER.
pub(super) fn ders(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let broken = |reason: String| CertificateError { reason };
    let ders: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| broken(format!("its PEM is broken: {error}")))?;
    if ders.is_empty() {
        return Err(broken("it holds no certificate (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    Ok(ders)
}

/// Why something is not a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CertificateError {
    reason: String,
}

/// A time to the second in UTC, such as `2026-11-22 20:54:29 UTC`.
pub fn time_text(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Times before 1970 are the beginning of it.
fn system_time(time: ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn key(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) => format!("EC {} bit", point.key_size()),
        Ok(PublicKey::RSA(key)) => format!("RSA {} bit", key.key_size()),
        Ok(PublicKey::Unknown(_)) if is_ed25519(certificate) => "Ed25519".to_owned(),
        _ => certificate.public_key().algorithm.algorithm.to_string(),
    }
}

/// RFC 8410 section 3.
fn is_ed25519(certificate: &X509Certificate<'_>) -> bool {
    certificate.public_key().algorithm.algorithm.to_id_string() == "1.3.101.112"
}
