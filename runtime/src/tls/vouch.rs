//! The authorities that are trusted here, for others to trust them too, and whether they vouch for a certificate.

use std::time::{SystemTime, UNIX_EPOCH};

use pem::{EncodeConfig, LineEnding, Pem, encode_many_config};
use rustls::{pki_types::UnixTime, server::WebPkiClientVerifier};

use super::{Material, certificate::ders, provider, words};

#[cfg(test)]
mod tests;

/// Why whoever trusts the same authorities would not take a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotVouchedFor {
    reason: String,
}

impl Material {
    /// The authorities in PEM: the certificates alone, whatever else stands in the files.
    pub fn authorities_pem(&self) -> String {
        let blocks: Vec<_> =
            self.authority_ders.iter().map(|der| Pem::new("CERTIFICATE", der.to_vec())).collect();
        encode_many_config(&blocks, EncodeConfig::new().set_line_ending(LineEnding::LF))
    }

    /// Whether a server that trusts these authorities would let a client in with this certificate, in PEM: the
    /// certificate, then what leads up to an authority.
    ///
    /// # Errors
    /// The reason against it, in plain words.
    pub fn vouch(&self, pem: &[u8], now: SystemTime) -> Result<(), NotVouchedFor> {
        let because = |reason: String| NotVouchedFor { reason };
        let chain = ders(pem).map_err(|error| because(error.to_string()))?;
        let Some((first, rest)) = chain.split_first() else { return Err(because("it is empty".to_owned())) };
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider())
            .build()
            .map_err(|error| because(error.to_string()))?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        match verifier.verify_client_cert(first, rest, UnixTime::since_unix_epoch(since)) {
            Ok(_) => Ok(()),
            Err(error) => Err(because(words::of(&error))),
        }
    }
}
