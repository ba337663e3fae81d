//! `fleetknock restore`: a backup's records into the store.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::anyhow;
use clap::Args;
use fleetknock_proto::{
    limits::BACKUP_PART_MAX,
    v1::{self, restore_part::Part, restore_progress::Progress},
};
use fleetknock_runtime::exit;
use futures::{Stream, StreamExt as _, stream};
use serde_json::json;

use super::Said;
use crate::{
    controllers::Controllers,
    output::{Out, aligned, time_value},
};

/// How many changes are between two words on how far it is.
const SAY_EVERY: u32 = 1_000;

/// Put the records of a backup into the fleet's store
///
/// Doors, hosts, bans and events are added, and doors and bans changed to what they were; nothing is removed unless --replace
/// says so. Bans last as long as they would have. Openings are not restored: they are short. Tokens are not unless --tokens
/// says so: a token that was revoked or spent after the backup would be good again. The file must be whole and unaltered, of
/// this fleet, and the controllers need the keys that its doors are sealed with. When something breaks it off, run it again.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 done, 1 of another fleet, 65 a file that is no backup, cut, altered, newer or sealed with a key \
that the controller does not have, 66 the file cannot be read, 75 try again.

Examples:
  fleetknock restore fleet.backup --dry-run
  fleetknock restore fleet.backup
  fleetknock restore fleet.backup --replace --tokens
  fleetknock restore --begin-anew"
)]
pub(crate) struct Restore {
    /// The backup
    #[arg(required_unless_present = "begin_anew", conflicts_with = "begin_anew")]
    file: Option<PathBuf>,
    /// Say what would change, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove doors and bans that are not in the file, and with --tokens tokens; hosts stay, their agents are there
    #[arg(long)]
    replace: bool,
    /// Restore tokens, also those that were revoked or spent since the backup
    #[arg(long)]
    tokens: bool,
    /// Take a file of another store of a fleet of this name
    #[arg(long)]
    another_store: bool,
    /// Restore nothing: the store was set up anew on purpose, and agents that keep guard for an earlier one are to follow it
    #[arg(long)]
    begin_anew: bool,
    /// How to say what changes
    #[arg(short, long, value_enum, default_value_t)]
    output: Said,
}

pub(crate) async fn run(command: &Restore, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    let options = v1::RestoreOptions {
        dry_run: command.dry_run,
        replace: command.replace,
        tokens: command.tokens,
        another_store: command.another_store,
        begin_anew: command.begin_anew,
    };
    // A mistake in the name is told before anybody is asked.
    let file = RefCell::new(command.file.as_deref().map(open).transpose()?);
    let failure = Arc::new(Mutex::new(None));
    let mut told = controllers
        .write(async |mut client| {
            let file = match (file.take(), &command.file) {
                // Another controller is asked: from the beginning.
                (None, Some(path)) => File::open(path).ok(),
                (file, _) => file,
            };
            client.restore(parts(options, file, failure.clone())).await
        })
        .await?;
    let mut changes = Vec::new();
    let mut summary = None;
    loop {
        let next = told.message().await;
        if let (Some(error), Some(path)) = (failure.lock().ok().and_then(|mut f| f.take()), &command.file) {
            return Err(unreadable(path, &error));
        }
        match next.map_err(|status| controllers.error(&status))?.and_then(|told| told.progress) {
            Some(Progress::Change(change)) => changes.push(change),
            Some(Progress::Done(done)) if done.is_multiple_of(SAY_EVERY) => {
                out.remark(format!("{done} records written"))?;
            }
            Some(Progress::Done(_)) => {}
            Some(Progress::Summary(last)) => summary = Some(last),
            None => break,
        }
    }
    let summary = summary.ok_or_else(|| {
        exit::coded(exit::TEMPORARY, anyhow!("the restore ended before it was done; run it again"))
    })?;
    match command.output {
        Said::Table => say(command, &changes, &summary, out),
        Said::Json => Ok(out.raw(&document(command, &changes, &summary))?),
    }
}

/// The options, then the file. What cannot be read ends it, and the controller sees that the file is not whole.
fn parts(
    options: v1::RestoreOptions,
    file: Option<File>,
    failure: Arc<Mutex<Option<io::Error>>>,
) -> impl Stream<Item = v1::RestorePart> + Send + 'static {
    let first = v1::RestorePart { part: Some(Part::Options(options)) };
    let data = stream::unfold(file, move |file| {
        let failure = failure.clone();
        async move {
            let mut file = file?;
            let mut data = vec![0; BACKUP_PART_MAX];
            match file.read(&mut data) {
                Ok(0) => None,
                Ok(length) => {
                    data.truncate(length);
                    Some((v1::RestorePart { part: Some(Part::Data(data)) }, Some(file)))
                }
                Err(error) => {
                    if let Ok(mut failure) = failure.lock() {
                        *failure = Some(error);
                    }
                    None
                }
            }
        }
    });
    stream::once(async move { first }).chain(data)
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> anyhow::Error {
    exit::coded(exit::NO_INPUT, anyhow!("cannot read {}: {error}", path.display()))
}

fn action(change: &v1::RestoreChange) -> &'static str {
    match change.action() {
        v1::RestoreAction::Add => "add",
        v1::RestoreAction::Change => "change",
        v1::RestoreAction::Remove => "remove",
        v1::RestoreAction::Unspecified => "unknown",
    }
}

fn say(
    command: &Restore,
    changes: &[v1::RestoreChange],
    summary: &v1::RestoreSummary,
    out: &mut Out,
) -> anyhow::Result<()> {
    if !changes.is_empty() {
        let mut rows = vec![["ACTION", "KIND", "NAME", "NOTE"].map(str::to_owned).to_vec()];
        rows.extend(changes.iter().map(|change| {
            vec![action(change).to_owned(), change.kind.clone(), change.name.clone(), change.note.clone()]
        }));
        out.raw(&aligned(&rows))?;
    }
    for remark in &summary.remarks {
        out.remark(remark)?;
    }
    let v1::RestoreSummary { added, changed, removed, events, unchanged, .. } = summary;
    let dry = if command.dry_run { " (dry run)" } else { "" };
    if command.begin_anew {
        // The remark says why there is nothing to do.
        if *changed > 0 {
            out.line(format!("the fleet begins anew with what the store holds{dry}"))?;
        }
    } else {
        out.line(format!(
            "{added} added, {changed} changed, {removed} removed, {events} events, {unchanged} unchanged{dry}"
        ))?;
    }
    Ok(())
}

fn document(command: &Restore, changes: &[v1::RestoreChange], summary: &v1::RestoreSummary) -> String {
    let changes = changes.iter().map(|change| {
        json!({ "action": action(change), "kind": change.kind, "name": change.name, "note": change.note })
    });
    let document = json!({
        "added": summary.added,
        "changed": summary.changed,
        "changes": changes.collect::<Vec<_>>(),
        "dryRun": command.dry_run,
        "events": summary.events,
        "leftOut": summary.left_out,
        "made": time_value(summary.made_ms),
        "remarks": summary.remarks,
        "removed": summary.removed,
        "unchanged": summary.unchanged,
        "version": summary.version,
    });
    format!("{document:#}\n")
}
