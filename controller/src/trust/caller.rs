//! Who makes a call, and what it may say in whose name.

use fleetknock_core::{
    host::HostName,
    identity::{Role, Who},
};
use fleetknock_proto::status as refuse;
use tonic::{Extensions, Status};

/// Who makes a call; the gate puts it among the extensions of each request that it lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody, in plain text: everybody may do everything.
    Anybody,
    /// The holder of a certificate of this fleet.
    Known(Who),
}

impl Caller {
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
        match self {
            Self::Anybody => Ok(()),
            Self::Known(Who::Host(name)) if name == host => Ok(()),
            Self::Known(who) => Err(refuse::denied(format!(
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
        match self {
            Self::Anybody => Ok(()),
            Self::Known(Who::Controller(name)) if name.as_str() == controller => Ok(()),
            // The name may be anything: it is not repeated.
            Self::Known(who) => Err(refuse::denied(format!(
                "the certificate is that of {who}, which cannot speak for another controller"
            ))),
        }
    }

    /// Whether it may do what takes at least this role.
    ///
    /// # Errors
    /// When it may not, naming `what` it would have done and the role that it needs.
    pub fn check_role(&self, needed: Role, what: &str) -> Result<(), Status> {
        match self {
            Self::Anybody => Ok(()),
            Self::Known(Who::User { role, .. }) if *role >= needed => Ok(()),
            Self::Known(Who::User { name, role }) => Err(refuse::denied(format!(
                "{what} needs the role {needed}, and user {name} has the role {role}"
            ))),
            Self::Known(who) => Err(refuse::denied(format!(
                "{what} is for users with the role {needed}; the certificate is that of {who}"
            ))),
        }
    }
}
