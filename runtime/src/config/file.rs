//! The YAML file of settings: one flat map from long flag names to a value or a list of values.

use std::{fmt, fs::File, io::Read as _, path::Path};

use clap::Command;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

use super::{ConfigError, Origin, Setting, describe::one_line, is_setting};

/// A file of settings is at most this long.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// One key of the file.
pub(super) struct Entry {
    pub(super) name: String,
    values: Vec<String>,
    origin: Origin,
}

impl Entry {
    pub(super) fn setting(&self) -> Setting {
        let values = self.values.iter().map(Into::into).collect();
        Setting { values, origin: self.origin.clone() }
    }
}

/// Reads the file and refuses keys that are no settings of the program.
pub(super) fn read(path: &Path, command: &Command) -> Result<Vec<Entry>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::file(path, 0, format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }

    // Two passes over the same text: the first learns which keys hold lists, so that the second can ask for text and
    // gets every scalar as it is written. `1.10` stays `1.10`, and `yes` is not turned into anything.
    let refuse = |error: serde_saphyr::Error| {
        let line = error.location().map_or(0, |location| location.line());
        ConfigError::file(path, line, one_line(&error.without_snippet().to_string()))
    };
    let options = || {
        serde_saphyr::options! {
            with_snippet: false,
        }
    };
    let outline: Outline = serde_saphyr::from_str_with_options(&text, options()).map_err(refuse)?;
    for (name, shape) in &outline.0 {
        check(path, name, *shape, command)?;
    }
    let values: Vec<Vec<String>> =
        serde_saphyr::with_deserializer_from_str_with_options(&text, options(), |yaml| {
            Values(&outline).deserialize(yaml)
        })
        .map_err(refuse)?;
    let entries = outline.0.into_iter().zip(values).map(|((name, _), values)| Entry {
        origin: Origin::File(path.to_owned(), name.defined.line()),
        name: name.value,
        values,
    });
    Ok(entries.collect())
}

fn check(path: &Path, name: &Spanned<String>, shape: Shape, command: &Command) -> Result<(), ConfigError> {
    let line = name.defined.line();
    let known: Vec<&str> =
        command.get_arguments().filter(|arg| is_setting(arg)).filter_map(|arg| arg.get_long()).collect();
    let name = &name.value;
    if !known.contains(&name.as_str()) {
        let shown: String = name.chars().take(80).collect();
        let nearest = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(known, &shown), known))
            .min()
            .filter(|(distance, known)| *distance <= known.len().max(shown.len()) / 2);
        let remedy = match nearest {
            Some((_, near)) => format!("did you mean '{near}'?"),
            None => format!("known are {}", known.join(", ")),
        };
        return Err(ConfigError::file(path, line, format!("there is no setting '{shown}'; {remedy}")));
    }
    match shape {
        Shape::Empty => {
            Err(ConfigError::file(path, line, format!("{name} has no value; give one or remove the line")))
        }
        Shape::Map => Err(ConfigError::file(
            path,
            line,
            format!("{name} holds a map; give one value or a list of values"),
        )),
        Shape::List | Shape::Scalar => Ok(()),
    }
}

/// What kind of value a key has.
#[derive(Clone, Copy)]
enum Shape {
    Empty,
    List,
    Map,
    Scalar,
}

/// The keys in their order, and what kind of value each has.
struct Outline(Vec<(Spanned<String>, Shape)>);

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(yaml: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Outline;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("settings, one 'name: value' on each line")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Outline, M::Error> {
                let mut keys = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    keys.push(entry);
                }
                Ok(Outline(keys))
            }
        }
        yaml.deserialize_map(Keys)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(yaml: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_i128<E>(self, _: i128) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_unit<E>(self) -> Result<Shape, E> {
                Ok(Shape::Empty)
            }

            fn visit_none<E>(self) -> Result<Shape, E> {
                Ok(Shape::Empty)
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Shape, S::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Shape::List)
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Shape, M::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Shape::Map)
            }
        }
        yaml.deserialize_any(Any)
    }
}

/// The values of an outline's keys, as they are written.
struct Values<'o>(&'o Outline);

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Vec<Vec<String>>;

    fn deserialize<D: Deserializer<'de>>(self, yaml: D) -> Result<Self::Value, D::Error> {
        yaml.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Vec<Vec<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings, one 'name: value' on each line")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut values = Vec::new();
        for (_, shape) in &self.0.0 {
            map.next_key::<IgnoredAny>()?;
            values.push(match shape {
                Shape::List => map.next_value::<Vec<String>>()?,
                _ => vec![map.next_value::<String>()?],
            });
        }
        map.next_key::<IgnoredAny>()?;
        Ok(values)
    }
}
