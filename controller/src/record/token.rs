//! Tokens: with one a user calls the control service, or a host's agent gets its first certificate. The store holds the
//! hash of the secret, from which the secret cannot be had.

use std::{fmt, str::FromStr};

use fleetknock_core::{
    host::HostName,
    identity::{Role, UserName},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Names a token: 16 lower-case hexadecimal digits. No secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

/// Something that does not name a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is named by 16 lower-case hexadecimal digits")]
pub struct TokenIdError;

impl TokenId {
    /// Of these random bytes.
    pub fn new(random: u64) -> Self {
        Self(format!("{random:016x}"))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<Self, TokenIdError> {
        let is_hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if text.len() == 16 && is_hex { Ok(Self(text.to_owned())) } else { Err(TokenIdError) }
    }
}

impl TryFrom<String> for TokenId {
    type Error = TokenIdError;

    fn try_from(text: String) -> Result<Self, TokenIdError> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Holder {
    /// A host that has no certificate yet: good for one.
    Host(HostName),
    /// A user.
    User {
        /// Which one.
        name: UserName,
        /// What it may do.
        role: Role,
    },
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its name.
    pub id: TokenId,
    /// Whose it is.
    pub holder: Holder,
    /// SHA-256 of its secret, 64 hexadecimal digits. The secret has 256 random bits: a slow hash would add nothing.
    pub hash: String,
    /// When it was made.
    pub created: Timestamp,
    /// Until when it is good.
    pub expires: Timestamp,
    /// Who made it, as in an event's actor.
    pub created_by: String,
}
