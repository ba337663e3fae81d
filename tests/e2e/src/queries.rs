//! The queries of dashboards and rules, taken out of their files and looked into.
//!
//! Pure but for reading the files.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// One query and where it stands.
#[derive(Clone, Debug)]
pub struct Query {
    /// Such as `overview.json, "Knock to open"`.
    pub place: String,
    /// As it is written there.
    pub written: String,
}

impl Query {
    /// With what Grafana would put in: all hosts, doors and controllers, and a short interval.
    pub fn filled(&self) -> String {
        let mut filled = self.written.replace("$__rate_interval", "15s");
        for variable in ["host", "door", "controller"] {
            filled = filled.replace(&format!("${variable}"), ".*");
        }
        filled
    }
}

/// A folder below `deploy/`.
pub fn deploy(folder: &str) -> PathBuf {
    let top = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    top.join("deploy").join(folder)
}

/// The dashboards, by file name.
///
/// # Errors
/// When one cannot be read.
pub fn dashboards() -> Result<Vec<(String, Value)>> {
    let folder = deploy("grafana");
    let mut found = Vec::new();
    for file in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path)?;
            found.push((name, serde_json::from_str(&text).with_context(|| path.display().to_string())?));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// The panels of a dashboard, without the rows' headings.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().map(Vec::as_slice).unwrap_or_default();
    panels.iter().filter(|panel| panel["type"] != "row").collect()
}

/// The queries of all panels of all dashboards.
///
/// # Errors
/// As [`dashboards`].
pub fn of_panels() -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for (file, dashboard) in dashboards()? {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                queries.push(Query {
                    place: format!("{file}, panel {}", panel["title"]),
                    written: target["expr"].as_str().unwrap_or_default().to_owned(),
                });
            }
        }
    }
    Ok(queries)
}

/// The metrics and labels of the dashboards' variables: `label_values(metric, label)`.
///
/// # Errors
/// As [`dashboards`].
pub fn of_variables() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for (file, dashboard) in dashboards()? {
        for variable in dashboard["templating"]["list"].as_array().into_iter().flatten() {
            if variable["type"] != "query" {
                continue;
            }
            let written = variable["query"]["query"].as_str().unwrap_or_default();
            let inner = written.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let pair = inner.and_then(|inner| inner.split_once(", "));
            let (metric, label) = pair.with_context(|| format!("{file}: what is '{written}'?"))?;
            found.push((metric.to_owned(), label.to_owned()));
        }
    }
    Ok(found)
}

/// The names in an expression: metrics (or recorded ones), and labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// As Prometheus stores them.
    pub metrics: BTreeSet<String>,
    /// Those that are matched or grouped by.
    pub labels: BTreeSet<String>,
}

/// Words of the language that are neither.
const WORDS: [&str; 11] =
    ["and", "bool", "by", "group_left", "group_right", "ignoring", "inf", "offset", "on", "or", "unless"];
/// Words after which labels stand in brackets.
const BEFORE_LABELS: [&str; 5] = ["by", "without", "on", "ignoring", "group_left"];

/// The names in an expression of PromQL.
pub fn names(expression: &str) -> Names {
    let mut names = Names::default();
    let letters: Vec<char> = expression.chars().collect();
    let (mut at, mut before, mut in_labels, mut closes) = (0, String::new(), false, '}');
    while at < letters.len() {
        let letter = letters[at];
        match letter {
            '"' | '\'' => {
                at += 1;
                while at < letters.len() && letters[at] != letter {
                    at += if letters[at] == '\\' { 2 } else { 1 };
                }
            }
            '[' => {
                while at < letters.len() && letters[at] != ']' {
                    at += 1;
                }
            }
            '{' => (in_labels, closes) = (true, '}'),
            '(' if BEFORE_LABELS.contains(&before.as_str()) => (in_labels, closes) = (true, ')'),
            _ if in_labels && letter == closes => in_labels = false,
            _ if letter.is_ascii_digit() => {
                while letters.get(at + 1).is_some_and(|next| next.is_ascii_alphanumeric() || *next == '.') {
                    at += 1;
                }
            }
            _ if letter.is_ascii_alphabetic() || letter == '_' => {
                let word: String = letters[at..]
                    .iter()
                    .take_while(|next| next.is_ascii_alphanumeric() || ['_', ':'].contains(next))
                    .collect();
                at += word.len() - 1;
                let rest: String = letters[at + 1..].iter().collect();
                let rest = rest.trim_start();
                // Something that is computed, such as `rate(` and `sum by (`.
                let computes =
                    ["(", "by (", "by(", "without (", "without("].iter().any(|next| rest.starts_with(next));
                if in_labels {
                    names.labels.insert(word.clone());
                } else if !computes && !WORDS.contains(&word.as_str()) {
                    names.metrics.insert(word.clone());
                }
                before = word;
                at += 1;
                continue;
            }
            _ => {}
        }
        if !letter.is_whitespace() {
            before.clear();
        }
        at += 1;
    }
    names
}

#[cfg(test)]
mod tests;
