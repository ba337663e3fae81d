//! `fleetknock describe host`: where it is connected, how well it keeps guard, and what is wrong there.

use fleetknock_core::{port::PortRange, time::Timestamp};
use fleetknock_proto::v1;

use super::{facts, indented, when};
use crate::{
    output::aligned,
    resource::{labels, offset, port, ports, some},
};

#[cfg(test)]
mod tests;

pub(super) fn describe(host: &v1::Host, now: Timestamp) -> String {
    let mut text = facts([
        ("Name", host.name.clone()),
        ("Labels", labels(&host.labels)),
        ("State", state(host)),
        ("Controller", controller(host, now)),
        ("Last seen", last_seen(host, now)),
        ("Addresses", some(&host.addresses.join(", "))),
        ("Version", some(&host.version)),
        ("Firewall", some(&host.firewall)),
        ("Guards", some(&ports(&host.guarded).replace(',', ", "))),
        ("Observes", some(&ports(&host.observed).replace(',', ", "))),
        ("In use", told(host, !host.in_use.is_empty(), || some(&in_use(&host.in_use)))),
        ("For doors", some(&host.doors.join(", "))),
        ("Picture", told(host, host.revision != 0, || format!("revision {}", host.revision))),
        (
            "Clock",
            told(host, offset(host.clock_offset_us, host.clock_uncertainty_us).is_some(), || clock(host)),
        ),
        ("Knocks seen", told(host, host.observations != 0, || host.observations.to_string())),
        ("Repairs", told(host, host.repairs != 0, || repairs(host))),
        ("Dropped", told(host, dropped(host) != 0, || dropped(host).to_string())),
    ]);
    if host.connected || dropped(host) != 0 {
        let kinds = [
            (host.drops_kernel, "in the kernel: more came than the agent could read"),
            (host.drops_queue, "in the agent: its queue was full"),
            (host.drops_source_limit, "over the limit of one source"),
            (host.drops_malformed, "malformed"),
        ];
        text.push_str(&aligned(&kinds.map(|(count, what)| vec![format!("  {count}"), what.to_owned()])));
    }
    if !host.guard_counts.is_empty() {
        text.push_str("Came without an opening:\n");
        let rows = host.guard_counts.iter().map(|count| {
            let what = match (count.dropped, count.observed) {
                (dropped, 0) => format!("{dropped} dropped"),
                (0, observed) => format!("{observed} passed and would have been dropped"),
                (dropped, observed) => {
                    format!("{dropped} dropped, {observed} passed and would have been dropped")
                }
            };
            vec![format!("  {}", count.port.as_ref().map_or_else(|| some(""), port)), what]
        });
        text.push_str(&aligned(&rows.collect::<Vec<_>>()));
    }
    if !host.warnings.is_empty() {
        text.push_str("Warnings:\n");
        text.push_str(&indented(host.warnings.iter().map(String::as_str)));
    }
    text
}

/// Ports at which nothing is a knock, because the host's own services have them.
fn in_use(ranges: &[v1::PortRange]) -> String {
    let ranges = ranges.iter().filter_map(|range| PortRange::try_from(*range).ok());
    ranges.map(|range| range.to_string()).collect::<Vec<_>>().join(", ")
}

fn state(host: &v1::Host) -> String {
    if host.connected {
        return "connected".to_owned();
    }
    "not connected: what follows is the last known; its guard stays, and its openings end by their time"
        .to_owned()
}

fn controller(host: &v1::Host, now: Timestamp) -> String {
    match (host.connected, host.controller.as_str()) {
        (true, name) => format!("{}, since {}", some(name), when(host.connected_since_ms, now)),
        (false, "") => some(""),
        (false, name) => format!("{name}, no longer"),
    }
}

fn last_seen(host: &v1::Host, now: Timestamp) -> String {
    match (host.last_seen_ms, host.connected) {
        (0, true) => "now".to_owned(),
        (0, false) => "not since the controllers that answered started".to_owned(),
        (ms, _) => when(ms, now),
    }
}

fn clock(host: &v1::Host) -> String {
    match offset(host.clock_offset_us, host.clock_uncertainty_us) {
        Some(offset) => format!("{offset} from the fleet's time"),
        None => "not measured yet".to_owned(),
    }
}

fn repairs(host: &v1::Host) -> String {
    match host.last_repair.as_str() {
        "" => host.repairs.to_string(),
        last => format!("{}, the last: {last}", host.repairs),
    }
}

fn dropped(host: &v1::Host) -> u64 {
    [host.drops_kernel, host.drops_queue, host.drops_malformed, host.drops_source_limit]
        .iter()
        .fold(0, |sum, drops| sum.saturating_add(*drops))
}

/// What only a connected host tells: without one, zero means that nobody knows.
fn told(host: &v1::Host, known: bool, text: impl FnOnce() -> String) -> String {
    if host.connected || known { text() } else { some("") }
}
