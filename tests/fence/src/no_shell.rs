//! No shell is ever run, and programs only by the driver that has to: what an operator or a stranger writes reaches no
//! command line.

use crate::tree::{self, SourceFile};

/// The crates that are shipped.
const SHIPPED: &[&str] =
    &["agent/src/", "cli/src/", "controller/src/", "core/src/", "proto/src/", "runtime/src/"];
/// Where programs may be run: the driver for iptables, through the crate of that name.
const DRIVER: &str = "agent/src/firewall/iptables";
/// What runs programs.
const RUNS: &[&str] =
    &["process::Command", "CommandExt", "Command::new(", "posix_spawn", "libc::execv", "libc::system"];
/// What is a shell, or asks for one.
const SHELLS: &[&str] =
    &["\"sh\"", "\"bash\"", "\"dash\"", "/bin/sh", "/bin/bash", "/bin/dash", "/usr/bin/env", "sh -c"];

fn trespasses(files: &[SourceFile]) -> Vec<String> {
    let mut trespasses = vec![];
    let shipped = |file: &&SourceFile| {
        let test = file.path.ends_with("/tests.rs") || file.path.contains("/tests/");
        file.is_rust() && !test && SHIPPED.iter().any(|crate_| file.path.starts_with(crate_))
    };
    for file in files.iter().filter(shipped) {
        for (number, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            let place = format!("{}:{}", file.path, number + 1);
            if let Some(shell) = SHELLS.iter().find(|shell| line.contains(**shell)) {
                trespasses.push(format!(
                    "{place} says {shell}: no shell is ever run, so that no text can become a command. Do it in Rust"
                ));
            }
            if let Some(runs) =
                RUNS.iter().find(|runs| line.contains(**runs) && !file.path.starts_with(DRIVER))
            {
                trespasses.push(format!(
                    "{place} says {runs}: programs are run in {DRIVER} only, and a hardened process runs none. Do it in Rust"
                ));
            }
        }
    }
    trespasses
}

#[test]
fn no_shell_is_run() {
    let files = tree::files();
    for shipped in SHIPPED {
        assert!(files.iter().any(|file| file.path.starts_with(shipped)), "{shipped} is no longer there");
    }
    tree::none(&trespasses(&files));
}

#[test]
fn planted_shells_and_programs_are_found() {
    for text in ["run(\"sh\", &[\"-c\", text]);", "let shell = \"/bin/bash\";", "exec(\"sh -c ls\")"] {
        tree::found(
            &trespasses(&[SourceFile::planted("agent/src/x.rs", text)]),
            &["agent/src/x.rs:1", "no shell"],
        );
        let driver = SourceFile::planted("agent/src/firewall/iptables/programs.rs", text);
        tree::found(&trespasses(&[driver]), &["no shell"]);
    }
    for text in
        ["use std::process::Command;", "use std::os::unix::process::CommandExt as _;", "Command::new(tool)"]
    {
        tree::found(
            &trespasses(&[SourceFile::planted("cli/src/x.rs", text)]),
            &["cli/src/x.rs:1", "in Rust"],
        );
        tree::none(&trespasses(&[SourceFile::planted("agent/src/firewall/iptables/programs.rs", text)]));
        tree::none(&trespasses(&[SourceFile::planted("agent/src/x/tests.rs", text)]));
        tree::none(&trespasses(&[SourceFile::planted("tests/lab/src/x.rs", text)]));
    }
    tree::none(&trespasses(&[SourceFile::planted("core/src/x.rs", "// as sh -c would")]));
}
