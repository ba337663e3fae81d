//! A certificate and its key, replaced together though they are two files.
//!
//! ```text
//!   NAME.key  .NAME.key.next ──2──▶ NAME.key        the key is on disk before anybody is asked to sign for it;
//!   NAME.crt  .NAME.crt.next ──3──▶ NAME.crt        1: the certificate is on disk; only then are the two renamed
//! ```
//!
//! A crash at any point leaves a pair that fits in these four files, and [`Pair::recover`] finds it. Whoever follows the
//! files ([`Credentials`](fleetknock_runtime::tls::Credentials)) takes what it read twice in a row, so that the moment
//! between the two renames is never taken.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use fleetknock_runtime::tls::{
    OwnFiles,
    authority::{Access, write_new},
};

#[cfg(test)]
mod tests;

/// Where both are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

/// A file that could not be written, moved or removed.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write {path}: {source}; --tls-cert and --tls-key must lie where the agent may write, such as in its --state \
     directory",
    path = .path.display()
)]
pub struct PairError {
    path: PathBuf,
    source: io::Error,
}

impl Pair {
    /// Of these files; through links to the files themselves.
    pub fn of(files: &OwnFiles) -> Self {
        let itself = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Self { certificate: itself(&files.certificate), key: itself(&files.key) }
    }

    /// Both as they will be, while they are not yet in their places.
    pub fn next(&self, files: &OwnFiles) -> OwnFiles {
        OwnFiles { certificate: next(&self.certificate), key: next(&self.key), rule: files.rule.clone() }
    }

    /// Keeps a key, for its owner alone, for which a certificate is about to be asked.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_key(&self, pem: &str) -> Result<(), PairError> {
        self.forget()?;
        keep(&next(&self.key), pem, Access::Owner)
    }

    /// Keeps the certificate for that key.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_certificate(&self, pem: &str) -> Result<(), PairError> {
        keep(&next(&self.certificate), pem, Access::Everybody)
    }

    /// Puts both in their places.
    ///
    /// # Errors
    /// When the system refuses; [`recover`](Self::recover) goes on from there.
    pub fn commit(&self) -> Result<(), PairError> {
        // Without a word to the disk in between: the moment in which they do not fit is to be short.
        rename(&self.key)?;
        rename(&self.certificate)?;
        [&self.key, &self.certificate].into_iter().try_for_each(|path| settle(path))
    }

    /// Makes good what a crash cut off: of the files that are there, the newest pair that `fits` takes its place, and what
    /// is left over goes. Whether anything was made good.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn recover(&self, files: &OwnFiles, fits: impl Fn(&OwnFiles) -> bool) -> Result<bool, PairError> {
        let (next_certificate, next_key) = (next(&self.certificate), next(&self.key));
        if !next_certificate.exists() && !next_key.exists() {
            return Ok(false);
        }
        let fits = |certificate: &Path, key: &Path| {
            let rule = files.rule.clone();
            certificate.exists()
                && key.exists()
                && fits(&OwnFiles { certificate: certificate.to_owned(), key: key.to_owned(), rule })
        };
        let made_good = if fits(&next_certificate, &next_key) {
            self.commit()?;
            true
        } else if fits(&next_certificate, &self.key) {
            rename(&self.certificate).and_then(|()| settle(&self.certificate))?;
            true
        } else if fits(&self.certificate, &next_key) {
            rename(&self.key).and_then(|()| settle(&self.key))?;
            true
        } else {
            false
        };
        self.forget()?;
        Ok(made_good)
    }

    /// Removes what was kept and is not in its place.
    fn forget(&self) -> Result<(), PairError> {
        [&self.certificate, &self.key].into_iter().try_for_each(|path| {
            let path = next(path);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => Err(PairError { path, source }),
                _ => Ok(()),
            }
        })
    }
}

/// The file beside the one that it will replace.
fn next(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.next"))
}

fn keep(path: &Path, pem: &str, access: Access) -> Result<(), PairError> {
    write_new(path, pem, access).map_err(|source| PairError { path: path.to_owned(), source })
}

fn rename(path: &Path) -> Result<(), PairError> {
    fs::rename(next(path), path).map_err(|source| PairError { path: path.to_owned(), source })
}

/// Makes sure that a name is on disk.
fn settle(path: &Path) -> Result<(), PairError> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let settled = File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
    settled.map_err(|source| PairError { path: path.to_owned(), source })
}
