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
//!
//! A user shows a certificate, or a [token](super::token) as `authorization: Bearer`; a call that shows both is refused,
//! whosever the certificate is, so that there is never a question in whose name it was made, and no host's agent can call
//! the control service with a token that it found. Tokens count at the control service only, and never in plain text.
//!
//! A token that is revoked lets nobody in as soon as a controller hears of it from the store. One that is cut off from
//! the store does not; until it hears again the token can look there, but changes need the store.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use fleetknock_core::{
    identity::{FleetName, Identity, Role, Who},
    time::Timestamp,
};
use fleetknock_proto::status as refuse;
use fleetknock_runtime::tls::Peer;
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
};
use tower_layer::Layer;

use super::{
    Caller, Trust, bearer,
    caller::{Shown, Whose},
    refusals::{ANSWER_AFTER, Answer, Refusals},
    token::{Presented, TokenError},
};
use crate::{
    record::{Actor, TokenId, TokenRecord},
    shared::Shared,
};

#[cfg(test)]
mod tests;

/// What a user must be at least to call a method of the control service. One that is not listed is for nobody.
const ROLES: [(&str, Role); 29] = [
    ("ApplyDoor", Role::Admin),
    ("Backup", Role::Admin),
    ("BanSource", Role::Operator),
    ("Close", Role::Operator),
    ("ConfirmDoor", Role::Admin),
    ("CreateToken", Role::Admin),
    ("DeleteDoor", Role::Admin),
    ("DeleteHost", Role::Admin),
    ("Explain", Role::Viewer),
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
    ("Overview", Role::Viewer),
    ("Restore", Role::Admin),
    ("RevokeToken", Role::Admin),
    ("SetLog", Role::Admin),
    ("UnbanSource", Role::Operator),
    ("WatchEvents", Role::Viewer),
];

/// The one call that judges what its caller shows by itself; whom it does not let in is noted here all the same.
const ENROL: &str = "/fleetknock.v1.EnrolmentService/Enrol";

/// A call that a user of any role may make.
const FOR_EVERY_USER: &str = "/fleetknock.v1.ControlService/WatchEvents";

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

/// What a call shows of who makes it.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Service and method, as in `/fleetknock.v1.ControlService/Open`.
    pub path: &'a str,
    /// The URIs of the certificate; none without one.
    pub uris: &'a [String],
    /// The bearer token; nothing when none is shown.
    pub token: Result<Option<Presented>, TokenError>,
    /// From where it comes, when that is known.
    pub address: Option<SocketAddr>,
}

/// Why a call is not made.
#[derive(Debug)]
pub struct Refusal {
    /// What its caller is told.
    pub status: Status,
    /// What it is noted as.
    pub reason: Reason,
}

/// What a refused call is noted as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody who is known may not.
    Denied {
        /// Who.
        actor: Box<Actor>,
    },
    /// There is no such call.
    NoSuchCall,
    /// It is not known who makes the call.
    Unknown {
        /// As in the metric: `nothing`, `certificate` or `token_...`.
        why: &'static str,
    },
}

impl Refusal {
    fn no_such_call() -> Self {
        Self { status: Status::unimplemented("there is no such call"), reason: Reason::NoSuchCall }
    }

    fn unknown(why: &'static str, status: Status) -> Self {
        Self { status, reason: Reason::Unknown { why } }
    }

    fn denied(caller: &Caller, status: Status) -> Self {
        Self { status, reason: Reason::Denied { actor: Box::new(caller.actor()) } }
    }

    fn token(error: TokenError) -> Self {
        let why = match error {
            TokenError::Expired { .. } => "token_expired",
            TokenError::Malformed => "token_malformed",
            TokenError::OtherKind { .. } => "token_other_kind",
            TokenError::Unknown { .. } => "token_unknown",
            TokenError::Wrong { .. } => "token_wrong",
        };
        Self::unknown(why, refuse::unknown_caller(error.to_string()))
    }
}

