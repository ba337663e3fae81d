//! A Door as the API server holds it, and the door that it declares.
//!
//! Pure. The spec is handed, as it is, to the reader of doors that files go through; what is wrong is said without a word
//! of the sequence, because statuses, logs and events are read by people who may not know it.

use std::{collections::BTreeMap, fmt};

use data_encoding::BASE64;
use fleetknock_core::door::{
    Door, DoorName,
    yaml::{self, API_VERSION, KIND, YamlError},
};
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use crate::{
    config::Scope,
    operator::crd::{ADOPT, FINALIZER, SECRET_TYPE, SecretKey, WEAK},
    record::Owner,
};

#[cfg(test)]
mod tests;

/// A sequence of 32 steps, each on a hundred named hosts, is shorter.
const STEPS_BYTES_MAX: usize = 64 * 1024;

/// A Door resource. `Debug` prints no more than which.
#[derive(Clone, PartialEq)]
pub(crate) struct Resource {
    pub(super) owner: Owner,
    /// Changes with every write of it.
    pub(super) version: String,
    /// Changes with every change of its spec.
    pub(super) generation: i64,
    pub(super) deleting: bool,
    pub(super) finalizers: Vec<String>,
    pub(super) weak: bool,
    pub(super) adopt: bool,
    pub(super) status: Value,
    labels: BTreeMap<String, String>,
    spec: Value,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Door {} at {}", self.owner, self.version)
    }
}

/// Why a resource is not taken into the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// In one word, as conditions have it.
    pub(super) reason: &'static str,
    /// In a sentence, without any step.
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A secret's data that is known, by key, still in base64. `Debug` prints none of it.
#[derive(Clone, PartialEq)]
pub(crate) struct Secret {
    /// Changes with every write of it.
    pub(super) version: String,
    data: BTreeMap<String, String>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret at {}", self.version)
    }
}

impl Secret {
    /// Nothing when it is of another type, or not whole.
    pub(super) fn read(object: DynamicObject) -> Option<Self> {
        if object.data.get("type")?.as_str()? != SECRET_TYPE {
            return None;
        }
        let data = object.data.get("data").and_then(Value::as_object);
        // One that is longer cannot hold a sequence, and is not kept.
        let fits = |value: &&str| value.len() <= STEPS_BYTES_MAX * 4 / 3 + 4;
        let text = |value: &Value| value.as_str().filter(fits).map(str::to_owned);
        let pairs =
            data.into_iter().flatten().map(|(key, value)| (key.clone(), text(value).unwrap_or_default()));
        Some(Self { version: object.metadata.resource_version?, data: pairs.collect() })
    }
}

/// What is known of the secret that a resource names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    /// The secrets have not been read yet.
    NotYet,
    /// They may not be read.
    Forbidden,
    /// This, or that there is none.
    Known(Option<&'a Secret>),
}

impl Resource {
    /// Nothing when it lacks what every object of an API server has.
    pub(super) fn read(object: DynamicObject) -> Option<Self> {
        let metadata = object.metadata;
        let annotations = metadata.annotations.unwrap_or_default();
        let said = |key: &str| annotations.get(key).is_some_and(|value| value == "true");
        let mut data = object.data;
        Some(Self {
            owner: Owner {
                namespace: metadata.namespace?,
                name: metadata.name?,
                uid: metadata.uid?,
                lost: false,
            },
            version: metadata.resource_version?,
            generation: metadata.generation.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            weak: said(WEAK),
            adopt: said(ADOPT),
            status: data.get_mut("status").map(Value::take).unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            spec: data.get_mut("spec").map(Value::take).unwrap_or_default(),
        })
    }

    pub(super) fn is_finalized(&self) -> bool {
        self.finalizers.iter().any(|one| one == FINALIZER)
    }

    /// The name of its door in the fleet: its own, and with all namespaces its own and its namespace's.
    pub(super) fn door_name(&self, scope: &Scope) -> Result<DoorName, Refusal> {
        let Owner { namespace, name, .. } = &self.owner;
        let name = match scope {
            Scope::All => format!("{name}.{namespace}"),
            Scope::Namespace(_) => name.clone(),
        };
        name.parse().map_err(|error| Refusal::new("Invalid", format!("metadata.name: {error}")))
    }

