//! Certificates that are in files already, and whose they are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use fleetknock_core::identity::Identity;
use fleetknock_runtime::{
    exit,
    tls::{Certificate, authority::Authority},
};

use super::failed;

/// The certificate of somebody of a fleet.
pub(super) struct Held {
    path: PathBuf,
    text: Vec<u8>,
    /// What it says.
    pub(super) certificate: Certificate,
    /// Whose it is.
    pub(super) identity: Identity,
}

impl Held {
    /// The first certificate of a file.
    ///
    /// # Errors
    /// When the file cannot be read, or holds none that names one holder.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let (text, certificates) = read(path)?;
        let first = certificates.into_iter().next();
        let certificate = first.ok_or_else(|| wrong(path, "it holds no certificate"))?;
        let identity = Identity::among(&certificate.uris).map_err(|error| wrong(path, error))?;
        Ok(Self { path: path.to_owned(), text, certificate, identity })
    }

    /// Takes it only when it is by this authority, whose directory is named in the error.
    pub(super) fn by(self, authority: &Authority, directory: &Path) -> anyhow::Result<Self> {
        if authority.has_signed(&self.text).map_err(failed)? {
            return Ok(self);
        }
        Err(self.wrong(format!(
            "it is by '{}', not by the authority in {} ('{}'); choose its --dir",
            self.certificate.issuer,
            directory.display(),
            authority.certificate().subject
        )))
    }

    /// An error about it.
    pub(super) fn wrong(&self, reason: impl std::fmt::Display) -> anyhow::Error {
        wrong(&self.path, reason)
    }
}

/// A file's text, and every certificate of it.
///
/// # Errors
/// When it cannot be read, or holds none.
pub(super) fn read(path: &Path) -> anyhow::Result<(Vec<u8>, Vec<Certificate>)> {
    let text = fs::read(path).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("cannot read {}", path.display()));
        exit::coded(exit::NO_INPUT, error)
    })?;
    let certificates = Certificate::from_pem(&text).map_err(|error| wrong(path, error))?;
    Ok((text, certificates))
}

fn wrong(path: &Path, reason: impl std::fmt::Display) -> anyhow::Error {
    exit::coded(exit::DATA, anyhow!("{}: {reason}", path.display()))
}
