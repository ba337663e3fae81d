//! Who a certificate speaks for, as a URI in its subject alternative names:
//!
//! ```text
//!   fleetknock://FLEET/host/NAME             an agent, for this host and no other
//!   fleetknock://FLEET/controller/NAME       a controller
//!   fleetknock://FLEET/user/NAME?role=ROLE   a person or a program; viewer, operator or admin
//! ```
//!
//! There is one spelling of each: no upper case, no escapes, no port, no trailing slash. So two certificates name the
//! same one exactly when their URIs are the same bytes.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::host::{HostName, NameError, check_dns_name, text_newtype};

mod expected;
#[cfg(test)]
mod tests;

pub use expected::Expected;

/// The scheme of every identity.
pub const SCHEME: &str = "fleetknock";
/// The longest text that can be an identity, in bytes: two names of 253 and what stands around them.
pub const TEXT_MAX: usize = 600;

/// A fleet's name; the form is that of a [`HostName`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FleetName(String);

/// A controller's name; the form is that of a [`HostName`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ControllerName(String);

/// A user's name: 1 to 64 characters of lower-case letters, digits, `-`, `.`, `_`, `@` and `+`, beginning with a letter
/// or digit, so that mail addresses fit. All of them may stand in the path of a URI as they are (RFC 3986 section 3.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

impl Default for FleetName {
    /// `default`, for those who have one fleet only.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

macro_rules! dns_named {
    ($name:ident, $what:literal) => {
        text_newtype!($name);

        impl $name {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check_dns_name($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl From<HostName> for $name {
            fn from(name: HostName) -> Self {
                Self(name.into())
            }
        }
    };
}

dns_named!(FleetName, "fleet's name");
dns_named!(ControllerName, "controller's name");
text_newtype!(UserName);

impl UserName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let inner = |b: u8| first(b) || matches!(b, b'-' | b'.' | b'_' | b'@' | b'+');
        let reason = match text.as_bytes() {
            [] => "it is empty",
            bytes if bytes.len() > 64 => "it has more than 64 characters",
            bytes if !bytes.iter().copied().all(inner) => {
                "it may hold lower-case letters, digits, '-', '.', '_', '@' and '+' only"
            }
            [begin, ..] if !first(*begin) => "it must begin with a letter or a digit",
            _ => return Ok(Self(text.to_owned())),
        };
        Err(NameError::new("user's name", text, reason))
    }
}

/// What a user may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Open, close and ban.
    Operator,
    /// Change doors, secrets and tokens.
    Admin,
}

impl Role {
    /// All roles, from the one that may least.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As in a URI.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| IdentityError::Role { text: excerpt(text) })
    }
}

/// Somebody of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity {
    /// The fleet, which shares nothing with another one.
    pub fleet: FleetName,
    /// Who in that fleet.
    pub who: Who,
}

/// Who somebody is within a fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The agent of a host.
    Host(HostName),
    /// A controller.
    Controller(ControllerName),
    /// A person, or a program that acts like one.
    User {
        /// Which one.
        name: UserName,
        /// What it may do.
        role: Role,
    },
}

impl Identity {
    /// The one identity among the URIs of a certificate. URIs of other schemes stand for other systems and are passed
    /// over.
    ///
    /// # Errors
    /// When there is none, when there are several - whoever holds such a certificate could choose who to be -, or when
    /// it is none in form.
    pub fn among<S: AsRef<str>>(uris: &[S]) -> Result<Self, IdentityError> {
        let mut ours = uris.iter().map(S::as_ref).filter(|uri| has_scheme(uri));
        let uri = ours.next().ok_or(IdentityError::Nobody)?;
        match ours.next() {
            None => uri.parse(),
            Some(other) => Err(IdentityError::Several { one: excerpt(uri), other: excerpt(other) }),
        }
    }

    /// [`among`](Self::among), and of this fleet.
    ///
    /// # Errors
    /// As there, and when the identity is of another fleet.
    pub fn of_fleet<S: AsRef<str>>(fleet: &FleetName, uris: &[S]) -> Result<Self, IdentityError> {
        let identity = Self::among(uris)?;
        if identity.fleet == *fleet {
            return Ok(identity);
        }
        Err(IdentityError::OtherFleet { identity: Box::new(identity), fleet: fleet.clone() })
    }
}

