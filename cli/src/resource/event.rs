//! Events of the audit trail.

use fleetknock_core::{door::yaml::API_VERSION, time::Timestamp};
use fleetknock_proto::v1;
use serde_json::{Value, json};

use super::{Resource, some};
use crate::{kind::event_kind, output::time_value};

impl Resource for v1::Event {
    const PLURAL: &'static str = "events";
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("TIME", false),
        ("CODE", false),
        ("ACTOR", false),
        ("ROLE", true),
        ("BY", true),
        ("FROM", true),
        ("DOOR", false),
        ("SOURCE", false),
        ("HOST", false),
        ("OPENING", true),
        ("CONTROLLER", true),
        ("ID", true),
        ("MESSAGE", false),
    ];

    fn cells(&self, _: Timestamp) -> Vec<String> {
        let actor = self.actor.clone().unwrap_or_default();
        let message = if self.changes.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.message, changes(self))
        };
        vec![
            Timestamp::from_millis(self.time_ms).to_string(),
            event_kind(self.kind()),
            some(&actor.who),
            some(&actor.role),
            some(&actor.by),
            some(&actor.address),
            some(&self.door),
            some(&self.source),
            some(&self.host),
            some(&self.opening),
            some(&self.controller),
            some(&self.id),
            message,
        ]
    }

    fn document(&self) -> Value {
        let changes = self
            .changes
            .iter()
            .map(|change| json!({ "after": change.after, "before": change.before, "field": change.field }));
        let mut spec = json!({
            "changes": changes.collect::<Vec<_>>(),
            "code": event_kind(self.kind()),
            "controller": self.controller,
            "message": self.message,
            "time": time_value(self.time_ms),
        });
        let named = [
            ("door", &self.door),
            ("source", &self.source),
            ("host", &self.host),
            ("opening", &self.opening),
        ];
        for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
            spec[name] = json!(value);
        }
        if let Some(actor) = &self.actor {
            spec["actor"] = actor_document(actor);
        }
        json!({ "apiVersion": API_VERSION, "kind": "Event", "metadata": { "name": self.id }, "spec": spec })
    }
}

/// Who did something, for programs.
pub(crate) fn actor_document(actor: &v1::Actor) -> Value {
    json!({ "address": actor.address, "by": actor.by, "role": actor.role, "who": actor.who })
}

/// Such as `spec.opens.for: 30s -> 1m`.
fn changes(event: &v1::Event) -> String {
    let texts = event
        .changes
        .iter()
        .map(|change| format!("{}: {} -> {}", change.field, some(&change.before), some(&change.after)));
    texts.collect::<Vec<_>>().join("; ")
}
