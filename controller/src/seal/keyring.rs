//! Seals values and opens them. Pure: nonces are arguments.
//!
//! A sealed value is a JSON document like every other record, of a format of its own, so that a build that knows nothing
//! of seals refuses it and says that it is too old:
//!
//! ```json
//! {"format":2,"sealed":{"key":"ID","nonce":"base64 of 24 bytes","text":"base64 of ciphertext and tag"}}
//! ```
//!
//! The cipher is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), whose nonces are long enough to be drawn at random. The
//! fleet, the record's key in the store and the key's name are authenticated with it, so that nothing sealed opens
//! anywhere but where it was written. That it is the latest that was written there is not: who can write to the store
//! can put back an older one.

use bytes::Bytes;
use chacha20poly1305::{AeadInOut as _, Key, KeyInit as _, XChaCha20Poly1305, XNonce};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::key::{KeyId, SealKey};

/// The format of a sealed value. A record in the clear has 1.
pub const FORMAT: u32 = 2;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// The most keys of one ring; a rotation needs two.
pub const KEYS_MAX: usize = 16;

/// The keys of a fleet: the first seals, all open. Without any, values stay in the clear.
#[derive(Debug)]
pub struct Keyring {
    fleet: String,
    keys: Vec<SealKey>,
}

/// What a value of the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not sealed.
    Clear,
    /// Sealed, with the key of this name.
    Sealed(KeyId),
    /// Neither: no record at all, a newer one, or a seal that is not whole.
    Strange,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: u32,
    sealed: SealedText,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedText {
    key: KeyId,
    nonce: String,
    text: String,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Keyring {
    /// The keys for the fleet of this name.
    ///
    /// # Errors
    /// [`KeyringError`] for too many, or two of one name.
    pub fn new(fleet: &str, keys: Vec<SealKey>) -> Result<Self, KeyringError> {
        if keys.len() > KEYS_MAX {
            return Err(KeyringError::Many(keys.len()));
        }
        for (index, key) in keys.iter().enumerate() {
            if keys.iter().take(index).any(|other| other.id() == key.id()) {
                return Err(KeyringError::Twice(key.id().clone()));
            }
        }
        Ok(Self { fleet: fleet.to_owned(), keys })
    }

    /// The name of the key that seals, if there is one.
    pub fn first(&self) -> Option<&KeyId> {
        self.keys.first().map(SealKey::id)
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Seals what shall lie under a key of the store; the same bytes when there is no key to seal with. No nonce may
    /// ever be used twice.
    ///
    /// # Errors
    /// When it is longer than the cipher takes (256 GiB).
    pub fn seal(&self, place: &str, plain: &Bytes, nonce: [u8; NONCE_BYTES]) -> Result<Bytes, SealError> {
        let Some(key) = self.keys.first() else { return Ok(plain.clone()) };
        let mut text = plain.to_vec();
        let bound = self.bound(key.id(), place);
        cipher(key).encrypt_in_place(&XNonce::from(nonce), &bound, &mut text).map_err(|_| SealError)?;
        let sealed =
            SealedText { key: key.id().clone(), nonce: BASE64.encode(&nonce), text: BASE64.encode(&text) };
        serde_json::to_vec(&Envelope { format: FORMAT, sealed }).map(Bytes::from).map_err(|_| SealError)
    }

    /// What was sealed under a key of the store. A value that is not sealed is returned as it is.
    ///
    /// # Errors
    /// [`OpenError`]; it tells the key's name and nothing of the contents.
    pub fn open(&self, place: &str, value: &Bytes) -> Result<Bytes, OpenError> {
        if format_of(value) != Some(FORMAT) {
            return Ok(value.clone());
        }
        let Envelope { sealed, .. } = serde_json::from_slice(value).map_err(|_| OpenError::Torn)?;
        let Some(key) = self.keys.iter().find(|key| *key.id() == sealed.key) else {
            return Err(OpenError::UnknownKey(sealed.key));
        };
        let nonce = BASE64.decode(sealed.nonce.as_bytes()).map_err(|_| OpenError::Torn)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| OpenError::Torn)?;
        let mut text = BASE64.decode(sealed.text.as_bytes()).map_err(|_| OpenError::Torn)?;
        let bound = self.bound(&sealed.key, place);
        match cipher(key).decrypt_in_place(&XNonce::from(nonce), &bound, &mut text) {
            Ok(()) => Ok(Bytes::from(text)),
            Err(_) => Err(OpenError::Refused(sealed.key)),
        }
    }

    /// What is authenticated with the text. No part can hold the NUL between the parts: fleets, keys of the store and
    /// names of keys are printable ASCII.
    fn bound(&self, key: &KeyId, place: &str) -> Vec<u8> {
        format!("fleetknock-seal\0{FORMAT}\0{key}\0{}\0{place}", self.fleet).into_bytes()
    }
}

/// What a value is, as far as can be seen from outside.
pub fn state_of(value: &[u8]) -> State {
    match format_of(value) {
        Some(format) if format < FORMAT => State::Clear,
        Some(FORMAT) => match serde_json::from_slice::<Envelope>(value) {
            Ok(envelope) => State::Sealed(envelope.sealed.key),
            Err(_) => State::Strange,
        },
        _ => State::Strange,
    }
}

fn format_of(value: &[u8]) -> Option<u32> {
    serde_json::from_slice::<Format>(value).ok().map(|found| found.format)
}

fn cipher(key: &SealKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(<&Key>::from(key.bytes()))
}

/// Something too long to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be sealed: it is too long")]
pub struct SealError;

/// Why keys make no ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// Too many.
    #[error(
        "{0} keys are more than {KEYS_MAX}: reseal with the first, and leave out those that seal nothing"
    )]
    Many(usize),
    /// Two of one name.
    #[error("two keys have the ID '{0}': each needs its own, so that it is known which of them seals what")]
    Twice(KeyId),
}

/// Why a sealed value cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum OpenError {
    /// The ring has the key, and it does not fit.
    #[error(
        "key '{0}' of --seal-key does not open it: it was sealed with another key of that ID, for another --fleet or \
         another record, or was changed; give the right key, or restore the record from a backup"
    )]
    Refused(KeyId),
    /// It is not whole.
    #[error("it is sealed, but not whole: restore it from a backup")]
    Torn,
    /// The ring has no such key.
    #[error(
        "it is sealed with key '{0}', which is not among those of --seal-key: add that key after the first"
    )]
    UnknownKey(KeyId),
}

#[cfg(test)]
mod tests;
