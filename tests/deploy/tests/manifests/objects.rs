//! What comes out is valid, is the same by both ways, and is of this version.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use fleetknock_deploy::{
    manifests::{answers, by_name, chart, containers, overlay, pods, python, rendered, text, which},
    tree,
};
use serde_json::{Value, json};

use crate::cases;

/// The oldest version that the chart takes, one between, and the newest that the validator knows.
const VERSIONS: [&str; 3] = ["1.30", "1.33", "newest"];

#[test]
fn the_chart_lints_without_a_word() -> Result<()> {
    let chart = chart();
    let said = python("helm.py", &["lint", chart.to_str().context("a path in UTF-8")?], &Value::Null)?;
    ensure!(said["TotalChartsLinted"] == 1, "{said}");
    ensure!(said["Messages"].is_null() && said["Errors"].is_null(), "the linter says: {said}");
    Ok(())
}

#[test]
fn the_chart_packs_what_it_takes_from_elsewhere() -> Result<()> {
    let (chart, folder) = (chart(), tempfile::tempdir()?);
    let places = [&chart, folder.path()].map(|path| path.to_str());
    let [Some(chart), Some(into)] = places else { anyhow::bail!("a path in UTF-8") };
    let archive = python("helm.py", &["package", chart, into], &Value::Null)?;
    let listed =
        fleetknock_deploy::run::run(std::process::Command::new("tar").args(["tzf", text(&archive)]))?;
    for wanted in
        ["files/prometheus/rules.yml", "files/grafana/overview.json", "crds/doors.yaml", "README.md"]
    {
        ensure!(
            listed.contains(&format!("fleetknock/{wanted}\n")),
            "{wanted} is not in the archive:\n{listed}"
        );
    }
    Ok(())
}

#[test]
fn everything_is_valid_for_kubernetes() -> Result<()> {
    let values: Vec<_> = cases::all().into_iter().map(|(_, values)| values).collect();
    let mut all: Vec<_> = rendered(&values)?.into_iter().flat_map(|(objects, _)| objects).collect();
    for name in ["single", "ha"] {
        all.extend(overlay(name)?);
    }
    valid(all)
}

#[test]
fn the_validator_sees_what_is_wrong() -> Result<()> {
    let mut objects = overlay("single")?;
    let agent = objects.iter_mut().find(|object| object["kind"] == "DaemonSet").context("no agent")?;
    agent["spec"]["template"]["spec"]["hostNetwrk"] = json!(true);
    let wrong = valid(objects).err().context("an unknown field is valid")?.to_string();
    ensure!(wrong.contains("DaemonSet fleetknock-agent") && wrong.contains("hostNetwrk"), "{wrong}");

    let monitor = json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
        "metadata": {"name": "m", "namespace": "n"}, "spec": {"selector": {}, "endpoints": []}});
    let wrong = valid(vec![monitor]).err().context("an unknown field is valid")?.to_string();
    ensure!(wrong.contains("endpoints"), "{wrong}");
    Ok(())
}

#[test]
fn chart_and_plain_manifests_are_the_same_objects() -> Result<()> {
    let values = [("single", json!({})), ("ha", cases::ha())];
    let made = rendered(&values.clone().map(|(_, values)| values))?;
    for ((name, _), (objects, _)) in values.iter().zip(made) {
        let chart = by_name(objects.into_iter().map(without_helm).collect())?;
        let mut plain = by_name(overlay(name)?.into_iter().map(without_kustomize).collect())?;
        // Helm makes namespaces only when told so: `--create-namespace`. The README says which labels they need.
        plain.remove("Namespace -/fleetknock").with_context(|| format!("{name} makes no namespace"))?;
        same(name, &chart, &plain)?;
    }
    Ok(())
}

#[test]
fn images_and_charts_are_of_this_version() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let about: Value = serde_saphyr::from_str(&fs::read_to_string(chart().join("Chart.yaml"))?)?;
    ensure!(about["version"] == version && about["appVersion"] == version, "Chart.yaml: {about}");
    let mut all = overlay("single")?;
    all.extend(overlay("ha")?);
    all.extend(rendered(&[json!({}), cases::ha()])?.into_iter().flat_map(|(objects, _)| objects));
    let mut images = 0;
    for (owner, pod) in pods(&all) {
        for image in containers(pod).map(|container| text(&container["image"])) {
            if let Some(ours) = image.strip_prefix("fleetknock/") {
                images += 1;
                let (name, tag) = ours.split_once(':').with_context(|| format!("{owner}: {image}"))?;
                ensure!(["agent", "controller"].contains(&name) && tag == version, "{owner}: {image}");
            } else {
                ensure!(image.starts_with("quay.io/coreos/etcd:v"), "{owner}: {image}");
            }
        }
    }
    ensure!(images >= 16, "only {images} images were looked at");
    Ok(())
}

