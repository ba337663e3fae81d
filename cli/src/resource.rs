//! What a controller answers with, as rows of a table and as documents of the shape that Kubernetes resources have.

use fleetknock_core::{
    door::{
        Mode,
        yaml::{API_VERSION, SECRET, time_text},
    },
    time::Timestamp,
};
use fleetknock_proto::{convert, v1};
use serde_json::{Map, Value, json};

use crate::output::{ago, remaining, time_value};

mod controller;
mod event;
#[cfg(test)]
mod tests;
mod token;

pub(crate) use controller::{answers, controller_state, leads, peer_state};
pub(crate) use event::actor_document;
pub(crate) use token::token_holder;

/// Something that can be listed.
pub(crate) trait Resource {
    /// Such as `doors`.
    const PLURAL: &'static str;
    /// Column names, and whether only a wide table has them.
    const COLUMNS: &'static [(&'static str, bool)];

    /// One cell for each of [`COLUMNS`](Self::COLUMNS).
    fn cells(&self, now: Timestamp) -> Vec<String>;

    /// For programs.
    fn document(&self) -> Value;
}

impl Resource for v1::Door {
    const PLURAL: &'static str = "doors";
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("NAME", false),
        ("OPENS", false),
        ("ON", false),
        ("FOR", false),
        ("MODE", false),
        ("HOSTS", false),
        ("OPENINGS", false),
        ("BITS", false),
        ("ROLLS BACK", false),
        ("STEPS", true),
        ("WITHIN", true),
        ("SOURCES", true),
        ("LABELS", true),
        ("AGE", false),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let spec = self.spec.clone().unwrap_or_default();
        let sequence = sequence(self);
        vec![
            self.name.clone(),
            ports(&spec.open_ports),
            selector(spec.open_hosts.as_ref()),
            millis(spec.open_for_ms),
            mode(&spec).to_owned(),
            self.hosts.len().to_string(),
            self.active_openings.to_string(),
            format!("{:.0}", self.strength_bits),
            some(&rolls_back(self, now)),
            sequence.length.max(sequence.steps.len() as u32).to_string(),
            millis(sequence.within_ms),
            if spec.sources.is_empty() { "any".to_owned() } else { spec.sources.join(",") },
            labels(&self.labels),
            ago(self.created_ms, now),
        ]
    }

    fn document(&self) -> Value {
        let spec = self.spec.clone().unwrap_or_default();
        let sequence = sequence(self);
        let steps: Vec<Value> = if sequence.steps.is_empty() {
            (0..sequence.length.min(1_000)).map(|_| json!({ "port": SECRET })).collect()
        } else {
            sequence.steps.iter().map(step).collect()
        };
        let mut document = json!({
            "apiVersion": API_VERSION,
            "kind": "Door",
            "metadata": metadata(&self.name, &self.labels),
            "spec": {
                "knock": { "sequence": steps, "within": millis(sequence.within_ms) },
                "opens": {
                    "hosts": selector_value(spec.open_hosts.as_ref()),
                    "ports": port_texts(&spec.open_ports),
                    "for": millis(spec.open_for_ms),
                },
            },
            "status": {
                "activeOpenings": self.active_openings,
                "confirmUntil": time_value(self.confirm_until_ms),
                "created": time_value(self.created_ms),
                "hosts": self.hosts,
                "revision": self.revision,
                "strengthBits": (self.strength_bits * 10.0).round() / 10.0,
                "updated": time_value(self.updated_ms),
            },
        });
        if spec.mode() == v1::DoorMode::Observe {
            document["spec"]["mode"] = json!(mode(&spec));
        }
        if !spec.sources.is_empty() {
            document["spec"]["sources"] = json!(spec.sources);
        }
        document
    }
}

