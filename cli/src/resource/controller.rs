//! Controllers, and how one sees its peers.

use fleetknock_core::{door::yaml::API_VERSION, time::Timestamp};
use fleetknock_proto::v1;
use serde_json::{Value, json};

use super::{Resource, offset, some};
use crate::output::{ago, time_value};

impl Resource for v1::Controller {
    const PLURAL: &'static str = "controllers";
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("NAME", false),
        ("ADDRESS", false),
        ("STATE", false),
        ("AGENTS", false),
        ("SOURCES", false),
        ("EPOCH", false),
        ("SINCE", false),
        ("CLOCK", false),
        ("VERSION", false),
        ("REVISION", true),
        ("KNOCKS", true),
        ("REFUSED", true),
        ("LEASE UNTIL", true),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        // Of one that does not answer, only what the store says is known.
        let told = |text: String| if answers(self) { text } else { "-".to_owned() };
        vec![
            self.name.clone(),
            some(&self.address),
            controller_state(self.state()).to_owned(),
            told(self.agents.to_string()),
            told(self.sources_in_flight.to_string()),
            self.epoch.to_string(),
            ago(self.started_ms, now),
            told(clock(self)),
            some(&self.version),
            told(self.revision.to_string()),
            told(self.knocks.to_string()),
            told(self.refused.to_string()),
            told(lease_until(self)),
        ]
    }

    fn document(&self) -> Value {
        let told = |value: Value| if answers(self) { value } else { Value::Null };
        let peers = self.peers.iter().map(|peer| {
            json!({
                "controller": peer.controller,
                "dropped": peer.dropped,
                "forwarded": peer.forwarded,
                "reason": peer.reason,
                "since": time_value(peer.since_ms),
                "state": peer_state(peer.state()),
            })
        });
        json!({
            "apiVersion": API_VERSION,
            "kind": "Controller",
            "metadata": { "name": self.name },
            "status": {
                "address": self.address,
                "agents": told(self.agents.into()),
                "clockLeader": told(self.clock_leader.as_str().into()),
                "clockOffsetMicroseconds": told(self.clock_offset_us.into()),
                "clockUncertaintyMicroseconds": told(self.clock_uncertainty_us.into()),
                "epoch": self.epoch,
                "knocks": told(self.knocks.into()),
                "leaseUntil": told(time_value(self.lease_until_ms)),
                "peers": told(peers.collect()),
                "refused": told(self.refused.into()),
                "revision": told(self.revision.into()),
                "sourcesInFlight": told(self.sources_in_flight.into()),
                "sourcesLimit": told(self.sources_limit.into()),
                "started": time_value(self.started_ms),
                "state": controller_state(self.state()),
                "version": self.version,
            },
        })
    }
}

/// Whether the controller itself said what the message says of it.
pub(crate) fn answers(controller: &v1::Controller) -> bool {
    controller.state() != v1::ControllerState::Unreachable
}

/// Whether the others follow this one's clock.
pub(crate) fn leads(controller: &v1::Controller) -> bool {
    !controller.clock_leader.is_empty() && controller.clock_leader == controller.name
}

/// Such as `leads`, `+1.2ms ±0.4ms`, or `-` while nothing is measured.
fn clock(controller: &v1::Controller) -> String {
    if leads(controller) {
        return "leads".to_owned();
    }
    offset(controller.clock_offset_us, controller.clock_uncertainty_us).unwrap_or_else(|| some(""))
}

/// Of the store's clock, not of the one who reads it; `-` for a store that knows no leases.
fn lease_until(controller: &v1::Controller) -> String {
    match controller.lease_until_ms {
        0 => some(""),
        ms => Timestamp::from_millis(ms).to_string(),
    }
}

pub(crate) fn controller_state(state: v1::ControllerState) -> &'static str {
    match state {
        v1::ControllerState::Unspecified => "unknown",
        v1::ControllerState::Serving => "serving",
        v1::ControllerState::Suspended => "suspended",
        v1::ControllerState::Draining => "draining",
        v1::ControllerState::Unreachable => "unreachable",
    }
}

pub(crate) fn peer_state(state: v1::PeerState) -> &'static str {
    match state {
        v1::PeerState::Unspecified => "unknown",
        v1::PeerState::Connecting => "connecting",
        v1::PeerState::Up => "up",
        v1::PeerState::Cut => "cut",
        v1::PeerState::Dead => "dead",
    }
}
