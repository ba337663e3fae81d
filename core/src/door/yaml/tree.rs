//! YAML text as a tree in which every node knows its line. Nothing here knows what a door is.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Error, Spanned};

use super::{DOCUMENTS_MAX, TEXT_MAX, YamlError};

/// Containers within containers: a door needs 6.
const DEPTH_MAX: usize = 24;
/// Nodes in a text, those that aliases repeat included.
const NODES_MAX: usize = 300_000;
/// Events that aliases may repeat. An alias bomb repeats millions.
const REPLAY_MAX: usize = 20_000;

/// Where something stands, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value with its position.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Nothing,
    Boolean,
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) at: Position,
    pub(super) name: String,
}

impl Value {
    /// For messages: what was found instead of what was wanted. Never the value itself.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Boolean => "true or false",
            Self::Number => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads all documents of a text; empty ones are left out.
pub(super) fn read(text: &str) -> Result<Vec<Node>, YamlError> {
    let start = Position { line: 1, column: 1 };
    if text.len() > TEXT_MAX {
        let reason =
            format!("the text has {} bytes; at most {TEXT_MAX} are read, split it into files", text.len());
        return Err(YamlError::new(start, "", reason));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 2 * NODES_MAX,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: REPLAY_MAX,
            max_recorded_anchor_bytes: TEXT_MAX,
            max_depth: DEPTH_MAX,
            // Empty documents count for the parser, and are not doors.
            max_documents: 2 * DOCUMENTS_MAX,
            max_nodes: NODES_MAX,
            max_total_scalar_bytes: 2 * TEXT_MAX,
            max_merge_keys: 1_000,
        },
        alias_limits: alias_limits(),
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        // A snippet would quote neighbouring lines, which may hold the steps of a knock.
        with_snippet: false,
    };
    let documents: Vec<Node> = serde_saphyr::from_str_multiple_with_options::<Node, _>(text, options)
        .map_err(|error| describe(&error))?;
    if documents.len() > DOCUMENTS_MAX {
        let reason = format!("the text has more than {DOCUMENTS_MAX} documents; split it into files");
        return Err(YamlError::new(documents[DOCUMENTS_MAX].at, "", reason));
    }
    Ok(documents)
}

fn alias_limits() -> serde_saphyr::options::AliasLimits {
    let mut limits = serde_saphyr::options::AliasLimits::default();
    limits.max_total_replayed_events = REPLAY_MAX;
    limits.max_replay_stack_depth = 8;
    limits
}

/// Says what is wrong with the YAML itself, without quoting it.
fn describe(error: &Error) -> YamlError {
    let error = error.without_snippet();
    let at = error.location().map_or(Position { line: 1, column: 1 }, |at| position(at.line(), at.column()));
    let reason = match error {
        Error::DuplicateMappingKey { .. } => "a field is given twice; keep one of them".to_owned(),
        Error::Budget { .. }
        | Error::AliasError { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => {
            "the text is too deeply nested or repeats too much by aliases; write it out plainly".to_owned()
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "an alias refers to what it stands in".to_owned()
        }
        Error::UnknownAnchor { .. } => "an alias refers to an anchor that is not there".to_owned(),
        Error::Eof { .. } => "the text ends too early".to_owned(),
        // The parser's own words are fixed sentences; they do not quote the text.
        Error::ExternalMessage { msg, .. } => format!("not valid YAML: {msg}"),
        _ => "not valid YAML here".to_owned(),
    };
    YamlError::new(at, "", reason)
}

fn position(line: u64, column: u64) -> Position {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
    Position { line: number(line), column: number(column) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let at = spanned.referenced;
        Ok(Self { at: position(at.line(), at.column()), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Boolean)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Node>()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Node>()? {
            let at = position(key.referenced.line(), key.referenced.column());
            map.push((Key { at, name: key.value }, value));
        }
        Ok(Value::Map(map))
    }
}
