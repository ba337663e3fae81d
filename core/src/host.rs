//! Hosts: their names, their labels, and how a door chooses among them.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A small number that stands for a host while a controller runs. Never stored, never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// A host's name: 1 to 253 characters of lower-case letters, digits, `-` and `.`, beginning and ending with a letter
/// or digit (a DNS name as of RFC 1123 section 2.1, in lower case).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_dns_name("host name", text)?;
        Ok(Self(text.to_owned()))
    }
}

/// Checks the form that host and door names share.
pub(crate) fn check_dns_name(what: &'static str, text: &str) -> Result<(), NameError> {
    let wrong = |reason| NameError::new(what, text, reason);
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    if text.len() > 253 {
        return Err(wrong("it has more than 253 characters"));
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !text.bytes().all(|b| inner(b) || b == b'-' || b == b'.') {
        return Err(wrong("it may hold lower-case letters, digits, '-' and '.' only"));
    }
    if !text.bytes().next().is_some_and(inner) || !text.bytes().last().is_some_and(inner) {
        return Err(wrong("it must begin and end with a letter or a digit"));
    }
    Ok(())
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
pub(crate) use text_newtype;

text_newtype!(HostName);

/// At most this many labels on one host or in one selector.
pub const LABELS_MAX: usize = 64;

/// Labels of a host or a door, such as `role: edge`. Keys are 1 to 63 characters of letters, digits, `-`, `_`, `.` and
/// `/`; values 0 to 63 characters of the same without `/` (the form of Kubernetes labels, so that node labels fit;
/// a prefixed key may be longer: up to 317 characters).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// # Errors
    /// When a key or value has the wrong form, a key comes twice with different values, or there are more than
    /// [`LABELS_MAX`].
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, LabelError> {
        let mut labels = BTreeMap::new();
        for (key, value) in pairs {
            check_label(&key, &value)?;
            if labels.get(&key).is_some_and(|old| *old != value) {
                return Err(LabelError::Twice { key });
            }
            labels.insert(key, value);
            if labels.len() > LABELS_MAX {
                return Err(LabelError::TooMany);
            }
        }
        Ok(Self(labels))
    }

    /// Key and value pairs, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every label of `wanted` is among these.
    pub fn contain(&self, wanted: &Self) -> bool {
        wanted.iter().all(|(key, value)| self.value(key) == Some(value))
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = LabelError;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, LabelError> {
        Self::new(map)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

fn check_label(key: &str, value: &str) -> Result<(), LabelError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let key_ok = !key.is_empty() && key.len() <= 317 && key.bytes().all(|b| plain(b) || b == b'/');
    if !key_ok {
        return Err(LabelError::Key { key: key.chars().take(80).collect() });
    }
    if value.len() > 63 || !value.bytes().all(plain) {
        return Err(LabelError::Value { key: key.to_owned(), value: value.chars().take(80).collect() });
    }
    Ok(())
}

/// Chooses hosts: all given conditions must hold; with none it chooses every host of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSelector {
    /// Labels that a host must carry.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub match_labels: Labels,
    /// Names of which a host must have one; empty: any name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<HostName>,
}

impl HostSelector {
    /// Whether this chooses every host.
    pub fn is_any(&self) -> bool {
        self.match_labels.is_empty() && self.names.is_empty()
    }

    /// Whether this chooses the host of that name and those labels.
    pub fn matches(&self, name: &HostName, labels: &Labels) -> bool {
        (self.names.is_empty() || self.names.contains(name)) && labels.contain(&self.match_labels)
    }
}

impl fmt::Display for HostSelector {
    /// For people: `any host`, `role=edge`, `db-1, db-2`, `role=edge among db-1, db-2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return f.write_str("any host");
        }
        let labels: Vec<_> = self.match_labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let names: Vec<_> = self.names.iter().map(HostName::as_str).collect();
        f.write_str(&labels.join(","))?;
        if !labels.is_empty() && !names.is_empty() {
            f.write_str(" among ")?;
        }
        f.write_str(&names.join(", "))
    }
}

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {what}: {reason}")]
pub struct NameError {
    what: &'static str,
    text: String,
    reason: &'static str,
}

impl NameError {
    pub(crate) fn new(what: &'static str, text: &str, reason: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), reason }
    }
}

/// Why something is not a set of labels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The key has the wrong form.
    #[error("'{key}' is not a label key: it takes letters, digits, '-', '_', '.' and '/'")]
    Key {
        /// What was given.
        key: String,
    },
    /// More than [`LABELS_MAX`].
    #[error("there are more than {LABELS_MAX} labels")]
    TooMany,
    /// One key, two values.
    #[error("the label '{key}' is given twice with different values")]
    Twice {
        /// The key.
        key: String,
    },
    /// The value has the wrong form.
    #[error("'{value}' is not a value for the label '{key}': at most 63 letters, digits, '-', '_' and '.'")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        value: String,
    },
}
