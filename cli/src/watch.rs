//! `fleetknock watch`: events as they happen.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use fleetknock_core::{source::Source, time::Timestamp};
use fleetknock_proto::v1;
use fleetknock_runtime::{backoff::Backoff, exit};
use serde_json::json;

use crate::{
    controllers::Controllers,
    kind::event_kind,
    output::{Format, Out, time_value},
    resource::{actor_document, some},
};

/// Waits between attempts to reconnect: quick at first, and not in step with other watchers.
const RECONNECT_LEAST: Duration = Duration::from_millis(200);
const RECONNECT_MOST: Duration = Duration::from_secs(10);

/// Show events as they happen
///
/// One line for each event, from now on. When the connection breaks it is made again, to the next controller if there
/// are several; what happened in between is not shown, and that is said.
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

pub(crate) async fn run(command: &Watch, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    if command.output == Format::Name {
        let error = anyhow!("events have no names (--output); use table or json");
        return Err(exit::coded(exit::USAGE, error));
    }
    let backoff =
        Backoff::new(RECONNECT_LEAST, RECONNECT_MOST, 0.3).context("the waits between reconnects")?;
    let request = v1::WatchEventsRequest {
        door: command.door.clone().unwrap_or_default(),
        source: command.source.map(|source| source.to_string()).unwrap_or_default(),
    };
    let mut failures = 0;
    let mut connected_to: Option<String> = None;
    loop {
        let answer = controllers.read(async |mut client| client.watch_events(request.clone()).await).await;
        for passed_over in controllers.passed_over() {
            out.warning(passed_over)?;
        }
        let error = match answer {
            Ok(mut events) => {
                let url = controllers.url().to_owned();
                if let Some(before) = connected_to.replace(url.clone()) {
                    let how = if before == url { "again".to_owned() } else { format!("instead of {before}") };
                    out.remark(format!("connected to {url} {how}; events in between are not shown"))?;
                }
                let error = loop {
                    match events.message().await {
                        Ok(Some(event)) => {
                            failures = 0;
                            show(&event, command.output, out)?;
                        }
                        Ok(None) => break anyhow!("the controller at {url} ended the stream"),
                        Err(status) => break controllers.error(&status),
                    }
                };
                // It leaves, or is gone: the others know as much.
                controllers.move_on();
                error
            }
            // The first answer decides whether the request is right; later the controllers may just be away.
            Err(error) if connected_to.is_none() || !may_pass(&error) => return Err(error),
            Err(error) => error,
        };
        failures += 1;
        let wait = backoff.random_delay(failures);
        let url = controllers.url();
        let how = if connected_to.as_deref() == Some(url) {
            "connecting again".to_owned()
        } else {
            format!("connecting to {url}")
        };
        out.remark(format!("{error}; {how} in {:.1}s", wait.as_secs_f64()))?;
        tokio::time::sleep(wait).await;
    }
}

fn may_pass(error: &anyhow::Error) -> bool {
    matches!(exit::code_of(error), exit::UNAVAILABLE | exit::TEMPORARY | exit::SOFTWARE)
}

fn show(event: &v1::Event, format: Format, out: &mut Out) -> std::io::Result<()> {
    match format {
        Format::Table | Format::Wide | Format::Name => out.line(line(event)),
        Format::Json | Format::Yaml => out.line(document(event).to_string()),
    }
}

/// Such as `2026-11-22T15:30:11.250Z  opening-granted  [ctl-2]  bastion-ssh  203.0.113.5  opened for 30s`.
fn line(event: &v1::Event) -> String {
    let mut parts = vec![Timestamp::from_millis(event.time_ms).to_string(), event_kind(event.kind())];
    if !event.controller.is_empty() {
        parts.push(format!("[{}]", event.controller));
    }
    let named = [&event.door, &event.source, &event.host, &event.opening];
    parts.extend(named.into_iter().filter(|name| !name.is_empty()).cloned());
    if !event.message.is_empty() {
        parts.push(event.message.clone());
    }
    if let Some(actor) = event.actor.as_ref().filter(|actor| !actor.who.is_empty()) {
        parts.push(format!("({} from {})", actor.who, some(&actor.address)));
    }
    parts.join("  ")
}

fn document(event: &v1::Event) -> serde_json::Value {
    let mut document = json!({ "kind": event_kind(event.kind()), "time": time_value(event.time_ms) });
    let named = [
        ("door", &event.door),
        ("source", &event.source),
        ("host", &event.host),
        ("opening", &event.opening),
        ("message", &event.message),
        ("controller", &event.controller),
    ];
    for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
        document[name] = json!(value);
    }
    if !event.id.is_empty() {
        document["id"] = json!(event.id);
    }
    if let Some(actor) = &event.actor {
        document["actor"] = actor_document(actor);
    }
    if !event.changes.is_empty() {
        let changes = event
            .changes
            .iter()
            .map(|change| json!({ "after": change.after, "before": change.before, "field": change.field }));
        document["changes"] = changes.collect();
    }
    document
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
            ..v1::Event::default()
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

    #[test]
    fn an_event_says_whose_hand_it_was() {
        let event = v1::Event {
            kind: v1::EventKind::DoorApplied.into(),
            time_ms: 1_795_361_411_250,
            door: "ssh".into(),
            message: "door changed".into(),
            id: "01a2".into(),
            actor: Some(v1::Actor {
                who: "user alice".into(),
                address: "192.0.2.1:4000".into(),
                ..v1::Actor::default()
            }),
            changes: vec![v1::FieldChange { field: "spec.opens.for".into(), ..v1::FieldChange::default() }],
            ..v1::Event::default()
        };
        assert_eq!(
            line(&event),
            "2026-11-22T15:30:11.250Z  door-applied  ssh  door changed  (user alice from 192.0.2.1:4000)"
        );
        let document = document(&event);
        assert_eq!(document["actor"]["who"], "user alice");
        assert_eq!(
            (&document["id"], &document["changes"][0]["field"]),
            (&json!("01a2"), &json!("spec.opens.for"))
        );
    }

    #[test]
    fn an_event_of_a_controller_says_which() {
        for (kind, name) in [
            (v1::EventKind::ControllerJoined, "controller-joined"),
            (v1::EventKind::ControllerLeft, "controller-left"),
            (v1::EventKind::LeaseLost, "lease-lost"),
            (v1::EventKind::LeaseHeld, "lease-held"),
            (v1::EventKind::PeerLost, "peer-lost"),
            (v1::EventKind::PeerBack, "peer-back"),
        ] {
            let event = v1::Event {
                kind: kind.into(),
                time_ms: 1_795_361_411_250,
                message: "so it is".into(),
                controller: "ctl-2".into(),
                ..v1::Event::default()
            };
            assert_eq!(line(&event), format!("2026-11-22T15:30:11.250Z  {name}  [ctl-2]  so it is"));
            assert_eq!(
                (document(&event)["kind"].as_str(), document(&event)["controller"].as_str()),
                (Some(name), Some("ctl-2"))
            );
        }
    }
}
