//! A door: how to ask (a knock) and what it opens (hosts, ports, how long).
//!
//! These types hold what has been checked; [`Door::new`] is the only way in. The YAML that operators write is read in
//! [`yaml`], the strength of a knock is computed in [`strength`].

use std::{borrow::Borrow, collections::BTreeSet, fmt, str::FromStr, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    host::{HostSelector, Labels, NameError, check_dns_name, text_newtype},
    port::{Port, Protocol},
    source::Source,
};

pub mod strength;
pub mod yaml;

/// Steps in a sequence: at least one, at most this many.
pub const STEPS_MAX: usize = 32;
/// Ports that one door may open.
pub const OPEN_PORTS_MAX: usize = 64;
/// Networks in a door's `sources`.
pub const SOURCES_MAX: usize = 256;
/// The longest `within`.
pub const WITHIN_MAX: Duration = Duration::from_secs(300);
/// The shortest `within`, and the shortest time to be open.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// The longest time for which a door, or an operator, may open.
pub const OPEN_FOR_MAX: Duration = Duration::from_secs(24 * 3600);

/// A door's name, of the same form as a host's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DoorName(String);

impl DoorName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DoorName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_dns_name("door name", text)?;
        Ok(Self(text.to_owned()))
    }
}

text_newtype!(DoorName);

/// One knock in a door's sequence. Where and at what it counts is secret: `Debug` prints neither.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// On which hosts it counts.
    #[serde(default, skip_serializing_if = "HostSelector::is_any")]
    pub hosts: HostSelector,
    /// At what.
    pub port: Port,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Step(secret)")
    }
}

/// Knocks to be seen in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// 1 to [`STEPS_MAX`].
    pub steps: Vec<Step>,
    /// From the first knock to the last, both by packet time.
    pub within: Duration,
}

/// How to ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Knock {
    /// A secret sequence of ports and hosts.
    Sequence(Sequence),
}

/// What is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opens {
    /// Where.
    pub hosts: HostSelector,
    /// TCP and UDP ports, 1 to [`OPEN_PORTS_MAX`].
    pub ports: BTreeSet<Port>,
    /// For how long new connections are let in; established ones live on.
    #[serde(rename = "for")]
    pub duration: Duration,
}

/// What becomes of the ports that a door opens, for everybody without an opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are guarded.
    #[default]
    Enforce,
    /// Nothing is dropped for this door; agents count what guard would have dropped.
    Observe,
}

impl Mode {
    /// As the YAML writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        match text {
            "enforce" => Ok(Self::Enforce),
            "observe" => Ok(Self::Observe),
            _ => Err(ModeError),
        }
    }
}

/// No such mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a door's mode is 'enforce' or 'observe'")]
pub struct ModeError;

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an operator declares. All bounds hold in every value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DoorParts", into = "DoorParts")]
pub struct Door(DoorParts);

/// A door's parts, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorParts {
    /// Unique in the fleet.
    pub name: DoorName,
    /// For people and tools.
    #[serde(default)]
    pub labels: Labels,
    /// How to ask.
    pub knock: Knock,
    /// Who may knock at all; empty: everybody.
    #[serde(default)]
    pub sources: Vec<IpNet>,
    /// What is opened.
    pub opens: Opens,
    /// What becomes of its ports otherwise.
    #[serde(default, skip_serializing_if = "Mode::is_default")]
    pub mode: Mode,
}

impl Door {
    /// # Errors
    /// When a bound is broken: the error names the field as the YAML writes it.
    pub fn new(parts: DoorParts) -> Result<Self, DoorError> {
        let refuse = |field: &str, reason: String| Err(DoorError { field: field.to_owned(), reason });
        match &parts.knock {
            Knock::Sequence(sequence) => {
                let count = sequence.steps.len();
                if !(1..=STEPS_MAX).contains(&count) {
                    return refuse(
                        "spec.knock.sequence",
                        format!("a sequence has 1 to {STEPS_MAX} steps, not {count}"),
                    );
                }
                if !(SHORTEST..=WITHIN_MAX).contains(&sequence.within) {
                    return refuse(
                        "spec.knock.within",
                        format!(
                            "must be from {} to {}, not {}",
                            humantime::format_duration(SHORTEST),
                            humantime::format_duration(WITHIN_MAX),
                            humantime::format_duration(sequence.within)
                        ),
                    );
                }
            }
        }
        if parts.sources.len() > SOURCES_MAX {
            return refuse("spec.sources", format!("more than {SOURCES_MAX} networks"));
        }
        let ports = &parts.opens.ports;
        if ports.is_empty() || ports.len() > OPEN_PORTS_MAX {
            return refuse(
                "spec.opens.ports",
                format!("a door opens 1 to {OPEN_PORTS_MAX} ports, not {}", ports.len()),
            );
        }
        if let Some(port) = ports.iter().find(|port| port.protocol() == Protocol::Icmp) {
            return refuse(
                "spec.opens.ports",
                format!("{port} cannot be opened: only tcp and udp ports can"),
            );
        }
        if let Knock::Sequence(sequence) = &parts.knock
            && sequence.steps.iter().any(|step| ports.contains(&step.port))
        {
            return refuse(
                "spec.knock.sequence",
                "a step knocks at a port that this door opens; guarded ports are not in the knock space"
                    .to_owned(),
            );
        }
        if !(SHORTEST..=OPEN_FOR_MAX).contains(&parts.opens.duration) {
            return refuse(
                "spec.opens.for",
                format!(
                    "must be from {} to {}, not {}",
                    humantime::format_duration(SHORTEST),
                    humantime::format_duration(OPEN_FOR_MAX),
                    humantime::format_duration(parts.opens.duration)
                ),
            );
        }
        Ok(Self(parts))
    }

    /// Unique in the fleet.
    pub fn name(&self) -> &DoorName {
        &self.0.name
    }

    /// For people and tools.
    pub fn labels(&self) -> &Labels {
        &self.0.labels
    }

    /// How to ask.
    pub fn knock(&self) -> &Knock {
        &self.0.knock
    }

    /// Who may knock at all; empty: everybody.
    pub fn sources(&self) -> &[IpNet] {
        &self.0.sources
    }

    /// Whether this source may knock at all.
    pub fn admits(&self, source: Source) -> bool {
        self.0.sources.is_empty() || self.0.sources.iter().any(|network| network.contains(&source.address()))
    }

    /// What is opened.
    pub fn opens(&self) -> &Opens {
        &self.0.opens
    }

    /// What becomes of its ports for everybody without an opening.
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// Its parts, for changing them.
    pub fn into_parts(self) -> DoorParts {
        self.0
    }
}

impl From<Door> for DoorParts {
    fn from(door: Door) -> Self {
        door.0
    }
}

impl TryFrom<DoorParts> for Door {
    type Error = DoorError;

    fn try_from(parts: DoorParts) -> Result<Self, DoorError> {
        Self::new(parts)
    }
}

/// A bound of a door that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct DoorError {
    /// The field as the YAML writes it, such as `spec.opens.for`.
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
}
