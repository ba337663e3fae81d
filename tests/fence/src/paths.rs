//! No file tells of the machine it was written on: its directories, its mirrors.

use crate::tree::{self, SourceFile};

/// Directories of somebody's machine; written apart so that this file does not hold them. Each ends in a slash: a
/// container's own `WORKDIR` is fine.
const DIRECTORIES: &[&[&str]] = &[&["/work", "/"], &["/root", "/"], &["/home", "/"], &["/Users", "/"]];
/// What the names of package mirrors and registries contain.
const MIRRORS: &[&str] =
    &["artifactory", "jfrog", "mirror", "nexus", "registry", "index.crates.io", "static.crates.io"];

fn trespasses(files: &[SourceFile]) -> Vec<String> {
    let mut trespasses = vec![];
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path, number + 1);
            if let Some(directory) =
                DIRECTORIES.iter().map(|parts| parts.concat()).find(|directory| names(line, directory))
            {
                trespasses.push(format!(
                    "{place} names {directory}..., a directory of one machine: others do not have it. Make it relative \
                     to the checkout, or a setting"
                ));
            }
            if let Some(host) = hosts(line).find(|host| MIRRORS.iter().any(|mirror| host.contains(mirror))) {
                trespasses.push(format!(
                    "{place} names {host}, where packages come from: that is for each machine's own settings. Leave it \
                     to cargo's and the package managers' configuration"
                ));
            }
        }
    }
    trespasses
}

/// Whether a line names an absolute path that begins so; `https://host/home/` is none.
fn names(line: &str, directory: &str) -> bool {
    line.match_indices(directory).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_ascii_alphanumeric() || "._-}~*".contains(before))
    })
}

/// The hosts of the URLs in a line.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.split("://").skip(1).map(|rest| {
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !".-_".contains(letter));
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[test]
fn no_file_names_a_machine() {
    tree::none(&trespasses(&tree::files()));
}

#[test]
fn planted_paths_and_mirrors_are_found() {
    let planted = |text: &str| trespasses(&[SourceFile::planted("deploy/x", text)]);
    for parts in DIRECTORIES {
        let directory = parts.concat();
        for line in
            [format!("{directory}main"), format!("a \"{directory}x\""), format!("PATH=/bin:{directory}x")]
        {
            tree::found(&planted(&format!("fine\n{line}")), &["deploy/x:2", &directory, "relative"]);
        }
    }
    for host in ["registry.example.org", "nexus.corp.example:8081", "pypi-mirror.example", "static.crates.io"]
    {
        tree::found(
            &planted(&format!("url = https://{host}/x")),
            &["deploy/x:1", host.split(':').next().unwrap()],
        );
    }
}

#[test]
fn what_only_looks_like_it_is_left_alone() {
    let fine = format!(
        "see https://example.org{0} and a{0}b, network{0}, the lock file's \"registry+https://github.com/x\"",
        DIRECTORIES[0].concat()
    );
    tree::none(&trespasses(&[SourceFile::planted("README.md", &fine)]));
}
