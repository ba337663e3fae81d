//! Logs: to standard error, for people or as JSON lines, with a filter that can be changed while the program runs.

use std::{io::IsTerminal as _, sync::Arc};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, LevelFilter, Targets, filter_fn},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::otlp::traces::{self, Traces};

mod dial;

pub use self::dial::Dial;

/// A library that logs the whole answer of a server that it cannot read, secrets and all: it is never heard.
const QUOTES_ANSWERS: &str = "kube_client::client";

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One readable line per event; colours only on a terminal.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Changes the filter of a running program.
#[derive(Clone, Debug)]
pub struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    /// Of one that nothing logs by.
    _held: Option<Arc<reload::Layer<EnvFilter, Registry>>>,
}

/// Starts logging for the whole process. `filter` is a directive list such as `info` or `info,fleetknock_agent=debug`
/// (the syntax of tracing-subscriber's `EnvFilter`).
///
/// # Errors
/// When the filter cannot be parsed, or logging was started before.
pub fn init(format: Format, filter: &str) -> Result<Filter, LogError> {
    init_with(format, filter, &Traces::default())
}

/// [`init`], with spans of the target [`traces::TARGET`] going to a collector whatever is logged.
///
/// # Errors
/// As [`init`].
pub fn init_with(format: Format, filter: &str, traces: &Traces) -> Result<Filter, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let filter = filter.and(filter_fn(|event| event.target() != QUOTES_ANSWERS));
    // Filters of their own: one that is quiet does not keep spans from the other, and no span of a library is exported.
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Human => lines.with_filter(filter).boxed(),
        Format::Json => lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
    };
    let base = tracing_subscriber::registry().with(lines);
    let done = match traces.tracer() {
        None => base.try_init(),
        Some(tracer) => {
            let ours = Targets::new().with_target(traces::TARGET, LevelFilter::TRACE);
            let spans = tracing_opentelemetry::layer().with_tracer(tracer);
            base.with(spans.with_location(false).with_threads(false).with_filter(ours)).try_init()
        }
    };
    done.map_err(|_| LogError::Started)?;
    Ok(Filter { handle, _held: None })
}

/// Checks a filter without starting anything.
///
/// # Errors
/// When it cannot be parsed.
pub fn check(filter: &str) -> Result<(), LogError> {
    parse(filter).map(drop)
}

impl Filter {
    /// One that nothing logs by, for programs that run a part of another one and log by themselves.
    ///
    /// # Errors
    /// When it cannot be parsed.
    pub fn detached(filter: &str) -> Result<Self, LogError> {
        let (layer, handle) = reload::Layer::new(parse(filter)?);
        Ok(Self { handle, _held: Some(Arc::new(layer)) })
    }

    /// Replaces the filter from now on.
    ///
    /// # Errors
    /// When it cannot be parsed; the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        self.handle.reload(parse(filter)?).map_err(|_| LogError::Gone)
    }

    /// The filter now in force.
    ///
    /// # Errors
    /// When logging has ended.
    pub fn current(&self) -> Result<String, LogError> {
        self.handle.with_current(ToString::to_string).map_err(|_| LogError::Gone)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(filter).map_err(|error| LogError::Filter {
        filter: filter.chars().take(200).collect(),
        reason: error.to_string(),
    })
}

/// Why logging is not as told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The directive list is wrong.
    #[error(
        "log: '{filter}' is not a log filter: {reason}; write it like info or info,fleetknock_agent=debug"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// Why not.
        reason: String,
    },
    /// Logging has ended.
    #[error("logging has ended")]
    Gone,
    /// A process logs in one way.
    #[error("logging was started before")]
    Started,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_use_and_can_be_changed() {
        assert!(check("info,fleetknock=debug").is_ok());
        let wrong = check("info,=,fleet=loud").unwrap_err().to_string();
        assert!(wrong.starts_with("log: 'info,=,fleet=loud' is not a log filter: "), "{wrong}");

        // The only test of this crate that starts the process's logging.
        let filter = init(Format::Json, "warn").unwrap();
        assert!(matches!(init(Format::Human, "info"), Err(LogError::Started)));
        assert!(!tracing::enabled!(tracing::Level::INFO));
        filter.set("debug").unwrap();
        assert!(tracing::enabled!(tracing::Level::INFO));
        assert!(!tracing::enabled!(target: QUOTES_ANSWERS, tracing::Level::ERROR));
        assert!(filter.set("fleet=loud").is_err());
        assert_eq!(filter.current().unwrap(), "debug");
    }
}
