//! What the conventions ask of metrics, checked on what is really written.
//!
//! Pure. After <https://prometheus.io/docs/practices/naming/> and the OpenMetrics specification, and our own rule that no
//! label is as varied as the addresses of the world.

use std::{collections::BTreeSet, net::IpAddr};

use super::text::{Family, Kind};

/// Series of one instrument: more are a label that should not be one. Doors and hosts are counted one by one.
const SERIES_MAX: usize = 64;
/// Labels whose values operators declare; their instruments have as many series as there are of those.
const DECLARED: [&str; 2] = ["door", "host"];
/// Units that are not base units.
const NOT_BASE: [&str; 8] =
    ["milliseconds", "microseconds", "ms", "us", "minutes", "kilobytes", "kib", "percent"];

/// Everything that is wrong, in the order of the families.
pub fn complaints(families: &[Family]) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for family in families {
        let name = &family.name;
        let mut complain = |what: &str| found.push(format!("{name}: {what}"));
        if !names.insert(name) {
            complain("it is declared twice");
        }
        if family.help.len() < 10 || !family.help.ends_with('.') || family.help.ends_with("..") {
            complain("it needs one sentence of help");
        }
        let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        if !name.chars().all(plain) {
            complain("its name is not in snake case");
        }
        if name.split('_').any(|word| NOT_BASE.contains(&word)) {
            complain("its unit is not a base unit");
        }
        if name.ends_with("_seconds") != (family.unit == "seconds") {
            complain("its name and its unit differ");
        }
        if ["_total", "_count", "_sum", "_bucket", "_info"].iter().any(|suffix| name.ends_with(suffix)) {
            complain("its name ends in what is added to it");
        }
        if family.kind == Kind::Histogram && family.unit.is_empty() {
            complain("a histogram has a unit");
        }
        for what in of_labels(family) {
            complain(&what);
        }
    }
    found
}

fn of_labels(family: &Family) -> Vec<String> {
    let mut found = BTreeSet::new();
    let series = family.samples.iter().filter(|sample| sample.label("le").is_none());
    let declared = |key: &str| DECLARED.contains(&key);
    let fixed = series.filter(|sample| !sample.labels.iter().any(|(key, _)| declared(key)));
    if fixed.count() > SERIES_MAX * if family.kind == Kind::Histogram { 2 } else { 1 } {
        found.insert(format!("it has more than {SERIES_MAX} series"));
    }
    let buckets = family.samples.iter().filter_map(|sample| sample.label("le")).collect::<BTreeSet<_>>();
    if buckets.len() > 12 {
        found.insert("it has more than 12 buckets".to_owned());
    }
    for (key, value) in family.samples.iter().flat_map(|sample| &sample.labels) {
        if names_an_address(value) {
            found.insert(format!("its label {key} is an address"));
        }
        if key != "le" && (key.starts_with("__") || !key.chars().all(|letter| letter.is_ascii_lowercase())) {
            found.insert(format!("its label {key} is not one plain word"));
        }
    }
    found.into_iter().collect()
}

/// Whether a text is an address, a network, or an address with a port.
pub fn names_an_address(text: &str) -> bool {
    let bare = text.split('/').next().unwrap_or(text);
    bare.parse::<IpAddr>().is_ok() || bare.parse::<std::net::SocketAddr>().is_ok()
}
