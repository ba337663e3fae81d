//! The kinds of things that commands name, in singular and plural.

use clap::{ValueEnum, builder::PossibleValue};

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Door,
    Host,
    Opening,
    Ban,
    Attempt,
    Controller,
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Door, Self::Host, Self::Opening, Self::Ban, Self::Attempt, Self::Controller]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Door => PossibleValue::new("doors").alias("door"),
            Self::Host => PossibleValue::new("hosts").alias("host"),
            Self::Opening => PossibleValue::new("openings").alias("opening"),
            Self::Ban => PossibleValue::new("bans").alias("ban"),
            Self::Attempt => PossibleValue::new("attempts").alias("attempt"),
            Self::Controller => PossibleValue::new("controllers").aliases(["controller", "ctl"]),
        })
    }
}

/// One label, `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) String, pub(crate) String);

impl std::str::FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write a label like role=edge")?;
        fleetknock_core::host::Labels::new([(key.to_owned(), value.to_owned())])
            .map_err(|error| error.to_string())?;
        Ok(Self(key.to_owned(), value.to_owned()))
    }
}
