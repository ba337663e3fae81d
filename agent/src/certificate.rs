//! The certificate of this host: got with a token once, renewed before it ends, its key never out of this host.
//!
//! ```text
//!   token ──enrol──▶ key, certificate, authorities in files ──followed──▶ connections
//!                        ▲        │ two thirds of its life
//!                        └─renew──┘ with a new key each time
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use fleetknock_runtime::{
    exit,
    tls::{
        FileError, Files,
        authority::{Access, AuthorityError, PrivateKey, Staged},
    },
};

use crate::link::office::Answer;

pub mod enrol;
pub mod pair;
pub mod policy;
pub mod renew;
pub mod token;

use pair::{Pair, PairError};

/// What became of the authorities that a controller named.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Authorities {
    /// They are those that this host trusts.
    Same,
    /// They took the place of those.
    Taken,
    /// They are others, and the files that name those of this host cannot be written.
    Left { reason: String },
}

/// Why an answer was not taken.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("the authorities that came along cannot be used: {reason}")]
    Authorities { reason: String },
    #[error("the certificate that came cannot be used: {0}")]
    Certificate(#[from] FileError),
    #[error(transparent)]
    Key(#[from] AuthorityError),
    #[error(transparent)]
    Written(#[from] PairError),
}

impl TakeError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Written(_) => exit::IO,
            _ => exit::DATA,
        }
    }
}

/// A new key, kept on disk; and the request to sign for it.
fn prepare(pair: &Pair) -> Result<String, TakeError> {
    let key = PrivateKey::generate()?;
    pair.keep_key(key.pem())?;
    Ok(key.request()?)
}

/// Puts what a controller answered in its place, when it is for this host and for the key that was kept.
fn take(answer: &Answer, files: &Files, pair: &Pair) -> Result<Authorities, TakeError> {
    let Some(own) = &files.own else { return Ok(Authorities::Same) };
    token::check_authorities(&answer.authorities).map_err(|reason| TakeError::Authorities { reason })?;
    pair.keep_certificate(&answer.certificate)?;
    let next = Files { own: Some(pair.next(own)), authorities: files.authorities.clone() };
    let trusted = next.load(SystemTime::now())?.authorities_pem();
    let authorities = if trusted == answer.authorities {
        Authorities::Same
    } else {
        match write_authorities(&files.authorities, &answer.authorities) {
            Ok(()) => Authorities::Taken,
            Err(error) => Authorities::Left { reason: error.to_string() },
        }
    };
    pair.commit()?;
    Ok(authorities)
}

/// Replaces the one file of authorities; of several, nobody knows which.
fn write_authorities(paths: &[PathBuf], pem: &str) -> io::Result<()> {
    match paths {
        [path] if is_kept_by_kubernetes(path) => {
            Err(io::Error::other("--tls-ca is in a volume that Kubernetes keeps up to date"))
        }
        [path] => Staged::new(path, pem, Access::Everybody)?.commit(),
        _ => Err(io::Error::other("--tls-ca names several files")),
    }
}

/// Whether a file lies in a volume of a ConfigMap, a Secret or a projection. There it is a link through `..data` to a
/// directory with the time in its name, all of which is swapped as one (kubelet's AtomicWriter): what is written there is
/// refused, or lost.
fn is_kept_by_kubernetes(path: &Path) -> bool {
    let swapped = |part: std::path::Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b"..");
    fs::canonicalize(path).is_ok_and(|path| path.components().any(swapped))
}

/// Makes good what a crash cut off.
fn recover(files: &Files) -> Result<(), PairError> {
    let Some(own) = &files.own else { return Ok(()) };
    let made_good = Pair::of(own).recover(own, |candidate| {
        let candidate = Files { own: Some(candidate.clone()), authorities: files.authorities.clone() };
        candidate.load(SystemTime::now()).is_ok()
    })?;
    if made_good {
        tracing::info!("a renewal of the certificate that had been cut off was made good");
    }
    Ok(())
}

/// The certificate that lies in a file, as text; nothing when there is none.
fn read_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
