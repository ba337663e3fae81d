//! Openings and attempts: get, list, open, close.

use std::time::Duration;

use fleetknock_core::{door::OPEN_FOR_MAX, time::Timestamp};
use fleetknock_proto::{status as refuse, v1 as pb};
use tonic::Status;

use super::{decided, door_name, optional, page::Page, reason, source};
use crate::{
    decide,
    grant::Request,
    matching::{self, AttemptFilter},
    record::{By, OpeningRecord, Withdrawn},
    shared::{Shared, State},
    wire,
};

fn describe(state: &State, opening: &OpeningRecord, at: Timestamp) -> pb::Opening {
    let effective = state.fleet.is_effective(opening, at);
    wire::opening(opening, state.statuses.of(opening, at), effective, at)
}

pub(super) fn one(shared: &Shared, request: &pb::GetOpeningRequest) -> Result<pb::Opening, Status> {
    let state = shared.state();
    let held = state.fleet.opening(&request.id);
    let held = held.ok_or_else(|| refuse::not_found("opening", &printable(&request.id)))?;
    Ok(describe(&state, &held.record, shared.now()))
}

pub(super) fn list(
    shared: &Shared,
    request: &pb::ListOpeningsRequest,
) -> Result<pb::ListOpeningsResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let door = optional("door", &request.door, door_name)?;
    let from = optional("source", &request.source, source)?;
    let at = shared.now();
    let state = shared.state();
    let openings = state.fleet.openings().values().map(|held| &held.record);
    let mut openings: Vec<_> = openings
        .filter(|opening| door.as_ref().is_none_or(|door| opening.door == *door))
        .filter(|opening| from.is_none_or(|from| opening.source == from))
        .filter(|opening| request.ended || state.fleet.is_effective(opening, at))
        .map(|opening| (format!("{}/{}", opening.door, opening.source), opening))
        .collect();
    openings.sort_by(|a, b| a.0.cmp(&b.0));
    let (openings, next_page_token) = page.cut(openings.into_iter());
    let openings = openings.into_iter().map(|opening| describe(&state, opening, at)).collect();
    Ok(pb::ListOpeningsResponse { openings, next_page_token, unanswered: Vec::new() })
}

pub(super) async fn open(shared: &Shared, request: pb::OpenRequest) -> Result<pb::Opening, Status> {
    let duration = Duration::from_millis(request.for_ms);
    if duration > OPEN_FOR_MAX {
        return Err(refuse::invalid("for_ms", format!("at most {} h", OPEN_FOR_MAX.as_secs() / 3600)));
    }
    let request = Request {
        door: door_name("door", &request.door)?,
        source: source("source", &request.source)?,
        duration: (request.for_ms > 0).then_some(duration),
        knocked: None,
        by: By::Operator,
        reason: reason(&request.reason, "")?,
    };
    let (opening, revision) = decided(decide::open(shared, &request).await)?;
    shared.caught_up(revision).await;
    Ok(describe(&shared.state(), &opening, shared.now()))
}

pub(super) async fn close(shared: &Shared, request: pb::CloseRequest) -> Result<pb::CloseResponse, Status> {
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
    let (closed, revision) = decided(decide::close(shared, chosen, &how).await)?;
    shared.caught_up(revision).await;
    let (state, at) = (shared.state(), shared.now());
    Ok(pb::CloseResponse { closed: closed.iter().map(|opening| describe(&state, opening, at)).collect() })
}

pub(super) async fn attempts(
    shared: &Shared,
    matching: &matching::Handle,
    request: pb::ListAttemptsRequest,
) -> Result<pb::ListAttemptsResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let filter = AttemptFilter {
        door: optional("door", &request.door, door_name)?,
        source: optional("source", &request.source, source)?,
    };
    let found =
        matching.attempts(filter).await.map_err(|stopped| refuse::unavailable(stopped.to_string()))?;
    let state = shared.state();
    let mut attempts: Vec<_> = found
        .attempts
        .iter()
        .map(|attempt| (format!("{}/{}", attempt.door, attempt.source), attempt))
        .collect();
    attempts.sort_by(|a, b| a.0.cmp(&b.0));
    let (attempts, next_page_token) = page.cut(attempts.into_iter());
    let attempts = attempts.into_iter().map(|attempt| pb::Attempt {
        door: attempt.door.to_string(),
        source: attempt.source.to_string(),
        steps_done: u32::try_from(attempt.done).unwrap_or(u32::MAX),
        steps_total: u32::try_from(attempt.total).unwrap_or(u32::MAX),
        started_ms: attempt.started.as_millis(),
        deadline_ms: attempt.deadline.as_millis(),
        last_host: state.fleet.host_name(attempt.last_host).map(ToString::to_string).unwrap_or_default(),
    });
    Ok(pb::ListAttemptsResponse {
        attempts: attempts.collect(),
        next_page_token,
        sources_in_flight: found.sources.into(),
        sources_limit: found.limit.into(),
        unanswered: Vec::new(),
    })
}

/// What somebody gave as an id, fit for an error message.
fn printable(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}
