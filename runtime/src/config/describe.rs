//! What clap refuses, said in one line.

use std::error::Error as _;

use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Why a value is wrong.
pub(super) fn value(error: &clap::Error) -> String {
    match error.kind() {
        ErrorKind::InvalidValue => {
            let mut reason = match strings(error, ContextKind::ValidValue) {
                valid if valid.is_empty() => "a value is missing".to_owned(),
                valid => format!("use one of {}", valid.join(", ")),
            };
            if let Some(near) = strings(error, ContextKind::SuggestedValue).first() {
                reason.push_str(&format!("; did you mean '{near}'?"));
            }
            reason
        }
        _ => match error.source() {
            Some(source) => one_line(&source.to_string()),
            None => plain(error),
        },
    }
}

/// What is wrong with the flags, of a program with settings or without.
pub(super) fn flags(error: &clap::Error, settings: Option<&Command>) -> String {
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            let missing: Vec<_> = strings(error, ContextKind::InvalidArg)
                .iter()
                .map(|usage| required(usage, settings))
                .collect();
            missing.join("; ")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let argument = strings(error, ContextKind::InvalidArg).join(" ");
            let given = strings(error, ContextKind::InvalidValue).join(" ");
            let name = argument.split([' ', '=']).next().unwrap_or_default();
            format!("{name}: '{}' is wrong (flag): {}", one_line(&given), value(error))
        }
        _ => format!("{}; see --help", plain(error)),
    }
}

/// `usage` is such as `--host <NAME>`.
fn required(usage: &str, settings: Option<&Command>) -> String {
    let long = usage.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default();
    let mut arguments = settings.into_iter().flat_map(Command::get_arguments);
    match arguments.find(|arg| arg.get_long() == Some(long)) {
        Some(arg) => {
            let variable = super::variable_of(arg, long);
            format!(
                "{long} is missing: give {usage}, set {variable}, or write '{long}: ...' in the file of --config"
            )
        }
        None => format!("{usage} is missing"),
    }
}

fn strings(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(several)) => several.clone(),
        _ => Vec::new(),
    }
}

/// Clap's own text up to its usage hint.
fn plain(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|hint| text.find(hint)).min();
    one_line(text.get(..end.unwrap_or(text.len())).unwrap_or(text))
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
