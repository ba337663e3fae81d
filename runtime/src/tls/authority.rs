//! An authority (CA) of one's own: makes keys, and signs certificates that name their holder in a URI.
//!
//! Keys are ECDSA on P-256: every TLS library, hardware module and browser takes them, which is not so for Ed25519.
//! What a request asks for is not looked at but for its key: who somebody is, is decided by whoever calls this.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use super::{
    Certificate, FileError,
    certificate::{CertificateError, ders, time_text},
    files::read,
};

#[cfg(test)]
mod tests;
mod written;

pub use written::{Access, Staged, write_new};

/// The authority's certificate in its directory.
pub const CERTIFICATE_FILE: &str = "ca.crt";
/// The authority's key in its directory.
pub const KEY_FILE: &str = "ca.key";
/// Certificates are valid from a little earlier, for machines whose clocks are behind.
pub const BACKDATED: Duration = Duration::from_secs(300);
/// A certificate is renewed when less than one part of so many is left of its life.
const LEFT: u32 = 3;
/// The longest common name (RFC 5280 appendix A.1, ub-common-name).
const COMMON_NAME_MAX: usize = 64;

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
    der: CertificateDer<'static>,
    pem: String,
}

/// A new private key, in PEM (PKCS #8). Wiped when dropped.
pub struct PrivateKey {
    pair: KeyPair,
    pem: Zeroizing<String>,
}

/// The key for which a certificate is asked.
#[derive(Debug)]
pub struct PublicKey(Asked);

#[derive(Debug)]
enum Asked {
    Request(rcgen::PublicKey),
    Own(rcgen::SubjectPublicKeyInfo),
}

/// What a certificate shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// A name for people who look at certificates; left out when it is longer than 64 characters.
    pub common_name: String,
    /// Who it is for.
    pub uri: String,
    /// DNS names under which it is dialled by those who go by names.
    pub dns_names: Vec<String>,
    /// Addresses, likewise.
    pub addresses: Vec<IpAddr>,
    /// Whether it may be a server's (extended key usage serverAuth).
    pub server: bool,
    /// Whether it may be a client's (extended key usage clientAuth).
    pub client: bool,
    /// How long from now; never longer than the authority itself.
    pub valid_for: Duration,
}

/// A certificate that was just signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// In PEM.
    pub pem: String,
    /// What it says.
    pub certificate: Certificate,
}

impl Order {
    /// A client's, without names of the network.
    pub fn client(common_name: &str, uri: &str, valid_for: Duration) -> Self {
        Self {
            common_name: common_name.to_owned(),
            uri: uri.to_owned(),
            dns_names: vec![],
            addresses: vec![],
            server: false,
            client: true,
            valid_for,
        }
    }
}

impl PrivateKey {
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, AuthorityError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pem = Zeroizing::new(pair.serialize_pem());
        Ok(Self { pair, pem })
    }

    /// For a file that nobody else can read.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its public half.
    ///
    /// # Errors
    /// Never for a key that was generated here.
    pub fn public(&self) -> Result<PublicKey, AuthorityError> {
        let info = rcgen::SubjectPublicKeyInfo::from_der(&self.pair.subject_public_key_info())?;
        Ok(PublicKey(Asked::Own(info)))
    }

    /// A request for a certificate (PKCS #10, RFC 2986) in PEM; it proves that its sender has the key.
    ///
    /// # Errors
    /// When signing fails.
    pub fn request(&self) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.pair)?.pem()?)
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl PublicKey {
    /// The key of a request in PEM whose signature is good.
    ///
    /// # Errors
    /// When it is none, or is not signed by the key that it names.
    pub fn from_request(pem: &str) -> Result<Self, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(pem)
            .map_err(|source| AuthorityError::Request { source })?;
        Ok(Self(Asked::Request(request.public_key)))
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        match &self.0 {
            Asked::Request(key) => key.der_bytes(),
            Asked::Own(key) => key.der_bytes(),
        }
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match &self.0 {
            Asked::Request(key) => PublicKeyData::algorithm(key),
            Asked::Own(key) => PublicKeyData::algorithm(key),
        }
    }
}

