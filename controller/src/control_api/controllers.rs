//! Controllers: get, list. What the store says of each, and what each says of itself.

use fleetknock_core::host::HostName;
use fleetknock_proto::{status as refuse, v1 as pb};
use tonic::Status;

use super::page::Page;
use crate::{
    matching,
    peers::{Peers, ask::Answers, known},
    shared::Shared,
};

pub(super) async fn one(
    shared: &Shared,
    matching: &matching::Handle,
    peers: &Peers,
    request: &pb::GetControllerRequest,
) -> Result<pb::Controller, Status> {
    let name: HostName = request
        .name
        .parse()
        .map_err(|e: fleetknock_core::host::NameError| refuse::invalid("name", e.to_string()))?;
    if name == shared.name {
        return known::describe(shared, matching, peers).await;
    }
    let stored = stored(shared).into_iter().find(|controller| controller.name == name.as_str());
    let stored = stored.ok_or_else(|| refuse::not_found("controller", name.as_str()))?;
    Ok(described(stored, &mut peers.describe_all().await))
}

pub(super) async fn list(
    shared: &Shared,
    matching: &matching::Handle,
    peers: &Peers,
    request: &pb::ListControllersRequest,
) -> Result<pb::ListControllersResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let own = known::describe(shared, matching, peers).await?;
    // Without its lease this controller is no member, but it is there.
    let mut all = stored(shared);
    all.retain(|controller| controller.name != own.name);
    all.push(own.clone());
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let (page, next_page_token) =
        page.cut(all.into_iter().map(|controller| (controller.name.clone(), controller)));
    let mut answers = peers.describe_all().await;
    let describe = |controller: pb::Controller| {
        if controller.name == own.name { controller } else { described(controller, &mut answers) }
    };
    let controllers = page.into_iter().map(describe).collect();
    Ok(pb::ListControllersResponse { controllers, next_page_token })
}

/// The members, by name, as the store tells them.
fn stored(shared: &Shared) -> Vec<pb::Controller> {
    let state = shared.state();
    let stored = state.fleet.members().values().map(|held| pb::Controller {
        name: held.record.name.to_string(),
        address: held.record.address.clone(),
        version: held.record.version.clone(),
        state: pb::ControllerState::Unreachable.into(),
        epoch: held.revision,
        started_ms: held.record.started.as_millis(),
        ..pb::Controller::default()
    });
    stored.collect()
}

/// A controller's own words, if it said any.
fn described(stored: pb::Controller, answers: &mut Answers<pb::Controller>) -> pb::Controller {
    let said = stored.name.parse().ok().and_then(|name: HostName| answers.answers.remove(&name));
    said.filter(|said| said.name == stored.name).unwrap_or(stored)
}
