//! What only this controller knows: itself, the agents connected to it, their words on openings, the attempts of the
//! sources that it follows. Its peers ask for it to answer their own operators.

use std::collections::{BTreeMap, BTreeSet};

use fleetknock_core::{explain::Outcome, host::HostName, time::Timestamp};
use fleetknock_proto::{convert, limits, status as refuse, v1 as pb};
use tokio::time::Instant;
use tonic::Status;

use super::{Peers, route::Link};
use crate::{
    control_api::{door_name, optional, page::Page, source},
    matching::{self, AttemptFilter},
    recollection::{Entry, Unanswered},
    record::{Boot, Packet},
    sessions::Info,
    shared::{Shared, Standing, State},
    status::{Report, State as OnHost},
    tally, wire,
};

/// Names or ids in one question.
pub(crate) const ASKED_MAX: usize = limits::PAGE_MAX;

/// Ports whose counts are told of one host among others.
const GUARD_COUNTS_IN_LISTS: usize = 64;

/// Ranges of ports in use that are told of one host among others.
const IN_USE_IN_LISTS: usize = 256;

/// Characters of a host's reason for a failure.
const REASON_MAX: usize = 300;

/// This controller, as it sees itself and its peers.
pub(crate) async fn describe(
    shared: &Shared,
    matching: &matching::Handle,
    peers: &Peers,
) -> Result<pb::Controller, Status> {
    let fill = matching.attempts(AttemptFilter { none: true, ..AttemptFilter::default() }).await;
    let fill = fill.map_err(|stopped| unavailable(shared, &stopped.to_string()))?;
    let (state, lease_until_ms) = standing(shared.standing(), shared.now());
    let leader = peers.clock_leader();
    let (agents, revision, eldest) = {
        let state = shared.state();
        let mut epochs = state.fleet.members().values().map(|held| held.revision);
        let eldest = epochs.all(|epoch| shared.epoch().is_none_or(|own| own <= epoch));
        (state.sessions.len(), state.fleet.revision(), eldest)
    };
    // Without having measured anybody older, nobody is followed and nobody led.
    let leader = leader.or_else(|| eldest.then(|| shared.name.clone()));
    Ok(pb::Controller {
        name: shared.name.to_string(),
        address: shared.address.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: state.into(),
        epoch: shared.epoch().unwrap_or(0),
        started_ms: shared.started.as_millis(),
        agents: u32::try_from(agents).unwrap_or(u32::MAX),
        sources_in_flight: fill.sources.into(),
        sources_limit: fill.limit.into(),
        revision,
        clock_offset_us: shared.clock_offset_us().saturating_neg(),
        clock_uncertainty_us: wire::micros(shared.now_uncertainty()),
        clock_leader: leader.map(|name| name.to_string()).unwrap_or_default(),
        peers: peers.statuses().into_iter().map(|(name, status)| peer(&name, status)).collect(),
        knocks: shared.metrics.knocks_judged(),
        refused: shared.metrics.knocks_refused(),
        lease_until_ms,
    })
}

/// What this controller's standing is called, and until when it holds by the fleet's time, unless it is renewed.
fn standing(standing: Standing, now: Timestamp) -> (pb::ControllerState, u64) {
    match standing {
        Standing::Leaving => (pb::ControllerState::Draining, 0),
        Standing::Serving { until, .. } => match until.checked_duration_since(Instant::now()) {
            Some(left) => (pb::ControllerState::Serving, (now + left).as_millis()),
            None => (pb::ControllerState::Suspended, 0),
        },
        // One that has not joined holds no lease either.
        Standing::Joining | Standing::Suspended => (pb::ControllerState::Suspended, 0),
    }
}

/// What this controller counts.
pub(crate) async fn overview(
    shared: &Shared,
    matching: &matching::Handle,
    seconds: usize,
) -> Result<pb::OwnOverviewResponse, Status> {
    let fill = matching.attempts(AttemptFilter { none: true, ..AttemptFilter::default() }).await;
    let fill = fill.map_err(|stopped| unavailable(shared, &stopped.to_string()))?;
    let knocks = shared.tally().last(seconds, shared.now());
    let state = shared.state();
    let connected = state.sessions.hosts().filter_map(|name| state.sessions.of(name));
    let offsets: Vec<_> = connected.map(|session| session.info.offset).collect();
    let drifting = offsets.iter().flatten().filter(|offset| offset.is_drifting()).count();
    Ok(pb::OwnOverviewResponse {
        knocks: knocks.into_iter().map(|(from, counts)| tally::told(from, counts)).collect(),
        sources_in_flight: fill.sources.into(),
        sources_limit: fill.limit.into(),
        hosts_connected: u32::try_from(offsets.len()).unwrap_or(u32::MAX),
        hosts_drifting: u32::try_from(drifting).unwrap_or(u32::MAX),
    })
}

