//! `fleetknock apply`: doors from files to the fleet.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::door::strength::{self, Weakness};
use fleetknock_proto::{convert, v1};
use fleetknock_runtime::exit;

use crate::{
    controllers::Controllers,
    files::{self, Found},
    output::Out,
};

/// Create or change doors from YAML files
///
/// Every file is read and judged before the first door is sent: if anything is wrong, nothing is changed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock apply -f bastion.yaml
  fleetknock apply -f doors/ -f extra.yaml --dry-run
  fleetknock get doors -o yaml --reveal | fleetknock apply -f -")]
pub(crate) struct Apply {
    /// A file of doors, a directory of such files, or - for standard input
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Accept knocks that are easy to guess: monotonic, with repeated ports, or below 32 bits
    #[arg(long)]
    weak: bool,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(command: &Apply, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let doors = files::read(&command.files)?;
    let mut problems = doors.problems;
    if !command.weak {
        problems.extend(doors.found.iter().flat_map(weaknesses));
    }
    let count = doors.found.len();
    if problems.is_empty() {
        // The controller knows more: how many hosts there are, and which ports are taken.
        for found in &doors.found {
            if let Err(error) = send(found, command.weak, true, controllers).await {
                if exit::code_of(&error) != exit::DATA {
                    return Err(error.context(format!("{}: door '{}'", found.place, found.door.name())));
                }
                problems.push(format!("{}: {error}", found.place));
            }
        }
    }
    // One mistake is one line; several are one line each and a last one that sums up.
    if let [problem] = &problems[..] {
        return Err(exit::coded(exit::DATA, anyhow!("{problem}; nothing was applied")));
    }
    if !problems.is_empty() {
        for problem in &problems {
            out.problem(problem)?;
        }
        return Err(exit::coded(exit::DATA, anyhow!("{} problems: nothing was applied", problems.len())));
    }
    for (done, found) in doors.found.iter().enumerate() {
        let answer = send(found, command.weak, command.dry_run, controllers).await.map_err(|error| {
            error.context(format!(
                "{}: door '{}' ({done} of {count} were applied)",
                found.place,
                found.door.name()
            ))
        })?;
        for warning in &answer.warnings {
            out.warning(format!("{}: {warning}", found.place))?;
        }
        out.line(outcome(&answer, found.door.name().as_str(), command.dry_run))?;
    }
    Ok(())
}

/// What is weak whatever the fleet; how many bits there are depends on its hosts, which the controller knows.
fn weaknesses(found: &Found) -> Vec<String> {
    let report = strength::check(&found.door, None);
    let sure = report.problems.iter().filter(|problem| !matches!(problem, Weakness::TooFewBits { .. }));
    sure.map(|problem| format!("{}: door '{}': {problem}; or pass --weak", found.place, found.door.name()))
        .collect()
}

async fn send(
    found: &Found,
    weak: bool,
    dry_run: bool,
    controllers: &Controllers,
) -> anyhow::Result<v1::ApplyDoorResponse> {
    let request = v1::ApplyDoorRequest {
        door: Some(convert::door_message(&found.door, true)),
        weak,
        dry_run,
        if_revision: 0,
        confirm_within_ms: 0,
    };
    if dry_run {
        controllers.read(async |mut client| client.apply_door(request.clone()).await).await
    } else {
        controllers.write(async |mut client| client.apply_door(request.clone()).await).await
    }
}

/// Such as `door/bastion-ssh changed (spec.opens.for: 30s -> 1m)`.
fn outcome(answer: &v1::ApplyDoorResponse, name: &str, dry_run: bool) -> String {
    let verb = match answer.outcome() {
        v1::ApplyOutcome::Created => "created",
        v1::ApplyOutcome::Changed => "changed",
        v1::ApplyOutcome::Unchanged => "unchanged",
        v1::ApplyOutcome::Unspecified => "applied",
    };
    let changes: Vec<_> = answer.changes.iter().map(change).collect();
    let details = if changes.is_empty() { String::new() } else { format!(" ({})", changes.join("; ")) };
    let dry = if dry_run { " (dry run)" } else { "" };
    format!("door/{name} {verb}{details}{dry}")
}

fn change(change: &v1::FieldChange) -> String {
    match (change.before.as_str(), change.after.as_str()) {
        ("", "") => change.field.clone(),
        ("", after) => format!("{}: {after}", change.field),
        (before, "") => format!("{}: {before} -> nothing", change.field),
        (before, after) => format!("{}: {before} -> {after}", change.field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_name_what_changed() {
        let changes = vec![
            v1::FieldChange { field: "spec.opens.for".into(), before: "30s".into(), after: "1m".into() },
            v1::FieldChange { field: "spec.knock".into(), ..v1::FieldChange::default() },
            v1::FieldChange {
                field: "metadata.labels.team".into(),
                before: "core".into(),
                after: String::new(),
            },
        ];
        let answer = v1::ApplyDoorResponse {
            outcome: v1::ApplyOutcome::Changed.into(),
            changes,
            ..Default::default()
        };
        assert_eq!(
            outcome(&answer, "a", true),
            "door/a changed (spec.opens.for: 30s -> 1m; spec.knock; metadata.labels.team: core -> nothing) (dry run)"
        );
        let answer =
            v1::ApplyDoorResponse { outcome: v1::ApplyOutcome::Created.into(), ..Default::default() };
        assert_eq!(outcome(&answer, "a", false), "door/a created");
    }
}
