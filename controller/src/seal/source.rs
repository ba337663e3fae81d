//! Where seal keys come from: files that others cannot read, or environment variables. Never the command line, which
//! every process of the machine can read.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{KeyringError, SealKey, SealKeyError, key::LINE_WORD};
use crate::config::{EtcdSettingsError, etcd::read_file};

/// The setting that names the sources.
pub const FLAG: &str = "--seal-key";
/// The longest file: one line of at most some 100 bytes.
const FILE_BYTES_MAX: u64 = 1024;
const ENVIRONMENT: &str = "env:";
/// Base64 of 32 bytes, without padding.
const SECRET_CHARS: usize = 43;

/// Where one key is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Environment(String),
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "{ENVIRONMENT}{name}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Reads the keys that `--seal-key` names, in their order.
///
/// # Errors
/// [`KeySourceError`] names the source and the remedy, and never what it holds.
pub fn read(
    sources: &[String],
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<SealKey>, KeySourceError> {
    let key = |(position, text): (usize, &String)| {
        if is_key(text) {
            return Err(KeySourceError::Given(position));
        }
        let source = match text.strip_prefix(ENVIRONMENT) {
            Some(name) => Source::Environment(name.to_owned()),
            None => Source::File(PathBuf::from(text)),
        };
        source.read(environment)
    };
    (1..).zip(sources).map(key).collect()
}

impl Source {
    fn read(&self, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<SealKey, KeySourceError> {
        let text = match self {
            Self::File(path) => of_file(path)?,
            Self::Environment(name) => {
                let text = environment(name).filter(|text| !text.is_empty());
                let text = text.ok_or_else(|| KeySourceError::Unset(name.clone()))?;
                // What is not UTF-8 is no key.
                Zeroizing::new(text.into_encoded_bytes())
            }
        };
        let content = |source| KeySourceError::Content { place: self.to_string(), source };
        let line = std::str::from_utf8(&text).map_err(|_| content(SealKeyError::Form))?;
        SealKey::parse(line).map_err(content)
    }
}

fn of_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeySourceError> {
    Ok(Zeroizing::new(read_file(FLAG, path, FILE_BYTES_MAX, true)?))
}

/// Whether somebody gave a key itself, which then must not be repeated.
fn is_key(text: &str) -> bool {
    let is_secret = |word: &str| {
        let digits = word.trim_end_matches('=');
        digits.len() == SECRET_CHARS
            && digits.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
    };
    text.contains(LINE_WORD) || text.split_whitespace().any(is_secret)
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySourceError {
    /// A source holds no key.
    #[error("{FLAG} {place}: {source}")]
    Content {
        /// Which.
        place: String,
        /// Why not.
        source: SealKeyError,
    },
    /// A file cannot be read, or others can read it too.
    #[error(transparent)]
    File(#[from] EtcdSettingsError),
    /// The key itself stands on the command line, or where a file's name should.
    #[error(
        "{FLAG}: the value at place {0} is a key itself, where every process of this machine may read it; put it into \
         a file of mode 0600 and name the file, or into an environment variable and write env:NAME. It is no longer a \
         secret: make another one with `fleetknock-controller seal-key`"
    )]
    Given(usize),
    /// The keys make no ring.
    #[error("{FLAG}: {0}")]
    Ring(#[from] KeyringError),
    /// An environment variable is not there.
    #[error("{FLAG} env:{0}: the environment variable {0} is not set")]
    Unset(String),
}

#[cfg(test)]
mod tests;
