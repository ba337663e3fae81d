//! Openings: get, list, open, close. What a host said of an opening is known to the controller that it is connected to.

use std::{collections::HashMap, time::Duration};

use fleetknock_core::door::OPEN_FOR_MAX;
use fleetknock_proto::{status as refuse, v1 as pb};
use tonic::Status;

use super::{decided, door_name, optional, page::Page, reason, source};
use crate::{
    decide,
    grant::Request,
    peers::{Peers, ask::Answers, known},
    record::{OpeningRecord, Withdrawn},
    shared::Shared,
    status::Reports,
    trust::Caller,
    wire,
};

/// How openings stand on their hosts, by what any controller was told; and who did not say what it was told.
pub(super) async fn describe(
    shared: &Shared,
    peers: &Peers,
    openings: &[OpeningRecord],
) -> (Vec<pb::Opening>, Vec<String>) {
    let ids: Vec<_> = {
        let state = shared.state();
        let elsewhere =
            |opening: &&OpeningRecord| opening.hosts.iter().any(|host| state.sessions.of(host).is_none());
        openings.iter().filter(elsewhere).map(|opening| opening.id.clone()).collect()
    };
    let answers = if ids.is_empty() { Answers::none() } else { ask(peers, ids).await };
    let unanswered = answers.unanswered();
    let mut told: HashMap<String, Reports> = HashMap::new();
    for opening in answers.answers.into_values().flat_map(|answer| answer.openings) {
        let reports = told.entry(opening.id).or_default();
        opening
            .reports
            .iter()
            .filter_map(known::heard)
            .for_each(|(host, report)| reports.merge(host, report));
    }
    let (state, at) = (shared.state(), shared.now());
    let described = openings.iter().map(|opening| {
        let mut reports = told.remove(&opening.id).unwrap_or_default();
        if let Some(here) = state.statuses.reports(&opening.id) {
            here.iter().for_each(|(host, report)| reports.merge(host.clone(), report.clone()));
        }
        let effective = state.fleet.is_effective(opening, at);
        let mut described = wire::opening(opening, reports.of(opening, at), effective, at);
        if !unanswered.is_empty() {
            // The rows are in the order of the hosts.
            for (host, row) in opening.hosts.iter().zip(&mut described.hosts) {
                if row.state() == pb::HostOpeningState::Pending && state.sessions.of(host).is_none() {
                    row.reason = format!(
                        "not known: controller {} did not answer, and the host may be connected to it",
                        unanswered.join(", ")
                    );
                }
            }
        }
        described
    });
    (described.collect(), unanswered.clone())
}

async fn describe_one(shared: &Shared, peers: &Peers, opening: OpeningRecord) -> Result<pb::Opening, Status> {
    let (described, _) = describe(shared, peers, std::slice::from_ref(&opening)).await;
    described.into_iter().next().ok_or_else(|| refuse::not_found("opening", &opening.id))
}

async fn ask(peers: &Peers, ids: Vec<String>) -> Answers<pb::OpeningReportsResponse> {
    let question = pb::OpeningReportsRequest { ids };
    let answers = peers.ask(|mut client| {
        let question = question.clone();
        async move { client.opening_reports(question).await }
    });
    answers.await
}

pub(super) async fn one(
    shared: &Shared,
    peers: &Peers,
    request: &pb::GetOpeningRequest,
) -> Result<pb::Opening, Status> {
    let opening = shared.state().fleet.opening(&request.id).map(|held| held.record.clone());
    let opening = opening.ok_or_else(|| refuse::not_found("opening", &printable(&request.id)))?;
    describe_one(shared, peers, opening).await
}

pub(super) async fn list(
    shared: &Shared,
    peers: &Peers,
    request: &pb::ListOpeningsRequest,
) -> Result<pb::ListOpeningsResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let door = optional("door", &request.door, door_name)?;
    let from = optional("source", &request.source, source)?;
    let (openings, next_page_token) = {
        let (state, at) = (shared.state(), shared.now());
        let openings = state.fleet.openings().values().map(|held| &held.record);
        let mut openings: Vec<_> = openings
            .filter(|opening| door.as_ref().is_none_or(|door| opening.door == *door))
            .filter(|opening| from.is_none_or(|from| opening.source == from))
            .filter(|opening| request.ended || state.fleet.is_effective(opening, at))
            .map(|opening| (format!("{}/{}", opening.door, opening.source), opening))
            .collect();
        openings.sort_by(|a, b| a.0.cmp(&b.0));
        let (openings, next_page_token) = page.cut(openings.into_iter());
        (openings.into_iter().cloned().collect::<Vec<_>>(), next_page_token)
    };
    let (openings, unanswered) = describe(shared, peers, &openings).await;
    Ok(pb::ListOpeningsResponse { openings, next_page_token, unanswered })
}

pub(super) async fn open(
    shared: &Shared,
    peers: &Peers,
    caller: &Caller,
    request: pb::OpenRequest,
) -> Result<pb::Opening, Status> {
    let duration = Duration::from_millis(request.for_ms);
    if duration > OPEN_FOR_MAX {
        return Err(refuse::invalid("for_ms", format!("at most {} h", OPEN_FOR_MAX.as_secs() / 3600)));
    }
    let request = Request {
        door: door_name("door", &request.door)?,
        source: source("source", &request.source)?,
        duration: (request.for_ms > 0).then_some(duration),
        knocked: None,
        by: caller.by(),
        reason: reason(&request.reason, "")?,
        trace: None,
    };
    let actor = caller.actor();
    let (opening, revision) = decided(shared, decide::open_by_call(shared, request, &actor).await)?;
    shared.caught_up(revision).await;
    describe_one(shared, peers, opening).await
}

pub(super) async fn close(
    shared: &Shared,
    caller: &Caller,
    request: pb::CloseRequest,
) -> Result<pb::CloseResponse, Status> {
    let door = optional("door", &request.door, door_name)?;
    let from = optional("source", &request.source, source)?;
    let how = Withdrawn {
        at: shared.now(),
        reason: reason(&request.reason, "closed by an operator")?,
        kill_connections: request.kill_connections,
    };
    let id = request.id;
    if id.is_empty() && door.is_none() && from.is_none() {
        return Err(refuse::invalid("id", "say which: an id, a door, a source, or a door and a source"));
    }
    if !id.is_empty() && shared.state().fleet.opening(&id).is_none() {
        return Err(refuse::not_found("opening", &printable(&id)));
    }
    let chosen = |opening: &OpeningRecord| {
        (id.is_empty() || opening.id == id)
            && door.as_ref().is_none_or(|door| opening.door == *door)
            && from.is_none_or(|from| opening.source == from)
    };
    let actor = caller.actor();
    let (closed, revision) = decided(shared, decide::close(shared, chosen, &how, Some(&actor)).await)?;
    shared.caught_up(revision).await;
    // They are withdrawn everywhere, whatever the hosts said before: nobody else is asked.
    let (state, at) = (shared.state(), shared.now());
    let closed = closed.iter().map(|opening| {
        let reports = state.statuses.reports(&opening.id).cloned().unwrap_or_default();
        wire::opening(opening, reports.of(opening, at), false, at)
    });
    Ok(pb::CloseResponse { closed: closed.collect() })
}

/// What somebody gave as an id, fit for an error message.
fn printable(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}