    /// Where its sequence is kept, when it is kept elsewhere.
    pub(super) fn secret(&self) -> Option<SecretKey> {
        let reference = self.spec.get("knock")?.get("sequenceFrom")?.get("secretKeyRef")?;
        let text = |key: &str| reference.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(SecretKey { name: text("name")?, key: text("key")? })
    }

    /// The door that it declares; nothing while what it names has not been read.
    pub(super) fn door(&self, name: &DoorName, found: Found<'_>) -> Option<Result<Door, Refusal>> {
        let mut spec = self.spec.clone();
        if let Some(knock) = spec.get_mut("knock").and_then(Value::as_object_mut)
            && knock.remove("sequenceFrom").is_some_and(|source| !source.is_null())
        {
            let steps = match (self.secret(), found) {
                (_, Found::NotYet) => return None,
                (Some(key), found) => steps(&key, found),
                (None, _) => Err(Refusal::new(
                    "Invalid",
                    "spec.knock.sequenceFrom: the field 'secretKeyRef' is missing",
                )),
            };
            match steps {
                Ok(steps) => {
                    if let Err(refusal) = put(knock, steps) {
                        return Some(Err(refusal));
                    }
                }
                Err(refusal) => return Some(Err(refusal)),
            }
        }
        let labels = Value::from_iter(self.labels.clone());
        let document = json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name.as_str(), "labels": labels},
            "spec": spec,
        });
        let invalid = |message: String| Refusal::new("Invalid", message);
        Some(match yaml::parse(&document.to_string()) {
            Ok(documents) => match <[_; 1]>::try_from(documents) {
                Ok([document]) => Ok(document.door),
                Err(_) => Err(invalid("it is not one door".to_owned())),
            },
            Err(error) => Err(invalid(said(&error))),
        })
    }
}

fn put(knock: &mut Map<String, Value>, steps: Value) -> Result<(), Refusal> {
    if knock.insert("sequence".to_owned(), steps).is_some_and(|inline| !inline.is_null()) {
        return Err(Refusal::new("Invalid", "spec.knock: give exactly one of sequence and sequenceFrom"));
    }
    Ok(())
}

/// The steps that lie under a key of a secret, not yet read as steps.
fn steps(key: &SecretKey, found: Found<'_>) -> Result<Value, Refusal> {
    let SecretKey { name, key } = key;
    let secret = match found {
        Found::Known(Some(secret)) => secret,
        Found::Forbidden => {
            let message = "the controllers may not list and watch the secrets of this namespace; give them the right, or \
                           write the sequence into the resource";
            return Err(Refusal::new("SecretForbidden", message));
        }
        Found::Known(None) | Found::NotYet => {
            let message = format!("there is no secret '{name}' of the type {SECRET_TYPE} in this namespace");
            return Err(Refusal::new("SecretMissing", message));
        }
    };
    let Some(text) = secret.data.get(key) else {
        return Err(Refusal::new("SecretMissing", format!("the secret '{name}' has no key '{key}'")));
    };
    let wrong =
        |what: &str| Refusal::new("Invalid", format!("the key '{key}' of the secret '{name}' {what}"));
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| wrong("is not whole"))?;
    if bytes.is_empty() || bytes.len() > STEPS_BYTES_MAX {
        return Err(wrong(&format!("is empty, or longer than {} KiB", STEPS_BYTES_MAX / 1024)));
    }
    let list = "is not a list of steps in YAML, such as [{port: tcp/7412}, {port: udp/23981}]";
    // The parser's own words may quote what it read.
    let text = str::from_utf8(&bytes).map_err(|_| wrong(list))?;
    match serde_saphyr::from_str(text) {
        Ok(steps @ Value::Array(_)) => Ok(steps),
        _ => Err(wrong(list)),
    }
}

/// What is wrong, without what stands in the steps.
fn said(error: &YamlError) -> String {
    let YamlError { field, reason, .. } = error;
    if field.starts_with("spec.knock.sequence[") {
        return format!(
            "{field}: is not what a step has; a port is written like tcp/7412, hosts like {{names: [db-1]}}"
        );
    }
    if field.is_empty() { reason.clone() } else { format!("{field}: {reason}") }
}
