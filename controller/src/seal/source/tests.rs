//! Keys come from files that others cannot read and from the environment, and nothing repeats them.

use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::*;

const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn keys_come_in_the_order_of_their_sources() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(&directory, "a.key", &format!("{LINE_WORD} a {SECRET}\n"), 0o400);
    let keys = read_with(&["env:NEW", &file], Some(&format!("{LINE_WORD} b {SECRET}"))).unwrap();
    let ids: Vec<_> = keys.iter().map(|key| key.id().as_str()).collect();
    assert_eq!(ids, ["b", "a"]);
    assert!(read_with(&[], None).unwrap().is_empty());
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let line = format!("{LINE_WORD} a {SECRET}\n");
    // systemd's credentials and Kubernetes' secrets with a defaultMode of 0440 are fine.
    for mode in [0o400, 0o440, 0o600, 0o640] {
        assert!(read_with(&[&file(&directory, "fine", &line, mode)], None).is_ok(), "{mode:o}");
    }
    for mode in [0o644, 0o604, 0o660, 0o666] {
        let error = read_with(&[&file(&directory, "open", &line, mode)], None).unwrap_err().to_string();
        assert!(error.contains(&format!("{mode:04o}")) && error.contains("--seal-key"), "{error}");
    }
}

#[test]
fn what_is_wrong_is_named_and_no_secret_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let cut = file(&directory, "cut.key", &format!("{LINE_WORD} a {}", &SECRET[..30]), 0o600);
    let long = file(&directory, "long.key", &"x".repeat(2000), 0o600);
    let missing = directory.path().join("missing.key").display().to_string();
    let line = format!("{LINE_WORD} a {SECRET}");
    for (source, variable, words) in [
        (cut.as_str(), None, ["cut.key", "was the line cut?"]),
        (&long, None, ["long.key", "more than 1024 bytes"]),
        (&missing, None, ["missing.key", "No such file"]),
        ("env:NEW", None, ["env:NEW", "not set"]),
        ("env:NEW", Some(""), ["env:NEW", "not set"]),
        ("env:NEW", Some("x"), ["env:NEW", "seal-key` prints"]),
        (&line, None, ["place 1 is a key itself", "seal-key`"]),
        (SECRET, None, ["place 1 is a key itself", "seal-key`"]),
    ] {
        let error = read_with(&[source], variable).unwrap_err();
        for word in words {
            assert!(error.to_string().contains(word), "{source}: {error}");
        }
        let said = format!("{error} {error:?}");
        assert!(!said.contains(&SECRET[..8]) && !said.contains("xxx"), "{said}");
    }
}

fn read_with(sources: &[&str], variable: Option<&str>) -> Result<Vec<SealKey>, KeySourceError> {
    let sources: Vec<_> = sources.iter().map(|&source| source.to_owned()).collect();
    read(&sources, &|name| (name == "NEW").then(|| variable.map(OsString::from)).flatten())
}

fn file(directory: &TempDir, name: &str, text: &str, mode: u32) -> String {
    let path = directory.path().join(name);
    let _ = fs::remove_file(&path);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}
