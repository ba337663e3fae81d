//! One version each of what must not come twice: two of them double the code and do not fit each other's types.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::tree;

const ONCE: &[&str] = &["h2", "hyper", "prost", "ring", "rustls", "tonic"];

fn trespasses(lock: &str) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut name = None;
    for line in lock.lines() {
        let value = |field: &str| {
            line.strip_prefix(field)?
                .trim_start_matches([' ', '='])
                .trim()
                .strip_prefix('"')?
                .strip_suffix('"')
        };
        if let Some(value) = value("name ") {
            name = Some(value);
        } else if let (Some(name), Some(version)) = (name, value("version ")) {
            versions.entry(name).or_default().insert(version);
        }
    }
    let mut trespasses = vec![];
    for once in ONCE {
        let found = versions.get(once).cloned().unwrap_or_default();
        if found.len() != 1 {
            trespasses.push(format!(
                "Cargo.lock has {} versions of {once} {found:?}, not one: types of one do not fit the other, and two TLS \
                 or HTTP stacks are twice the attack surface. `cargo tree -i {once}@VERSION` shows who asks for the odd \
                 one; raise or lower that crate",
                found.len()
            ));
        }
    }
    trespasses
}

#[test]
fn what_must_not_come_twice_comes_once() {
    tree::none(&trespasses(&fs::read_to_string(tree::top().join("Cargo.lock")).unwrap()));
}

#[test]
fn a_planted_second_version_is_found() {
    let package =
        |name: &str, version: &str| format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\n");
    let mut lock: String = ONCE.iter().map(|once| package(once, "1.0.0")).collect();
    tree::none(&trespasses(&lock));
    lock += &package("rustls", "0.22.0");
    tree::found(&trespasses(&lock), &["rustls", "0.22.0", "1.0.0", "cargo tree"]);
}
