//! Doors as operators write them: YAML of the shape that Kubernetes resources have.
//!
//! ```yaml
//! apiVersion: fleetknock.io/v1
//! kind: Door
//! metadata:
//!   name: bastion-ssh
//! spec:
//!   knock:
//!     sequence:
//!       - {hosts: {matchLabels: {role: edge}}, port: tcp/7412}
//!       - {hosts: {names: [db-1]}, port: udp/23981}
//!       - {port: tcp/51003}
//!     within: 15s
//!   sources: [0.0.0.0/0, "::/0"]
//!   opens:
//!     hosts: {matchLabels: {role: bastion}}
//!     ports: [tcp/22]
//!     for: 30s
//! ```
//!
//! Several documents may follow each other, separated by `---`; a list of documents works too, so that JSON arrays can
//! be read back. Unknown fields are refused. A top-level `status` is passed over: it is what a controller reports.
//!
//! Errors never quote the text around them, because neighbouring lines hold the steps of knocks.

use std::fmt;

use super::Door;

mod document;
mod read;
#[cfg(test)]
mod tests;
mod tree;

pub use document::{DoorDocument, KnockDocument, Metadata, OpensDocument, Spec, StepDocument, time_text};

use tree::{Node, Position, Value};

/// What `apiVersion` says.
pub const API_VERSION: &str = "fleetknock.io/v1";
/// What `kind` says.
pub const KIND: &str = "Door";
/// The longest text in bytes.
pub const TEXT_MAX: usize = 1024 * 1024;
/// Doors in one text.
pub const DOCUMENTS_MAX: usize = 1_000;
/// Stands where a step's secrets would.
pub const SECRET: &str = "(secret)";

/// A door and where its document begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Checked.
    pub door: Door,
    /// Counted from 1.
    pub line: usize,
}

/// Reads all doors of a text. A text without any gives an empty list.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(text: &str) -> Result<Vec<Document>, YamlError> {
    parse_each(text)?.into_iter().collect()
}

/// Reads all doors of a text, each with the first thing that is wrong with it, so that one run reports them all. Two
/// doors of one name in one text are an error of the later one.
///
/// # Errors
/// When the text is too large or not YAML, so that no door could be read.
pub fn parse_each(text: &str) -> Result<Vec<Result<Document, YamlError>>, YamlError> {
    let roots = tree::read(text)?;
    let nodes: Vec<&Node> = roots
        .iter()
        .flat_map(|root| match &root.value {
            Value::List(items) => items.iter().collect(),
            _ => vec![root],
        })
        .collect();
    if let Some(node) = nodes.get(DOCUMENTS_MAX) {
        return Err(YamlError::new(
            node.at,
            "",
            format!("more than {DOCUMENTS_MAX} doors; split the text into files"),
        ));
    }
    let mut first_lines = std::collections::BTreeMap::new();
    let documents = nodes.into_iter().map(|node| {
        let document = read::document(node)?;
        match first_lines.insert(document.door.name().clone(), document.line) {
            None => Ok(document),
            Some(line) => {
                let reason =
                    format!("a door of this name is already in line {line}; names are unique in a fleet");
                Err(YamlError::new(node.at, "metadata.name", reason))
            }
        }
    });
    Ok(documents.collect())
}

/// Writes a door in the shape that [`parse`] reads. Unless `reveal` is set each step is written as
/// `port: (secret)`, which is no door to [`parse`].
pub fn print(door: &Door, reveal: bool) -> String {
    DoorDocument::new(door, reveal).to_yaml()
}

/// What is wrong with a text, in one line: `7: spec.opens.for: 'soon' is not a time; write it like 15s or 1m30s`.
/// Whoever shows it puts the file's name and a colon in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
    /// Such as `spec.opens.ports[1]`; empty when the reason says where.
    pub field: String,
    /// What is wrong and what would be right, without line breaks or control characters.
    pub reason: String,
}

impl YamlError {
    /// Makes sure that the reason is one line of bounded length that cannot steer a terminal.
    fn new(at: Position, field: &str, reason: String) -> Self {
        const REASON_MAX: usize = 300;
        let mut clean = String::with_capacity(reason.len().min(REASON_MAX));
        for (count, char) in reason.chars().enumerate() {
            if count == REASON_MAX {
                clean.push('…');
                break;
            }
            if char.is_control() {
                clean.extend(char.escape_default());
            } else {
                clean.push(char);
            }
        }
        Self { line: at.line, column: at.column, field: field.to_owned(), reason: clean }
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}: {}", self.line, self.reason)
        } else {
            write!(f, "{}: {}: {}", self.line, self.field, self.reason)
        }
    }
}

impl std::error::Error for YamlError {}
