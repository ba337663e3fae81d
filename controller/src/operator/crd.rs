//! Doors as custom resources: `doors.fleetknock.io`, version v1, kind Door.
//!
//! The types mirror what `fleetknock_core::door::yaml` reads, so that one document is good for `fleetknock apply` and for
//! `kubectl apply`; a test holds both against each other. What they add is `sequenceFrom`, the status, and bounds that the
//! API server checks before a controller sees anything. What the schema cannot say (a time's bounds, a network's form) the
//! controller says in the status: the same reader decides in the end.
//!
//! The definition is printed by `fleetknock-controller kubernetes crd`, and lies in `deploy/` for the chart and the
//! kustomize base.

#![allow(clippy::duplicated_attributes, reason = "printer columns share types and priorities")]

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod against;
#[cfg(test)]
mod tests;

/// Keeps a deleted door until its guard and its openings are withdrawn.
pub const FINALIZER: &str = "fleetknock.io/withdraw";
/// An annotation: `true` accepts a weak knock, as `fleetknock apply --weak` does.
pub const WEAK: &str = "fleetknock.io/weak";
/// An annotation: `true` takes over a door of that name that was made by the control API.
pub const ADOPT: &str = "fleetknock.io/adopt";
/// The type of the secrets that hold sequences. Secrets of other types are never read.
pub const SECRET_TYPE: &str = "fleetknock.io/sequence";

/// Host names in one selector.
const NAMES_MAX: usize = 1_000;

/// 1 to 65535, without leading zeros.
macro_rules! number {
    () => {
        "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
    };
}
const OPENED_PORT: &str = concat!("^(tcp|udp)/", number!(), "$");
const STEP_PORT: &str = concat!("^((tcp|udp)/", number!(), "|icmp/(0|", number!(), "))$");
/// As `humantime` reads it: numbers with units.
const TIME: &str = "^[0-9]+[0-9a-z ]*[a-z]$";
/// A DNS name (RFC 1123 section 2.1) in lower case.
const NAME: &str = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$";
/// A key of a secret's data.
const KEY: &str = "^[-._a-zA-Z0-9]+$";

/// A door: how to ask (a knock) and what it opens (hosts, ports, how long).
#[derive(Clone, Debug, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleetknock.io",
    version = "v1",
    kind = "Door",
    namespaced,
    status = "DoorStatus",
    derive = "PartialEq",
    doc = "A door: ports that are closed to everybody who has not knocked",
    shortname = "fkdoor",
    shortname = "fkdoors",
    category = "fleetknock",
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "enforce: its ports are guarded; observe: what guard would drop is counted"
    ),
    printcolumn(
        name = "Opens",
        type_ = "string",
        json_path = ".spec.opens.ports",
        description = "The ports that a knock opens"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        description = "Whether the fleet has taken this door as it is declared now"
    ),
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = ".status.enforced",
        description = "On how many of its hosts the agents hold it"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        priority = 1,
        description = "Why it is accepted, or not"
    ),
    printcolumn(
        name = "Bits",
        type_ = "integer",
        json_path = ".status.strengthBits",
        priority = 1,
        description = "The strength of its knock"
    )
)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.knock.sequence) || self.knock.sequence.all(step, !(step.port in self.opens.ports))",
    "message": "a step knocks at a port that this door opens; guarded ports are not in the knock space",
}]))]
#[serde(rename_all = "camelCase")]
pub struct DoorSpec {
    /// enforce: its ports are guarded. observe: nothing is dropped, and agents count what guard would have dropped
    #[serde(default)]
    pub mode: Mode,
    /// How to ask
    pub knock: KnockSpec,
    /// Networks that may knock at all, such as 192.0.2.0/24; everybody unless given
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 64)))]
    pub sources: Vec<String>,
    /// What is opened
    pub opens: OpensSpec,
}

/// What becomes of a door's ports for everybody without an opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Mode {
    #[default]
    #[expect(
        missing_docs,
        reason = "a comment here would turn the schema's enum into a oneOf, which no CRD may have"
    )]
    Enforce,
    #[expect(missing_docs, reason = "as above")]
    Observe,
}

/// How to ask: a sequence of knocks, given here or kept in a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.sequence) != has(self.sequenceFrom)",
    "message": "give exactly one of sequence and sequenceFrom",
}]))]
#[serde(rename_all = "camelCase")]
pub struct KnockSpec {
    /// The steps, in order. Whoever can read this resource can read them; sequenceFrom keeps them in a secret
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub sequence: Option<Vec<StepSpec>>,
    /// Where the steps are kept
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_from: Option<SequenceSource>,
    /// From the first knock to the last, 1s to 5m
    #[schemars(regex(pattern = TIME), length(max = 64))]
    pub within: String,
}

/// One knock. Where and at what it counts is secret: `Debug` prints neither.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepSpec {
    /// On which hosts it counts; on any unless given
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<HostsSpec>,
    /// A port such as tcp/7412 or udp/23981, or icmp/ and the length of an echo request's payload
    #[schemars(regex(pattern = STEP_PORT), length(max = 10))]
    pub port: String,
}

impl fmt::Debug for StepSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StepSpec(secret)")
    }
}

/// Where a sequence is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SequenceSource {
    /// A key of a secret in the same namespace, of type fleetknock.io/sequence. It holds the list of steps as YAML
    pub secret_key_ref: SecretKey,
}

/// A key of a secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct SecretKey {
    /// The secret's name
    #[schemars(regex(pattern = NAME), length(max = 253))]
    pub name: String,
    /// The key among its data
    #[schemars(regex(pattern = KEY), length(max = 253))]
    pub key: String,
}

/// What is opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpensSpec {
    /// On which hosts; {} means every host of the fleet
    pub hosts: HostsSpec,
    /// TCP and UDP ports such as tcp/22
    #[schemars(
        length(min = 1, max = 64),
        inner(regex(pattern = OPENED_PORT), length(max = 10)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub ports: Vec<String>,
    /// For how long new connections are let in, 1s to 24h; established ones live on
    #[serde(rename = "for")]
    #[schemars(regex(pattern = TIME), length(max = 64))]
    pub duration: String,
}

/// Chooses hosts: all given conditions must hold; with none it chooses every host of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostsSpec {
    /// Labels that a host must carry
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 64,
        "additionalProperties" = {"type": "string", "maxLength": 63}
    ))]
    pub match_labels: BTreeMap<String, String>,
    /// Names of which a host must have one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAMES_MAX), inner(regex(pattern = NAME), length(max = 253)))]
    pub names: Option<Vec<String>>,
}

/// What the fleet makes of a door. Only controllers write it; it holds no step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DoorStatus {
    /// The generation that this status speaks of
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The door's name in the fleet
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub door: Option<String>,
    /// On how many of its hosts the agents hold it, such as 3/3
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub enforced: Option<String>,
    /// The strength of the knock in bits
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength_bits: Option<i64>,
    /// Accepted: whether the fleet has taken this door as it is declared now. Enforced: whether the agents of all its hosts
    /// hold it
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// The definition as it lies in `deploy/`.
///
/// # Errors
/// Never for these types; serialisation's own error otherwise.
pub fn yaml() -> Result<String, String> {
    let definition = serde_json::to_value(Door::crd()).map_err(|error| error.to_string())?;
    let body = serde_saphyr::to_string(&definition).map_err(|error| error.to_string())?;
    Ok(format!(
        "# The custom resource definition of doors, so that `kubectl apply -f door.yaml` works.\n\
         # Written by `fleetknock-controller kubernetes crd`: change controller/src/operator/crd.rs, not this file.\n\
         {body}"
    ))
}
