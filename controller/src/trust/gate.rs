//! The one place where it stands who may make which call. It lies before all services, and what it does not know it does
//! not let through.
//!
//! | service                | who                                            |
//! |------------------------|------------------------------------------------|
//! | AgentService           | hosts of this fleet                            |
//! | PeerService            | controllers of this fleet                      |
//! | ControlService         | users of this fleet, by [role](least_role)     |
//! | EnrolmentService       | Enrol: anybody (it asks for a token); Renew: hosts of this fleet |
//! | health, reflection     | anybody who finished the handshake             |

use std::{
    net::SocketAddr,
    task::{Context, Poll},
};

use fleetknock_core::identity::{FleetName, Identity, Role, Who};
use fleetknock_proto::{status as refuse, v1::EventKind};
use fleetknock_runtime::tls::Peer;
use tokio::sync::mpsc;
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
};
use tower_layer::Layer;

use super::{
    Caller, Trust,
    caller::{Shown, Whose},
};
use crate::{
    audit::denials::Denied,
    metrics::{DeniedLabels, Metrics},
};

#[cfg(test)]
mod tests;

/// What a user must be at least to call a method of the control service. One that is not listed is for nobody.
const ROLES: [(&str, Role); 24] = [
    ("ApplyDoor", Role::Admin),
    ("BanSource", Role::Operator),
    ("Close", Role::Operator),
    ("ConfirmDoor", Role::Admin),
    ("CreateToken", Role::Admin),
    ("DeleteDoor", Role::Admin),
    ("DeleteHost", Role::Admin),
    ("GetBan", Role::Viewer),
    ("GetController", Role::Viewer),
    ("GetDoor", Role::Viewer),
    ("GetHost", Role::Viewer),
    ("GetOpening", Role::Viewer),
    ("ListAttempts", Role::Viewer),
    ("ListBans", Role::Viewer),
    ("ListControllers", Role::Viewer),
    ("ListDoors", Role::Viewer),
    ("ListEvents", Role::Viewer),
    ("ListHosts", Role::Viewer),
    ("ListOpenings", Role::Viewer),
    ("ListTokens", Role::Admin),
    ("Open", Role::Operator),
    ("RevokeToken", Role::Admin),
    ("UnbanSource", Role::Operator),
    ("WatchEvents", Role::Viewer),
];

/// What a user must be at least to see the steps of a door ([`fleetknock_proto::v1::GetDoorRequest::reveal`]). The one
/// right that hangs on what is in a request: the handlers ask for it.
pub const REVEALS: Role = Role::Admin;

/// The methods of the control service with what a user must be at least to call them.
pub fn methods() -> impl Iterator<Item = (&'static str, Role)> {
    ROLES.into_iter()
}

/// What a user must be at least to call this method of the control service.
pub fn least_role(method: &str) -> Option<Role> {
    ROLES.iter().find(|(name, _)| *name == method).map(|(_, role)| *role)
}

