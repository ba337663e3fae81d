//! Metrics that every program has, and their text: as it is scraped, for those that speak OpenMetrics and those that do
//! not, and read back into values.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::{
    metrics::{gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

pub mod lint;
pub mod text;

/// Content types of the two languages.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older one: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Adds what is said of any process: when it started, and as `PREFIX_build_info` of which version it is.
pub fn register_process(registry: &mut Registry, prefix: &str, version: &'static str) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    registry.register_with_unit(
        "process_start_time",
        "When this process started, in seconds since 1970",
        Unit::Seconds,
        ConstGauge::new(since.as_secs_f64()),
    );
    let build = Info::new([("version", version)]);
    registry.sub_registry_with_prefix(prefix).register("build", "What was built, always 1", build);
}

/// The text of all instruments in the language that an `Accept` header asks for, and its content type. Whoever does not
/// name OpenMetrics gets the older language, which every reader of metrics knows.
///
/// # Errors
/// When an instrument cannot be written.
pub fn exposition(
    registry: &Registry,
    accept: Option<&str>,
) -> Result<(&'static str, String), std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
        return Ok((OPENMETRICS, text));
    }
    Ok((CLASSIC, text::classic(&text)))
}

#[cfg(test)]
mod tests;
