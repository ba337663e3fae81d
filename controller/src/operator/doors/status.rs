//! What a resource's status says. Pure; it holds no step.

use fleetknock_core::{door::DoorName, time::Timestamp};
use serde_json::{Value, json};

use super::resource::{Refusal, Resource};

#[cfg(test)]
mod tests;

/// The longest message of a condition; the API server takes 32,768 characters.
const MESSAGE_MAX: usize = 1_000;

/// What is known of a resource's door.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    /// Its name in the fleet, if it can have one.
    pub(super) door: Option<&'a DoorName>,
    /// Whether it was taken.
    pub(super) accepted: &'a Result<(), Refusal>,
    /// On how many hosts the agents hold it, and of how many; nothing when there is no such door of this resource.
    pub(super) enforced: Option<(usize, usize)>,
    /// The strength of its knock.
    pub(super) bits: Option<f64>,
    /// By the fleet's clock.
    pub(super) at: Timestamp,
}

/// The status that a resource should have. A condition that stands as it stood keeps its time.
pub(crate) fn status(resource: &Resource, seen: &Seen<'_>) -> Value {
    let accepted = match seen.accepted {
        Ok(()) => ("True", "Accepted", "the fleet has taken this door".to_owned()),
        Err(refusal) => ("False", refusal.reason, refusal.message.clone()),
    };
    let enforced = match seen.enforced {
        None => ("False", "NotAccepted", "the fleet has no door of this resource".to_owned()),
        Some((_, 0)) => ("False", "NoHosts", "no host of the fleet matches spec.opens.hosts".to_owned()),
        Some((held, of)) if held == of => ("True", "AllHosts", format!("{held} of {of} hosts hold it")),
        Some((held, of)) => {
            let message =
                format!("{held} of {of} hosts hold it; the others are not connected or have not said so yet");
            ("False", "SomeHosts", message)
        }
    };
    let condition = |kind: &str, (status, reason, message): (&str, &str, String)| {
        let before = resource.status.get("conditions").and_then(Value::as_array);
        let same =
            |one: &&Value| one.get("type") == Some(&kind.into()) && one.get("status") == Some(&status.into());
        let before = before.and_then(|all| all.iter().find(same)?.get("lastTransitionTime")?.as_str());
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message.chars().take(MESSAGE_MAX).collect::<String>(),
            "observedGeneration": resource.generation,
            "lastTransitionTime": before.map_or_else(|| time(seen.at), str::to_owned),
        })
    };
    let mut status = json!({
        "observedGeneration": resource.generation,
        "conditions": [condition("Accepted", accepted), condition("Enforced", enforced)],
    });
    if let Some(door) = seen.door {
        status["door"] = door.as_str().into();
    }
    if let Some((held, of)) = seen.enforced {
        status["enforced"] = format!("{held}/{of}").into();
    }
    if let Some(bits) = seen.bits {
        #[expect(clippy::cast_possible_truncation, reason = "some hundred bits at the most; `as` saturates")]
        let whole = bits.floor() as i64;
        status["strengthBits"] = whole.into();
    }
    status
}

/// As RFC 3339 writes it, to the second.
fn time(at: Timestamp) -> String {
    let since = std::time::Duration::from_micros(at.as_micros());
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}
