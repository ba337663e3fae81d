//! How the programs of a fleet know each other: by certificates, or not at all.

use anyhow::Result;

use crate::pki::{Identity, Pki};

/// How the programs of a fleet know each other.
#[derive(Debug)]
pub(super) enum Trust {
    /// They do not: plain text.
    Plain,
    /// Mutual TLS.
    Mutual {
        /// Who vouches for them.
        pki: Pki,
        /// Whom the lab itself is when it asks.
        operator: Identity,
    },
}

impl Trust {
    /// By this authority.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub(super) fn mutual(pki: &Pki) -> Result<Self> {
        Ok(Self::Mutual { pki: pki.clone(), operator: pki.user("lab", "admin")? })
    }

    /// The scheme of a controller's URL.
    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Mutual { .. } => "https",
        }
    }

    /// What the agent of this host shows.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub(super) fn host(&self, name: &str) -> Result<Option<Identity>> {
        match self {
            Self::Plain => Ok(None),
            Self::Mutual { pki, .. } => pki.host(name).map(Some),
        }
    }
}

/// The flags of a program that shows this; without, it speaks plain text.
pub(super) fn flags(identity: Option<&Identity>) -> Vec<String> {
    identity.map_or_else(|| vec!["--insecure".to_owned()], Identity::flags)
}
