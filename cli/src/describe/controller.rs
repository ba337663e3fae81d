//! `fleetknock describe controller`: how it does, how it sees its peers, and what to do about what is wrong.

use std::time::Duration;

use fleetknock_core::time::Timestamp;
use fleetknock_proto::v1;

use super::{facts, indented, when};
use crate::{
    output::{ago, aligned, remaining},
    resource::{answers, controller_state, leads, offset, peer_state, some},
};

#[cfg(test)]
mod tests;

/// A clock further off than this makes openings end visibly early or late for whoever reads logs side by side.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(1);

pub(super) fn describe(controller: &v1::Controller, now: Timestamp) -> String {
    let told = |text: String| if answers(controller) { text } else { some("") };
    let mut text = facts([
        ("Name", controller.name.clone()),
        ("Address", some(&controller.address)),
        ("Version", some(&controller.version)),
        ("State", state(controller)),
        ("Started", when(controller.started_ms, now)),
        ("Epoch", controller.epoch.to_string()),
        ("Lease", told(lease(controller, now))),
        ("Clock", told(clock(controller))),
        ("Agents", told(controller.agents.to_string())),
        (
            "Sources",
            told(format!("{} in flight, at most {}", controller.sources_in_flight, controller.sources_limit)),
        ),
        ("Knocks", told(format!("{} judged", controller.knocks))),
        ("Refused", told(format!("{} complete knocks opened nothing", controller.refused))),
        ("Revision", told(controller.revision.to_string())),
        ("Peers", told(controller.peers.len().to_string())),
    ]);
    text.push_str(&peers(controller, now));
    let hints = hints(controller, now);
    if !hints.is_empty() {
        text.push_str("To do:\n");
        text.push_str(&indented(hints.iter().map(String::as_str)));
    }
    text
}

fn state(controller: &v1::Controller) -> String {
    let state = controller_state(controller.state());
    match controller.state() {
        v1::ControllerState::Suspended => format!("{state}: its lease is gone, it decides nothing"),
        v1::ControllerState::Draining => format!("{state}: it leaves, its agents go to the others"),
        v1::ControllerState::Unreachable => format!("{state}: the controller that was asked cannot reach it"),
        v1::ControllerState::Serving | v1::ControllerState::Unspecified => state.to_owned(),
    }
}

fn lease(controller: &v1::Controller, now: Timestamp) -> String {
    match controller.lease_until_ms {
        0 => some(""),
        ms => {
            let until = Timestamp::from_millis(ms);
            format!("until {until} ({} left)", remaining(until, now))
        }
    }
}

fn clock(controller: &v1::Controller) -> String {
    let offset = offset(controller.clock_offset_us, controller.clock_uncertainty_us);
    match (leads(controller), offset) {
        (true, None) => "leads the fleet's time".to_owned(),
        (true, Some(offset)) => format!("leads the fleet's time, {offset} from it itself"),
        (false, None) => "not measured yet".to_owned(),
        (false, Some(offset)) => {
            format!("{offset} from the fleet's time, led by {}", some(&controller.clock_leader))
        }
    }
}

fn peers(controller: &v1::Controller, now: Timestamp) -> String {
    if controller.peers.is_empty() {
        return String::new();
    }
    let header = ["  NAME", "STATE", "FOR", "FORWARDED", "DROPPED", "REASON"].map(str::to_owned).to_vec();
    let rows = controller.peers.iter().map(|peer| {
        vec![
            format!("  {}", peer.controller),
            peer_state(peer.state()).to_owned(),
            ago(peer.since_ms, now),
            peer.forwarded.to_string(),
            peer.dropped.to_string(),
            peer.reason.clone(),
        ]
    });
    aligned(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
}

/// What is wrong, each with its remedy.
fn hints(controller: &v1::Controller, now: Timestamp) -> Vec<String> {
    let mut hints = Vec::new();
    let name = &controller.name;
    match controller.state() {
        v1::ControllerState::Suspended => hints.push(format!(
            "{name} cannot renew its lease: check that it reaches the store (etcd), and the store's health; it goes on by \
             itself once it can"
        )),
        v1::ControllerState::Unreachable => hints.push(format!(
            "check that {name} runs, and that nothing lies between it and the controller that was asked; or ask it \
             itself with --controller {}",
            some(&controller.address)
        )),
        v1::ControllerState::Serving
        | v1::ControllerState::Draining
        | v1::ControllerState::Unspecified => {}
    }
    for peer in &controller.peers {
        let other = &peer.controller;
        let since = ago(peer.since_ms, now);
        let reason = if peer.reason.is_empty() { String::new() } else { format!(" ({})", peer.reason) };
        match peer.state() {
            v1::PeerState::Cut => hints.push(format!(
                "{name} has had no answer from {other} for {since}{reason}: check the network and firewalls between them, \
                 and that {other} is not frozen; until then its knocks go round through another controller"
            )),
            v1::PeerState::Dead => hints.push(format!(
                "{other} has not run at its address for {since}{reason}: start it, or check its --advertise; until then \
                 the others follow its sources"
            )),
            v1::PeerState::Up | v1::PeerState::Connecting | v1::PeerState::Unspecified => {}
        }
    }
    let off = Duration::from_micros(controller.clock_offset_us.unsigned_abs());
    if answers(controller) && off > CLOCK_OFF_MAX {
        hints.push(format!(
            "the clock of {name} is {:.1}s {} the fleet's time: let NTP (chrony, systemd-timesyncd) set it",
            off.as_secs_f64(),
            if controller.clock_offset_us > 0 { "ahead of" } else { "behind" }
        ));
    }
    hints
}