/// Who makes a call, when it may be made. `token` finds the record of a token.
///
/// # Errors
/// UNAUTHENTICATED without a certificate or with a token that is not good, PERMISSION_DENIED when it is not for its
/// holder, UNIMPLEMENTED when there is no such call.
pub fn judge(
    fleet: &FleetName,
    asked: &Asked<'_>,
    token: impl FnOnce(&TokenId) -> Option<TokenRecord>,
    now: Timestamp,
) -> Result<Caller, Refusal> {
    let address = asked.address;
    let known = |who, shown| Caller { who: Whose::Known(who), shown, address };
    let (service, method) = asked
        .path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .ok_or_else(Refusal::no_such_call)?;
    let certified = |instead: &str| {
        if asked.uris.is_empty() {
            let reason = format!(
                "this call needs a certificate that names its holder (--tls-cert and --tls-key; fleetknock pki issue)\
                 {instead}"
            );
            return Err(Refusal::unknown("nothing", refuse::unknown_caller(reason)));
        }
        Identity::of_fleet(fleet, asked.uris)
            .map(|identity| known(identity.who, Shown::Certificate))
            .map_err(|error| Refusal::unknown("certificate", refuse::denied(error.to_string())))
    };
    let only_for = |whom: &str, may: fn(&Who) -> bool| {
        let caller = certified("")?;
        let whose = match &caller.who {
            Whose::Known(who) if may(who) => return Ok(caller),
            Whose::Known(who) => who.to_string(),
            Whose::Anybody => "anybody".to_owned(),
        };
        let reason = format!("this is for {whom}; the certificate is that of {whose}");
        Err(Refusal::denied(&caller, refuse::denied(reason)))
    };
    let only_for_hosts = || only_for("the agents of hosts", |who| matches!(who, Who::Host(_)));
    match service {
        "grpc.health.v1.Health" | "grpc.reflection.v1.ServerReflection" => Ok(Caller::anybody(address)),
        "fleetknock.v1.AgentService" => only_for_hosts(),
        "fleetknock.v1.PeerService" => only_for("controllers", |who| matches!(who, Who::Controller(_))),
        "fleetknock.v1.ControlService" => {
            let caller = match &asked.token {
                Ok(None) => certified(" or a token (--token-file; fleetknock token create)")?,
                _ if !asked.uris.is_empty() => {
                    let caller = certified("")?;
                    let status = refuse::denied(
                        "the call shows a certificate and a token, so that it is not clear who makes it; show one of them",
                    );
                    return Err(Refusal::denied(&caller, status));
                }
                Ok(Some(presented)) => {
                    let record = token(presented.id());
                    let who = bearer::user(presented, record.as_ref(), now).map_err(Refusal::token)?;
                    known(who, Shown::Token(presented.id().clone()))
                }
                Err(error) => return Err(Refusal::token(*error)),
            };
            let least = least_role(method).ok_or_else(Refusal::no_such_call)?;
            caller.check_role(least, method).map_err(|status| Refusal::denied(&caller, status))?;
            Ok(caller)
        }
        "fleetknock.v1.EnrolmentService" if method == "Enrol" => Ok(Caller::anybody(address)),
        "fleetknock.v1.EnrolmentService" if method == "Renew" => only_for_hosts(),
        _ => Err(Refusal::no_such_call()),
    }
}

/// Puts the gate before services.
#[derive(Clone)]
pub struct GateLayer {
    shared: Arc<Shared>,
    refusals: Refusals,
}

impl GateLayer {
    /// As this controller is spoken to.
    pub fn new(shared: Arc<Shared>, refusals: Refusals) -> Self {
        Self { shared, refusals }
    }

    /// Who makes a call that every user may make, as the gate judges it; a refusal takes as long as any other.
    ///
    /// # Errors
    /// As [`judge`].
    pub async fn who(&self, headers: http::HeaderMap, peer: Peer) -> Result<Caller, Status> {
        let mut request = http::Request::new(());
        *request.uri_mut() = http::Uri::from_static(FOR_EVERY_USER);
        *request.headers_mut() = headers;
        request.extensions_mut().insert(peer);
        match self.judge(&mut request) {
            Ok(caller) => Ok(caller),
            Err((status, answer)) => Err(in_time(status, answer).await),
        }
    }

    fn judge<B>(&self, request: &mut http::Request<B>) -> Result<Caller, (Status, Answer)> {
        // In plain text a token is nothing: anybody may do everything, and anybody on the way could have read it.
        let token = bearer::take(request.headers_mut());
        let peer = request.extensions().get::<Peer>();
        let address = peer.map(|peer| peer.address);
        let Trust::Mutual { fleet, .. } = &self.shared.trust else { return Ok(Caller::anybody(address)) };
        let path = request.uri().path();
        let asked = Asked { path, uris: peer.map_or(&[], Peer::uris), token, address };
        let record =
            |id: &TokenId| self.shared.state().fleet.tokens().get(id).map(|held| held.record.clone());
        judge(fleet, &asked, record, self.shared.now()).map_err(|refusal| {
            let answer = self.refusals.note(&refusal, path, address);
            (refusal.status, answer)
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
#[derive(Clone)]
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
        match self.layer.judge(&mut request) {
            Ok(caller) => {
                let notes = (request.uri().path() == ENROL).then(|| (self.layer.clone(), caller.address));
                request.extensions_mut().insert(caller);
                let answering = self.inner.call(request);
                let Some((layer, address)) = notes else { return Box::pin(answering) };
                Box::pin(async move {
                    let response = answering.await?;
                    let status = Status::from_header_map(response.headers());
                    let Some(status) = status.filter(|status| status.code() == tonic::Code::Unauthenticated)
                    else {
                        return Ok(response);
                    };
                    let refusal = Refusal::unknown("token_enrol", status);
                    let answer = layer.refusals.note(&refusal, ENROL, address);
                    Ok(answered(refusal.status, answer).await)
                })
            }
            Err((status, answer)) => Box::pin(async move { Ok(answered(status, answer).await) }),
        }
    }
}

/// A refusal on its way, when it is time.
async fn answered(status: Status, answer: Answer) -> http::Response<Body> {
    in_time(status, answer).await.into_http()
}

async fn in_time(status: Status, answer: Answer) -> Status {
    match answer {
        Answer::Now => status,
        Answer::Exhausted(status) => status,
        Answer::Later(place) => {
            tokio::time::sleep(ANSWER_AFTER).await;
            drop(place);
            status
        }
    }
}