fn peer(name: &HostName, status: super::Status) -> pb::Peer {
    let state = match status.link {
        Link::Connecting => pb::PeerState::Connecting,
        Link::Cut => pb::PeerState::Cut,
        Link::Dead => pb::PeerState::Dead,
        Link::Up => pb::PeerState::Up,
    };
    pb::Peer {
        controller: name.to_string(),
        state: state.into(),
        since_ms: status.since.as_millis(),
        reason: status.reason,
        forwarded: status.forwarded,
        dropped: status.dropped,
    }
}

/// What the agents connected here, or here last, said of themselves. What the store says of their hosts is left out:
/// whoever asks knows it.
pub(crate) fn hosts<'a>(shared: &Shared, names: impl IntoIterator<Item = &'a HostName>) -> Vec<pb::Host> {
    let state = shared.state();
    let hosts: Vec<_> = names.into_iter().filter_map(|name| host(shared, &state, name)).collect();
    if hosts.len() > 1 { hosts.into_iter().map(in_a_list).collect() } else { hosts }
}

/// The same of all that are connected here.
pub(super) fn connected_hosts(shared: &Shared) -> Vec<pb::Host> {
    let state = shared.state();
    state.sessions.hosts().filter_map(|name| host(shared, &state, name)).map(in_a_list).collect()
}

/// A host among others: of what its guard counted only the busiest ports, and not all ports in use, so that a page of hosts fits in a message.
fn in_a_list(mut host: pb::Host) -> pb::Host {
    if host.guard_counts.len() > GUARD_COUNTS_IN_LISTS {
        let packets = |count: &pb::GuardCount| count.dropped.saturating_add(count.observed);
        host.guard_counts.sort_by_key(|count| std::cmp::Reverse(packets(count)));
        host.guard_counts.truncate(GUARD_COUNTS_IN_LISTS);
    }
    host.in_use.truncate(IN_USE_IN_LISTS);
    host
}

fn host(shared: &Shared, state: &State, name: &HostName) -> Option<pb::Host> {
    let session = state.sessions.of(name);
    let info: &Info = match session {
        Some(session) => &session.info,
        None => state.sessions.last_of(name)?,
    };
    let report = info.report.clone();
    let drops = report.drops.unwrap_or_default();
    Some(pb::Host {
        name: name.to_string(),
        connected: session.is_some(),
        controller: shared.name.to_string(),
        connected_since_ms: session.map_or(0, |session| session.info.since.as_millis()),
        last_seen_ms: info.last_seen.as_millis(),
        clock_offset_us: info.offset.map_or(0, |offset| offset.micros),
        clock_uncertainty_us: info.offset.map_or(0, |offset| wire::micros(offset.uncertainty)),
        drops_kernel: drops.kernel,
        drops_queue: drops.queue,
        drops_malformed: drops.malformed,
        drops_source_limit: drops.source_limit,
        observations: info.observations,
        repairs: report.repairs,
        last_repair: report.last_repair,
        warnings: report.warnings,
        revision: report.revision,
        guard_counts: report.guard_counts,
        in_use: report.in_use,
        ..pb::Host::default()
    })
}

/// What hosts said here of these openings.
pub(super) fn opening_reports(shared: &Shared, ids: Vec<String>) -> Vec<pb::OpeningReports> {
    let state = shared.state();
    // One that is asked for twice is told once.
    let ids: BTreeSet<_> = ids.into_iter().collect();
    let told = ids.into_iter().filter_map(|id| {
        let reports = state.statuses.reports(&id)?.iter();
        let reports = reports.map(|(host, report)| opening_report(host, report)).collect();
        Some(pb::OpeningReports { id, reports })
    });
    told.collect()
}

fn opening_report(host: &HostName, report: &Report) -> pb::OpeningReport {
    let (state, reason) = match &report.state {
        OnHost::Applied => (pb::HostOpeningState::Applied, String::new()),
        OnHost::Failed { reason } => (pb::HostOpeningState::Failed, reason.clone()),
        // No host says these.
        OnHost::Expired | OnHost::Pending | OnHost::Withdrawn => {
            (pb::HostOpeningState::Unspecified, String::new())
        }
    };
    pb::OpeningReport {
        host: host.to_string(),
        generation: report.generation,
        state: state.into(),
        reason,
        at_ms: report.at.as_millis(),
        took_us: report.took_us,
    }
}

