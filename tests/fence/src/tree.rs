//! What the fences look at: the checkout's files and cargo's view of the packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand};

/// A file of ours with its text; bytes that are not text are replaced.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// From the top of the checkout.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl SourceFile {
    /// One that a test makes up.
    pub(crate) fn planted(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Made by a program and checked in.
    pub(crate) fn is_generated(&self) -> bool {
        self.path.starts_with("proto/src/generated/")
    }
}

/// The top of the checkout.
pub(crate) fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_owned()
}

/// Everything git knows or would add: what is not committed yet has to fit too.
pub(crate) fn files() -> Vec<SourceFile> {
    let top = top();
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&top)
        .output()
        .unwrap_or_else(|error| panic!("cannot run git ({error}); the fences look at a git checkout"));
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let paths = String::from_utf8(listed.stdout).unwrap();
    let mut files = vec![];
    for path in paths.split('\0').filter(|path| !path.is_empty()) {
        // Deleted in the work tree, not in the index yet.
        let Ok(bytes) = fs::read(top.join(path)) else { continue };
        files.push(SourceFile { path: path.to_owned(), text: String::from_utf8_lossy(&bytes).into_owned() });
    }
    assert!(files.iter().any(|file| file.path == "Cargo.toml"), "the list of files is not of this workspace");
    files
}

/// All packages, of all features and targets, as locked.
pub(crate) fn packages() -> Metadata {
    MetadataCommand::new()
        .manifest_path(top().join("Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .other_options(["--locked".to_owned(), "--offline".to_owned()])
        .exec()
        .unwrap_or_else(|error| panic!("cargo metadata: {error}; is Cargo.lock up to date (cargo check)?"))
}

/// Runs cargo in the checkout and returns what it prints.
pub(crate) fn cargo(arguments: &[&str]) -> String {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(arguments)
        .args(["--locked", "--offline", "--color", "never"])
        .current_dir(top())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Fails with every trespass on a line of its own.
#[track_caller]
pub(crate) fn none(trespasses: &[String]) {
    assert!(trespasses.is_empty(), "\n  {}\n", trespasses.join("\n  "));
}

/// That a planted trespass was found, and named.
#[track_caller]
pub(crate) fn found(trespasses: &[String], named: &[&str]) {
    assert_eq!(trespasses.len(), 1, "{trespasses:#?}");
    for name in named {
        assert!(trespasses[0].contains(name), "{name:?} is not in {:?}", trespasses[0]);
    }
}
