//! Values: every one is explained, and wrong ones are refused with a way out.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result, bail, ensure};
use fleetknock_deploy::manifests::{Answer, answers, chart};
use serde_json::{Value, json};

/// Between these the README has the table.
const MARKS: [&str; 2] = ["<!-- values: begin -->\n", "<!-- values: end -->\n"];
/// Makes the table anew.
const UPDATE: &str = "FLEETKNOCK_UPDATE_VALUES";

#[test]
fn wrong_values_are_refused_with_the_way_out() -> Result<()> {
    let certificates = json!({"mode": "certManager"});
    let cases: Vec<(Value, &[&str])> = vec![
        // What no schema tells.
        (json!({"controller": {"replicas": 3}}), &["controller.replicas is 3", "controller.store=etcd"]),
        (json!({"controller": {"store": "etcd"}}), &["etcd.existing.endpoints", "etcd.deploy=true"]),
        (json!({"etcd": {"deploy": true}}), &["controller.store is embedded", "set controller.store=etcd"]),
        (
            json!({"controller": {"store": "etcd"}, "etcd": {"deploy": true, "existing": {"endpoints": ["http://e:2379"]}}}),
            &["both given", "choose one"],
        ),
        (
            json!({"controller": {"store": "etcd"}, "etcd": {"existing": {"endpoints": ["https://e:2379"]}}}),
            &["etcd.existing.caSecret is missing"],
        ),
        (
            json!({"controller": {"store": "etcd"}, "etcd": {"existing": {"endpoints": ["http://e:2379"], "user": "u"}}}),
            &["etcd.existing.passwordSecret", "give both or none"],
        ),
        (json!({"etcd": {"existing": {"caSecret": "ca"}}}), &["etcd.existing.endpoints, which are missing"]),
        (json!({"tls": certificates}), &["seal.secret is missing", "fleetknock-controller seal-key"]),
        (json!({"tls": {"mode": "existing"}}), &["tls.existing.secret", "tls.existing.caConfigMap"]),
        (json!({"monitoring": {"podMonitors": true}}), &["agent.address", "$(NODE_IP)"]),
        (json!({"otlp": {"url": "http://c:4317", "caConfigMap": "ca"}}), &["otlp.url is no https:// URL"]),
        // What the schema tells: where, and what it wants.
        (json!({"controler": {}}), &["controler", "not allowed"]),
        (json!({"agent": {"tolerations": [{"opertor": "Exists"}]}}), &["/agent/tolerations/0", "opertor"]),
        (json!({"controller": {"replicas": 0}}), &["/controller/replicas", "minimum"]),
        (json!({"controller": {"replicas": "3"}}), &["/controller/replicas", "integer"]),
        (json!({"controller": {"store": "redis"}}), &["/controller/store", "'embedded', 'etcd'"]),
        (json!({"agent": {"onExit": "drop"}}), &["/agent/onExit", "'keep', 'open'"]),
        (json!({"agent": {"stateDirectory": "/"}}), &["/agent/stateDirectory"]),
        (json!({"agent": {"address": "node"}}), &["/agent/address"]),
        (json!({"agent": {"maxUnavailable": 0}}), &["/agent/maxUnavailable"]),
        (json!({"management": ["10.0.0.1"]}), &["/management/0"]),
        (json!({"image": {"registry": "registry.example"}}), &["/image/registry"]),
        (json!({"controller": {"hostCertificatesFor": "soon"}}), &["/controller/hostCertificatesFor"]),
        (json!({"controller": {"extraArgs": ["ban-misses=20"]}}), &["/controller/extraArgs/0"]),
        (json!({"etcd": {"existing": {"endpoints": ["10.0.0.1:2379"]}}}), &["/etcd/existing/endpoints/0"]),
        (json!({"tls": {"mode": "none"}}), &["/tls/mode", "'pki', 'certManager', 'existing'"]),
    ];
    let values: Vec<_> = cases.iter().map(|(values, _)| values.clone()).collect();
    for ((values, words), answer) in cases.into_iter().zip(answers(&values)?) {
        let Answer::Refused { refused } = answer else { bail!("{values} was taken") };
        for word in words {
            ensure!(refused.contains(word), "{values} was refused without the word '{word}': {refused}");
        }
    }
    Ok(())
}

