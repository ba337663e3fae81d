//! `fleetknock explain`: why a source's knock opened a door, or did not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::{source::Source, time::Timestamp};
use fleetknock_proto::v1;
use fleetknock_runtime::exit;
use serde_json::{Value, json};

use crate::{
    controllers::Controllers,
    kind::Since,
    output::{Format, Out, aligned, time_value},
    resource::{port, some},
};

/// How often `--follow` asks.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Tell why a source's knock opened a door, or did not
///
/// Shows the knocks of that source that the controllers remember, in the order of their capture, with what each was;
/// then for each door what happened and what to do; then what may be missing. Doors that none of the knocks concerns are
/// left out, unless none concerns any. Ports that belong to a door's sequence are hidden; admins see them with --reveal,
/// which is written to the audit trail.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock explain --source 203.0.113.5
  fleetknock explain --source 203.0.113.5 --door bastion-ssh --since 10m
  fleetknock explain --source 203.0.113.5 --follow
  fleetknock explain --source 203.0.113.5 --reveal -o json")]
pub(crate) struct Explain {
    /// Who knocked
    #[arg(long, value_name = "ADDRESS")]
    source: Source,
    /// Only this door
    #[arg(long, value_name = "NAME")]
    door: Option<String>,
    /// Only knocks since then: how long ago, or a time like 2026-11-22T15:30:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Ask again every second, and show what is new
    #[arg(short, long)]
    follow: bool,
    /// Show the ports and hosts of steps too. Not with --follow: each answer would be an event of the audit trail
    #[arg(long, conflicts_with = "follow")]
    reveal: bool,
    /// table, json or yaml; with --follow each answer with news is one line of JSON
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(command: &Explain, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    if command.output == Format::Name || command.follow && command.output == Format::Yaml {
        let error =
            anyhow!("explanations are written as table or json, without --follow also as yaml (--output)");
        return Err(exit::coded(exit::USAGE, error));
    }
    let request = v1::ExplainRequest {
        source: command.source.to_string(),
        door: command.door.clone().unwrap_or_default(),
        reveal: command.reveal,
        since_ms: command.since.map_or(0, |since| since.millis(out.now())),
    };
    let ask = async || controllers.read(async |mut client| client.explain(request.clone()).await).await;
    let first = ask().await?;
    if !command.follow {
        return Ok(show(&first, command.output, out)?);
    }
    let mut news = News::default();
    let mut answer = Ok(first);
    loop {
        match answer {
            Ok(answer) => {
                if let Some(fresh) = news.of(answer) {
                    follow(&fresh, command.output, out)?;
                }
            }
            // The controllers may be away for a while.
            Err(error) if is_passing(&error) => out.remark(format!("{error:#}; asking again"))?,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
        answer = ask().await;
    }
}

fn is_passing(error: &anyhow::Error) -> bool {
    matches!(exit::code_of(error), exit::UNAVAILABLE | exit::TEMPORARY | exit::SOFTWARE)
}

/// What was shown already. As large as an answer.
#[derive(Default)]
struct News {
    knocks: BTreeSet<(String, Vec<u8>, u64, i32)>,
    doors: BTreeMap<String, (i32, u32, String)>,
    caveats: Vec<String>,
}

impl News {
    /// The answer without what is known of it; nothing when all is.
    fn of(&mut self, mut answer: v1::ExplainResponse) -> Option<v1::ExplainResponse> {
        let key =
            |knock: &v1::KnockSeen| (knock.host.clone(), knock.boot.clone(), knock.counter, knock.outcome);
        let stand = |door: &v1::DoorExplained| (door.code, door.steps_done, door.opening.clone());
        let knocks = answer.knocks.iter().map(key).collect();
        let doors = answer.doors.iter().map(|door| (door.door.clone(), stand(door))).collect();
        answer.knocks.retain(|knock| !self.knocks.contains(&key(knock)));
        answer.doors.retain(|door| self.doors.get(&door.door) != Some(&stand(door)));
        let same = answer.caveats == self.caveats;
        (self.knocks, self.doors) = (knocks, doors);
        if same {
            answer.caveats.clear();
        } else {
            self.caveats.clone_from(&answer.caveats);
        }
        let fresh = !answer.knocks.is_empty() || !answer.doors.is_empty() || !answer.caveats.is_empty();
        fresh.then_some(answer)
    }
}

fn show(answer: &v1::ExplainResponse, format: Format, out: &mut Out) -> std::io::Result<()> {
    match format {
        Format::Json => out.raw(&format!("{:#}\n", document(answer))),
        Format::Yaml => out.raw(&serde_saphyr::to_string(&document(answer)).unwrap_or_default()),
        Format::Table | Format::Wide | Format::Name => out.raw(&text(answer, format == Format::Wide)),
    }
}

fn follow(answer: &v1::ExplainResponse, format: Format, out: &mut Out) -> std::io::Result<()> {
    match format {
        Format::Json => out.line(document(answer).to_string()),
        _ => out.raw(&lines(answer, false, false)),
    }
}

/// The whole answer for people.
fn text(answer: &v1::ExplainResponse, wide: bool) -> String {
    let mut text = String::new();
    if answer.knocks.is_empty() {
        let since = Timestamp::from_millis(answer.remembered_from_ms);
        text.push_str(&format!("No knock of {} is remembered; all since {since} would be.\n", answer.source));
    }
    text.push_str(&lines(answer, true, wide));
    text
}

fn lines(answer: &v1::ExplainResponse, header: bool, wide: bool) -> String {
    let mut text = String::new();
    if !answer.knocks.is_empty() {
        let names = ["TIME", "±", "HOST", "PORT", "STEP", "WHAT", "CONTROLLER"].map(str::to_owned).to_vec();
        let rows = header.then_some(names).into_iter().chain(answer.knocks.iter().map(cells));
        let rows = rows.map(|mut row| {
            row.truncate(if wide { 7 } else { 6 });
            row
        });
        text.push_str(&aligned(&rows.collect::<Vec<_>>()));
    }
    for door in &answer.doors {
        if !text.is_empty() {
            text.push('\n');
        }
        let how_far = match (door.steps_done, door.steps_total) {
            (0, _) => String::new(),
            (done, total) => format!(", {done} of {total} steps"),
        };
        let lines = [
            format!("{}: {}{how_far}", door.door, explain_code(door.code())),
            format!("  {}.", door.message),
            format!("  To do: {}.", door.remedy),
        ];
        let count = if door.remedy.is_empty() { 2 } else { 3 };
        lines[..count].iter().for_each(|line| text.push_str(&format!("{}\n", crate::output::clean(line))));
    }
    if !answer.caveats.is_empty() {
        text.push('\n');
        for caveat in &answer.caveats {
            text.push_str(&format!("Note: {}.\n", crate::output::clean(caveat)));
        }
    }
    text
}

fn cells(knock: &v1::KnockSeen) -> Vec<String> {
    let time = Timestamp::from_micros(knock.time_us).to_string();
    let step = if knock.step > 0 { format!("{}/{} {}", knock.step, knock.of, knock.door) } else { some("") };
    let at = match (&knock.port, knock.hidden) {
        (Some(message), _) => port(message),
        (None, true) => "(hidden)".to_owned(),
        (None, false) => some(""),
    };
    let certain = format!("{:.1}ms", knock.uncertainty_us as f64 / 1_000.0);
    vec![time, certain, knock.host.clone(), at, step, knock.message.clone(), some(&knock.controller)]
}

fn document(answer: &v1::ExplainResponse) -> Value {
    let knocks = answer.knocks.iter().map(|knock| {
        json!({
            "time": time_text(knock.time_us),
            "uncertaintyMicroseconds": knock.uncertainty_us,
            "host": knock.host,
            "port": knock.port.as_ref().map(port),
            "hidden": knock.hidden,
            "outcome": knock_outcome(knock.outcome()),
            "door": named(&knock.door),
            "step": number(knock.step),
            "of": number(knock.of),
            "message": knock.message,
            "controller": knock.controller,
        })
    });
    let doors = answer.doors.iter().map(|door| {
        json!({
            "door": door.door,
            "code": explain_code(door.code()),
            "message": door.message,
            "remedy": named(&door.remedy),
            "stepsDone": door.steps_done,
            "stepsTotal": door.steps_total,
            "opening": named(&door.opening),
        })
    });
    json!({
        "kind": "Explanation",
        "source": answer.source,
        "time": time_value(answer.now_ms),
        "rememberedFrom": time_value(answer.remembered_from_ms),
        "knocks": knocks.collect::<Vec<_>>(),
        "doors": doors.collect::<Vec<_>>(),
        "caveats": answer.caveats,
        "unanswered": answer.unanswered,
    })
}

fn time_text(micros: u64) -> String {
    Timestamp::from_micros(micros).to_string()
}

fn named(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn number(number: u32) -> Value {
    if number == 0 { Value::Null } else { json!(number) }
}

/// Such as `too-slow`.
fn explain_code(code: v1::ExplainCode) -> String {
    code_name(code.as_str_name(), "EXPLAIN_CODE_")
}

/// Such as `step`.
fn knock_outcome(outcome: v1::KnockOutcome) -> String {
    code_name(outcome.as_str_name(), "KNOCK_OUTCOME_")
}

fn code_name(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests;
