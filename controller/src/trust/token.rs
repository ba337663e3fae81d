//! The secret text of a token: how it is spelt, made, and judged.
//!
//! ```text
//!   fkt_0123456789abcdef_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyputcub
//!   ─┬─ ───────┬──────── ──────────────────────────┬─────────────────────────────
//!    │         id, no secret                       256 random bits and 24 of a checksum
//!    fkt: a user's token, fke: a host's, with which its agent enrols
//! ```
//!
//! The last part is base32 (RFC 4648 section 6, lower case, no padding) of 32 random bytes and the first three bytes of
//! SHA-256 over all that stands before. So there is one spelling of each, a mistyped one is told apart from a revoked one
//! without asking anybody, and programs that look for secrets in files know one when they see it.
//!
//! Pure. The store holds the SHA-256 of the 32 bytes; what is shown is hashed as it is parsed, and only the hash goes on.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use fleetknock_core::time::Timestamp;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::record::{Holder, TokenId, TokenRecord};

#[cfg(test)]
mod tests;

/// Random bytes of a secret.
pub const RANDOM: usize = 32;
/// Bytes of its checksum: of mistyped ones, one in 16 million is not told.
const CHECKSUM: usize = 3;
/// Characters of every token's text.
pub const LENGTH: usize = 3 + 1 + 16 + 1 + (RANDOM + CHECKSUM) * 8 / 5;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A user's calls.
    User,
    /// The first certificate of a host.
    Host,
}

impl Kind {
    /// As its text begins.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::User => "fkt",
            Self::Host => "fke",
        }
    }

    /// Of this holder's token.
    pub fn of(holder: &Holder) -> Self {
        match holder {
            Holder::Host(_) => Self::Host,
            Holder::User { .. } => Self::User,
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::User => "have an admin make another one: fleetknock token create",
            Self::Host => "have an admin make another one: fleetknock enroll-token",
        }
    }
}

/// The text that a token's holder shows. Wiped when dropped, and never in Debug output.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Of these random bytes, and the hash that its record keeps.
    pub fn mint(kind: Kind, id: &TokenId, random: &[u8; RANDOM]) -> (Self, String) {
        let begin = format!("{}_{id}_", kind.prefix());
        let mut bytes = Zeroizing::new([0; RANDOM + CHECKSUM]);
        bytes[..RANDOM].copy_from_slice(random);
        bytes[RANDOM..].copy_from_slice(&checksum(&begin, random));
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        text.push_str(&begin);
        BASE32_NOPAD.encode_append(&bytes[..], &mut text);
        text.make_ascii_lowercase();
        (Self(text), HEXLOWER.encode(&Sha256::digest(random)))
    }

    /// For the one answer that tells it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What somebody shows: which token it claims to be, and the hash of its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented {
    kind: Kind,
    id: TokenId,
    hash: [u8; 32],
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({}_{})", self.kind.prefix(), self.id)
    }
}

impl Presented {
    /// From the text; it is not kept.
    ///
    /// # Errors
    /// When it is no token's, or mistyped.
    pub fn parse(text: &[u8]) -> Result<Self, TokenError> {
        let (begin, secret) =
            text.split_at_checked(LENGTH - (RANDOM + CHECKSUM) * 8 / 5).ok_or(TokenError::Malformed)?;
        let begin = std::str::from_utf8(begin).map_err(|_| TokenError::Malformed)?;
        let mut parts = begin.split('_');
        let (Some(prefix), Some(id), Some(""), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed);
        };
        let kinds = [Kind::User, Kind::Host];
        let kind = kinds.into_iter().find(|kind| kind.prefix() == prefix).ok_or(TokenError::Malformed)?;
        let id: TokenId = id.parse().map_err(|_| TokenError::Malformed)?;
        if text.len() != LENGTH || secret.iter().any(u8::is_ascii_uppercase) {
            return Err(TokenError::Malformed);
        }
        let secret = Zeroizing::new(secret.to_ascii_uppercase());
        let mut bytes = Zeroizing::new([0; RANDOM + CHECKSUM]);
        let decoded = BASE32_NOPAD.decode_mut(&secret, &mut bytes[..]);
        if decoded.ok() != Some(RANDOM + CHECKSUM) {
            return Err(TokenError::Malformed);
        }
        let (random, check) = bytes.split_at(RANDOM);
        if checksum(begin, random) != *check {
            return Err(TokenError::Malformed);
        }
        Ok(Self { kind, id, hash: Sha256::digest(random).into() })
    }

    /// Which token it claims to be.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// Judges it by the record of that token, when there is one.
    ///
    /// # Errors
    /// When it is not that token, is for something else, or is over.
    pub fn judge(&self, kind: Kind, record: Option<&TokenRecord>, now: Timestamp) -> Result<(), TokenError> {
        if self.kind != kind {
            return Err(TokenError::OtherKind { wanted: kind });
        }
        let record = record.ok_or(TokenError::Unknown { kind })?;
        if record.id != self.id || Kind::of(&record.holder) != self.kind {
            return Err(TokenError::Unknown { kind });
        }
        // Whatever is no hash equals none.
        let hash = HEXLOWER.decode(record.hash.as_bytes()).unwrap_or_default();
        if !bool::from(hash.ct_eq(&self.hash)) {
            return Err(TokenError::Wrong { kind });
        }
        if record.expires <= now {
            return Err(TokenError::Expired { kind, at: record.expires });
        }
        Ok(())
    }
}

fn checksum(begin: &str, random: &[u8]) -> [u8; CHECKSUM] {
    let hash = Sha256::new().chain_update(begin).chain_update(random).finalize();
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&hash[..CHECKSUM]);
    sum
}

/// Of a token that is not there, and of one whose secret is another.
const NOT_KNOWN: &str = "the token is not known: it ended, was revoked or spent, or is another fleet's";

/// Why a token lets nobody in. Somebody who guesses learns nothing from it: which tokens there are is no secret, and a wrong
/// one is told as an unknown one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Its time is up; only told to who has its secret.
    #[error("the token ended at {at}; {}", .kind.remedy())]
    Expired {
        /// Of which kind.
        kind: Kind,
        /// When.
        at: Timestamp,
    },
    /// It is none, or mistyped.
    #[error(
        "this is no token, or not all of it: a user's is fkt_, a host's fke_, 16 digits, _ and 56 letters and digits"
    )]
    Malformed,
    /// It is for something else.
    #[error(
        "the token is of the other kind: one that begins with fkt_ is for users, one with fke_ for a host's agent to enrol; \
         this takes {}_",
        .wanted.prefix()
    )]
    OtherKind {
        /// What it should be.
        wanted: Kind,
    },
    /// There is no such token.
    #[error("{}; {}", NOT_KNOWN, .kind.remedy())]
    Unknown {
        /// Of which kind.
        kind: Kind,
    },
    /// Its secret is another one.
    #[error("{}; {}", NOT_KNOWN, .kind.remedy())]
    Wrong {
        /// Of which kind.
        kind: Kind,
    },
}
