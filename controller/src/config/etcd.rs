//! The settings for an etcd: how to reach it, as whom, and where in it the fleet's keys lie.
//!
//! Secrets come from files and never from the command line, which every process of the machine can read. A file with a
//! secret that others may read is refused.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::store::{
    EtcdTls, StoreError, StoreSpec,
    spec::{PREFIX_DEFAULT, PREFIX_MAX},
};

/// The largest certificate or key file. A chain of ten certificates has some 20 KiB.
const PEM_BYTES_MAX: u64 = 1024 * 1024;
/// The longest password file.
const PASSWORD_BYTES_MAX: u64 = 4096;
/// What a file with a secret may not grant: anything to others, and more than reading to the group.
const MODE_REFUSED: u32 = 0o037;
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// Of PKCS #8, and with EC or RSA in front, of SEC 1 and PKCS #1 (RFC 7468, RFC 5915).
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// How to use an etcd.
#[derive(Args, Clone, Debug)]
pub struct EtcdSettings {
    /// The authority that signed the certificates of etcd's members (PEM); needed for https
    #[arg(global = true, long = "etcd-ca", value_name = "FILE")]
    pub authority: Option<PathBuf>,

    /// The certificate to show to etcd (PEM), where it asks for one
    #[arg(global = true, long = "etcd-cert", value_name = "FILE")]
    pub certificate: Option<PathBuf>,

    /// The private key of that certificate (PEM), in a file that others cannot read
    #[arg(global = true, long = "etcd-key", value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// The user to log in to etcd as, where it has authentication on
    #[arg(global = true, long = "etcd-user", value_name = "NAME")]
    pub user: Option<String>,

    /// Holds that user's password and nothing else, in a file that others cannot read
    #[arg(global = true, long = "etcd-password-file", value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// Where in etcd fleets are kept: the keys of this one lie under PATHFLEET/
    #[arg(global = true, long = "etcd-prefix", value_name = "PATH", default_value = PREFIX_DEFAULT, value_parser = prefix)]
    pub prefix: String,
}

/// Why the settings for an etcd cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdSettingsError {
    /// It would have no effect.
    #[error("{flag} is for an etcd, but --store is {store}: leave {flag} out, or name an etcd")]
    NoEtcd {
        /// The setting.
        flag: &'static str,
        /// The store.
        store: String,
    },
    /// Two settings of which one alone is of no use.
    #[error("{given} is given without {missing}: give both or none")]
    Half {
        /// The one.
        given: &'static str,
        /// The other.
        missing: &'static str,
    },
    /// A file cannot be read.
    #[error("{flag} {}: {source}", path.display())]
    Unreadable {
        /// The setting.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file with a secret grants too much.
    #[error("{flag} {}: its mode {mode:04o} lets others at a secret; set it to 0640 or less", path.display())]
    Open {
        /// The setting.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file holds something else than it should.
    #[error("{flag} {}: {why}", path.display())]
    Content {
        /// The setting.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What, and what it should hold.
        why: String,
    },
    /// Together they make no store.
    #[error("--store: {0}")]
    Store(#[from] StoreError),
}

impl EtcdSettings {
    /// Completes the store that `--store` names with the fleet and with these settings, and reads the files.
    ///
    /// # Errors
    /// [`EtcdSettingsError`] names the setting and the remedy, and no secret.
    pub fn complete(&self, store: StoreSpec, fleet: &str) -> Result<StoreSpec, EtcdSettingsError> {
        let mut options = match store {
            StoreSpec::Etcd(options) => options,
            other => {
                return match self.first_given() {
                    Some(flag) => Err(EtcdSettingsError::NoEtcd { flag, store: other.to_string() }),
                    None => Ok(other),
                };
            }
        };
        options.fleet = fleet.to_owned();
        options.prefix.clone_from(&self.prefix);
        options.user = both(("--etcd-user", &self.user), ("--etcd-password-file", &self.password_file))?
            .map(|(name, file)| Ok::<_, EtcdSettingsError>((name.clone(), password(file)?)))
            .transpose()?;
        let identity = both(("--etcd-cert", &self.certificate), ("--etcd-key", &self.key))?
            .map(|(certificate, key)| {
                let certificate = pem("--etcd-cert", certificate, CERTIFICATE, false)?;
                Ok::<_, EtcdSettingsError>((certificate, pem("--etcd-key", key, PRIVATE_KEY, true)?))
            })
            .transpose()?;
        options.tls = match (&self.authority, identity) {
            (Some(authority), identity_pem) => {
                let authority_pem = pem("--etcd-ca", authority, CERTIFICATE, false)?;
                Some(EtcdTls { authority_pem, identity_pem })
            }
            (None, Some(_)) => {
                return Err(EtcdSettingsError::Half { given: "--etcd-cert", missing: "--etcd-ca" });
            }
            (None, None) => None,
        };
        options.check()?;
        Ok(StoreSpec::Etcd(options))
    }

    fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--etcd-ca", self.authority.is_some()),
            ("--etcd-cert", self.certificate.is_some()),
            ("--etcd-key", self.key.is_some()),
            ("--etcd-user", self.user.is_some()),
            ("--etcd-password-file", self.password_file.is_some()),
            ("--etcd-prefix", self.prefix != PREFIX_DEFAULT),
        ];
        given.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }
}

