//! What is in `deploy/` for Prometheus and Grafana is whole: rules and their tests pass promtool, every alert says what to
//! do, every panel says what it shows.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use fleetknock_e2e::queries::{dashboards, deploy, names, of_panels, panels};
use serde_json::Value;

#[test]
fn promtool_takes_the_configuration_the_rules_and_their_tests() -> Result<()> {
    let folder = deploy("prometheus");
    for (arguments, file) in [
        (["check", "config"], "prometheus.yml"),
        (["check", "rules"], "rules.yml"),
        (["test", "rules"], "tests.yml"),
    ] {
        let output = Command::new("promtool")
            .args(arguments)
            .arg(file)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .output()
            .context(
                "cannot run promtool; install it with: apt-get install prometheus (or run: make deps)",
            )?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "promtool {arguments:?} {file}: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

#[test]
fn every_alert_is_tested_both_ways_and_says_what_to_do() -> Result<()> {
    let (rules, tests) = (yaml("prometheus/rules.yml")?, yaml("prometheus/tests.yml")?);
    let page = fs::read_to_string(deploy("alerts.md"))?;
    let alerts: Vec<_> = rules_of(&rules).filter(|rule| rule.get("alert").is_some()).collect();
    ensure!(alerts.len() >= 15, "there are {} alerts", alerts.len());
    for alert in alerts {
        let name = text(alert, "alert")?;
        let severity = text(&alert["labels"], "severity")?;
        ensure!(["critical", "warning"].contains(&severity), "{name}: its severity is {severity}");
        for annotation in ["summary", "description"] {
            ensure!(text(&alert["annotations"], annotation)?.len() > 10, "{name} has no {annotation}");
        }
        let url = text(&alert["annotations"], "runbook_url")?;
        ensure!(url.ends_with(&format!("deploy/alerts.md#{}", name.to_lowercase())), "{name}: {url}");
        let heading = format!("\n### {name}\n");
        ensure!(page.contains(&heading), "deploy/alerts.md has no section '### {name}'");

        let said = |fires: bool| {
            let tests = tests["tests"].as_array().into_iter().flatten();
            let of_alert = tests.flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten());
            let mut of_alert = of_alert.filter(|test| test["alertname"] == name);
            of_alert
                .any(|test| test["exp_alerts"].as_array().is_some_and(|alerts| alerts.is_empty() != fires))
        };
        ensure!(said(true), "prometheus/tests.yml has no case in which {name} fires");
        ensure!(said(false), "prometheus/tests.yml has no case in which {name} is silent");
    }
    Ok(())
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() -> Result<()> {
    let mut uids = BTreeSet::new();
    let dashboards = dashboards()?;
    ensure!(dashboards.len() == 4, "there are {} dashboards", dashboards.len());
    for (file, dashboard) in &dashboards {
        ensure!(uids.insert(text(dashboard, "uid")?), "{file}: its uid is another one's");
        ensure!(
            dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 38),
            "{file} is too old"
        );
        let variables = dashboard["templating"]["list"].as_array().context("it has no variables")?;
        ensure!(
            variables.iter().any(|variable| variable["type"] == "datasource"),
            "{file} has no data source"
        );
        let known: BTreeSet<_> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
        let mut ids = BTreeSet::new();
        for panel in panels(dashboard) {
            let title = text(panel, "title")?;
            ensure!(ids.insert(panel["id"].as_u64()), "{file}, {title}: its id is another one's");
            ensure!(text(panel, "description")?.len() > 15, "{file}, {title}: it does not say what it shows");
            let defaults = &panel["fieldConfig"]["defaults"];
            ensure!(defaults["unit"].is_string(), "{file}, {title}: it has no unit");
            ensure!(defaults["thresholds"]["steps"].is_array(), "{file}, {title}: it has no thresholds");
            ensure!(
                panel["datasource"]["uid"] == "${datasource}",
                "{file}, {title}: it has a fixed data source"
            );
            let targets = panel["targets"].as_array().context("it asks nothing")?;
            ensure!(!targets.is_empty(), "{file}, {title}: it asks nothing");
            for target in targets {
                let asked = text(target, "expr")?;
                for variable in asked.split('$').skip(1).map(word) {
                    let is_known = variable == "__rate_interval" || known.contains(variable);
                    ensure!(is_known, "{file}, {title}: there is no variable {variable}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn counters_are_only_asked_for_their_rates() -> Result<()> {
    for query in of_panels()? {
        for metric in names(&query.written).metrics.iter().filter(|metric| metric.ends_with("_total")) {
            let asked = &query.written;
            let rates = ["rate(", "increase("].iter().any(|rate| asked.contains(&format!("{rate}{metric}")));
            ensure!(rates, "{}: {metric} is not within rate() or increase(): {asked}", query.place);
        }
    }
    Ok(())
}

fn word(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    &text[..end.unwrap_or(text.len())]
}

fn yaml(file: &str) -> Result<Value> {
    let path = deploy(file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| path_text(&path))
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

fn rules_of(rules: &Value) -> impl Iterator<Item = &Value> {
    let groups = rules["groups"].as_array().into_iter().flatten();
    groups.flat_map(|group| group["rules"].as_array().into_iter().flatten())
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    match value[key].as_str() {
        Some(text) => Ok(text),
        None => bail!("there is no {key} in {value}"),
    }
}