impl Resource for v1::Host {
    const PLURAL: &'static str = "hosts";
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("NAME", false),
        ("STATE", false),
        ("ADDRESSES", false),
        ("FIREWALL", false),
        ("DOORS", false),
        ("CLOCK", true),
        ("DROPS", true),
        ("REPAIRS", true),
        ("REFUSED", true),
        ("OBSERVED", true),
        ("VERSION", true),
        ("CONTROLLER", true),
        ("LABELS", true),
        ("WARNINGS", false),
        ("SEEN", false),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let drops = [self.drops_kernel, self.drops_queue, self.drops_malformed, self.drops_source_limit];
        let (refused, observed) = guard_sums(&self.guard_counts);
        vec![
            self.name.clone(),
            if self.connected { "connected" } else { "away" }.to_owned(),
            some(&self.addresses.join(",")),
            some(&self.firewall),
            some(&self.doors.join(",")),
            clock(self),
            drops.iter().fold(0_u64, |sum, drops| sum.saturating_add(*drops)).to_string(),
            self.repairs.to_string(),
            refused.to_string(),
            observed.to_string(),
            some(&self.version),
            some(&self.controller),
            labels(&self.labels),
            self.warnings.len().to_string(),
            if self.connected { "now".to_owned() } else { ago(self.last_seen_ms, now) },
        ]
    }

    fn document(&self) -> Value {
        let counts = self.guard_counts.iter().map(|count| {
            json!({
                "dropped": count.dropped,
                "observed": count.observed,
                "port": count.port.as_ref().map(port),
            })
        });
        json!({
            "apiVersion": API_VERSION,
            "kind": "Host",
            "metadata": metadata(&self.name, &self.labels),
            "status": {
                "addresses": self.addresses,
                "clockOffsetMicroseconds": self.clock_offset_us,
                "clockUncertaintyMicroseconds": self.clock_uncertainty_us,
                "connected": self.connected,
                "connectedSince": time_value(self.connected_since_ms),
                "controller": self.controller,
                "doors": self.doors,
                "drops": {
                    "kernel": self.drops_kernel,
                    "malformed": self.drops_malformed,
                    "queue": self.drops_queue,
                    "sourceLimit": self.drops_source_limit,
                },
                "firewall": self.firewall,
                "guardCounts": counts.collect::<Vec<_>>(),
                "guarded": port_texts(&self.guarded),
                "lastRepair": self.last_repair,
                "lastSeen": time_value(self.last_seen_ms),
                "observations": self.observations,
                "observed": port_texts(&self.observed),
                "repairs": self.repairs,
                "revision": self.revision,
                "version": self.version,
                "warnings": self.warnings,
            },
        })
    }
}

impl Resource for v1::Opening {
    const PLURAL: &'static str = "openings";
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("ID", false),
        ("DOOR", false),
        ("SOURCE", false),
        ("PORTS", false),
        ("STATE", false),
        ("HOSTS", false),
        ("REMAINING", false),
        ("BY", false),
        ("REFRESHED", true),
        ("REASON", true),
        ("AGE", false),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let applied = self.hosts.iter().filter(|host| host.state() == v1::HostOpeningState::Applied).count();
        let left = match self.state() {
            v1::OpeningState::Active => remaining(Timestamp::from_millis(self.expires_ms), now),
            _ => "-".to_owned(),
        };
        vec![
            self.id.clone(),
            self.door.clone(),
            self.source.clone(),
            ports(&self.ports),
            opening_state(self.state()).to_owned(),
            format!("{applied}/{}", self.hosts.len()),
            left,
            some(&self.opened_by),
            self.generation.saturating_sub(1).to_string(),
            some(&self.closed_reason),
            ago(self.opened_ms, now),
        ]
    }

    fn document(&self) -> Value {
        let hosts = self.hosts.iter().map(|host| {
            json!({
                "changed": time_value(host.changed_ms),
                "host": host.host,
                "reason": host.reason,
                "state": host_state(host.state()),
                "tookMicroseconds": host.took_us,
            })
        });
        json!({
            "apiVersion": API_VERSION,
            "kind": "Opening",
            "metadata": { "name": self.id },
            "spec": { "door": self.door, "ports": port_texts(&self.ports), "source": self.source },
            "status": {
                "by": self.opened_by,
                "closedReason": self.closed_reason,
                "expires": time_value(self.expires_ms),
                "generation": self.generation,
                "hosts": hosts.collect::<Vec<_>>(),
                "opened": time_value(self.opened_ms),
                "refreshed": time_value(self.refreshed_ms),
                "state": opening_state(self.state()),
            },
        })
    }
}

