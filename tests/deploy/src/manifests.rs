//! Objects of Kubernetes: those that the chart makes, by Helm's own library, and those of the plain manifests.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::{run::run, tree};

/// Of the namespace and of the release, as the plain manifests have them.
pub const NAME: &str = "fleetknock";

/// What the chart says to some values.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// Objects, and what whoever installs is told.
    Rendered {
        /// The objects.
        objects: Vec<Value>,
        /// `NOTES.txt`.
        notes: String,
    },
    /// Values that do not fit.
    Refused {
        /// Helm's words.
        refused: String,
    },
}

/// The folder of the chart.
pub fn chart() -> PathBuf {
    tree::top().join("deploy/helm/fleetknock")
}

/// Runs a program of `tests/deploy/python` in the environment that `tests/scripts/deps` makes.
///
/// # Errors
/// When it is not there or fails (with what it wrote).
pub fn python(program: &str, arguments: &[&str], input: &Value) -> Result<Value> {
    let interpreter = tree::target().join("tools/bin/python");
    ensure!(interpreter.exists(), "there is no {}; make it with: make deps", interpreter.display());
    let mut child = Command::new(interpreter)
        .arg(tree::top().join("tests/deploy/python").join(program))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdin.take().context("there is no standard input")?;
    let text = input.to_string();
    // Beside reading what it writes: neither waits for the other.
    let writer = thread::spawn(move || pipe.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?} failed ({}):\n{complained}", output.status);
    writer.join().map_err(|_| anyhow::anyhow!("writing to {program} failed"))??;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{program}: {complained}"))
}

/// What the chart answers to each of these values.
///
/// # Errors
/// When Helm's library cannot be run.
pub fn answers(values: &[Value]) -> Result<Vec<Answer>> {
    let chart = chart();
    let arguments = ["render-many", chart.to_str().context("a path in UTF-8")?, NAME, NAME];
    let answers = python("helm.py", &arguments, &Value::Array(values.to_vec()))?;
    Ok(serde_json::from_value(answers)?)
}

/// The objects that the chart makes of each of these values, and its notes.
///
/// # Errors
/// When it refuses some.
pub fn rendered(values: &[Value]) -> Result<Vec<(Vec<Value>, String)>> {
    let rendered = answers(values)?.into_iter().zip(values).map(|(answer, values)| match answer {
        Answer::Rendered { objects, notes } => Ok((objects, notes)),
        Answer::Refused { refused } => bail!("the chart refuses {values}: {refused}"),
    });
    rendered.collect()
}

/// The objects of an overlay of the plain manifests.
///
/// # Errors
/// When it cannot be built.
pub fn overlay(name: &str) -> Result<Vec<Value>> {
    let folder = tree::top().join("deploy/kustomize/overlays").join(name);
    let text = run(Command::new(tree::target().join("tools/kubectl")).arg("kustomize").arg(folder))?;
    let documents: Result<Vec<Value>, _> = text.split("\n---\n").map(serde_saphyr::from_str).collect();
    Ok(documents?)
}

/// The kind, the namespace and the name of an object, as messages have it.
pub fn which(object: &Value) -> String {
    let of = |key: &str| object["metadata"][key].as_str().unwrap_or("-").to_owned();
    format!("{} {}/{}", object["kind"].as_str().unwrap_or("-"), of("namespace"), of("name"))
}

/// Objects by [what they are](which).
///
/// # Errors
/// When two have the same name.
pub fn by_name(objects: Vec<Value>) -> Result<BTreeMap<String, Value>> {
    let mut named = BTreeMap::new();
    for object in objects {
        let name = which(&object);
        ensure!(named.insert(name.clone(), object).is_none(), "{name} is there twice");
    }
    Ok(named)
}

/// The specifications of the pods that objects make, each with what it belongs to.
pub fn pods(objects: &[Value]) -> Vec<(String, &Value)> {
    let pods = objects.iter().filter_map(|object| {
        let of = match object["kind"].as_str()? {
            "CronJob" => &object["spec"]["jobTemplate"]["spec"],
            "DaemonSet" | "Job" | "StatefulSet" => &object["spec"],
            _ => return None,
        };
        Some((which(object), &of["template"]["spec"]))
    });
    pods.collect()
}

/// The containers of a pod, those that run first among them.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|key| items(&pod[key]))
}

/// The items of a list; none when it is not there.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A text, empty when it is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
