//! A cluster that knows on which of its machines somebody runs, and gives it a token that says so: its word takes the place
//! of a token that an admin made.

use std::fmt::Debug;

use async_trait::async_trait;
use fleetknock_core::host::HostName;

#[cfg(test)]
mod tests;

/// The longest token of a cluster that is passed on to it, in bytes. Computed from its claims, one of a pod whose names are usual has 1.2 kB,
/// one whose names are all as long as they can be, signed with RSA of 4096 bits, 3.2 kB.
pub const TOKEN_MAX: usize = 4096;

/// What a cluster says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The machine on which its holder runs.
    pub host: HostName,
    /// Who that is, for the audit trail.
    pub holder: String,
}

/// Why there is no word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The cluster cannot be asked now.
    #[error("{reason}")]
    Away {
        /// Why.
        reason: String,
    },
    /// The token is not good, or not for this.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

/// Who is asked.
#[async_trait]
pub trait Cluster: Debug + Send + Sync {
    /// What the cluster says of a token that [has the form](has_form) of one.
    ///
    /// # Errors
    /// When it does not vouch for it, or cannot be asked.
    async fn word(&self, token: &str) -> Result<Word, ClusterError>;
}

/// Whether a text has the form of a cluster's token: a signed JSON Web Token in its compact form (RFC 7515 section 3.1),
/// whose header is a JSON object. That it has says nothing about whether it is good.
pub fn has_form(token: &str) -> bool {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let base64url = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    // Base64 of an opening brace and a quotation mark.
    header.starts_with("eyJ") && [header, claims, signature].into_iter().all(base64url)
}
