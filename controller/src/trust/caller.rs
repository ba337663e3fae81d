//! Who makes a call, and what it may say in whose name.

use std::{fmt, net::SocketAddr};

use fleetknock_core::{
    host::HostName,
    identity::{Role, Who},
};
use fleetknock_proto::status as refuse;
use tonic::{Extensions, Status};

use crate::record::{Actor, By, TokenId};

/// Who makes a call; the gate puts it among the extensions of each request that it lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// As whom it acts.
    pub who: Whose,
    /// How it showed that.
    pub shown: Shown,
    /// Where it calls from, when that is known.
    pub address: Option<SocketAddr>,
}

/// As whom somebody acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Somebody, in plain text: everybody may do everything.
    Anybody,
    /// Somebody of this fleet.
    Known(Who),
}

/// How somebody showed who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing was asked for.
    Nothing,
    /// The key of a certificate.
    Certificate,
    /// A bearer token.
    Token(TokenId),
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Certificate => f.write_str("certificate"),
            Self::Token(id) => write!(f, "token {id}"),
        }
    }
}

impl Caller {
    /// Whoever calls in plain text.
    pub fn anybody(address: Option<SocketAddr>) -> Self {
        Self { who: Whose::Anybody, shown: Shown::Nothing, address }
    }

    /// As the audit trail names it.
    pub fn actor(&self) -> Actor {
        let (who, role) = match &self.who {
            Whose::Anybody => ("anybody".to_owned(), None),
            Whose::Known(Who::User { name, role }) => (format!("user {name}"), Some(*role)),
            Whose::Known(who) => (who.to_string(), None),
        };
        let address = self.address.map(|address| address.to_string()).unwrap_or_default();
        Actor { who, role, by: self.shown.to_string(), address }
    }

    /// As openings and bans name it.
    pub fn by(&self) -> By {
        match &self.who {
            Whose::Known(Who::User { name, .. }) => By::User(name.clone()),
            _ => By::Operator,
        }
    }

    /// Of a request.
    ///
    /// # Errors
    /// When it did not come through the gate, which all requests do.
    pub fn of(extensions: &Extensions) -> Result<Self, Status> {
        extensions.get().cloned().ok_or_else(|| refuse::unknown_caller("it is not known who makes this call"))
    }

    /// Whether it may speak for this host.
    ///
    /// # Errors
    /// When it is somebody else.
    pub fn check_host(&self, host: &HostName) -> Result<(), Status> {
        match &self.who {
            Whose::Anybody => Ok(()),
            Whose::Known(Who::Host(name)) if name == host => Ok(()),
            Whose::Known(who) => Err(refuse::denied(format!(
                "the certificate is that of {who}, which cannot speak for host '{host}'; start the agent with the \
                 certificate of its own host"
            ))),
        }
    }

    /// Whether it may speak for this controller.
    ///
    /// # Errors
    /// When it is somebody else.
    pub fn check_controller(&self, controller: &str) -> Result<(), Status> {
        match &self.who {
            Whose::Anybody => Ok(()),
            Whose::Known(Who::Controller(name)) if name.as_str() == controller => Ok(()),
            // The name may be anything: it is not repeated.
            Whose::Known(who) => Err(refuse::denied(format!(
                "the certificate is that of {who}, which cannot speak for another controller"
            ))),
        }
    }

    /// Whether it may do what takes at least this role.
    ///
    /// # Errors
    /// When it may not, naming `what` it would have done and the role that it needs.
    pub fn check_role(&self, needed: Role, what: &str) -> Result<(), Status> {
        match &self.who {
            Whose::Anybody => Ok(()),
            Whose::Known(Who::User { role, .. }) if *role >= needed => Ok(()),
            Whose::Known(Who::User { name, role }) => Err(refuse::denied(format!(
                "{what} needs the role {needed}, and user {name} has the role {role}"
            ))),
            Whose::Known(who) => Err(refuse::denied(format!(
                "{what} is for users with the role {needed}; the certificate is that of {who}"
            ))),
        }
    }
}