/// A peer's word on what a host said; nothing when it makes no sense.
pub(crate) fn heard(report: &pb::OpeningReport) -> Option<(HostName, Report)> {
    let state = match report.state() {
        pb::HostOpeningState::Applied => OnHost::Applied,
        pb::HostOpeningState::Failed => {
            let reason = report.reason.chars().filter(|c| !c.is_control()).take(REASON_MAX);
            OnHost::Failed { reason: reason.collect() }
        }
        _ => return None,
    };
    let host = report.host.parse().ok()?;
    let at = Timestamp::from_millis(report.at_ms);
    Some((host, Report { generation: report.generation, state, at, took_us: report.took_us }))
}

/// The attempts of the sources that this controller follows. What is left here of sources that moved is left out: it is
/// followed elsewhere, and ends here by its time.
pub(crate) async fn attempts(
    shared: &Shared,
    matching: &matching::Handle,
    peers: &Peers,
    request: &pb::ListAttemptsRequest,
) -> Result<pb::ListAttemptsResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let filter = AttemptFilter {
        door: optional("door", &request.door, door_name)?,
        source: optional("source", &request.source, source)?,
        none: false,
    };
    let found = matching.attempts(filter).await;
    let found = found.map_err(|stopped| unavailable(shared, &stopped.to_string()))?;
    let own = found.attempts.iter().filter(|attempt| peers.is_here(attempt.source));
    let own: BTreeMap<_, _> =
        own.map(|attempt| (format!("{}/{}", attempt.door, attempt.source), attempt)).collect();
    let (attempts, next_page_token) = page.cut(own.into_iter());
    let state = shared.state();
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

/// What this controller remembers of a source's knocks.
pub(crate) async fn knocks(
    shared: &Shared,
    matching: &matching::Handle,
    request: &pb::OwnKnocksRequest,
) -> Result<pb::OwnKnocksResponse, Status> {
    let source = source("source", &request.source)?;
    let remembered = matching.knocks(source, Timestamp::from_micros(request.since_us)).await;
    let remembered = remembered.map_err(|stopped| unavailable(shared, &stopped.to_string()))?;
    let refused: Vec<_> = shared.refused().of(source).cloned().collect();
    let state = shared.state();
    let knocks = remembered.entries.iter().filter_map(|entry| {
        let host = state.fleet.host_name(entry.observation().id.host)?;
        Some(knock(shared, &state, host, entry, &refused))
    });
    Ok(pb::OwnKnocksResponse {
        knocks: knocks.collect(),
        remembered_from_us: remembered.complete_from.as_micros(),
    })
}

fn knock(
    shared: &Shared,
    state: &State,
    host: &HostName,
    entry: &Entry,
    refused: &[Unanswered],
) -> pb::KnockSeen {
    let seen = entry.observation();
    // A run that is no longer known has no name; its number, which is no run's name, tells it from others.
    let boot = state.boot(host, seen.id.boot).unwrap_or(Boot(u128::from(seen.id.boot).to_be_bytes()));
    let refused = refused.iter().find(|unanswered| {
        let Packet { host: on, boot: of, counter } = &unanswered.end;
        (on, *of, *counter) == (host, boot, seen.id.counter)
            && entry.door.as_ref().is_none_or(|door| **door == unanswered.door)
    });
    let outcome = if refused.is_some() { Outcome::Refused } else { entry.outcome };
    let door = entry.door.as_deref().or(refused.map(|unanswered| &unanswered.door));
    pb::KnockSeen {
        host: host.to_string(),
        time_us: seen.time.as_micros(),
        uncertainty_us: wire::micros(seen.uncertainty),
        port: Some(seen.port.into()),
        hidden: false,
        outcome: wire::knock_outcome(outcome).into(),
        door: door.map(ToString::to_string).unwrap_or_default(),
        step: entry.step.into(),
        of: entry.of.into(),
        message: refused.map(|unanswered| unanswered.reason.clone()).unwrap_or_default(),
        controller: shared.name.to_string(),
        judged_us: entry.judged_at().as_micros(),
        boot: boot.0.to_vec(),
        counter: seen.id.counter,
        fingerprint: seen.fingerprint,
        waits: refused.is_some_and(|unanswered| unanswered.waits),
    }
}

/// The names of a question.
pub(super) fn names(names: &[String]) -> Result<Vec<HostName>, Status> {
    if names.len() > ASKED_MAX {
        return Err(refuse::invalid("names", format!("at most {ASKED_MAX} at once")));
    }
    names.iter().map(|name| Ok(convert::parsed(name, "names")?)).collect()
}

fn unavailable(shared: &Shared, reason: &str) -> Status {
    refuse::unavailable(format!("controller {}: {reason}", shared.name))
}
