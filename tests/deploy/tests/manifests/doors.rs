//! Doors as resources: the definition with its rules, and every door that this repository shows.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use fleetknock_deploy::{
    manifests::{text, which},
    run::run,
    tree,
};
use kube_cel::Validator;
use serde_json::{Value, json};

use crate::objects::valid;

/// Where doors are shown to people. Those in Rust are the lab's; such as are put together there are left out.
const SHOWN: [&str; 3] = ["*.md", "*.yaml", "*.rs"];

/// Files in which one is found, so that a search that misses some is noticed.
const FOUND: [&str; 8] = [
    "README.md",
    "deploy/README.md",
    "deploy/doors-in-kubernetes.md",
    "deploy/compose/doors.yaml",
    "proto/src/convert/tests.rs",
    "tests/e2e/tests/promises/p20_unconfirmed_changes_roll_back.rs",
    "tests/e2e/tests/promises/p27_explain_tells_why_it_did_not_open.rs",
    "tests/e2e/tests/promises/p30_the_dashboard_shows_what_is.rs",
];

fn definition() -> Result<Value> {
    let text = fs::read_to_string(tree::top().join("deploy/kustomize/base/crd.yaml"))?;
    Ok(serde_saphyr::from_str(&text)?)
}

/// What the rules of the definition (CEL) say to an object, as the API server would evaluate them.
fn judged(object: &Value) -> Result<Vec<String>> {
    let schema = &definition()?["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let said = Validator::new().validate(schema, object, None).err();
    Ok(said
        .into_iter()
        .flat_map(|all| all.into_vec())
        .map(|one| format!("{}: {}", one.field_path, one.message))
        .collect())
}

fn door(knock: Value, ports: &[&str]) -> Value {
    json!({
        "apiVersion": "fleetknock.io/v1", "kind": "Door", "metadata": {"name": "d", "namespace": "fleetknock"},
        "spec": {"knock": knock, "opens": {"hosts": {}, "ports": ports, "for": "30s"}},
    })
}

#[test]
fn the_rules_of_the_definition_hold_what_they_say() -> Result<()> {
    let steps = json!([{"port": "tcp/7412"}, {"hosts": {"names": ["db-1"]}, "port": "udp/23981"}]);
    let from = json!({"secretKeyRef": {"name": "ssh", "key": "steps"}});
    let here = json!({"sequence": steps, "within": "15s"});
    let elsewhere = json!({"sequenceFrom": from, "within": "15s"});
    let both = json!({"sequence": steps, "sequenceFrom": from, "within": "15s"});
    let neither = json!({"within": "15s"});
    for (knock, ports, wanted) in [
        (&here, &["tcp/22"][..], &[][..]),
        // The same number of the other protocol is another port.
        (&here, &["udp/7412"], &[]),
        (&elsewhere, &["tcp/7412"], &[]),
        (&both, &["tcp/22"], &["spec.knock: give exactly one of sequence and sequenceFrom"]),
        (&neither, &["tcp/22"], &["spec.knock: give exactly one of sequence and sequenceFrom"]),
        (&here, &["tcp/22", "udp/23981"], &["spec: a step knocks at a port that this door opens"]),
    ] {
        let said = judged(&door(knock.clone(), ports))?;
        let as_wanted = said.len() == wanted.len()
            && said.iter().zip(wanted).all(|(said, wanted)| said.starts_with(wanted));
        ensure!(as_wanted, "{knock} and {ports:?}: {said:?}");
    }
    Ok(())
}

#[test]
fn every_door_that_is_shown_is_good_as_a_resource() -> Result<()> {
    let doors = shown()?;
    let files: std::collections::BTreeSet<_> = doors.keys().map(|(file, _)| file.as_str()).collect();
    for wanted in FOUND {
        ensure!(files.contains(wanted), "no door was found in {wanted}: {files:?}");
    }
    let mut objects = vec![definition()?];
    for ((file, line), door) in &doors {
        let said = judged(door)?;
        ensure!(said.is_empty(), "{file}:{line}: {said:?}");
        let mut door = door.clone();
        // By which a complaint says where it is.
        door["metadata"]["name"] = json!(format!("{file}:{line}: {}", text(&door["metadata"]["name"])));
        objects.push(door);
    }
    valid(objects)
}

#[test]
fn a_wrong_door_and_a_wrong_definition_are_found() -> Result<()> {
    let good = door(json!({"sequence": [{"port": "tcp/7412"}], "within": "15s"}), &["tcp/22"]);
    valid(vec![definition()?, good.clone()])?;
    for (place, value, said) in [
        ("/spec/opens/ports/0", json!("tcp/0"), "does not match"),
        ("/spec/opens/port", json!(22), "'port' was unexpected"),
        ("/spec/knock/within", Value::Null, "is not of type 'string'"),
    ] {
        let mut wrong = good.clone();
        let (parent, field) = place.rsplit_once('/').context("a place")?;
        match wrong.pointer_mut(place) {
            Some(there) => *there = value,
            None => wrong.pointer_mut(parent).context("no parent")?[field] = value,
        }
        let complaint =
            valid(vec![definition()?, wrong]).err().with_context(|| format!("{place} is taken"))?.to_string();
        ensure!(complaint.contains("Door d") && complaint.contains(said), "{complaint}");
    }
    let mut wrong = definition()?;
    wrong["spec"]["versions"][0]["served"] = json!("yes");
    let complaint = valid(vec![wrong]).err().context("it is taken")?.to_string();
    ensure!(complaint.contains("CustomResourceDefinition doors.fleetknock.io"), "{complaint}");
    Ok(())
}

/// Every door in a file of the repository, by file and line.
fn shown() -> Result<BTreeMap<(String, usize), Value>> {
    let top = tree::top();
    let listed = run(Command::new("git").arg("-C").arg(&top).args(["ls-files", "--"]).args(SHOWN))?;
    let mut doors = BTreeMap::new();
    // What a reader is shown to refuse, and the definition itself.
    let judged_elsewhere = |file: &str| {
        ["core/", "cli/", "controller/", "tests/fuzz/", "tests/deploy/", "deploy/helm/fleetknock/crds/"]
            .iter()
            .any(|folder| file.starts_with(folder))
            || file.contains("p11_every_error")
    };
    for file in listed.lines().filter(|file| !judged_elsewhere(file)) {
        let text = fs::read_to_string(top.join(file)).with_context(|| file.to_owned())?;
        for (line, document) in documents(Path::new(file), &text) {
            let door: Value =
                serde_saphyr::from_str(&document).with_context(|| format!("{file}:{line}: {document}"))?;
            ensure!(door["kind"] == "Door", "{file}:{line}: {}", which(&door));
            doors.insert((file.to_owned(), line), door);
        }
    }
    Ok(doors)
}

/// What begins like a door, to its end: three hyphens, a fence, a prompt, or a quotation mark in Rust. Those that a format
/// string puts together are left out.
fn documents(file: &Path, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let lines: Vec<_> = text.lines().collect();
    let rust = file.extension().is_some_and(|extension| extension == "rs");
    for (number, line) in lines.iter().enumerate() {
        let begins = line.ends_with("apiVersion: fleetknock.io/v1")
            && lines.get(number + 1).is_some_and(|next| *next == "kind: Door");
        if !begins {
            continue;
        }
        let over = |line: &&&str| {
            !(line.starts_with("---")
                || line.starts_with("```")
                || line.starts_with("$ ")
                || rust && line.contains('"'))
        };
        let mut document = vec!["apiVersion: fleetknock.io/v1"];
        document.extend(lines[number + 1..].iter().take_while(over));
        let document = document.join("\n");
        let put_together =
            rust && (document.contains("{{") || document.split('{').skip(1).any(is_placeholder));
        if !put_together {
            found.push((number + 1, document));
        }
    }
    found
}

/// Whether what follows a brace names a value of a format string.
fn is_placeholder(rest: &str) -> bool {
    rest.split_once('}').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}
