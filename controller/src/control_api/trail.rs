//! The audit trail: what operators may ask of it.

use fleetknock_proto::v1 as pb;
use tonic::Status;

use super::page::Page;
use crate::shared::Shared;

pub(super) fn list(
    shared: &Shared,
    request: &pb::ListEventsRequest,
) -> Result<pb::ListEventsResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let state = shared.state();
    let (_, next_page_token) = page.cut(state.fleet.audit().iter().map(|(id, held)| (id.to_string(), held)));
    Ok(pb::ListEventsResponse { events: Vec::new(), next_page_token })
}
