//! Certificate, key and authorities as they lie in files: read and checked whole, so that a program starts with what it
//! needs or says which file is wrong, and how to right it.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::{
    Certificate, UriRule,
    certificate::{CertificateError, ders, time_text},
    provider,
};
use crate::exit;

/// The longest file that is read, in bytes: room for hundreds of certificates.
const FILE_MAX: u64 = 1 << 20;
/// Certificates in one file.
const CERTIFICATES_MAX: usize = 256;

/// Where the files are, and who the own certificate must be for.
#[derive(Clone, Debug)]
pub struct Files {
    /// What is shown to others; a client that shows a token instead needs none.
    pub own: Option<OwnFiles>,
    /// Certificates of those whose word counts, PEM, one or more in each file: during a change of authorities both the
    /// old and the new one.
    pub authorities: Vec<PathBuf>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct OwnFiles {
    /// The certificate and, after it, what leads up to an authority that others know; PEM.
    pub certificate: PathBuf,
    /// Its private key; PEM. Nobody but its owner and group may read it.
    pub key: PathBuf,
    /// What the URIs must be: a program that shows a certificate in another's name is told before its peers tell it.
    pub rule: UriRule,
}

/// What the files held when they were last read and good.
#[derive(Debug)]
pub struct Material {
    /// The certificate that is shown.
    pub own: Option<Own>,
    /// Those whose word counts, without the expired.
    pub authorities: Vec<Certificate>,
    /// What is not wrong enough to refuse.
    pub warnings: Vec<String>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) authority_ders: Vec<CertificateDer<'static>>,
}

/// A certificate with its chain and key.
#[derive(Clone, Debug)]
pub struct Own {
    /// What the certificate says.
    pub certificate: Certificate,
    pub(super) certified: Arc<CertifiedKey>,
}

/// The bytes of the files, not yet looked at.
pub(super) struct Texts {
    own: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    key_mode: u32,
    authorities: Vec<Vec<u8>>,
}

impl Files {
    /// Reads and checks all of them.
    ///
    /// # Errors
    /// When any is missing, broken, out of its time, or does not fit the others.
    pub fn load(&self, now: SystemTime) -> Result<Material, FileError> {
        self.check(&self.read()?, now)
    }

    pub(super) fn read(&self) -> Result<Texts, FileError> {
        let mut key_mode = 0;
        let own = match &self.own {
            None => None,
            Some(own) => {
                let (certificate, _) = read(&own.certificate)?;
                let (key, mode) = read(&own.key)?;
                key_mode = mode;
                Some((certificate, Zeroizing::new(key)))
            }
        };
        let authorities = self.authorities.iter().map(|path| Ok(read(path)?.0)).collect::<Result<_, _>>()?;
        Ok(Texts { own, key_mode, authorities })
    }

    pub(super) fn check(&self, texts: &Texts, now: SystemTime) -> Result<Material, FileError> {
        let own = match (&self.own, &texts.own) {
            (Some(files), Some((certificate, key))) => {
                Some(files.check(certificate, key, texts.key_mode, now)?)
            }
            _ => None,
        };
        let mut material = Material {
            own,
            authorities: vec![],
            warnings: vec![],
            roots: Arc::new(RootCertStore::empty()),
            authority_ders: vec![],
        };
        let mut roots = RootCertStore::empty();
        for (path, text) in self.authorities.iter().zip(&texts.authorities) {
            material.add_authorities(&mut roots, path, text, now)?;
        }
        if roots.is_empty() {
            return Err(FileError::NoAuthority { warnings: material.warnings.join("; ") });
        }
        material.roots = Arc::new(roots);
        Ok(material)
    }
}

impl OwnFiles {
    fn check(&self, certificate: &[u8], key: &[u8], mode: u32, now: SystemTime) -> Result<Own, FileError> {
        let path = || self.certificate.clone();
        let broken = |source| FileError::Certificate { path: path(), source };
        let chain = ders(certificate).map_err(broken)?;
        if chain.len() > CERTIFICATES_MAX {
            return Err(FileError::TooLong { path: path() });
        }
        let Some(first) = chain.first() else { return Err(FileError::TooLong { path: path() }) };
        let certificate = Certificate::from_der(first).map_err(broken)?;
        if certificate.is_authority {
            return Err(FileError::Authority { path: path(), subject: certificate.subject });
        }
        if certificate.not_after <= now {
            return Err(FileError::Expired { path: path(), not_after: certificate.not_after });
        }
        if certificate.not_before > now {
            return Err(FileError::NotYetValid { path: path(), not_before: certificate.not_before, now });
        }
        self.rule.judge(&certificate.uris).map_err(|reason| FileError::Holder {
            path: path(),
            holder: certificate.holder(),
            reason,
        })?;
        let unusable = |reason: String| FileError::Key { path: self.key.clone(), reason };
        if mode & 0o007 != 0 {
            return Err(FileError::KeyForAll { path: self.key.clone(), mode: mode & 0o777 });
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                unusable("it holds no private key (-----BEGIN PRIVATE KEY-----)".to_owned())
            }
            error => unusable(format!("its PEM is broken: {error}")),
        })?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                FileError::Mismatch { key: self.key.clone(), certificate: path() }
            }
            error => unusable(format!("it cannot be used: {error}")),
        })?;
        Ok(Own { certificate, certified: Arc::new(certified) })
    }
}

