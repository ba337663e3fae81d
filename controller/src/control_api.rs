//! The control service: what operators ask and order. Each method parses, asks or decides, and converts; the errors are
//! made in one place per kind.

use std::{pin::Pin, sync::Arc};

use fleetknock_core::{door::DoorName, source::Source};
use fleetknock_proto::{
    status as refuse,
    v1::{self as pb, control_service_server::ControlService},
};
use fleetknock_runtime::tls::Peer;
use futures::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    audit::denials::Denied,
    decide::DecideError,
    grant::Refusal,
    limits::Watchers,
    matching,
    metrics::DeniedLabels,
    peers::Peers,
    shared::Shared,
    store::StoreError,
    trust::{Caller, bearer, gate},
};

mod attempts;
mod backup;
mod bans;
mod controllers;
pub(crate) mod doors;
pub(crate) mod events;
mod explain;
pub(crate) mod hosts;
pub(crate) mod logs;
mod openings;
pub(crate) mod overview;
pub(crate) mod page;
pub(crate) mod tokens;
mod trail;

/// Serves operators.
pub struct Service {
    shared: Arc<Shared>,
    matching: matching::Handle,
    peers: Arc<Peers>,
    stop: CancellationToken,
    watchers: Watchers,
    files: backup::One,
}

impl Service {
    /// Over the shared state, the matching and the other controllers. `stop` ends all streams when this controller has
    /// left.
    pub fn new(
        shared: Arc<Shared>,
        matching: matching::Handle,
        peers: Arc<Peers>,
        stop: CancellationToken,
    ) -> Self {
        Self { shared, matching, peers, stop, watchers: Watchers::default(), files: backup::One::default() }
    }
}

#[tonic::async_trait]
impl ControlService for Service {
    async fn get_controller(
        &self,
        request: Request<pb::GetControllerRequest>,
    ) -> Result<Response<pb::Controller>, Status> {
        let Self { shared, matching, peers, .. } = self;
        controllers::one(shared, matching, peers, &request.into_inner()).await.map(Response::new)
    }

    async fn list_controllers(
        &self,
        request: Request<pb::ListControllersRequest>,
    ) -> Result<Response<pb::ListControllersResponse>, Status> {
        let Self { shared, matching, peers, .. } = self;
        controllers::list(shared, matching, peers, &request.into_inner()).await.map(Response::new)
    }

    async fn apply_door(
        &self,
        request: Request<pb::ApplyDoorRequest>,
    ) -> Result<Response<pb::ApplyDoorResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        doors::apply(&self.shared, &self.peers, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn get_door(&self, request: Request<pb::GetDoorRequest>) -> Result<Response<pb::Door>, Status> {
        let caller = check_reveal(&self.shared, &request, request.get_ref().reveal)?;
        doors::one(&self.shared, &caller, &request.into_inner()).await.map(Response::new)
    }

    async fn list_doors(
        &self,
        request: Request<pb::ListDoorsRequest>,
    ) -> Result<Response<pb::ListDoorsResponse>, Status> {
        let caller = check_reveal(&self.shared, &request, request.get_ref().reveal)?;
        doors::list(&self.shared, &caller, &request.into_inner()).await.map(Response::new)
    }

    async fn delete_door(
        &self,
        request: Request<pb::DeleteDoorRequest>,
    ) -> Result<Response<pb::DeleteDoorResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        doors::delete(&self.shared, &caller, &request.into_inner()).await.map(Response::new)
    }

    async fn get_host(&self, request: Request<pb::GetHostRequest>) -> Result<Response<pb::Host>, Status> {
        hosts::one(&self.shared, &self.peers, &request.into_inner()).await.map(Response::new)
    }

    async fn list_hosts(
        &self,
        request: Request<pb::ListHostsRequest>,
    ) -> Result<Response<pb::ListHostsResponse>, Status> {
        hosts::list(&self.shared, &self.peers, request.into_inner()).await.map(Response::new)
    }

