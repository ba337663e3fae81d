//! A door as it is written, to YAML and to JSON.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::{API_VERSION, KIND, SECRET};
use crate::{
    door::{Door, Knock, Mode},
    host::{HostSelector, Labels},
};

/// A door in the shape of a Kubernetes resource. It is only written; [`parse`](super::parse) reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DoorDocument {
    /// [`API_VERSION`].
    pub api_version: &'static str,
    /// [`KIND`].
    pub kind: &'static str,
    /// Its name and labels.
    pub metadata: Metadata,
    /// What the operator declares.
    pub spec: Spec,
}

/// A door's name and labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// Unique in the fleet.
    pub name: String,
    /// For people and tools.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What the operator declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// `observe`; left out when the door's ports are guarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<&'static str>,
    /// How to ask.
    pub knock: KnockDocument,
    /// Networks that may knock.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// What is opened.
    pub opens: OpensDocument,
}

/// How to ask: a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnockDocument {
    /// In order.
    pub sequence: Vec<StepDocument>,
    /// From the first knock to the last, such as `15s`.
    pub within: String,
}

/// One step. `Debug` prints neither its hosts nor its port.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct StepDocument {
    /// Where it counts.
    #[serde(skip_serializing_if = "HostSelector::is_any")]
    pub hosts: HostSelector,
    /// Such as `tcp/7412`, or [`SECRET`].
    pub port: String,
}

impl fmt::Debug for StepDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StepDocument(secret)")
    }
}

impl StepDocument {
    /// A step that is not shown. Its hosts are hidden too: they are part of what a guesser does not know.
    pub fn secret() -> Self {
        Self { hosts: HostSelector::default(), port: SECRET.to_owned() }
    }
}

/// What is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpensDocument {
    /// Where.
    pub hosts: HostSelector,
    /// Such as `tcp/22`.
    pub ports: Vec<String>,
    /// Such as `30s`.
    #[serde(rename = "for")]
    pub duration: String,
}

impl DoorDocument {
    /// Shows the steps only if told to `reveal` them.
    pub fn new(door: &Door, reveal: bool) -> Self {
        let Knock::Sequence(sequence) = door.knock();
        let steps = sequence.steps.iter().map(|step| {
            if reveal {
                StepDocument { hosts: step.hosts.clone(), port: step.port.to_string() }
            } else {
                StepDocument::secret()
            }
        });
        let opens = door.opens();
        Self {
            api_version: API_VERSION,
            kind: KIND,
            metadata: Metadata { name: door.name().to_string(), labels: pairs(door.labels()) },
            spec: Spec {
                mode: (door.mode() != Mode::default()).then(|| door.mode().name()),
                knock: KnockDocument { sequence: steps.collect(), within: time_text(sequence.within) },
                sources: door.sources().iter().map(ToString::to_string).collect(),
                opens: OpensDocument {
                    hosts: opens.hosts.clone(),
                    ports: opens.ports.iter().map(ToString::to_string).collect(),
                    duration: time_text(opens.duration),
                },
            },
        }
    }

    /// As YAML, with a line break at its end.
    pub fn to_yaml(&self) -> String {
        // Every part is a string, a map or a list, none of which the writer can refuse.
        serde_saphyr::to_string(self).unwrap_or_default()
    }
}

fn pairs(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A duration as doors spell it: `1m30s`.
pub fn time_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}