impl Resource for v1::Ban {
    const PLURAL: &'static str = "bans";
    const COLUMNS: &'static [(&'static str, bool)] =
        &[("SOURCE", false), ("REMAINING", false), ("BY", false), ("REASON", false), ("AGE", false)];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.source.clone(),
            remaining(Timestamp::from_millis(self.expires_ms), now),
            some(&self.by),
            some(&self.reason),
            ago(self.since_ms, now),
        ]
    }

    fn document(&self) -> Value {
        json!({
            "apiVersion": API_VERSION,
            "kind": "Ban",
            "metadata": { "name": self.source },
            "spec": { "reason": self.reason },
            "status": { "by": self.by, "expires": time_value(self.expires_ms), "since": time_value(self.since_ms) },
        })
    }
}

impl Resource for v1::Attempt {
    const PLURAL: &'static str = "attempts";
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("SOURCE", false),
        ("DOOR", false),
        ("STEPS", false),
        ("LAST HOST", false),
        ("REMAINING", false),
        ("AGE", false),
    ];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.source.clone(),
            self.door.clone(),
            format!("{}/{}", self.steps_done, self.steps_total),
            some(&self.last_host),
            remaining(Timestamp::from_millis(self.deadline_ms), now),
            ago(self.started_ms, now),
        ]
    }

    fn document(&self) -> Value {
        json!({
            "apiVersion": API_VERSION,
            "kind": "Attempt",
            "metadata": { "name": format!("{}/{}", self.door, self.source) },
            "status": {
                "deadline": time_value(self.deadline_ms),
                "door": self.door,
                "lastHost": self.last_host,
                "source": self.source,
                "started": time_value(self.started_ms),
                "stepsDone": self.steps_done,
                "stepsTotal": self.steps_total,
            },
        })
    }
}

/// What becomes of the ports of a door: `enforce` or `observe`.
pub(crate) fn mode(spec: &v1::DoorSpec) -> &'static str {
    match spec.mode() {
        v1::DoorMode::Observe => Mode::Observe.name(),
        // Controllers that know no modes guard the ports of every door.
        v1::DoorMode::Enforce | v1::DoorMode::Unspecified => Mode::Enforce.name(),
    }
}

/// Packets that guard dropped, and would have dropped, on all these ports together.
pub(crate) fn guard_sums<'a>(counts: impl IntoIterator<Item = &'a v1::GuardCount>) -> (u64, u64) {
    counts.into_iter().fold((0_u64, 0_u64), |(dropped, observed), count| {
        (dropped.saturating_add(count.dropped), observed.saturating_add(count.observed))
    })
}

/// The knock of a door; an empty one when the controller knows a kind that this command does not.
pub(crate) fn sequence(door: &v1::Door) -> v1::Sequence {
    match door.spec.as_ref().and_then(|spec| spec.knock.clone()) {
        Some(v1::door_spec::Knock::Sequence(sequence)) => sequence,
        None => v1::Sequence::default(),
    }
}

/// Such as `in 42s unless confirmed`; empty when nothing waits to be confirmed.
pub(crate) fn rolls_back(door: &v1::Door, now: Timestamp) -> String {
    match door.confirm_until_ms {
        0 => String::new(),
        until => format!("in {} unless confirmed", remaining(Timestamp::from_millis(until), now)),
    }
}