    async fn delete_host(
        &self,
        request: Request<pb::DeleteHostRequest>,
    ) -> Result<Response<pb::DeleteHostResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        hosts::delete(&self.shared, &self.peers, &caller, &request.into_inner()).await.map(Response::new)
    }

    async fn get_opening(
        &self,
        request: Request<pb::GetOpeningRequest>,
    ) -> Result<Response<pb::Opening>, Status> {
        openings::one(&self.shared, &self.peers, &request.into_inner()).await.map(Response::new)
    }

    async fn list_openings(
        &self,
        request: Request<pb::ListOpeningsRequest>,
    ) -> Result<Response<pb::ListOpeningsResponse>, Status> {
        openings::list(&self.shared, &self.peers, &request.into_inner()).await.map(Response::new)
    }

    async fn open(&self, request: Request<pb::OpenRequest>) -> Result<Response<pb::Opening>, Status> {
        let caller = Caller::of(request.extensions())?;
        openings::open(&self.shared, &self.peers, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn close(&self, request: Request<pb::CloseRequest>) -> Result<Response<pb::CloseResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        openings::close(&self.shared, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn get_ban(&self, request: Request<pb::GetBanRequest>) -> Result<Response<pb::Ban>, Status> {
        bans::one(&self.shared, &request.into_inner()).map(Response::new)
    }

    async fn list_bans(
        &self,
        request: Request<pb::ListBansRequest>,
    ) -> Result<Response<pb::ListBansResponse>, Status> {
        bans::list(&self.shared, &request.into_inner()).map(Response::new)
    }

    async fn ban_source(&self, request: Request<pb::BanSourceRequest>) -> Result<Response<pb::Ban>, Status> {
        let caller = Caller::of(request.extensions())?;
        bans::ban(&self.shared, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn unban_source(
        &self,
        request: Request<pb::UnbanSourceRequest>,
    ) -> Result<Response<pb::UnbanSourceResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        bans::unban(&self.shared, &caller, &request.into_inner()).await.map(Response::new)
    }

    async fn list_attempts(
        &self,
        request: Request<pb::ListAttemptsRequest>,
    ) -> Result<Response<pb::ListAttemptsResponse>, Status> {
        let Self { shared, matching, peers, .. } = self;
        attempts::list(shared, matching, peers, request.into_inner()).await.map(Response::new)
    }

    async fn confirm_door(
        &self,
        request: Request<pb::ConfirmDoorRequest>,
    ) -> Result<Response<pb::Door>, Status> {
        let caller = Caller::of(request.extensions())?;
        doors::confirm(&self.shared, &caller, request.get_ref()).await.map(Response::new)
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        trail::list(&self.shared, request.get_ref()).map(Response::new)
    }

    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        tokens::create(&self.shared, &caller, request.get_ref()).await.map(Response::new)
    }

    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        tokens::list(&self.shared, request.get_ref()).map(Response::new)
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        tokens::revoke(&self.shared, &caller, request.get_ref()).await.map(Response::new)
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let caller = check_reveal(&self.shared, &request, request.get_ref().reveal)?;
        let Self { shared, matching, peers, .. } = self;
        explain::explain(shared, matching, peers, &caller, request.get_ref()).await.map(Response::new)
    }

    async fn overview(
        &self,
        request: Request<pb::OverviewRequest>,
    ) -> Result<Response<pb::OverviewResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        overview::overview(&self.shared, &self.matching, &self.peers, &caller, request.get_ref())
            .await
            .map(Response::new)
    }

    async fn set_log(
        &self,
        request: Request<pb::SetLogRequest>,
    ) -> Result<Response<pb::SetLogResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        logs::set(&self.shared, &self.peers, &caller, request.get_ref()).await.map(Response::new)
    }

    type BackupStream = backup::Parts<pb::BackupPart>;

    async fn backup(
        &self,
        request: Request<pb::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        backup::backup(&self.shared, &caller, &self.files).await.map(Response::new)
    }

    type RestoreStream = backup::Parts<pb::RestoreProgress>;

    async fn restore(
        &self,
        request: Request<Streaming<pb::RestorePart>>,
    ) -> Result<Response<Self::RestoreStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        let stop = self.stop.clone();
        backup::restore(&self.shared, &caller, &self.files, stop, request.into_inner()).map(Response::new)
    }

    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<pb::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        let place = self.watchers.enter(&caller, &self.shared.metrics)?;
        let line = request.extensions().get::<Peer>().map(|peer| peer.line.clone());
        let (shared, peers, stop) = (self.shared.clone(), self.peers.clone(), self.stop.clone());
        let watcher = events::Watcher { place, line, stop };
        let events = events::watch(shared, peers, request.into_inner(), watcher).await?;
        Ok(Response::new(bearer::while_good(events, self.shared.clone(), caller)))
    }
}