#[test]
fn rules_and_dashboards_are_those_of_the_checkout() -> Result<()> {
    let watched = cases::all().into_iter().filter(|(name, _)| name.starts_with("watched")).map(|(_, v)| v);
    let (objects, _) = rendered(&watched.collect::<Vec<_>>())?.pop().context("no such case")?;
    let named = by_name(objects)?;
    let rules: Value =
        serde_saphyr::from_str(&fs::read_to_string(tree::top().join("deploy/prometheus/rules.yml"))?)?;
    ensure!(named["PrometheusRule fleetknock/fleetknock"]["spec"] == rules, "the rules are others");
    let mut boards = 0;
    for entry in fs::read_dir(tree::top().join("deploy/grafana"))? {
        let path = entry?.path();
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let board = &named[&format!("ConfigMap fleetknock/fleetknock-{stem}")];
        ensure!(board["metadata"]["labels"]["grafana_dashboard"] == "1", "{stem} is not found by Grafana");
        let given = text(&board["data"][format!("fleetknock-{stem}.json")]);
        let given: Value = serde_json::from_str(given).with_context(|| format!("{stem} is no JSON"))?;
        ensure!(
            given == serde_json::from_str::<Value>(&fs::read_to_string(&path)?)?,
            "{stem} is another one"
        );
        boards += 1;
    }
    ensure!(boards == 4, "{boards} dashboards");
    // Rules and panels go by the job.
    for (name, job) in
        [("controller", "fleetknock-controller"), ("agent", "fleetknock-agent"), ("etcd", "etcd")]
    {
        let monitor = &named[&format!("PodMonitor fleetknock/fleetknock-{name}")];
        let relabelled = &monitor["spec"]["podMetricsEndpoints"][0]["relabelings"][0];
        ensure!(relabelled["targetLabel"] == "job" && relabelled["replacement"] == job, "{monitor}");
    }
    Ok(())
}

#[test]
fn the_notes_say_what_to_do_next() -> Result<()> {
    for (answer, (name, _)) in
        rendered(&cases::all().into_iter().map(|(_, v)| v).collect::<Vec<_>>())?.into_iter().zip(cases::all())
    {
        let notes = answer.1;
        ensure!(notes.contains("rollout status statefulset/fleetknock-controller"), "{name}: {notes}");
        ensure!(notes.contains("fleetknock get hosts") && !notes.contains("<no value>"), "{name}: {notes}");
        ensure!(!notes.contains("{{"), "{name}: {notes}");
    }
    ensure!(answers(&[])?.is_empty(), "nothing is rendered of nothing");
    Ok(())
}

/// Holds objects against the schemas of Kubernetes, of those who document theirs, and of the definitions among them.
pub(crate) fn valid(objects: Vec<Value>) -> Result<()> {
    let schemas = tree::top().join("tests/deploy/schemas");
    let mut arguments = vec![schemas.to_str().context("a path in UTF-8")?];
    arguments.extend(VERSIONS);
    ensure!(!objects.is_empty(), "there is nothing to judge");
    let complaints = python("validate.py", &arguments, &Value::Array(objects))?;
    ensure!(complaints == json!([]), "{complaints:#}");
    Ok(())
}

/// Without what Helm adds of its own: annotations that name the release, and labels that name Helm, the chart and versions.
fn without_helm(mut object: Value) -> Value {
    let Some(metadata) = object["metadata"].as_object_mut() else { return object };
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !key.starts_with("meta.helm.sh/"));
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        for own in ["app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"] {
            labels.remove(own);
        }
    }
    object
}

/// Without the labels that kustomize puts on the definition of doors, which Helm takes as it is.
fn without_kustomize(mut object: Value) -> Value {
    if object["kind"] == "CustomResourceDefinition"
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.remove("labels");
    }
    object
}

fn same(name: &str, chart: &BTreeMap<String, Value>, plain: &BTreeMap<String, Value>) -> Result<()> {
    let [of_chart, of_plain] = [chart, plain].map(|objects| objects.keys().cloned().collect::<Vec<_>>());
    ensure!(of_chart == of_plain, "{name}: the chart has {of_chart:#?}, the manifests {of_plain:#?}");
    for (which, object) in chart {
        let other = &plain[which];
        let lines = |value: &Value| serde_json::to_string_pretty(value);
        let (a, b) = (lines(object)?, lines(other)?);
        let differs = a.lines().zip(b.lines()).find(|(a, b)| a != b);
        ensure!(
            object == other,
            "{name}: {which}: the chart and the manifests begin to differ at {differs:#?}"
        );
    }
    Ok(())
}

#[test]
fn a_difference_between_chart_and_manifests_is_found() -> Result<()> {
    let plain = by_name(overlay("single")?)?;
    let mut other = plain.clone();
    let name = "StatefulSet fleetknock/fleetknock-controller";
    other.get_mut(name).context("no controllers")?["spec"]["replicas"] = json!(2);
    let found = same("planted", &plain, &other).err().context("it was not found")?.to_string();
    ensure!(found.contains(&which(&plain[name])) && found.contains("replicas"), "{found}");
    Ok(())
}