#[test]
fn every_value_is_explained_in_a_table() -> Result<()> {
    let values = fs::read_to_string(chart().join("values.yaml"))?;
    let rows = rows(&values)?;
    let table = table(&rows)?;
    let path = chart().join("README.md");
    let readme = fs::read_to_string(&path)?;
    let (before, rest) = readme.split_once(MARKS[0]).context("the README has no place for the values")?;
    let (given, after) = rest.split_once(MARKS[1]).context("the README has no end of the values")?;
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, [before, MARKS[0], &table, MARKS[1], after].concat())?;
        return Ok(());
    }
    ensure!(
        given == table,
        "the table in {} is not that of values.yaml; set {UPDATE}=1 to make it anew",
        path.display()
    );
    Ok(())
}

#[test]
fn the_schema_knows_exactly_the_values_that_there_are() -> Result<()> {
    let schema: Value = serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json"))?)?;
    let values = fs::read_to_string(chart().join("values.yaml"))?;
    let mut known = vec![];
    leaves(&schema, "", &mut known);
    // Helm's own, for charts within charts.
    known.retain(|name| name != "global");
    let mut there: Vec<_> = rows(&values)?.into_iter().map(|row| row.name).collect();
    known.sort();
    there.sort();
    // A limit of processor time is nobody's default, and everybody's right.
    known.retain(|name| !name.ends_with("resources.limits.cpu"));
    ensure!(known == there, "the schema knows {known:#?}, values.yaml has {there:#?}");
    Ok(())
}

/// The names in a schema that hold values and not names.
fn leaves(schema: &Value, name: &str, into: &mut Vec<String>) {
    match schema["properties"].as_object() {
        Some(properties) => {
            for (key, below) in properties {
                leaves(below, &if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, into);
            }
        }
        None => into.push(name.to_owned()),
    }
}

struct Row {
    name: String,
    value: String,
    says: String,
}

/// Every value of a file whose comments stand above them: its name, its default, its comment.
fn rows(text: &str) -> Result<Vec<Row>> {
    let whole: Value = serde_saphyr::from_str(text)?;
    let (mut above, mut says, mut rows) = (Vec::<(usize, String)>::new(), String::new(), vec![]);
    for line in text.lines() {
        let inner = line.trim_start();
        if let Some(comment) = inner.strip_prefix("# ") {
            says.push_str(if says.is_empty() { "" } else { " " });
            says.push_str(comment);
            continue;
        }
        // What is no key is a part of the value above.
        let Some((key, _)) = inner.split_once(':').filter(|_| !inner.starts_with('-')) else {
            says.clear();
            continue;
        };
        let depth = line.len() - inner.len();
        above.retain(|(of, _)| *of < depth);
        above.push((depth, key.to_owned()));
        let names: Vec<_> = above.iter().map(|(_, key)| key.as_str()).collect();
        let name = names.join(".");
        let value = names.iter().fold(&whole, |value, key| &value[*key]);
        let said = std::mem::take(&mut says);
        if value.as_object().is_none_or(|object| object.is_empty()) {
            ensure!(
                said.ends_with('.'),
                "values.yaml: {name} is not explained, or not in a sentence: '{said}'"
            );
            rows.push(Row { name, value: value.to_string(), says: said });
        }
    }
    ensure!(rows.len() > 60, "only {} values were found", rows.len());
    Ok(rows)
}

fn table(rows: &[Row]) -> Result<String> {
    let mut table = "\n| value | default | what it does |\n|---|---|---|\n".to_owned();
    for Row { name, value, says } in rows {
        writeln!(table, "| `{name}` | `{value}` | {} |", says.replace('|', "\\|"))?;
    }
    table.push('\n');
    Ok(table)
}

#[test]
fn a_value_without_a_word_is_found() -> Result<()> {
    let text = fs::read_to_string(chart().join("values.yaml"))?;
    let bare = text.replacen("    # The size of the embedded store's volume.\n", "", 1);
    ensure!(bare != text, "the comment is another one now");
    let found = rows(&bare).err().context("it was not found")?.to_string();
    ensure!(found.contains("controller.persistence.size"), "{found}");
    Ok(())
}