type Given<'a, T> = (&'static str, &'a Option<T>);

fn both<'a, A, B>(
    (one_flag, one): Given<'a, A>,
    (other_flag, other): Given<'a, B>,
) -> Result<Option<(&'a A, &'a B)>, EtcdSettingsError> {
    match (one, other) {
        (Some(one), Some(other)) => Ok(Some((one, other))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(EtcdSettingsError::Half { given: one_flag, missing: other_flag }),
        (None, Some(_)) => Err(EtcdSettingsError::Half { given: other_flag, missing: one_flag }),
    }
}

fn pem(flag: &'static str, path: &Path, begin: &str, secret: bool) -> Result<Vec<u8>, EtcdSettingsError> {
    let bytes = read_file(flag, path, PEM_BYTES_MAX, secret)?;
    if bytes.windows(begin.len()).any(|window| window == begin.as_bytes()) {
        return Ok(bytes);
    }
    let what = if secret { "private key" } else { "certificate" };
    Err(content(flag, path, format!("it holds no {what} in PEM (a line with {begin:?})")))
}

/// One line. The newline that editors put at its end is no part of the password.
fn password(path: &Path) -> Result<String, EtcdSettingsError> {
    const FLAG: &str = "--etcd-password-file";
    let bytes = read_file(FLAG, path, PASSWORD_BYTES_MAX, true)?;
    let text =
        String::from_utf8(bytes).map_err(|_| content(FLAG, path, "it is not UTF-8 text".to_owned()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\n', '\r', '\0']) {
        return Err(content(FLAG, path, "it must hold the password on one line and nothing else".to_owned()));
    }
    Ok(line.to_owned())
}

/// Reads a file that a setting names; one with a secret is refused when others can read it.
///
/// # Errors
/// [`EtcdSettingsError`] names the setting, the file and the remedy, and nothing that the file holds.
pub(crate) fn read_file(
    flag: &'static str,
    path: &Path,
    bytes_max: u64,
    secret: bool,
) -> Result<Vec<u8>, EtcdSettingsError> {
    let unreadable = |source| EtcdSettingsError::Unreadable { flag, path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // Of the open file, so that it cannot be another one by the time it is read.
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if secret && mode & MODE_REFUSED != 0 {
        return Err(EtcdSettingsError::Open { flag, path: path.to_owned(), mode });
    }
    // Room for all of it, so that no half of a secret is left behind where it grew from.
    let mut bytes =
        Vec::with_capacity(usize::try_from(metadata.len().min(bytes_max) + 1).unwrap_or_default());
    let length = file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if length as u64 > bytes_max {
        return Err(content(flag, path, format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn content(flag: &'static str, path: &Path, why: String) -> EtcdSettingsError {
    EtcdSettingsError::Content { flag, path: path.to_owned(), why }
}

fn prefix(text: &str) -> Result<String, String> {
    crate::store::spec::check_path(text).map(|()| text.to_owned()).map_err(|_| {
        format!("write it like {PREFIX_DEFAULT}: it begins and ends with a slash and has at most {PREFIX_MAX} bytes")
    })
}

#[cfg(test)]
mod tests;
