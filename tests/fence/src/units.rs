//! The units for systemd are understood by it, and as closed as the deployment's page says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::tree;

/// Each unit, and its exposure by `systemd-analyze security` in tenths, 0 (closed) to 100: what deploy/README.md states.
const EXPOSURES: &[(&str, u32)] = &[("fleetknock-agent", 20), ("fleetknock-controller", 11)];

fn unit(name: &str) -> PathBuf {
    tree::top().join(format!("deploy/systemd/{name}.service"))
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze").args(arguments).arg(unit).output().unwrap_or_else(|error| {
        panic!("cannot run systemd-analyze ({error}); install what is needed with: make deps")
    })
}

fn is_as_closed_as(unit: &Path, tenths: u32) -> Result<(), String> {
    let threshold = format!("--threshold={tenths}");
    let output = analyze(&["security", "--offline=true", "--no-pager", &threshold], unit);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Overall exposure level"), "{said} {}", String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said.into_owned()) }
}

#[test]
fn units_are_as_closed_as_is_said() {
    let page = fs::read_to_string(tree::top().join("deploy/README.md")).unwrap();
    for (name, tenths) in EXPOSURES {
        is_as_closed_as(&unit(name), *tenths).unwrap();
        let stated = format!("{}.{}", tenths / 10, tenths % 10);
        let line =
            page.lines().find(|line| line.contains(&format!("{name}.service")) && line.contains(&stated));
        assert!(
            line.is_some(),
            "deploy/README.md does not say that the exposure of {name}.service is {stated}"
        );
    }
}

/// A copy in a folder of its own with something replaced.
fn planted(folder: &TempDir, name: &str, from: &str, to: &str) -> PathBuf {
    let text = fs::read_to_string(unit(name)).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    let path = folder.path().join(format!("{name}.service"));
    fs::write(&path, text.replace(from, to)).unwrap();
    path
}

#[test]
fn a_unit_that_is_more_open_is_found() {
    let folder = TempDir::new().unwrap();
    for (name, tenths) in EXPOSURES {
        let open = planted(&folder, name, &format!("User={name}\n"), "");
        is_as_closed_as(&open, *tenths).unwrap_err();
    }
}

#[test]
fn systemd_understands_the_units() {
    let folder = TempDir::new().unwrap();
    for (name, _) in EXPOSURES {
        // Whether the program is there is looked at too; any is.
        let program = format!("/usr/bin/{name}");
        let known = planted(&folder, name, &program, "/bin/true");
        let output = analyze(&["verify", "--man=no"], &known);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains(name), "{said}");

        let unknown =
            planted(&folder, name, &format!("ExecStart={program}"), "ExecStart=true\nProtectAll=yes\n#");
        let said = analyze(&["verify", "--man=no"], &unknown).stderr;
        assert!(String::from_utf8_lossy(&said).contains("ProtectAll"), "{}", String::from_utf8_lossy(&said));
    }
}