impl Authority {
    /// Makes a new one that signs nothing but end certificates; and its key, for a file.
    ///
    /// # Errors
    /// When the URI has characters that no certificate takes, or the system gives no randomness.
    pub fn create(
        name: &str,
        uri: &str,
        valid_for: Duration,
        now: SystemTime,
    ) -> Result<(Self, PrivateKey), AuthorityError> {
        let key = PrivateKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + valid_for).into();
        params.serial_number = Some(serial());
        let pem = params.self_signed(&key.pair)?.pem();
        Ok((Self::from_pem(&pem, key.pem())?, key))
    }

    /// Loads `ca.crt` and `ca.key` of a directory.
    ///
    /// # Errors
    /// When they are missing, broken, not an authority's, expired, or the key may be read by everybody.
    pub fn load(directory: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        Self::load_files(&directory.join(CERTIFICATE_FILE), &directory.join(KEY_FILE), now)
    }

    /// Loads a certificate and its key from wherever they are; of several certificates the first one signs, and the rest
    /// lead up to an authority that others know.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_files(
        certificate_path: &Path,
        key_path: &Path,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let (certificate, _) = read(certificate_path)?;
        let (key, mode) = read(key_path)?;
        let key = Zeroizing::new(key);
        if mode & 0o007 != 0 {
            return Err(FileError::KeyForAll { path: key_path.to_owned(), mode: mode & 0o777 }.into());
        }
        let in_file = |path: &Path, source: AuthorityError| AuthorityError::File {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| AuthorityError::NoText);
        let certificate = text(&certificate).map_err(|error| in_file(certificate_path, error))?;
        let key = text(&key).map_err(|error| in_file(key_path, error))?;
        let authority = Self::from_pem(certificate, key).map_err(|error| match error {
            AuthorityError::Key { .. } | AuthorityError::Mismatch => in_file(key_path, error),
            error => in_file(certificate_path, error),
        })?;
        if authority.certificate.not_after <= now {
            let not_after = authority.certificate.not_after;
            return Err(FileError::Expired { path: certificate_path.to_owned(), not_after }.into());
        }
        Ok(authority)
    }

    /// From PEM texts; of several certificates the first one signs.
    ///
    /// # Errors
    /// When they are broken, not an authority's, or do not belong together.
    pub fn from_pem(text: &str, key: &str) -> Result<Self, AuthorityError> {
        let der = ders(text.as_bytes())?.into_iter().next().ok_or(AuthorityError::NoText)?;
        let certificate = Certificate::from_der(&der)?;
        if !certificate.is_authority {
            return Err(AuthorityError::NotAnAuthority { subject: certificate.subject });
        }
        let key = KeyPair::from_pem(key).map_err(|source| AuthorityError::Key { source })?;
        let (_, parsed) = parse_x509_certificate(&der)
            .map_err(|_| AuthorityError::Rcgen(rcgen::Error::CouldNotParseCertificate))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { issuer, certificate, der, pem: text.to_owned() })
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its own certificate in PEM, and what was beside it: for all who shall trust it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a certificate.
    ///
    /// # Errors
    /// When a name has characters that no certificate takes, or the authority is over.
    pub fn sign(&self, key: &PublicKey, order: &Order, now: SystemTime) -> Result<Issued, AuthorityError> {
        if self.certificate.not_after <= now {
            return Err(AuthorityError::Over { not_after: self.certificate.not_after });
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&order.common_name);
        params.subject_alt_names = vec![SanType::URI(order.uri.as_str().try_into()?)];
        for name in &order.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(order.addresses.iter().copied().map(SanType::IpAddress));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let usages = [
            (order.server, ExtendedKeyUsagePurpose::ServerAuth),
            (order.client, ExtendedKeyUsagePurpose::ClientAuth),
        ];
        params.extended_key_usages =
            usages.into_iter().filter(|(set, _)| *set).map(|(_, usage)| usage).collect();
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + order.valid_for).min(self.certificate.not_after).into();
        params.serial_number = Some(serial());
        let signed = params.signed_by(key, &self.issuer)?;
        Ok(Issued { pem: signed.pem(), certificate: Certificate::from_der(signed.der())? })
    }

    /// Whether this authority signed the first certificate of a PEM text.
    ///
    /// # Errors
    /// When the text holds no certificate.
    pub fn has_signed(&self, pem: &[u8]) -> Result<bool, AuthorityError> {
        let first = ders(pem)?.into_iter().next().ok_or(AuthorityError::NoText)?;
        let parsed = parse_x509_certificate(&first);
        let broken = |_| AuthorityError::Rcgen(rcgen::Error::CouldNotParseCertificate);
        let (_, certificate) = parsed.map_err(broken)?;
        let (_, own) = parse_x509_certificate(&self.der).map_err(broken)?;
        Ok(certificate.verify_signature(Some(own.public_key())).is_ok())
    }

    /// Whether a certificate of this authority's is still good for a while: more than a third of its life is left, or
    /// another one would end no later.
    pub fn lasts(&self, certificate: &Certificate, now: SystemTime) -> bool {
        let left = certificate.remaining(now);
        // By what it is dated back it would be old at once, if it is short-lived.
        let life = certificate.lifetime().saturating_sub(BACKDATED);
        let is_last = certificate.not_after >= self.certificate.not_after;
        !left.is_zero() && (is_last || left > life / LEFT)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    if name.chars().count() <= COMMON_NAME_MAX {
        distinguished.push(DnType::CommonName, name);
    }
    distinguished
}

/// Random and positive, 16 bytes (RFC 5280 section 4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// Why an authority cannot be used, or does not sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A certificate cannot be read.
    #[error("no certificate can be read: {0}")]
    Certificate(#[from] CertificateError),
    /// Something is wrong with one of its files.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What.
        source: Box<AuthorityError>,
    },
    /// A file is missing or out of its time.
    #[error(transparent)]
    Files(#[from] FileError),
    /// Not a key that can sign.
    #[error(
        "the private key cannot be used ({source}); it must be PEM in PKCS #8: openssl pkcs8 -topk8 -nocrypt converts it"
    )]
    Key {
        /// Why.
        source: rcgen::Error,
    },
    /// The key is another certificate's.
    #[error("the private key does not belong to the authority's certificate; put the two back together")]
    Mismatch,
    /// Not text.
    #[error("this is not a PEM text")]
    NoText,
    /// The certificate may not sign others.
    #[error("'{subject}' is no authority (CA) and cannot sign certificates")]
    NotAnAuthority {
        /// Whose it is.
        subject: String,
    },
    /// The authority expired.
    #[error("the authority expired at {}; make a new one, and trust both for a while", time_text(*.not_after))]
    Over {
        /// When.
        not_after: SystemTime,
    },
    /// Signing failed.
    #[error("the certificate cannot be made: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// Not a request, or one that its key did not sign.
    #[error("this is no request for a certificate (PKCS #10) whose signature is good: {source}")]
    Request {
        /// Why.
        source: rcgen::Error,
    },
}
