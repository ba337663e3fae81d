//! Hosts: get, list, forget.

use fleetknock_core::{
    host::{HostName, Labels},
    port::Port,
};
use fleetknock_proto::{status as refuse, v1 as pb};
use tonic::Status;

use super::{decided, page::Page};
use crate::{
    decide,
    record::{HostRecord, Key},
    shared::{Shared, State},
    wire,
};

fn host_name(text: &str) -> Result<HostName, Status> {
    text.parse().map_err(|e: fleetknock_core::host::NameError| refuse::invalid("name", e.to_string()))
}

fn describe(shared: &Shared, state: &State, host: &HostRecord) -> pb::Host {
    let session = state.sessions.of(&host.name);
    let info = session.map(|session| &session.info);
    let report = info.map(|info| info.report.clone()).unwrap_or_default();
    let drops = report.drops.unwrap_or_default();
    let offset = info.and_then(|info| info.offset);
    pb::Host {
        name: host.name.to_string(),
        labels: host.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        addresses: host.addresses.clone(),
        connected: session.is_some(),
        controller: session.map(|_| shared.name.to_string()).unwrap_or_default(),
        connected_since_ms: info.map_or(0, |info| info.since.as_millis()),
        last_seen_ms: info.map_or(0, |info| info.last_seen.as_millis()),
        version: host.version.clone(),
        firewall: host.firewall.clone(),
        clock_offset_us: offset.map_or(0, |offset| offset.micros),
        clock_uncertainty_us: offset.map_or(0, |offset| wire::micros(offset.uncertainty)),
        drops_kernel: drops.kernel,
        drops_queue: drops.queue,
        drops_malformed: drops.malformed,
        drops_source_limit: drops.source_limit,
        observations: info.map_or(0, |info| info.observations),
        repairs: report.repairs,
        last_repair: report.last_repair,
        warnings: report.warnings,
        revision: report.revision,
        guarded: state.fleet.guarded(host).into_iter().map(|port: Port| port.into()).collect(),
        doors: state.fleet.doors_on(host).map(|door| door.name().to_string()).collect(),
    }
}

pub(super) fn one(shared: &Shared, request: &pb::GetHostRequest) -> Result<pb::Host, Status> {
    let name = host_name(&request.name)?;
    let state = shared.state();
    let held = state.fleet.hosts().get(&name).ok_or_else(|| refuse::not_found("host", name.as_str()))?;
    Ok(describe(shared, &state, &held.record))
}

pub(super) fn list(shared: &Shared, request: pb::ListHostsRequest) -> Result<pb::ListHostsResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let wanted =
        Labels::new(request.match_labels).map_err(|e| refuse::invalid("match_labels", e.to_string()))?;
    let state = shared.state();
    let hosts = state.fleet.hosts().iter().filter(|(_, held)| held.record.labels.contain(&wanted));
    let (hosts, next_page_token) = page.cut(hosts.map(|(name, held)| (name.to_string(), &held.record)));
    let hosts = hosts.into_iter().map(|host| describe(shared, &state, host)).collect();
    Ok(pb::ListHostsResponse { hosts, next_page_token, unanswered: Vec::new() })
}

pub(super) async fn delete(
    shared: &Shared,
    request: &pb::DeleteHostRequest,
) -> Result<pb::DeleteHostResponse, Status> {
    let name = host_name(&request.name)?;
    {
        let state = shared.state();
        if !state.fleet.hosts().contains_key(&name) {
            return Err(refuse::not_found("host", name.as_str()));
        }
        if state.sessions.of(&name).is_some() {
            let reason = format!("the host '{name}' is connected; stop its agent first");
            return Err(refuse::precondition("host", name.as_str(), reason));
        }
    }
    let revision = decided(decide::remove(shared, &Key::Host(name)).await)?;
    shared.caught_up(revision).await;
    Ok(pb::DeleteHostResponse {})
}
