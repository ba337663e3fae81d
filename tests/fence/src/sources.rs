//! Where packages come from: crates.io with a checksum, or this checkout. What comes from elsewhere can change under the
//! same name, and nobody else has seen it.

use std::{collections::BTreeSet, fs};

use crate::tree;

/// As Cargo.lock spells crates.io, whatever machine or mirror it was fetched from.
pub(crate) const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A package of Cargo.lock.
#[derive(Debug, Default)]
pub(crate) struct Locked {
    pub(crate) name: String,
    pub(crate) source: Option<String>,
    pub(crate) checksum: Option<String>,
}

/// The packages of a lock file.
pub(crate) fn locked(lock: &str) -> Vec<Locked> {
    let packages = lock.split("[[package]]").skip(1);
    packages
        .map(|package| {
            let field = |name: &str| {
                let begin = format!("{name} = \"");
                let mut lines = package.lines();
                let value = lines.find_map(|line| line.strip_prefix(&begin))?;
                value.strip_suffix('"').map(str::to_owned)
            };
            Locked { name: field("name").unwrap(), source: field("source"), checksum: field("checksum") }
        })
        .collect()
}

fn trespasses(packages: &[Locked], ours: &BTreeSet<String>) -> Vec<String> {
    let mut trespasses = vec![];
    for Locked { name, source, checksum } in packages {
        let why = match (source.as_deref(), checksum) {
            (None, _) if ours.contains(name) => continue,
            (None, _) => "is a path outside this workspace".to_owned(),
            (Some(CRATES_IO), Some(sum)) if sum.len() == 64 => continue,
            (Some(CRATES_IO), _) => "has no checksum".to_owned(),
            (Some(other), _) => format!("comes from {other}"),
        };
        trespasses.push(format!(
            "Cargo.lock: {name} {why}: what is built must be what everybody else sees under that version. Take a release \
             from crates.io; what none has belongs to its project, or in a room of ours"
        ));
    }
    trespasses
}

#[test]
fn every_package_is_of_this_workspace_or_of_crates_io_with_its_checksum() {
    let packages = locked(&fs::read_to_string(tree::top().join("Cargo.lock")).unwrap());
    assert!(packages.len() > 100);
    let metadata = tree::packages();
    let ours = metadata.workspace_packages().into_iter().map(|package| package.name.to_string()).collect();
    tree::none(&trespasses(&packages, &ours));
}

#[test]
fn planted_sources_are_found() {
    let ours = BTreeSet::from(["ours".to_owned()]);
    let planted = |rest: &str| {
        locked(&format!("version = 4\n\n[[package]]\nname = \"planted\"\nversion = \"1\"\n{rest}"))
    };
    let sum = "0123456789abcdef".repeat(4);
    let good = planted(&format!("source = \"{CRATES_IO}\"\nchecksum = \"{sum}\"\n"));
    tree::none(&trespasses(&good, &ours));
    tree::none(&trespasses(&locked("[[package]]\nname = \"ours\"\nversion = \"1\"\n"), &ours));
    for (rest, named) in [
        ("source = \"git+https://github.com/x/y#0123\"\n".to_owned(), "git+https://github.com/x/y"),
        (format!("source = \"registry+https://example.org/index\"\nchecksum = \"{sum}\"\n"), "example.org"),
        (format!("source = \"{CRATES_IO}\"\n"), "no checksum"),
        (String::new(), "outside this workspace"),
    ] {
        tree::found(&trespasses(&planted(&rest), &ours), &["planted", named, "crates.io"]);
    }
}