/// Who makes a call, when it may be made.
///
/// # Errors
/// UNAUTHENTICATED without a certificate, PERMISSION_DENIED when it is not for its holder, UNIMPLEMENTED when there is no
/// such call.
pub fn judge(
    fleet: &FleetName,
    path: &str,
    uris: &[String],
    address: Option<SocketAddr>,
) -> Result<Caller, Status> {
    let known = |who| Caller { who: Whose::Known(who), shown: Shown::Certificate, address };
    let unknown = || Status::unimplemented("there is no such call");
    let (service, method) =
        path.strip_prefix('/').and_then(|path| path.split_once('/')).ok_or_else(unknown)?;
    let who = || {
        if uris.is_empty() {
            return Err(refuse::unknown_caller(
                "this call needs a certificate that names its holder (--tls-cert and --tls-key; fleetknock pki issue)",
            ));
        }
        Identity::of_fleet(fleet, uris)
            .map(|identity| identity.who)
            .map_err(|error| refuse::denied(error.to_string()))
    };
    let only_for = |whom: &str, who: Who| {
        refuse::denied(format!("this is for {whom}; the certificate is that of {who}"))
    };
    match service {
        "grpc.health.v1.Health" | "grpc.reflection.v1.ServerReflection" => Ok(Caller::anybody(address)),
        "fleetknock.v1.AgentService" => match who()? {
            who @ Who::Host(_) => Ok(known(who)),
            who => Err(only_for("the agents of hosts", who)),
        },
        "fleetknock.v1.PeerService" => match who()? {
            who @ Who::Controller(_) => Ok(known(who)),
            who => Err(only_for("controllers", who)),
        },
        "fleetknock.v1.ControlService" => {
            let caller = known(who()?);
            caller.check_role(least_role(method).ok_or_else(unknown)?, method)?;
            Ok(caller)
        }
        "fleetknock.v1.EnrolmentService" if method == "Enrol" => Ok(Caller::anybody(address)),
        "fleetknock.v1.EnrolmentService" if method == "Renew" => match who()? {
            who @ Who::Host(_) => Ok(known(who)),
            who => Err(only_for("the agents of hosts", who)),
        },
        _ => Err(unknown()),
    }
}

/// Puts the gate before services.
#[derive(Clone, Debug)]
pub struct GateLayer {
    fleet: Option<FleetName>,
    metrics: Metrics,
    denials: mpsc::Sender<Denied>,
}

impl GateLayer {
    /// As this controller is spoken to.
    pub fn new(trust: &Trust, metrics: Metrics, denials: mpsc::Sender<Denied>) -> Self {
        let fleet = match trust {
            Trust::Plain => None,
            Trust::Mutual { fleet, .. } => Some(fleet.clone()),
        };
        Self { fleet, metrics, denials }
    }

    /// Tells the audit trail of a call that was refused to whoever shows these names, if it knows them.
    fn tell(&self, fleet: &FleetName, peer: Option<&Peer>, call: &str, status: &Status) {
        let address = peer.map(|peer| peer.address);
        let message = format!("the call {call} was refused: {}", status.message());
        let denied = match Identity::of_fleet(fleet, peer.map_or(&[], Peer::uris)) {
            Ok(Identity { who, .. }) => {
                let caller = Caller { who: Whose::Known(who), shown: Shown::Certificate, address };
                Denied { kind: EventKind::CallDenied, actor: caller.actor(), host: None, message }
            }
            Err(_) => {
                let address = address.map(|address| address.to_string()).unwrap_or_default();
                Denied::unknown(EventKind::AuthenticationFailed, "nothing", address, message)
            }
        };
        // When too many wait it is counted all the same.
        let _full = self.denials.try_send(denied);
    }

    fn judge<B>(&self, request: &http::Request<B>) -> Result<Caller, Status> {
        let peer = request.extensions().get::<Peer>();
        let address = peer.map(|peer| peer.address);
        let Some(fleet) = &self.fleet else { return Ok(Caller::anybody(address)) };
        let path = request.uri().path();
        judge(fleet, path, peer.map_or(&[], Peer::uris), address).inspect_err(|status| {
            let address = peer.map(|peer| peer.address.to_string()).unwrap_or_default();
            let call: String = path.chars().take(100).collect();
            tracing::info!(address, call, reason = status.message(), "a call is refused");
            let reason = if status.code() == tonic::Code::Unauthenticated { "unknown" } else { "denied" };
            self.metrics.denied.get_or_create(&DeniedLabels { reason }).inc();
            self.tell(fleet, peer, &call, status);
        })
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, layer: self.clone() }
    }
}

/// The gate before services.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    inner: S,
    layer: GateLayer,
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<http::Response<Body>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.layer.judge(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Box::pin(self.inner.call(request))
            }
            Err(status) => Box::pin(async move { Ok(status.into_http()) }),
        }
    }
}
