//! The flags for TLS, the same for every program: either a certificate, its key and the authorities, or plain text.

use std::path::PathBuf;

use clap::Args;

use super::{Files, OwnFiles, UriRule};
use crate::config::ConfigError;

#[cfg(test)]
mod tests;

/// `--tls-cert`, `--tls-key` and `--tls-ca`.
// A group of clap's would have the name of the struct, as the settings of a program have that it is part of.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct Settings {
    /// The own certificate in PEM, and after it what leads up to an authority that others know; followed as it changes
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Its private key in PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// The certificates of the authorities (CA) that are trusted, in PEM; both while one replaces the other
    #[arg(long, global = true, value_name = "FILE", value_delimiter = ',')]
    pub tls_ca: Vec<PathBuf>,
}

impl Settings {
    /// The files to use; none for plain text. What the own certificate must say is for `rule` to judge.
    ///
    /// # Errors
    /// When neither is chosen, or both, or a file is not named.
    pub fn files(&self, insecure: bool, rule: UriRule) -> Result<Option<Files>, ConfigError> {
        let refuse = |reason: String| Err(ConfigError::Flags { reason });
        let given =
            [self.tls_cert.as_ref(), self.tls_key.as_ref(), self.tls_ca.first()].map(|path| path.is_some());
        let named = |wanted: bool| {
            let names = ["--tls-cert", "--tls-key", "--tls-ca"].into_iter().zip(given);
            names
                .filter(|(_, given)| *given == wanted)
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
                .join(" and ")
        };
        match (&self.tls_cert, &self.tls_key, insecure) {
            (Some(certificate), Some(key), false) if given == [true; 3] => {
                let own = OwnFiles { certificate: certificate.clone(), key: key.clone(), rule };
                Ok(Some(Files { own: Some(own), authorities: self.tls_ca.clone() }))
            }
            _ if insecure && given == [false; 3] => Ok(None),
            _ if insecure => refuse(format!(
                "--insecure and {} are both given: the one is plain text, the other TLS; choose one of them",
                named(true)
            )),
            _ if given == [false; 3] => refuse(
                "--tls-cert, --tls-key and --tls-ca are missing: name the files for mutual TLS (fleetknock pki makes \
                 them), or give --insecure for plain text in a lab"
                    .to_owned(),
            ),
            _ => refuse(format!(
                "with {} give {} too: mutual TLS takes a certificate, its key and the authorities (fleetknock pki makes \
                 them)",
                named(true),
                named(false)
            )),
        }
    }

    /// The files of a client that shows something other than a certificate, which `instead` names, such as `a token
    /// (--token-file)`: the authorities alone.
    ///
    /// # Errors
    /// When a certificate is given too, the authorities are not, or it is to be plain text, in which what is shown could
    /// be read by anybody on the way.
    pub fn authorities_only(&self, insecure: bool, instead: &str) -> Result<Files, ConfigError> {
        let refuse = |reason: String| Err(ConfigError::Flags { reason });
        if insecure {
            return refuse(format!(
                "--insecure and {instead} are both given: in plain text anybody on the way could read it; choose one of \
                 them"
            ));
        }
        if self.tls_cert.is_some() || self.tls_key.is_some() {
            return refuse(format!(
                "{instead} and a certificate (--tls-cert, --tls-key) are both given; choose one of them"
            ));
        }
        if self.tls_ca.is_empty() {
            return refuse(format!(
                "with {instead} give --tls-ca too: the authorities say who may be shown it (fleetknock pki makes one)"
            ));
        }
        Ok(Files { own: None, authorities: self.tls_ca.clone() })
    }
}
