//! The control service: what operators ask and order. Each method parses, asks or decides, and converts; the errors are
//! made in one place per kind.

use std::{pin::Pin, sync::Arc};

use fleetknock_core::{door::DoorName, source::Source};
use fleetknock_proto::{
    status as refuse,
    v1::{self as pb, control_service_server::ControlService},
};
use futures::Stream;
use tonic::{Request, Response, Status};

use crate::{decide::DecideError, grant::Refusal, matching, peers::Peers, shared::Shared, store::StoreError};

mod bans;
mod doors;
mod events;
mod hosts;
mod openings;
mod page;

/// Serves operators.
pub struct Service {
    shared: Arc<Shared>,
    matching: matching::Handle,
    peers: Arc<Peers>,
}

impl Service {
    /// Over the shared state, the matching and the other controllers.
    pub fn new(shared: Arc<Shared>, matching: matching::Handle, peers: Arc<Peers>) -> Self {
        Self { shared, matching, peers }
    }
}

#[tonic::async_trait]
impl ControlService for Service {
    async fn get_controller(
        &self,
        _: Request<pb::GetControllerRequest>,
    ) -> Result<Response<pb::Controller>, Status> {
        Err(Status::unimplemented("this controller does not answer that yet"))
    }

    async fn list_controllers(
        &self,
        _: Request<pb::ListControllersRequest>,
    ) -> Result<Response<pb::ListControllersResponse>, Status> {
        Err(Status::unimplemented("this controller does not answer that yet"))
    }

    async fn apply_door(
        &self,
        request: Request<pb::ApplyDoorRequest>,
    ) -> Result<Response<pb::ApplyDoorResponse>, Status> {
        doors::apply(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn get_door(&self, request: Request<pb::GetDoorRequest>) -> Result<Response<pb::Door>, Status> {
        doors::one(&self.shared, &request.into_inner()).map(Response::new)
    }

    async fn list_doors(
        &self,
        request: Request<pb::ListDoorsRequest>,
    ) -> Result<Response<pb::ListDoorsResponse>, Status> {
        doors::list(&self.shared, &request.into_inner()).map(Response::new)
    }

    async fn delete_door(
        &self,
        request: Request<pb::DeleteDoorRequest>,
    ) -> Result<Response<pb::DeleteDoorResponse>, Status> {
        doors::delete(&self.shared, &request.into_inner()).await.map(Response::new)
    }

    async fn get_host(&self, request: Request<pb::GetHostRequest>) -> Result<Response<pb::Host>, Status> {
        hosts::one(&self.shared, &request.into_inner()).map(Response::new)
    }

    async fn list_hosts(
        &self,
        request: Request<pb::ListHostsRequest>,
    ) -> Result<Response<pb::ListHostsResponse>, Status> {
        hosts::list(&self.shared, request.into_inner()).map(Response::new)
    }

    async fn delete_host(
        &self,
        request: Request<pb::DeleteHostRequest>,
    ) -> Result<Response<pb::DeleteHostResponse>, Status> {
        hosts::delete(&self.shared, &request.into_inner()).await.map(Response::new)
    }

    async fn get_opening(
        &self,
        request: Request<pb::GetOpeningRequest>,
    ) -> Result<Response<pb::Opening>, Status> {
        openings::one(&self.shared, &request.into_inner()).map(Response::new)
    }

    async fn list_openings(
        &self,
        request: Request<pb::ListOpeningsRequest>,
    ) -> Result<Response<pb::ListOpeningsResponse>, Status> {
        openings::list(&self.shared, &request.into_inner()).map(Response::new)
    }

    async fn open(&self, request: Request<pb::OpenRequest>) -> Result<Response<pb::Opening>, Status> {
        openings::open(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn close(&self, request: Request<pb::CloseRequest>) -> Result<Response<pb::CloseResponse>, Status> {
        openings::close(&self.shared, request.into_inner()).await.map(Response::new)
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
        bans::ban(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn unban_source(
        &self,
        request: Request<pb::UnbanSourceRequest>,
    ) -> Result<Response<pb::UnbanSourceResponse>, Status> {
        bans::unban(&self.shared, &request.into_inner()).await.map(Response::new)
    }

    async fn list_attempts(
        &self,
        request: Request<pb::ListAttemptsRequest>,
    ) -> Result<Response<pb::ListAttemptsResponse>, Status> {
        openings::attempts(&self.shared, &self.matching, request.into_inner()).await.map(Response::new)
    }

    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<pb::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        events::watch(self.shared.clone(), request.into_inner()).map(Response::new)
    }
}

fn door_name(field: &str, text: &str) -> Result<DoorName, Status> {
    text.parse().map_err(|e: fleetknock_core::host::NameError| refuse::invalid(field, e.to_string()))
}

fn source(field: &str, text: &str) -> Result<Source, Status> {
    text.parse().map_err(|e: fleetknock_core::source::SourceError| refuse::invalid(field, e.to_string()))
}

/// An optional filter: empty means all.
fn optional<T>(
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

fn decided<T>(result: Result<T, DecideError>) -> Result<T, Status> {
    result.map_err(|error| match error {
        DecideError::Refused(Refusal::NoDoor(name)) => refuse::not_found("door", name.as_str()),
        DecideError::Refused(ref refusal @ Refusal::Banned { ref source_address, .. }) => {
            refuse::precondition("source", &source_address.to_string(), refusal.to_string())
        }
        DecideError::Refused(ref refusal @ Refusal::TooManyHosts { ref door, .. }) => {
            refuse::precondition("door", door.as_str(), refusal.to_string())
        }
        DecideError::Refused(refusal) => Status::internal(refusal.to_string()),
        DecideError::Suspended => refuse::unavailable(error.to_string()),
        DecideError::Store(error) => store_error(&error),
        DecideError::Full { .. } => Status::resource_exhausted(error.to_string()),
    })
}

fn store_error(error: &StoreError) -> Status {
    match error {
        StoreError::Conflict => refuse::conflict(
            "record",
            "",
            "somebody else changed the same record at the same time; try again",
        ),
        StoreError::Invalid(reason) => Status::invalid_argument(reason.clone()),
        StoreError::Compacted { .. } | StoreError::LeaseEnded | StoreError::Unavailable(_) => {
            refuse::unavailable(format!("{error}; nothing was changed as far as is known; try again"))
        }
        StoreError::Broken(_) => Status::internal(error.to_string()),
    }
}
