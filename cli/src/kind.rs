//! The kinds of things that commands name, in singular and plural.

use std::{
    str::FromStr,
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

use clap::{ValueEnum, builder::PossibleValue};
use fleetknock_core::time::Timestamp;
use fleetknock_proto::v1;

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Door,
    Host,
    Opening,
    Ban,
    Attempt,
    Controller,
    Event,
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Door, Self::Host, Self::Opening, Self::Ban, Self::Attempt, Self::Controller, Self::Event]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Door => PossibleValue::new("doors").alias("door"),
            Self::Host => PossibleValue::new("hosts").alias("host"),
            Self::Opening => PossibleValue::new("openings").alias("opening"),
            Self::Ban => PossibleValue::new("bans").alias("ban"),
            Self::Attempt => PossibleValue::new("attempts").alias("attempt"),
            Self::Controller => PossibleValue::new("controllers").aliases(["controller", "ctl"]),
            Self::Event => PossibleValue::new("events").alias("event"),
        })
    }
}

/// A kind of event, such as `opening-granted`.
pub(crate) fn event_kind(kind: v1::EventKind) -> String {
    let name = kind.as_str_name();
    name.strip_prefix("EVENT_KIND_").unwrap_or(name).to_lowercase().replace('_', "-")
}

/// The code of an event, as a command takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) v1::EventKind);

/// Kinds are numbered from 1, without gaps.
static CODES: LazyLock<Vec<(Code, String)>> = LazyLock::new(|| {
    let kinds = (1..).map_while(|number| v1::EventKind::try_from(number).ok());
    kinds.map(|kind| (Code(kind), event_kind(kind))).collect()
});

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Also as the audit log writes it.
        let wanted = text.to_lowercase().replace('_', "-");
        if let Some((code, _)) = CODES.iter().find(|(_, name)| *name == wanted) {
            return Ok(*code);
        }
        let mut names: Vec<_> =
            CODES.iter().map(|(_, name)| (strsim::jaro_winkler(name, &wanted), name.as_str())).collect();
        names.sort_by(|a, b| b.0.total_cmp(&a.0));
        let near: Vec<_> = names.iter().take_while(|(likeness, _)| *likeness > 0.8).take(3).collect();
        let names: Vec<_> = if near.is_empty() { &names[..] } else { &names[..near.len()] }
            .iter()
            .map(|(_, name)| *name)
            .collect();
        let what = if near.is_empty() { "the codes are" } else { "did you mean" };
        Err(format!("there is no such code; {what}: {}", names.join(", ")))
    }
}

/// A time in the past, such as `1h` ago or `2026-11-22T15:30:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    Ago(Duration),
    At(Timestamp),
}

impl Since {
    /// In milliseconds since the Unix epoch.
    pub(crate) fn millis(self, now: Timestamp) -> u64 {
        match self {
            Self::Ago(ago) => now.before(ago).as_millis(),
            Self::At(at) => at.as_millis(),
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = || {
            let at = humantime::parse_rfc3339_weak(text).ok()?;
            Some(Self::At(Timestamp::ZERO + at.duration_since(UNIX_EPOCH).ok()?))
        };
        humantime::parse_duration(text).ok().map(Self::Ago).or_else(at).ok_or_else(|| {
            "write how long ago, like 1h, or a time in UTC, like 2026-11-22T15:30:00Z".to_owned()
        })
    }
}

/// One label, `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) String, pub(crate) String);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write a label like role=edge")?;
        fleetknock_core::host::Labels::new([(key.to_owned(), value.to_owned())])
            .map_err(|error| error.to_string())?;
        Ok(Self(key.to_owned(), value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_they_are_written() {
        assert_eq!("door-applied".parse(), Ok(Code(v1::EventKind::DoorApplied)));
        assert_eq!("DOOR_APPLIED".parse(), Ok(Code(v1::EventKind::DoorApplied)));
        for (code, name) in CODES.iter() {
            assert_eq!(name.parse(), Ok(*code));
        }
        assert!(CODES.len() >= 33, "a gap in the numbers hides what comes after it");
    }

    #[test]
    fn an_unknown_code_names_those_that_are_near() {
        let error = "door-aplied".parse::<Code>().unwrap_err();
        assert!(error.starts_with("there is no such code; did you mean: door-applied"), "{error}");
        let error = "xyz".parse::<Code>().unwrap_err();
        assert!(error.contains("the codes are: ") && error.contains("impostor"), "{error}");
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = Timestamp::from_millis(1_795_361_411_250);
        let millis = |text: &str| text.parse::<Since>().map(|since| since.millis(now));
        assert_eq!(millis("1h"), Ok(1_795_361_411_250 - 3_600_000));
        assert_eq!(millis("2026-11-22T15:30:11.250Z"), Ok(1_795_361_411_250));
        assert_eq!(millis("100years"), Ok(0));
        assert!(millis("yesterday").is_err());
    }
}
