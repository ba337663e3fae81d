//! Packages that must not come in, by whatever way, and why.

use std::fs;

use crate::{sources, tree};

/// Each with the reason, which is also what to do instead.
pub(crate) const BANNED: &[(&str, &str)] = &[
    ("aws-lc-rs", "a second provider of cryptography beside ring; leave out the feature that asks for it"),
    ("aws-lc-sys", "a second provider of cryptography beside ring, built by a C compiler"),
    ("native-tls", "TLS is rustls with ring, the same on every machine; take the crate's rustls feature"),
    ("openssl", "TLS is rustls with ring, the same on every machine; take the crate's rustls feature"),
    ("openssl-sys", "TLS is rustls with ring, and nothing of the system is linked"),
    ("serde_yaml", "given up by its author; YAML is read by serde-saphyr, which bounds what it reads"),
    ("serde_yml", "unsound and given up; YAML is read by serde-saphyr"),
    ("structopt", "given up; clap derives"),
    ("failure", "given up; errors are thiserror's"),
];

fn trespasses(names: impl Iterator<Item = String>) -> Vec<String> {
    let banned = names.filter_map(|name| BANNED.iter().find(|(banned, _)| *banned == name));
    banned
        .map(|(name, why)| {
            format!(
                "Cargo.lock: {name} must not come in: {why}. `cargo tree -i {name}` shows who asks for it"
            )
        })
        .collect()
}

fn names(lock: &str) -> impl Iterator<Item = String> {
    sources::locked(lock).into_iter().map(|package| package.name)
}

#[test]
fn nothing_banned_comes_in() {
    tree::none(&trespasses(names(&fs::read_to_string(tree::top().join("Cargo.lock")).unwrap())));
}

#[test]
fn planted_packages_are_found() {
    for (name, _) in BANNED {
        let lock =
            format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"fine\"\n");
        tree::found(&trespasses(names(&lock)), &[name, "must not come in", "cargo tree"]);
    }
}
