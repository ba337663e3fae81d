//! Backups are written whole or not at all, and restored with a word on each change.

use std::{fs, os::unix::fs::PermissionsExt as _};

use fleetknock_proto::{limits, status, v1};
use tonic::{Status, Streaming};
use v1::restore_progress::Progress::{Change, Done, Summary};

use super::stand_in::StandIn;

#[test]
fn a_backup_is_a_file_of_its_owner_and_what_is_broken_off_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.backup");
    let out = ["backup", "--out", path.to_str().unwrap()];
    let broken = StandIn::suspended().run(&out, "");
    assert_eq!(broken.code, 75, "{broken:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    let fleet = StandIn::start();
    let made = fleet.run(&out, "");
    assert_eq!(made.code, 0, "{made:?}");
    assert!(fs::read_to_string(&path).unwrap().ends_with("}\nthe rest\n"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(
        made.errors,
        [
            "fleetknock: backup of the fleet 'blue' of 2026-11-22T15:30:11.250Z: 3 records at revision 7, doors sealed with \
             2027",
            "fleetknock: warning: the steps of 1 doors lie in this file in the clear, as in the store: whoever reads it can \
             knock (see --seal-key of the controller)"
        ]
    );

    let json = fleet.run(&[&out[..], &["-o", "json"]].concat(), "").lines.join("\n");
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&document["keys"][0], &document["records"]), (&"2027".into(), &3.into()));

    let piped = fleet.run(&["backup"], "");
    assert_eq!(piped.lines.last().map(String::as_str), Some("the rest"), "{piped:?}");
    assert_eq!(fleet.run(&["backup", "-o", "json"], "").code, 64);
}

#[test]
fn a_restore_says_what_changes() {
    let fleet = StandIn::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.backup");
    fs::write(&path, vec![b'x'; 200_000]).unwrap();
    let path = path.to_str().unwrap();
    let restored = fleet.run(&["restore", path, "--replace"], "");
    assert_eq!(
        restored.lines,
        [
            "ACTION  KIND  NAME  NOTE",
            "add     door  ssh   200000 bytes, replace true, tokens false",
            "1 added, 0 changed, 0 removed, 0 events, 2 unchanged"
        ]
    );
    assert_eq!(restored.errors, ["fleetknock: left out: 1 bans that are over"]);
    let json = fleet.run(&["restore", path, "--tokens", "--dry-run", "-o", "json"], "").lines.join("\n");
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["changes"][0]["action"], "add");
    assert_eq!((&document["dryRun"], &document["added"]), (&true.into(), &1.into()));

    fs::write(path, "short").unwrap();
    let cut = fleet.run(&["restore", path], "");
    assert_eq!(
        (cut.code, cut.errors.as_slice()),
        (65, &["fleetknock: error: file: it was cut".to_owned()][..])
    );
    assert_eq!(fleet.run(&["restore", "/nonexistent/x"], "").code, 66);
    assert_eq!(fleet.run(&["restore"], "").code, 64);
    assert_eq!(fleet.run(&["restore", path, "--begin-anew"], "").code, 64);
    let anew = fleet.run(&["restore", "--begin-anew"], "");
    assert_eq!(anew.lines.last().unwrap(), "the fleet begins anew with what the store holds");
    let nothing_to_do = fleet.run(&["restore", "--begin-anew", "--dry-run"], "");
    assert!(!nothing_to_do.lines.iter().any(|line| line.contains("anew")), "{:?}", nothing_to_do.lines);
}

/// What the stand-in gives as a backup.
pub(crate) fn file(rest: Result<(), Status>) -> [Result<v1::BackupPart, Status>; 2] {
    let part = |text: &str| v1::BackupPart { data: text.as_bytes().to_vec() };
    let header =
        r#"{"fleetknock":"backup","format":1,"fleet":"blue","version":"0.1.0","made":1795361411250000,"#;
    let more = r#""revision":7,"keys":["2027"],"clear":1,"left_out":0,"records":3}"#;
    [Ok(part(&format!("{header}{more}\n"))), rest.map(|()| part("the rest\n"))]
}

/// What the stand-in says of a restore: what it was given.
pub(crate) async fn restored(
    mut parts: Streaming<v1::RestorePart>,
) -> Result<[v1::RestoreProgress; 3], Status> {
    let (mut options, mut bytes) = (v1::RestoreOptions::default(), 0);
    while let Some(part) = parts.message().await? {
        match part.part {
            Some(v1::restore_part::Part::Options(given)) => options = given,
            Some(v1::restore_part::Part::Data(data)) => {
                assert!(data.len() <= limits::BACKUP_PART_MAX);
                bytes += data.len();
            }
            None => {}
        }
    }
    if bytes == 5 {
        return Err(status::invalid("file", "it was cut"));
    }
    let change = v1::RestoreChange {
        action: v1::RestoreAction::Add.into(),
        kind: "door".to_owned(),
        name: "ssh".to_owned(),
        note: format!("{bytes} bytes, replace {}, tokens {}", options.replace, options.tokens),
    };
    let summary = v1::RestoreSummary {
        added: 1,
        // A dry run is told as where there is nothing to do.
        changed: u32::from(options.begin_anew && !options.dry_run),
        unchanged: 2,
        remarks: vec!["left out: 1 bans that are over".to_owned()],
        ..v1::RestoreSummary::default()
    };
    let told = [Change(change), Done(1), Summary(summary)];
    Ok(told.map(|progress| v1::RestoreProgress { progress: Some(progress) }))
}
