//! Which labels a host takes over, and how they are written.

use clap::Parser;
use fleetknock_runtime::config::load_with;

use super::*;

#[test]
fn labels_of_a_node_are_a_hosts_as_they_are() {
    let of_node = map(&[
        ("kubernetes.io/hostname", "node-1"),
        ("topology.kubernetes.io/zone", "eu-central-1a"),
        ("node-role.kubernetes.io/control-plane", ""),
        ("role", "bastion"),
    ]);
    let taken = take(&of_node, &[]);
    assert_eq!(BTreeMap::from(taken.labels), of_node);
    assert_eq!(taken.left_out, []);
}

#[test]
fn only_those_that_begin_as_asked_are_taken() {
    let of_node = map(&[("a/x", "1"), ("a/y", "2"), ("b", "3"), ("ba", "4"), ("c", "5")]);
    let taken = take(&of_node, &["a/".to_owned(), "b".to_owned()]);
    let keys: Vec<_> = taken.labels.iter().map(|(key, _)| key.to_owned()).collect();
    assert_eq!(keys, ["a/x", "a/y", "b", "ba"]);
}

#[test]
fn what_no_host_can_carry_is_left_out_and_said() {
    let long = "v".repeat(64);
    let of_node =
        map(&[("good", "1"), ("long", &long), ("sp ace", "1"), ("new\nline", "x"), ("quote", "\"")]);
    let taken = take(&of_node, &[]);
    assert_eq!(taken.labels.iter().collect::<Vec<_>>(), [("good", "1")]);
    let keys: Vec<_> = taken.left_out.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["long", "newline", "quote", "sp ace"]);

    let many: BTreeMap<_, _> = (0..LABELS_MAX + 2).map(|n| (format!("k{n:03}"), String::new())).collect();
    let taken = take(&many, &[]);
    assert_eq!(taken.labels.iter().count(), LABELS_MAX);
    assert_eq!(taken.left_out.len(), 2);
    assert!(taken.left_out[0].1.contains("choose some with --labels"), "{:?}", taken.left_out);
}

/// As the agent takes labels.
#[derive(Debug, Parser)]
struct LikeTheAgent {
    #[arg(long, value_delimiter = ',')]
    label: Vec<String>,
    #[arg(long)]
    config: Option<PathBuf>,
}

#[test]
fn what_is_written_is_what_a_configuration_file_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.yaml");
    for pairs in [&[][..], &[("a.b/c", "d"), ("empty", ""), ("on", "off"), ("n", "1.0")]] {
        let labels = Labels::new(map(pairs)).unwrap();
        std::fs::write(&path, text(&"node-1".parse().unwrap(), &labels)).unwrap();
        let args = ["agent".into(), "--config".into(), path.clone().into_os_string()];
        let read: LikeTheAgent = load_with(args, &|_| None).unwrap();
        let wanted: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(read.label, wanted);
        assert!(read.config.is_some());
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
