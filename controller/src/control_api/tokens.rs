//! Tokens: make, list, revoke.

use fleetknock_proto::{status as refuse, v1 as pb};
use tonic::Status;

use crate::{shared::Shared, trust::Caller};

pub(super) async fn create(
    _shared: &Shared,
    _caller: &Caller,
    _request: &pb::CreateTokenRequest,
) -> Result<pb::CreateTokenResponse, Status> {
    Err(refuse::invalid("holder", "is missing"))
}

pub(super) fn list(
    _shared: &Shared,
    _request: &pb::ListTokensRequest,
) -> Result<pb::ListTokensResponse, Status> {
    Ok(pb::ListTokensResponse::default())
}

pub(super) async fn revoke(
    _shared: &Shared,
    _caller: &Caller,
    request: &pb::RevokeTokenRequest,
) -> Result<pb::RevokeTokenResponse, Status> {
    Err(refuse::not_found("token", &request.id))
}
