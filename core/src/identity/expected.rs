//! Whom somebody expects at the other end of a connection, or to be itself.

use std::fmt;

use super::{ControllerName, FleetName, Identity, IdentityError, Who};
use crate::host::HostName;

/// Whom somebody expects, within its own fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whoever is of the fleet.
    Anybody,
    /// Any controller.
    AnyController,
    /// This controller.
    Controller(ControllerName),
    /// The agent of this host.
    Host(HostName),
    /// A user, whatever the role.
    User,
}

impl Expected {
    /// Who it is that the URIs of a certificate name, when that is whom was expected.
    ///
    /// # Errors
    /// As [`Identity::of_fleet`], and when it is somebody else.
    pub fn among<S: AsRef<str>>(&self, fleet: &FleetName, uris: &[S]) -> Result<Who, IdentityError> {
        let Identity { who, .. } = Identity::of_fleet(fleet, uris)?;
        let fits = match (self, &who) {
            (Self::Anybody, _)
            | (Self::AnyController, Who::Controller(_))
            | (Self::User, Who::User { .. }) => true,
            (Self::Controller(expected), Who::Controller(name)) => expected == name,
            (Self::Host(expected), Who::Host(name)) => expected == name,
            _ => false,
        };
        if fits {
            return Ok(who);
        }
        Err(IdentityError::Other { who: Box::new(who), expected: Box::new(self.clone()) })
    }
}

impl fmt::Display for Expected {
    /// For people: `host db-1`, `a controller`, `a user`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("somebody of the fleet"),
            Self::AnyController => f.write_str("a controller"),
            Self::Controller(name) => write!(f, "controller {name}"),
            Self::Host(name) => write!(f, "host {name}"),
            Self::User => f.write_str("a user"),
        }
    }
}
