//! A seal key: 32 random bytes with a name, and the one line of text as which it is kept.

use std::{fmt, str::FromStr};

use data_encoding::BASE64;
use rand::{TryRngCore as _, rngs::OsRng};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

/// What the line of a key begins with: the kind of secret, and the number of this form.
pub const LINE_WORD: &str = "fleetknock-seal-1";
/// The longest name of a key in bytes.
pub const ID_MAX: usize = 32;
/// Bytes of a key of XChaCha20-Poly1305.
pub const KEY_BYTES: usize = 32;

/// Names a key, 1 to [`ID_MAX`] ASCII letters, digits, hyphens, dots and underscores. No secret: it stands beside what
/// the key seals.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    /// Of these random bytes, such as `key-0badc0de`.
    pub fn random(random: u32) -> Self {
        Self(format!("key-{random:08x}"))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = SealKeyError;

    fn from_str(text: &str) -> Result<Self, SealKeyError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let good = (1..=ID_MAX).contains(&text.len()) && text.bytes().all(fits);
        good.then(|| Self(text.to_owned())).ok_or(SealKeyError::Id)
    }
}

impl TryFrom<String> for KeyId {
    type Error = SealKeyError;

    fn try_from(text: String) -> Result<Self, SealKeyError> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

/// Seals and opens. Wiped from memory when it is dropped; `Debug` shows its name only.
#[derive(Clone)]
pub struct SealKey {
    id: KeyId,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl SealKey {
    /// Of these bytes, which must be random.
    pub fn new(id: KeyId, bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self { id, bytes }
    }

    /// A new one, of the operating system's random bytes.
    ///
    /// # Errors
    /// [`SealKeyError::Random`] when it has none.
    pub fn generate(id: KeyId) -> Result<Self, SealKeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        OsRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|_| SealKeyError::Random)?;
        Ok(Self { id, bytes })
    }

    /// Its name.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Reads the one line as which a key is kept: `fleetknock-seal-1 ID BASE64`, base64 of RFC 4648 section 4 with
    /// padding. Space around it, such as the newline that editors leave, is no part of it.
    ///
    /// # Errors
    /// When it is something else. No error repeats any of it.
    pub fn parse(text: &str) -> Result<Self, SealKeyError> {
        let mut words = text.trim().split(' ');
        let (Some(LINE_WORD), Some(id), Some(secret), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(SealKeyError::Form);
        };
        let id = id.parse()?;
        // Longer text cannot be a key, and what is decoded is bounded.
        if secret.len() > 2 * KEY_BYTES {
            return Err(SealKeyError::Secret);
        }
        let mut decoded = BASE64.decode(secret.as_bytes()).map_err(|_| SealKeyError::Secret)?;
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let fits = decoded.len() == KEY_BYTES;
        if fits {
            bytes.copy_from_slice(&decoded);
        }
        decoded.zeroize();
        if fits { Ok(Self { id, bytes }) } else { Err(SealKeyError::Secret) }
    }

    /// The line that [`SealKey::parse`] reads, without a newline.
    pub fn line(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(BASE64.encode(self.bytes.as_slice()));
        Zeroizing::new(format!("{LINE_WORD} {} {}", self.id, secret.as_str()))
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why some text is no seal key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealKeyError {
    /// Something else altogether.
    #[error(
        "it must hold one key on one line, '{LINE_WORD} ID BASE64', as `fleetknock-controller seal-key` prints it"
    )]
    Form,
    /// The name.
    #[error("a key's ID has 1 to {ID_MAX} letters, digits, hyphens, dots and underscores")]
    Id,
    /// The secret part.
    #[error("the secret after the key's ID is not base64 of {KEY_BYTES} bytes: was the line cut?")]
    Secret,
    /// There are no random bytes to be had.
    #[error("the operating system gives no random bytes")]
    Random,
}

#[cfg(test)]
mod tests;