/// Whether the caller may see the steps of doors, when it asks for them.
fn check_reveal<T>(shared: &Shared, request: &Request<T>, reveal: bool) -> Result<Caller, Status> {
    let caller = Caller::of(request.extensions())?;
    if reveal {
        let may = caller.check_role(gate::REVEALS, "seeing the steps of a door (--reveal)");
        may.inspect_err(|status| {
            let message = status.message().to_owned();
            let (kind, actor) = (pb::EventKind::CallDenied, caller.actor());
            shared.metrics.denied.get_or_create(&DeniedLabels { reason: "denied" }).inc();
            shared.deny(Denied { kind, actor, host: None, message });
        })?;
    }
    Ok(caller)
}

pub(crate) fn door_name(field: &str, text: &str) -> Result<DoorName, Status> {
    text.parse().map_err(|e: fleetknock_core::host::NameError| refuse::invalid(field, e.to_string()))
}

pub(crate) fn source(field: &str, text: &str) -> Result<Source, Status> {
    text.parse().map_err(|e: fleetknock_core::source::SourceError| refuse::invalid(field, e.to_string()))
}

/// An optional filter: empty means all.
pub(crate) fn optional<T>(
    field: &str,
    text: &str,
    parse: impl Fn(&str, &str) -> Result<T, Status>,
) -> Result<Option<T>, Status> {
    (!text.is_empty()).then(|| parse(field, text)).transpose()
}

/// What an operator may say for the record: bounded, no control characters.
fn reason(text: &str, otherwise: &str) -> Result<String, Status> {
    if text.chars().count() > 300 || text.chars().any(char::is_control) {
        return Err(refuse::invalid("reason", "at most 300 characters, none of them control characters"));
    }
    Ok(if text.is_empty() { otherwise.to_owned() } else { text.to_owned() })
}

pub(crate) fn decided<T>(shared: &Shared, result: Result<T, DecideError>) -> Result<T, Status> {
    result.map_err(|error| match error {
        DecideError::Refused(Refusal::NoDoor(name)) => refuse::not_found("door", name.as_str()),
        DecideError::Refused(ref refusal @ Refusal::Banned { ref source_address, .. }) => {
            refuse::precondition("source", &source_address.to_string(), refusal.to_string())
        }
        DecideError::Refused(ref refusal @ Refusal::TooManyHosts { ref door, .. }) => {
            refuse::precondition("door", door.as_str(), refusal.to_string())
        }
        DecideError::Refused(refusal) => Status::internal(refusal.to_string()),
        DecideError::Suspended => refuse::unavailable(format!("controller {}: {error}", shared.name)),
        DecideError::Store(error) => store_error(shared, &error),
        DecideError::Owned { ref door, .. } => refuse::precondition("door", door.as_str(), error.to_string()),
        DecideError::Full { .. } => Status::resource_exhausted(error.to_string()),
    })
}

fn store_error(shared: &Shared, error: &StoreError) -> Status {
    match error {
        StoreError::Conflict => refuse::conflict(
            "record",
            "",
            "somebody else changed the same record at the same time; try again",
        ),
        StoreError::Invalid(reason) => Status::invalid_argument(reason.clone()),
        StoreError::Compacted { .. } | StoreError::LeaseEnded | StoreError::Unavailable(_) => {
            let reason = "nothing was changed as far as is known; try again";
            refuse::unavailable(format!("controller {}: {error}; {reason}", shared.name))
        }
        StoreError::Broken(_) => Status::internal(error.to_string()),
    }
}
