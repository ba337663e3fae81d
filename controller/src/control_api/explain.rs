//! Why a source's knock opened a door, or did not.

use fleetknock_proto::v1 as pb;
use tonic::Status;

use crate::{peers::Peers, shared::Shared, trust::Caller};

#[allow(clippy::unused_async, reason = "it asks the peers")]
pub(super) async fn explain(
    _shared: &Shared,
    _peers: &Peers,
    _caller: &Caller,
    _request: &pb::ExplainRequest,
) -> Result<pb::ExplainResponse, Status> {
    Err(Status::unimplemented("explain"))
}
