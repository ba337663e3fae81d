//! Changes what controllers and agents log, for a while.

use fleetknock_proto::v1 as pb;
use tonic::Status;

use crate::{peers::Peers, shared::Shared, trust::Caller};

#[allow(clippy::unused_async, reason = "it asks the peers")]
pub(super) async fn set(
    _shared: &Shared,
    _peers: &Peers,
    _caller: &Caller,
    _request: &pb::SetLogRequest,
) -> Result<pb::SetLogResponse, Status> {
    Err(Status::unimplemented("set_log"))
}
