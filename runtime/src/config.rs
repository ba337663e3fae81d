//! Where settings come from: flag, then environment variable, then file, then default.
//!
//! A program describes its settings once, as a clap parser. Every argument with a long flag `--some-name` can then also
//! be given as the environment variable `FLEETKNOCK_SOME_NAME` and as the key `some-name` in the YAML file that
//! `--config` names. What is wrong is said in one line: the setting, its value, where it came from, why, and what to do.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, Parser, error::ErrorKind, parser::ValueSource};
use tonic::transport::Uri;

mod describe;
mod file;

pub use file::FILE_BYTES_MAX;

/// What every environment variable begins with.
pub const ENVIRONMENT_PREFIX: &str = "FLEETKNOCK_";
/// The flag that names the file.
const CONFIG: &str = "config";

/// Reads the settings of a program from its arguments (the program's name first), the process's environment and the
/// file that `--config` names.
///
/// # Errors
/// When a setting is wrong, missing or unknown, or the file cannot be read; [`ConfigError::Said`] carries what `--help`
/// and `--version` print.
pub fn load<A: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<A, ConfigError> {
    load_with(args, &|name| std::env::var_os(name))
}

/// [`load`] with an environment of the caller's. A variable that is empty counts as not set, so that a deployment may
/// always pass one through.
///
/// # Errors
/// As [`load`].
pub fn load_with<A: Parser>(
    args: impl IntoIterator<Item = OsString>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<A, ConfigError> {
    let args: Vec<OsString> = args.into_iter().collect();
    // What flags give is looked at first, errors aside: a setting that a flag gives is taken from nowhere else.
    let flags = match command::<A>().ignore_errors(true).try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return Err(stop::<A>(error, &args)),
    };
    let file = match config_path(&flags, environment) {
        Some(path) => file::read(&path, &command::<A>())?,
        None => Vec::new(),
    };

    let mut complete: Vec<OsString> = args.iter().take(1).cloned().collect();
    for arg in A::command().get_arguments().filter(|arg| is_setting(arg)) {
        let Some(long) = arg.get_long() else { continue };
        if given(&flags, arg.get_id().as_str()) {
            continue;
        }
        let variable = variable_of(arg, long);
        let setting = match environment(&variable).filter(|value| !value.is_empty()) {
            Some(value) => Setting { values: vec![value], origin: Origin::Environment(variable) },
            None => match file.iter().find(|entry| entry.name == long) {
                Some(entry) => entry.setting(),
                None => continue,
            },
        };
        complete.extend(setting.into_flags::<A>(arg, long)?);
    }
    complete.extend(args.iter().skip(1).cloned());

    let matches = command::<A>().try_get_matches_from(&complete).map_err(|error| stop::<A>(error, &args))?;
    A::from_arg_matches(&matches).map_err(|error| stop::<A>(error, &args))
}

/// Reads what a program is asked from its arguments alone (the program's name first): no variable and no file is looked
/// at.
///
/// # Errors
/// When a flag is wrong, missing or unknown; [`ConfigError::Said`] as in [`load`].
pub fn flags<A: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<A, ConfigError> {
    let matches = command::<A>().try_get_matches_from(args);
    matches.and_then(|matches| A::from_arg_matches(&matches)).map_err(|error| said(&error, None))
}

/// Reads an address to listen on; for clap's `value_parser`.
///
/// # Errors
/// When the text is not an IP address with a port.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "an address to listen on is an IP address with a port, such as 127.0.0.1:9600 or [::1]:9600".into()
    })
}

/// Reads where a service is: `http://HOST[:PORT]` or `https://HOST[:PORT]`, and nothing more. The answer has a port, the
/// default one when none is given; there is none for another text.
pub fn service_url(text: &str, default_port: u16) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.as_str().contains('@');
    if !matches!(scheme, "http" | "https") || !bare || authority.host().is_empty() {
        return None;
    }
    let port = match authority.port() {
        Some(port) => port.as_str().parse::<u16>().ok().filter(|port| *port > 0)?,
        // Also one that is no port, such as 70000.
        None if authority.as_str() != authority.host() => return None,
        None => default_port,
    };
    format!("{scheme}://{}:{port}/", authority.host()).parse().ok()
}

/// The program's command without clap's own look at the process's environment.
fn command<A: Parser>() -> Command {
    A::command().mut_args(|arg| arg.env(clap::builder::Resettable::Reset))
}

/// What `--help` shows: every setting with its variable.
fn command_for_help<A: Parser>() -> Command {
    A::command().mut_args(|arg| match arg.get_long().map(|long| variable_of(&arg, long)) {
        Some(variable) if is_setting(&arg) || arg.get_id() == CONFIG => {
            arg.env(variable).hide_env_values(true)
        }
        _ => arg,
    })
}

fn is_setting(arg: &Arg) -> bool {
    let action = matches!(
        arg.get_action(),
        ArgAction::Append | ArgAction::Set | ArgAction::SetTrue | ArgAction::SetFalse
    );
    action && arg.get_long().is_some() && arg.get_id() != CONFIG
}

/// Whether a flag gives it, here or in a subcommand.
fn given(matches: &ArgMatches, id: &str) -> bool {
    let here =
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine);
    here || matches.subcommand().is_some_and(|(_, sub)| given(sub, id))
}