impl Who {
    /// The name alone, which somebody of another kind may have too.
    pub fn name(&self) -> &str {
        match self {
            Self::Host(name) => name.as_str(),
            Self::Controller(name) => name.as_str(),
            Self::User { name, .. } => name.as_str(),
        }
    }
}

/// What the certificate of a fleet's own authority (CA) has as its URI: `fleetknock://FLEET/authority`. It is no
/// [`Identity`]: an authority speaks for nobody itself.
pub fn authority_uri(fleet: &FleetName) -> String {
    format!("{SCHEME}://{fleet}/authority")
}

/// The fleet of an authority, when its certificate says so; others' authorities do not.
pub fn authority_fleet<S: AsRef<str>>(uris: &[S]) -> Option<FleetName> {
    let fleet_of = |uri: &str| {
        let fleet = uri.strip_prefix(SCHEME)?.strip_prefix("://")?.strip_suffix("/authority")?;
        fleet.parse().ok()
    };
    match uris {
        [uri] => fleet_of(uri.as_ref()),
        _ => None,
    }
}

/// Whether this is meant as one of ours: in whatever case, because schemes have none (RFC 3986 section 3.1) and a
/// certificate with `Fleetknock://` beside a good URI is not to be taken for one with a stranger's.
fn has_scheme(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fleet, who } = self;
        match who {
            Who::Host(name) => write!(f, "{SCHEME}://{fleet}/host/{name}"),
            Who::Controller(name) => write!(f, "{SCHEME}://{fleet}/controller/{name}"),
            Who::User { name, role } => write!(f, "{SCHEME}://{fleet}/user/{name}?role={role}"),
        }
    }
}

impl fmt::Display for Who {
    /// For people: `host db-1`, `controller c-1`, `user alice (admin)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "host {name}"),
            Self::Controller(name) => write!(f, "controller {name}"),
            Self::User { name, role } => write!(f, "user {name} ({role})"),
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form { text: excerpt(text) };
        if text.len() > TEXT_MAX {
            return Err(form());
        }
        let rest = text.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix("://")).ok_or_else(form)?;
        let (fleet, path) = rest.split_once('/').ok_or_else(form)?;
        let (kind, name) = path.split_once('/').ok_or_else(form)?;
        let who = match kind {
            "host" => Who::Host(name.parse()?),
            "controller" => Who::Controller(name.parse()?),
            "user" => {
                let (name, role) = name.split_once("?role=").ok_or_else(form)?;
                Who::User { name: name.parse()?, role: role.parse()? }
            }
            _ => return Err(form()),
        };
        Ok(Self { fleet: fleet.parse()?, who })
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.to_string()
    }
}

impl TryFrom<String> for Identity {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

/// As much of a foreign text as an error may repeat.
fn excerpt(text: &str) -> String {
    text.chars().take(120).collect()
}

/// Why something does not say who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It does not look like one.
    #[error(
        "'{text}' is no identity: write {SCHEME}://FLEET/host/NAME, {SCHEME}://FLEET/controller/NAME or \
         {SCHEME}://FLEET/user/NAME?role=ROLE"
    )]
    Form {
        /// What was given.
        text: String,
    },
    /// A name in it has the wrong form.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No URI of ours.
    #[error("the certificate names nobody: it has no URI that begins with {SCHEME}://")]
    Nobody,
    /// Somebody of the fleet, but not the one.
    #[error("the certificate is that of {who}, and {expected} is expected")]
    Other {
        /// Whose it is.
        who: Box<Who>,
        /// Whose it should be.
        expected: Box<Expected>,
    },
    /// Somebody of another fleet.
    #[error("the certificate is of another fleet: it names {identity}, and this fleet is '{fleet}'")]
    OtherFleet {
        /// Who.
        identity: Box<Identity>,
        /// The fleet that it should have been.
        fleet: FleetName,
    },
    /// No such role.
    #[error("'{text}' is no role: it is viewer, operator or admin")]
    Role {
        /// What was given.
        text: String,
    },
    /// More than one URI of ours.
    #[error(
        "the certificate names more than one: '{one}' and '{other}'; issue one with a single {SCHEME}:// URI"
    )]
    Several {
        /// The first of them.
        one: String,
        /// The next.
        other: String,
    },
}