fn step(step: &v1::Step) -> Value {
    let mut value = Map::new();
    let hosts = selector_value(step.hosts.as_ref());
    if hosts.as_object().is_some_and(|hosts| !hosts.is_empty()) {
        value.insert("hosts".to_owned(), hosts);
    }
    value.insert("port".to_owned(), step.port.as_ref().map_or(SECRET.to_owned(), port).into());
    Value::Object(value)
}

/// Such as `tcp/22`.
pub(crate) fn port(message: &v1::Port) -> String {
    convert::port(message, "").map_or_else(|_| format!("?/{}", message.port), |port| port.to_string())
}

fn port_texts(messages: &[v1::Port]) -> Vec<String> {
    messages.iter().map(port).collect()
}

/// Such as `tcp/22,tcp/80`.
pub(crate) fn ports(messages: &[v1::Port]) -> String {
    port_texts(messages).join(",")
}

/// Such as `role=edge` or `any host`.
pub(crate) fn selector(message: Option<&v1::HostSelector>) -> String {
    convert::selector(message, "").map_or_else(|_| "?".to_owned(), |selector| selector.to_string())
}

fn selector_value(message: Option<&v1::HostSelector>) -> Value {
    let mut value = Map::new();
    if let Some(message) = message {
        if !message.match_labels.is_empty() {
            value.insert("matchLabels".to_owned(), sorted(&message.match_labels));
        }
        if !message.names.is_empty() {
            value.insert("names".to_owned(), json!(message.names));
        }
    }
    Value::Object(value)
}

fn metadata(name: &str, labels: &std::collections::HashMap<String, String>) -> Value {
    if labels.is_empty() {
        json!({ "name": name })
    } else {
        json!({ "name": name, "labels": sorted(labels) })
    }
}

fn sorted(labels: &std::collections::HashMap<String, String>) -> Value {
    json!(labels.iter().collect::<std::collections::BTreeMap<_, _>>())
}

/// Such as `role=edge,zone=b`, or `-`.
pub(crate) fn labels(labels: &std::collections::HashMap<String, String>) -> String {
    let sorted: std::collections::BTreeMap<_, _> = labels.iter().collect();
    some(&sorted.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
}

/// Such as `1m30s`.
pub(crate) fn millis(ms: u64) -> String {
    time_text(std::time::Duration::from_millis(ms))
}

/// Such as `+1.2ms ±0.4ms`, or `-` while it is not measured.
pub(crate) fn clock(host: &v1::Host) -> String {
    let measured = offset(host.clock_offset_us, host.clock_uncertainty_us).filter(|_| host.connected);
    measured.unwrap_or_else(|| some(""))
}

/// Such as `+1.2ms ±0.4ms`. No clock is measured to be exactly right: nothing is not measured yet.
pub(crate) fn offset(offset_us: i64, uncertainty_us: u64) -> Option<String> {
    let ms = |us: f64| us / 1_000.0;
    let measured = offset_us != 0 || uncertainty_us != 0;
    measured.then(|| format!("{:+.1}ms ±{:.1}ms", ms(offset_us as f64), ms(uncertainty_us as f64)))
}

pub(crate) fn opening_state(state: v1::OpeningState) -> &'static str {
    match state {
        v1::OpeningState::Unspecified => "unknown",
        v1::OpeningState::Active => "active",
        v1::OpeningState::Expired => "expired",
        v1::OpeningState::Withdrawn => "withdrawn",
    }
}

pub(crate) fn host_state(state: v1::HostOpeningState) -> &'static str {
    match state {
        v1::HostOpeningState::Unspecified => "unknown",
        v1::HostOpeningState::Pending => "pending",
        v1::HostOpeningState::Applied => "applied",
        v1::HostOpeningState::Failed => "failed",
        v1::HostOpeningState::Expired => "expired",
        v1::HostOpeningState::Withdrawn => "withdrawn",
    }
}

/// The text, or `-` when it is empty.
pub(crate) fn some(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