fn variable_of(arg: &Arg, long: &str) -> String {
    match arg.get_env().and_then(OsStr::to_str) {
        Some(own) => own.to_owned(),
        None => format!("{ENVIRONMENT_PREFIX}{}", long.replace('-', "_").to_uppercase()),
    }
}

fn config_path(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let mut matches = flags;
    loop {
        if let Ok(Some(mut raw)) = matches.try_get_raw(CONFIG) {
            return raw.next().map(PathBuf::from);
        }
        match matches.subcommand() {
            Some((_, sub)) => matches = sub,
            None => break,
        }
    }
    flags.try_contains_id(CONFIG).ok()?;
    let variable = format!("{ENVIRONMENT_PREFIX}CONFIG");
    environment(&variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What clap refused of a program with settings, as our error; help names their variables.
fn stop<A: Parser>(error: clap::Error, args: &[OsString]) -> ConfigError {
    let again = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            command_for_help::<A>().try_get_matches_from(args).err()
        }
        _ => None,
    };
    let error = again.filter(|again| again.kind() == error.kind()).unwrap_or(error);
    said(&error, Some(&A::command()))
}

/// What clap refused, as our error; for `--help` and `--version` what they print. What is missing could also stand in a
/// variable or the file, for settings.
fn said(error: &clap::Error, settings: Option<&Command>) -> ConfigError {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::DisplayVersion => ConfigError::Said { text: error.to_string() },
        _ => ConfigError::Flags { reason: describe::flags(error, settings) },
    }
}

/// A setting that no flag gives.
struct Setting {
    values: Vec<OsString>,
    origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The environment variable of this name.
    Environment(String),
    /// A file and its line.
    File(PathBuf, u64),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
        }
    }
}

impl Setting {
    /// The flags that say the same.
    fn into_flags<A: Parser>(self, arg: &Arg, long: &str) -> Result<Vec<OsString>, ConfigError> {
        let mut flags = Vec::new();
        for value in &self.values {
            let refuse = |reason: String| {
                let value = if arg.is_hide_env_values_set() {
                    "(hidden)".to_owned()
                } else {
                    value.to_string_lossy().chars().take(200).collect()
                };
                Err(ConfigError::Value {
                    setting: long.to_owned(),
                    value,
                    origin: self.origin.clone(),
                    reason,
                })
            };
            let flag = format!("--{long}");
            match arg.get_action() {
                ArgAction::SetTrue | ArgAction::SetFalse => match value.to_str() {
                    Some("true") => flags.push(flag.into()),
                    Some("false") => {}
                    _ => return refuse("write true or false".to_owned()),
                },
                action => {
                    if flags.len() == 1 && !matches!(action, ArgAction::Append) {
                        return refuse("it takes one value, not a list".to_owned());
                    }
                    let mut flag = OsString::from(flag);
                    flag.push("=");
                    flag.push(value);
                    if let Some(reason) = wrong::<A>(&flag) {
                        return refuse(reason);
                    }
                    flags.push(flag);
                }
            }
        }
        Ok(flags)
    }
}

/// Why a flag's value is wrong, looked at alone; whether it goes with the others is seen later.
fn wrong<A: Parser>(flag: &OsStr) -> Option<String> {
    let lone = command::<A>().mut_args(|arg| arg.required(false));
    let error = lone.try_get_matches_from([OsStr::new("program"), flag]).err()?;
    match error.kind() {
        ErrorKind::InvalidValue
        | ErrorKind::InvalidUtf8
        | ErrorKind::TooManyValues
        | ErrorKind::TooFewValues
        | ErrorKind::ValueValidation
        | ErrorKind::WrongNumberOfValues => Some(describe::value(&error)),
        _ => None,
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not what it should be.
    #[error("{}{}: {reason}", .path.display(), .line.map(|line| format!(":{line}")).unwrap_or_default())]
    File {
        /// Which.
        path: PathBuf,
        /// Where, when known.
        line: Option<u64>,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A flag is wrong or missing.
    #[error("{reason}")]
    Flags {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// `--help` or `--version`: no error, but the program has nothing to run.
    #[error("{text}")]
    Said {
        /// What to print on standard output.
        text: String,
    },
    /// The file cannot be read.
    #[error("cannot read {} (--config): {source}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A value from the environment or the file is wrong.
    #[error("{setting}: '{value}' is wrong ({origin}): {reason}")]
    Value {
        /// The setting, as its flag without dashes.
        setting: String,
        /// What was given.
        value: String,
        /// Where it came from.
        origin: Origin,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl ConfigError {
    /// With which code the process ends: 0 for `--help`, 66 (EX_NOINPUT) for a file that cannot be read, 64 (EX_USAGE)
    /// otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Said { .. } => 0,
            Self::Unreadable { .. } => crate::exit::NO_INPUT,
            Self::File { .. } | Self::Flags { .. } | Self::Value { .. } => crate::exit::USAGE,
        }
    }

    fn file(path: &Path, line: u64, reason: impl Into<String>) -> Self {
        let line = (line > 0).then_some(line);
        Self::File { path: path.to_owned(), line, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests;
