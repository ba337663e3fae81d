//! How an operator names the store.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::StoreError;

/// Where fleets lie in an etcd when nobody named another place.
pub const PREFIX_DEFAULT: &str = "/fleetknock/";
/// The longest such place in bytes. With a fleet's name and a key it stays far below what etcd takes.
pub const PREFIX_MAX: usize = 256;
/// The fleet of an etcd store when nobody named one.
const FLEET_DEFAULT: &str = "default";
/// The longest name of a fleet in bytes, as for a DNS name (RFC 1035 section 2.3.4).
const FLEET_MAX: usize = 253;
/// The most endpoints; etcd clusters have three to seven members.
const ENDPOINTS_MAX: usize = 16;
const FORMS: &str = "embedded:DIR or etcd:URL[,URL...], such as embedded:/var/lib/fleetknock or \
                     etcd:http://10.0.0.1:2379,http://10.0.0.2:2379";

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreSpec {
    /// A directory of this machine, for one controller: `embedded:DIR`.
    Embedded {
        /// Made with mode 0700 when it does not exist.
        directory: PathBuf,
    },
    /// An etcd cluster, for one or several: `etcd:URL[,URL...]`.
    Etcd(EtcdOptions),
}

impl FromStr for StoreSpec {
    type Err = StoreError;

    fn from_str(given: &str) -> Result<Self, StoreError> {
        match given.split_once(':') {
            Some(("embedded", "")) => Err(refuse(given, "the directory is missing")),
            Some(("embedded", directory)) => Ok(Self::Embedded { directory: PathBuf::from(directory) }),
            Some(("etcd", urls)) => {
                let endpoints =
                    urls.split(',').map(|url| endpoint(given, url)).collect::<Result<Vec<_>, _>>()?;
                if endpoints.len() > ENDPOINTS_MAX {
                    return Err(refuse(given, &format!("at most {ENDPOINTS_MAX} endpoints")));
                }
                Ok(Self::Etcd(EtcdOptions::new(endpoints)))
            }
            _ => Err(refuse(given, "it names no kind of store")),
        }
    }
}

impl fmt::Display for StoreSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { directory } => write!(formatter, "embedded:{}", directory.display()),
            Self::Etcd(options) => write!(formatter, "etcd:{}", options.endpoints.join(",")),
        }
    }
}

/// How to reach an etcd cluster, and which part of it is this fleet's.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    /// Client URLs of the members, without a path.
    pub endpoints: Vec<String>,
    /// Where fleets lie: a path that begins and ends with a slash.
    pub prefix: String,
    /// All keys lie under the prefix and `FLEET/`. Lower-case letters, digits, hyphens and dots.
    pub fleet: String,
    /// Name and password, when the cluster has authentication on. The user's role needs to read and write the keys
    /// under the fleet's prefix, nothing else.
    pub user: Option<(String, String)>,
    /// For `https` endpoints.
    pub tls: Option<EtcdTls>,
}

impl EtcdOptions {
    /// Without authentication, for the fleet `default`.
    pub fn new(endpoints: Vec<String>) -> Self {
        let (prefix, fleet) = (PREFIX_DEFAULT.to_owned(), FLEET_DEFAULT.to_owned());
        Self { endpoints, prefix, fleet, user: None, tls: None }
    }

    /// Refuses what [`StoreSpec`]'s parser would not have made.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] names the part.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.endpoints.is_empty() {
            return Err(StoreError::Invalid("no etcd endpoint is given".to_owned()));
        }
        check_path(&self.prefix)?;
        let fits =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        if self.fleet.is_empty() || self.fleet.len() > FLEET_MAX || !self.fleet.bytes().all(fits) {
            return Err(StoreError::Invalid(format!(
                "fleet {:?}: 1 to {FLEET_MAX} lower-case letters, digits, hyphens and dots",
                self.fleet
            )));
        }
        for url in &self.endpoints {
            let secure = url.starts_with("https://");
            if secure != self.tls.is_some() {
                return Err(StoreError::Invalid(format!(
                    "etcd endpoint {url:?}: {}",
                    if secure {
                        "https needs --etcd-ca"
                    } else {
                        "TLS settings such as --etcd-ca need an https URL"
                    }
                )));
            }
        }
        Ok(())
    }
}

/// Never prints the password.
impl fmt::Debug for EtcdOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("fleet", &self.fleet)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

/// What an `https` endpoint is checked by and checks us by. All in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdTls {
    /// The authority that signed the members' certificates.
    pub authority_pem: Vec<u8>,
    /// Our certificate chain and its private key, for clusters that ask for one.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
}

/// Refuses what is no place in an etcd: printable ASCII, a slash at both ends, no empty part.
///
/// # Errors
///
/// [`StoreError::Invalid`].
pub fn check_path(prefix: &str) -> Result<(), StoreError> {
    let fits = prefix.len() <= PREFIX_MAX
        && prefix.starts_with('/')
        && prefix.ends_with('/')
        && !prefix.contains("//")
        && prefix.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        return Ok(());
    }
    // Cut, not to print something unbounded.
    let shown: String = prefix.chars().take(PREFIX_MAX).collect();
    Err(StoreError::Invalid(format!(
        "prefix {shown:?}: printable ASCII of at most {PREFIX_MAX} bytes that begins and ends with a slash"
    )))
}

fn endpoint(given: &str, url: &str) -> Result<String, StoreError> {
    let Some(authority) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return Err(refuse(given, &format!("endpoint {url:?} does not begin with http:// or https://")));
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte);
    if authority.is_empty() || !authority.bytes().all(fits) {
        return Err(refuse(given, &format!("endpoint {url:?} is not a host with a port and nothing else")));
    }
    Ok(url.strip_suffix('/').unwrap_or(url).to_owned())
}

/// Does not repeat what was given when it may hold a password.
fn refuse(given: &str, why: &str) -> StoreError {
    if given.contains('@') {
        return StoreError::Invalid(format!(
            "the store's name holds an '@'; a user and password have settings of their own. Forms: {FORMS}"
        ));
    }
    StoreError::Invalid(format!("store {given:?}: {why}. Forms: {FORMS}"))
}

#[cfg(test)]
mod tests;
