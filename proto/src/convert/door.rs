//! Doors.

use std::{collections::BTreeSet, time::Duration};

use fleetknock_core::door::{Door, DoorParts, Knock, Mode, OPEN_PORTS_MAX, Opens, STEPS_MAX, Sequence, Step};

use super::{labels, labels_message, millis, networks, parsed, port, ports, selector};
use crate::{FieldError, v1};

/// A door of a request. What only a controller says (its revision, its strength, its hosts) is passed over.
///
/// # Errors
/// When a field is missing, has the wrong form or breaks a bound. Fields are named from `door` down.
pub fn door(message: &v1::Door) -> Result<Door, FieldError> {
    let name = parsed(&message.name, "door.name")?;
    let labels = labels(&message.labels, "door.labels")?;
    let Some(spec) = &message.spec else {
        return Err(FieldError::new("door.spec", "is missing"));
    };
    let Some(v1::door_spec::Knock::Sequence(sequence)) = &spec.knock else {
        return Err(FieldError::new("door.spec.sequence", "is missing; this version knows no other knock"));
    };
    let knock = Knock::Sequence(read_sequence(sequence)?);
    let sources = networks(&spec.sources, "door.spec.sources")?;
    // Checked here too, so that a set does not hide how many there are.
    if spec.open_ports.len() > OPEN_PORTS_MAX {
        let reason = format_args!("a door opens 1 to {OPEN_PORTS_MAX} ports, not {}", spec.open_ports.len());
        return Err(FieldError::new("door.spec.open_ports", reason));
    }
    let opens = Opens {
        hosts: selector(spec.open_hosts.as_ref(), "door.spec.open_hosts")?,
        ports: ports(&spec.open_ports, "door.spec.open_ports")?.into_iter().collect::<BTreeSet<_>>(),
        duration: Duration::from_millis(spec.open_for_ms),
    };
    let mode = match v1::DoorMode::try_from(spec.mode) {
        Ok(v1::DoorMode::Unspecified | v1::DoorMode::Enforce) => Mode::Enforce,
        Ok(v1::DoorMode::Observe) => Mode::Observe,
        Err(_) => {
            let reason = format_args!("{} is no mode that this version knows", spec.mode);
            return Err(FieldError::new("door.spec.mode", reason));
        }
    };
    Door::new(DoorParts { name, labels, knock, sources, opens, mode })
        .map_err(|error| FieldError { field: wire_path(&error.field), reason: error.reason })
}

fn read_sequence(message: &v1::Sequence) -> Result<Sequence, FieldError> {
    let path = "door.spec.sequence.steps";
    if message.steps.len() > STEPS_MAX {
        let reason = format_args!("a sequence has 1 to {STEPS_MAX} steps, not {}", message.steps.len());
        return Err(FieldError::new(path, reason));
    }
    // A door that was read without its steps must not come back as a door.
    if message.steps.is_empty() && message.length > 0 {
        return Err(FieldError::new(
            path,
            "the steps are not shown in this door; ask for it with its steps revealed",
        ));
    }
    let steps = message.steps.iter().enumerate().map(|(index, step)| {
        let path = format!("{path}[{index}]");
        let Some(knocked) = &step.port else {
            return Err(FieldError::new(format!("{path}.port"), "is missing"));
        };
        Ok(Step {
            hosts: selector(step.hosts.as_ref(), &format!("{path}.hosts"))?,
            port: port(knocked, &format!("{path}.port"))?,
        })
    });
    Ok(Sequence { steps: steps.collect::<Result<_, _>>()?, within: Duration::from_millis(message.within_ms) })
}

/// The wire's spelling of a field that the core names as the YAML writes it.
fn wire_path(field: &str) -> String {
    let path = match field {
        "spec.knock.sequence" => "spec.sequence.steps",
        "spec.knock.within" => "spec.sequence.within_ms",
        "spec.opens.ports" => "spec.open_ports",
        "spec.opens.hosts" => "spec.open_hosts",
        "spec.opens.for" => "spec.open_for_ms",
        other => other,
    };
    format!("door.{path}")
}

/// A door for the wire: its name, its labels and what the operator declared; the rest is the controller's to fill in.
/// Steps are left out unless `reveal` is set; their number is always told.
pub fn door_message(door: &Door, reveal: bool) -> v1::Door {
    let Knock::Sequence(sequence) = door.knock();
    let shown = if reveal { sequence.steps.as_slice() } else { &[] };
    let steps =
        shown.iter().map(|step| v1::Step { hosts: Some((&step.hosts).into()), port: Some(step.port.into()) });
    let opens = door.opens();
    let spec = v1::DoorSpec {
        knock: Some(v1::door_spec::Knock::Sequence(v1::Sequence {
            steps: steps.collect(),
            within_ms: millis(sequence.within),
            length: u32::try_from(sequence.steps.len()).unwrap_or(u32::MAX),
        })),
        sources: door.sources().iter().map(ToString::to_string).collect(),
        open_hosts: Some((&opens.hosts).into()),
        open_ports: opens.ports.iter().copied().map(Into::into).collect(),
        open_for_ms: millis(opens.duration),
        mode: match door.mode() {
            Mode::Enforce => v1::DoorMode::Enforce,
            Mode::Observe => v1::DoorMode::Observe,
        }
        .into(),
    };
    v1::Door {
        name: door.name().to_string(),
        labels: labels_message(door.labels()),
        spec: Some(spec),
        ..v1::Door::default()
    }
}
