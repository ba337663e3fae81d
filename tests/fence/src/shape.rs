//! How files look: short enough to read, and saying what they are for; and what may stand at the top.

use std::collections::BTreeSet;

use crate::tree::{self, SourceFile};

const LINES_MAX: usize = 500;
/// What stands at the top of the checkout: the layout of the design, and what is customary beside it.
const TOP: &[&str] = &[
    // The layout.
    "Cargo.toml",
    "README.md",
    "agent",
    "cli",
    "controller",
    "core",
    "deploy",
    "proto",
    "runtime",
    "tests",
    // Customary: lock file, licences, changelog, how to report and contribute, verbs, tools' settings.
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

fn trespasses(files: &[SourceFile]) -> Vec<String> {
    let mut trespasses = vec![];
    for file in files.iter().filter(|file| file.is_rust() && !file.is_generated()) {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            trespasses.push(format!(
                "{} has {lines} lines, more than {LINES_MAX}: nobody reads that at a sitting. Split it along its \
                 subjects, as {0} and a folder of the same name",
                file.path
            ));
        }
        if !file.text.starts_with("//!") {
            trespasses.push(format!(
                "{} does not begin with `//!`: a reader wants to know what the file is for before how. Say it in a line",
                file.path
            ));
        }
    }
    trespasses
}

fn strangers(files: &[SourceFile]) -> Vec<String> {
    let top: BTreeSet<&str> = files.iter().filter_map(|file| file.path.split('/').next()).collect();
    let strange = top.into_iter().filter(|name| !name.starts_with('.') && !TOP.contains(name));
    strange
        .map(|name| {
            format!(
                "{name} stands at the top of the checkout, where only the design's folders and customary files may: \
                 move it into the room it belongs to, or change the design and TOP in {}",
                file!()
            )
        })
        .collect()
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let files = tree::files();
    assert!(files.iter().filter(|file| file.is_rust()).count() > 20);
    tree::none(&trespasses(&files));
}

#[test]
fn the_top_holds_what_the_design_says() {
    tree::none(&strangers(&tree::files()));
}

#[test]
fn planted_files_are_found() {
    let long = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
    tree::found(
        &trespasses(&[SourceFile::planted("core/src/long.rs", &long)]),
        &["core/src/long.rs", "501 lines", "Split"],
    );
    let silent = SourceFile::planted("core/src/silent.rs", "use std::fmt;\n//! Too late.\n");
    tree::found(&trespasses(&[silent]), &["core/src/silent.rs", "//!"]);
    let generated = SourceFile::planted("proto/src/generated/x.rs", &"\n".repeat(3000));
    tree::none(&trespasses(&[generated]));
}

#[test]
fn a_planted_stranger_is_found() {
    let planted = ["core/src/lib.rs", ".ci/run", "scripts/x.sh"].map(|path| SourceFile::planted(path, ""));
    tree::found(&strangers(&planted), &["scripts", "top of the checkout", "move it"]);
}
