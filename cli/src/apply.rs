//! `fleetknock apply`: doors from files to the fleet.

use std::{io::IsTerminal as _, path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::Args;
use fleetknock_core::door::strength::{self, Weakness};
use fleetknock_proto::{convert, limits, v1};
use fleetknock_runtime::exit;

use crate::{
    controllers::{Controllers, REFUSED},
    files::{self, Found},
    get::pages,
    output::{Format, Out},
    resource::millis,
    session::Session,
};

/// Create or change doors from YAML files
///
/// Every file is read and judged before the first door is sent: if anything is wrong, nothing is changed. A door that
/// guards the port of your own SSH session is applied only after a question, or with --yes or --confirm-within.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock apply -f bastion.yaml
  fleetknock apply -f doors/ -f extra.yaml --dry-run
  fleetknock apply -f bastion.yaml --confirm-within 60s    # then: fleetknock confirm bastion-ssh
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
    /// Roll each change back by itself after this time (5s to 1h) unless it is confirmed with 'fleetknock confirm'
    #[arg(long, value_name = "TIME", value_parser = confirm_within)]
    confirm_within: Option<Duration>,
    /// Apply also what could shut out the session that this command runs in
    #[arg(short, long)]
    yes: bool,
    /// How to write the doors as they are then [default: one line of what changed for each]
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

fn confirm_within(text: &str) -> Result<Duration, String> {
    let time = crate::args::time(text)?;
    if (limits::CONFIRM_WITHIN_MIN..=limits::CONFIRM_WITHIN_MAX).contains(&time) {
        Ok(time)
    } else {
        Err("a change can wait from 5s to 1h to be confirmed".to_owned())
    }
}

pub(crate) async fn run(command: &Apply, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let doors = files::read(&command.files)?;
    let mut problems = doors.problems;
    if !command.weak {
        problems.extend(doors.found.iter().flat_map(weaknesses));
    }
    // The doors that change anything.
    let mut new = Vec::new();
    if problems.is_empty() {
        // The controller knows more: how many hosts there are, and which ports are taken.
        for found in &doors.found {
            match send(found, command, true, controllers).await {
                Ok(answer) if answer.outcome() == v1::ApplyOutcome::Unchanged => {}
                Ok(_) => new.push(found),
                Err(error) if exit::code_of(&error) != exit::DATA => {
                    return Err(error.context(format!("{}: door '{}'", found.place, found.door.name())));
                }
                Err(error) => problems.push(format!("{}: {error}", found.place)),
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
    if endangers_session(&new, controllers, out).await? {
        let agreed = command.dry_run || command.yes || command.confirm_within.is_some();
        if !agreed && !ask(command, out)? {
            return Err(exit::coded(REFUSED, anyhow!("{SHUT_OUT}")));
        }
    }
    let mut waiting = Vec::new();
    let applied = send_all(command, &doors.found, controllers, &mut waiting, out).await;
    if let (Some(within), [_, ..]) = (command.confirm_within, waiting.as_slice()) {
        out.remark(format!(
            "confirm with: fleetknock confirm {} (within {}; otherwise it is rolled back)",
            waiting.join(" "),
            millis(convert::millis(within))
        ))?;
    }
    applied
}

/// Applies one door after the other; `waiting` are those whose changes are to be confirmed, also when one fails.
async fn send_all(
    command: &Apply,
    doors: &[Found],
    controllers: &Controllers,
    waiting: &mut Vec<String>,
    out: &mut Out,
) -> anyhow::Result<()> {
    let count = doors.len();
    let mut applied = Vec::new();
    for (done, found) in doors.iter().enumerate() {
        let answer = send(found, command, command.dry_run, controllers).await.map_err(|error| {
            error.context(format!(
                "{}: door '{}' ({done} of {count} were applied)",
                found.place,
                found.door.name()
            ))
        })?;
        for warning in &answer.warnings {
            out.warning(format!("{}: {warning}", found.place))?;
        }
        if command.output.is_none() {
            out.line(outcome(&answer, found.door.name().as_str(), command.dry_run))?;
        }
        let door = answer.door.unwrap_or_default();
        if door.confirm_until_ms != 0 && !command.dry_run {
            waiting.push(found.door.name().to_string());
        }
        applied.push(door);
    }
    if let Some(format) = command.output {
        out.list(format, &applied)?;
    }
    Ok(())
}

/// Why nothing is applied that could shut out whoever applies it.
const SHUT_OUT: &str = "nothing was applied, because it could shut out your own session: pass --confirm-within 60s to have \
                        it rolled back unless you confirm it, or --yes if it is meant; 'mode: observe' in the door shows \
                        whom it would shut out, and management networks (--management of agents and controllers) always \
                        pass";

/// Warns of the doors that guard the port of the session that this command runs in.
async fn endangers_session(
    doors: &[&Found],
    controllers: &Controllers,
    out: &mut Out,
) -> anyhow::Result<bool> {
    let Some(session) = Session::own() else { return Ok(false) };
    if !doors.iter().any(|found| session.is_guarded_by(&found.door)) {
        return Ok(false);
    }
    // Without an answer the hosts are not known, and the warning stands.
    let hosts = pages(async |page_token| {
        let page_size = limits::PAGE_MAX as u32;
        let request = v1::ListHostsRequest { page_size, page_token, ..v1::ListHostsRequest::default() };
        let page = controllers.read(async |mut client| client.list_hosts(request.clone()).await).await?;
        Ok((page.hosts, page.next_page_token))
    });
    let hosts = hosts.await.ok();
    let mut endangered = false;
    for found in doors {
        if let Some(warning) = session.lockout(&found.door, hosts.as_deref()) {
            out.warning(format!("{}: door '{}': {warning}", found.place, found.door.name()))?;
            endangered = true;
        }
    }
    Ok(endangered)
}

/// Asks whoever sits at the terminal; nobody does when standard input holds doors.
fn ask(command: &Apply, out: &mut Out) -> anyhow::Result<bool> {
    let doors = command.files.iter().any(|file| file.as_os_str() == "-");
    Ok(!doors && std::io::stdin().is_terminal() && out.ask("apply it all the same?")?)
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
    command: &Apply,
    dry_run: bool,
    controllers: &Controllers,
) -> anyhow::Result<v1::ApplyDoorResponse> {
    let request = v1::ApplyDoorRequest {
        door: Some(convert::door_message(&found.door, true)),
        weak: command.weak,
        dry_run,
        if_revision: 0,
        confirm_within_ms: command.confirm_within.map_or(0, convert::millis),
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
