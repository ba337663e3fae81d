//! `fleetknock watch`: events as they happen.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use fleetknock_core::{source::Source, time::Timestamp};
use fleetknock_proto::v1;
use fleetknock_runtime::{backoff::Backoff, exit};
use serde_json::json;

use crate::{
    controller::Controller,
    output::{Format, Out, time_value},
};

/// Waits between attempts to reconnect: quick at first, and not in step with other watchers.
const RECONNECT_LEAST: Duration = Duration::from_millis(200);
const RECONNECT_MOST: Duration = Duration::from_secs(10);

/// Show events as they happen
///
/// One line for each event, from now on. When the connection breaks it is made again; what happened in between is not
/// shown, and that is said.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock watch
  fleetknock watch --door bastion-ssh -o json")]
pub(crate) struct Watch {
    /// Only events of this door
    #[arg(long, value_name = "NAME")]
    door: Option<String>,
    /// Only events of this source
    #[arg(long, value_name = "ADDRESS")]
    source: Option<Source>,
    /// table or json; each event is one line
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(command: &Watch, controller: &Controller, out: &mut Out) -> anyhow::Result<()> {
    let backoff =
        Backoff::new(RECONNECT_LEAST, RECONNECT_MOST, 0.3).context("the waits between reconnects")?;
    let mut failures = 0;
    let mut connected_before = false;
    loop {
        let request = v1::WatchEventsRequest {
            door: command.door.clone().unwrap_or_default(),
            source: command.source.map(|source| source.to_string()).unwrap_or_default(),
        };
        let error = match controller.call(controller.client().watch_events(request)).await {
            Ok(mut events) => {
                if connected_before {
                    out.remark(format!(
                        "connected to {} again; events in between are not shown",
                        controller.url()
                    ))?;
                }
                connected_before = true;
                loop {
                    match events.message().await {
                        Ok(Some(event)) => {
                            failures = 0;
                            show(&event, command.output, out)?;
                        }
                        Ok(None) => break anyhow::anyhow!("the controller ended the stream"),
                        Err(status) => break controller.error(&status),
                    }
                }
            }
            // The first answer decides whether the request is right; later the controller may just be away.
            Err(error) if !connected_before || !may_pass(&error) => return Err(error),
            Err(error) => error,
        };
        failures += 1;
        let wait = backoff.random_delay(failures);
        out.remark(format!("{error}; connecting again in {:.1}s", wait.as_secs_f64()))?;
        tokio::time::sleep(wait).await;
    }
}

fn may_pass(error: &anyhow::Error) -> bool {
    matches!(exit::code_of(error), exit::UNAVAILABLE | exit::TEMPORARY | exit::SOFTWARE)
}

fn show(event: &v1::Event, format: Format, out: &mut Out) -> std::io::Result<()> {
    match format {
        Format::Table | Format::Wide => out.line(line(event)),
        Format::Json | Format::Yaml => out.line(document(event).to_string()),
    }
}

/// Such as `2026-11-22T15:30:11.250Z  opening-granted  bastion-ssh  203.0.113.5  opened for 30s`.
fn line(event: &v1::Event) -> String {
    let mut parts = vec![Timestamp::from_millis(event.time_ms).to_string(), kind(event.kind())];
    let named = [&event.door, &event.source, &event.host, &event.opening];
    parts.extend(named.into_iter().filter(|name| !name.is_empty()).cloned());
    if !event.message.is_empty() {
        parts.push(event.message.clone());
    }
    parts.join("  ")
}

fn document(event: &v1::Event) -> serde_json::Value {
    let mut document = json!({ "kind": kind(event.kind()), "time": time_value(event.time_ms) });
    let named = [
        ("door", &event.door),
        ("source", &event.source),
        ("host", &event.host),
        ("opening", &event.opening),
        ("message", &event.message),
    ];
    for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
        document[name] = json!(value);
    }
    document
}

/// Such as `opening-granted`.
fn kind(kind: v1::EventKind) -> String {
    let name = kind.as_str_name();
    name.strip_prefix("EVENT_KIND_").unwrap_or(name).to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = v1::Event {
            kind: v1::EventKind::OpeningGranted.into(),
            time_ms: 1_795_361_411_250,
            door: "ssh".into(),
            source: "203.0.113.5".into(),
            host: String::new(),
            opening: "01k2".into(),
            message: "opened for 30s".into(),
            controller: String::new(),
        };
        assert_eq!(
            line(&event),
            "2026-11-22T15:30:11.250Z  opening-granted  ssh  203.0.113.5  01k2  opened for 30s"
        );
        assert_eq!(
            document(&event).to_string(),
            r#"{"door":"ssh","kind":"opening-granted","message":"opened for 30s","opening":"01k2","source":"203.0.113.5","time":"2026-11-22T15:30:11.250Z"}"#
        );
    }
}
