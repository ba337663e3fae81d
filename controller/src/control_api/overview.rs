//! The fleet at a glance: what this controller knows of the store, and what all of them count.

use std::collections::BTreeMap;

use fleetknock_proto::{status as refuse, v1 as pb};
use tonic::Status;

use crate::{
    matching,
    peers::{Peers, known},
    shared::Shared,
    tally::{self, SECONDS_MAX},
    trust::Caller,
    wire,
};

/// Seconds of knocks unless more or fewer are asked for.
const SECONDS: u32 = 300;

/// How many seconds are asked for.
pub(crate) fn seconds(request: &pb::OverviewRequest) -> Result<usize, Status> {
    let seconds = if request.seconds == 0 { SECONDS } else { request.seconds };
    let seconds = usize::try_from(seconds).ok().filter(|seconds| *seconds <= SECONDS_MAX);
    seconds.ok_or_else(|| refuse::invalid("seconds", format!("at most {SECONDS_MAX}; 0 for {SECONDS}")))
}

pub(super) async fn overview(
    shared: &Shared,
    matching: &matching::Handle,
    peers: &Peers,
    caller: &Caller,
    request: &pb::OverviewRequest,
) -> Result<pb::OverviewResponse, Status> {
    let own = known::overview(shared, matching, seconds(request)?).await?;
    let asked = peers.ask(|mut client| {
        let request = *request;
        async move { client.own_overview(request).await }
    });
    let asked = asked.await;
    let mut knocks: BTreeMap<u64, pb::KnockCounts> =
        own.knocks.into_iter().map(|counts| (counts.from_ms, counts)).collect();
    let mut all = pb::OwnOverviewResponse { knocks: Vec::new(), ..own };
    for told in asked.answers.values() {
        // A peer's last second may be another one, by as much as the clocks are uncertain.
        for counts in &told.knocks {
            if let Some(held) = knocks.get_mut(&counts.from_ms) {
                let from = fleetknock_core::time::Timestamp::from_millis(counts.from_ms);
                *held = tally::told(from, tally::heard(held).plus(tally::heard(counts)));
            }
        }
        all.sources_in_flight = all.sources_in_flight.saturating_add(told.sources_in_flight);
        all.sources_limit = all.sources_limit.saturating_add(told.sources_limit);
        all.hosts_connected = all.hosts_connected.saturating_add(told.hosts_connected);
        all.hosts_drifting = all.hosts_drifting.saturating_add(told.hosts_drifting);
    }
    let now = shared.now();
    let state = shared.state();
    let fleet = &state.fleet;
    let hosts = count(fleet.hosts().len());
    Ok(pb::OverviewResponse {
        now_ms: now.as_millis(),
        fleet: shared.fleet_name.clone(),
        controller: shared.name.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        caller: Some(wire::actor(&caller.actor())),
        knocks: knocks.into_values().collect(),
        doors: count(fleet.doors().len()),
        hosts,
        // One that moves may be told by two controllers.
        hosts_connected: all.hosts_connected.min(hosts),
        hosts_drifting: all.hosts_drifting.min(hosts),
        openings: count(fleet.openings().values().filter(|held| held.record.is_active(now)).count()),
        bans: count(fleet.bans().values().filter(|held| held.record.expires > now).count()),
        // Without its lease this controller is no member, but it is there.
        controllers: count(fleet.members().keys().filter(|name| **name != shared.name).count() + 1),
        sources_in_flight: all.sources_in_flight,
        sources_limit: all.sources_limit,
        unanswered: asked.unanswered(),
    })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
