//! The fleet at a glance.

use fleetknock_proto::v1 as pb;
use tonic::Status;

use crate::{matching, peers::Peers, shared::Shared, trust::Caller};

#[allow(clippy::unused_async, reason = "it asks the peers")]
pub(super) async fn overview(
    _shared: &Shared,
    _matching: &matching::Handle,
    _peers: &Peers,
    _caller: &Caller,
    _request: &pb::OverviewRequest,
) -> Result<pb::OverviewResponse, Status> {
    Err(Status::unimplemented("overview"))
}