impl Material {
    fn add_authorities(
        &mut self,
        roots: &mut RootCertStore,
        path: &Path,
        text: &[u8],
        now: SystemTime,
    ) -> Result<(), FileError> {
        let path = || path.to_owned();
        let broken = |source| FileError::Certificate { path: path(), source };
        let ders = ders(text).map_err(broken)?;
        if ders.len() > CERTIFICATES_MAX {
            return Err(FileError::TooLong { path: path() });
        }
        for der in ders {
            let certificate = Certificate::from_der(&der).map_err(broken)?;
            if !certificate.is_authority {
                return Err(FileError::NoIssuer { path: path(), subject: certificate.subject });
            }
            // A verifier takes its anchors as given, whatever their time.
            if certificate.not_after <= now || certificate.not_before > now {
                self.warnings.push(format!(
                    "{}: the authority '{}' is valid from {} to {} only and is left out",
                    path().display(),
                    certificate.subject,
                    time_text(certificate.not_before),
                    time_text(certificate.not_after)
                ));
                continue;
            }
            roots
                .add(der.clone())
                .map_err(|error| FileError::Unusable { path: path(), reason: super::words::of(&error) })?;
            self.authorities.push(certificate);
            self.authority_ders.push(der);
        }
        Ok(())
    }

    /// When the first of the authorities ends.
    pub fn authorities_end(&self) -> Option<SystemTime> {
        self.authorities.iter().map(|authority| authority.not_after).min()
    }
}

impl Texts {
    /// Tells one reading from another; not for anything that an adversary chooses to gain from.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        if let Some((certificate, key)) = &self.own {
            certificate.hash(&mut hasher);
            key.hash(&mut hasher);
        }
        self.key_mode.hash(&mut hasher);
        self.authorities.hash(&mut hasher);
        hasher.finish()
    }
}

pub(super) fn read(path: &Path) -> Result<(Vec<u8>, u32), FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if meta.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    // Room for all of it at once: growing would leave copies of a key behind.
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(FILE_MAX)).unwrap_or(0) + 1);
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(FileError::TooLong { path: path.to_owned() });
    }
    Ok((bytes, meta.mode()))
}

/// Which file is wrong, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The own certificate is an authority's.
    #[error(
        "{path}: the first certificate, '{subject}', is an authority's; put the program's own certificate first",
        path = .path.display()
    )]
    Authority {
        /// The certificate file.
        path: PathBuf,
        /// Whose it is.
        subject: String,
    },
    /// Not a certificate.
    #[error("{path}: no certificate can be read: {source}", path = .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CertificateError,
    },
    /// The own certificate is over.
    #[error(
        "{path}: the certificate expired at {at}; issue a new one, and see that it is renewed in time",
        path = .path.display(), at = time_text(*.not_after)
    )]
    Expired {
        /// The certificate file.
        path: PathBuf,
        /// Until when it was valid.
        not_after: SystemTime,
    },
    /// The own certificate is in another's name.
    #[error("{path}: the certificate of '{holder}' does not fit: {reason}", path = .path.display())]
    Holder {
        /// The certificate file.
        path: PathBuf,
        /// Whom it is for.
        holder: String,
        /// What the program says.
        reason: String,
    },
    /// Not a private key.
    #[error("{path}: no private key can be used: {reason}", path = .path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Everybody on the machine can read the key.
    #[error(
        "{path}: everybody on this machine may use this private key (mode {mode:03o}); chmod it to 600, or in a \
         Kubernetes volume set defaultMode: 0400",
        path = .path.display()
    )]
    KeyForAll {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key is another certificate's.
    #[error(
        "{key}: this private key does not belong to the certificate in {certificate}; replace both together",
        key = .key.display(), certificate = .certificate.display()
    )]
    Mismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },
    /// No authority is left.
    #[error("there is no authority to trust ({warnings}); name a file with the CA's certificate")]
    NoAuthority {
        /// Why those that were given do not count.
        warnings: String,
    },
    /// A certificate that cannot issue others.
    #[error(
        "{path}: '{subject}' is no authority (CA) and cannot vouch for others; put CA certificates only here",
        path = .path.display()
    )]
    NoIssuer {
        /// The file of authorities.
        path: PathBuf,
        /// Whose it is.
        subject: String,
    },
    /// The own certificate is not valid yet.
    #[error(
        "{path}: the certificate is valid only from {from}, and this machine's clock says {clock}; set the clock, or \
         issue a new one",
        path = .path.display(), from = time_text(*.not_before), clock = time_text(*.now)
    )]
    NotYetValid {
        /// The certificate file.
        path: PathBuf,
        /// From when it is valid.
        not_before: SystemTime,
        /// What the clock said.
        now: SystemTime,
    },
    /// Larger than any that makes sense.
    #[error(
        "{path}: a file of certificates has at most {FILE_MAX} bytes and {CERTIFICATES_MAX} certificates; this is another file",
        path = .path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The system does not give it.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An authority that verification cannot use.
    #[error("{path}: an authority cannot be used: {reason}", path = .path.display())]
    Unusable {
        /// The file of authorities.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl FileError {
    /// The code with which a program ends that cannot start for this.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreadable { .. } => exit::NO_INPUT,
            _ => exit::DATA,
        }
    }
}
