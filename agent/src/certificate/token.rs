//! The file with which a host enrols: a token in a line, and beneath it, when the operator put them there, the authorities
//! of the fleet in PEM. With them nothing else has to be brought to the host.

use std::{fmt, fs::File, io::Read as _, path::Path};

use fleetknock_runtime::{exit, tls::Certificate};

#[cfg(test)]
mod tests;

/// The longest file, in bytes.
const FILE_MAX: u64 = 64 * 1024;
/// The longest token, in bytes. Ours has 77; that of a Kubernetes service account 1.2 kB where names are usual, and 3.2 kB
/// where all of them are as long as they can be, signed with RSA of 4096 bits.
const TOKEN_MAX: usize = 4096;
/// How a block of PEM begins (RFC 7468).
const BEGIN: &str = "-----BEGIN ";

/// What the file says.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// What is shown to a controller.
    pub token: String,
    /// Whose word counts in the fleet, in PEM.
    pub authorities: Option<String>,
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile").field("authorities", &self.authorities.is_some()).finish_non_exhaustive()
    }
}

/// Why it cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFileError {
    /// The authorities in it are none.
    #[error("what stands beneath the token is not the certificate of an authority (CA): {reason}")]
    Authorities {
        /// Why.
        reason: String,
    },
    /// There is no token in it.
    #[error(
        "it does not begin with a line that holds a token and nothing else; make one: fleetknock enroll-token --host NAME"
    )]
    NoToken,
}

impl TokenFile {
    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read, or holds no token; with an exit code.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let unreadable = |error: std::io::Error| {
            let error = anyhow::anyhow!(
                "--enroll-token: cannot read {}: {error}; there is no certificate yet, and this file must hold a token to \
                 get one: fleetknock enroll-token --host NAME",
                path.display()
            );
            exit::coded(exit::NO_INPUT, error)
        };
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(FILE_MAX).read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(&text).map_err(|error| {
            exit::coded(exit::DATA, anyhow::anyhow!("--enroll-token: {}: {error}", path.display()))
        })
    }

    /// Whether a cluster made the token, and makes it anew before it ends: it is a JSON Web Token (RFC 7519), which has two
    /// dots, and ours has none.
    pub fn is_of_a_cluster(&self) -> bool {
        self.token.split('.').count() == 3
    }

    /// Reads its text.
    ///
    /// # Errors
    /// When it holds no token, or something else than authorities after it.
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        let text = text.trim();
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let token = first.trim_end();
        let odd = |c: char| c.is_whitespace() || c.is_control() || !c.is_ascii();
        if token.is_empty() || token.len() > TOKEN_MAX || token.contains(odd) || token.starts_with(BEGIN) {
            return Err(TokenFileError::NoToken);
        }
        let rest = rest.trim();
        if rest.is_empty() {
            return Ok(Self { token: token.to_owned(), authorities: None });
        }
        check_authorities(rest).map_err(|reason| TokenFileError::Authorities { reason })?;
        Ok(Self { token: token.to_owned(), authorities: Some(format!("{rest}\n")) })
    }
}

/// Whether a PEM text holds authorities and no other certificate.
///
/// # Errors
/// The reason why not.
pub(super) fn check_authorities(pem: &str) -> Result<(), String> {
    let certificates = Certificate::from_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
    match certificates.iter().find(|certificate| !certificate.is_authority) {
        Some(other) => Err(format!("'{}' is no authority", other.subject)),
        None => Ok(()),
    }
}
