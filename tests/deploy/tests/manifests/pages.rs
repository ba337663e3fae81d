//! The pages that say what Fleetknock may do at the API server say what the manifests ask for.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use fleetknock_deploy::{
    manifests::{items, text},
    tree,
};
use serde_json::{Value, json};

use crate::rights::rights;

/// Whose account it is, whether all over the cluster, and the rule.
type Right = (String, bool, Value);

/// What the chart grants in addition when doors take their sequences from Secrets (`doors.secrets`).
fn secrets() -> Right {
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]});
    ("fleetknock-controller".to_owned(), false, rule)
}

#[test]
fn the_page_of_rights_says_what_the_manifests_ask_for() -> Result<()> {
    let page = fs::read_to_string(tree::top().join("deploy/kubernetes-access.md"))?;
    let said = accounts(&page)?;
    let mut asked: BTreeSet<String> = rights()
        .into_iter()
        .map(|(role, rule, _)| {
            let account = role.rsplit(['/', ':']).next().unwrap_or_default();
            told(&(account.to_owned(), role.starts_with("ClusterRole"), rule))
        })
        .collect();
    asked.insert(told(&secrets()));
    let said: BTreeSet<_> = said.iter().map(told).collect();
    ensure!(
        said == asked,
        "said and not asked for: {:#?}; asked for and not said: {:#?}",
        &said - &asked,
        &asked - &said
    );
    Ok(())
}

#[test]
fn the_page_of_doors_says_the_same_of_doors() -> Result<()> {
    let page = fs::read_to_string(tree::top().join("deploy/doors-in-kubernetes.md"))?;
    let mut said = BTreeSet::new();
    for row in rows(&page, "| API group ") {
        let [group, resource, verbs, _] = row.as_slice() else { anyhow::bail!("not four columns: {row:?}") };
        let mut quoted = quoted(resource).into_iter();
        let resource = quoted.next().context("no resource")?;
        said.insert(rule(first(group), &resource, &quoted.collect::<Vec<_>>(), verbs).to_string());
    }
    let of_doors = |(role, rule, why): &(&str, Value, &str)| {
        (role.ends_with("fleetknock-controller") && why.starts_with("--kubernetes-doors"))
            .then(|| rule.to_string())
    };
    let mut asked: BTreeSet<_> = rights().iter().filter_map(of_doors).collect();
    asked.insert(secrets().2.to_string());
    ensure!(said == asked, "said: {said:#?}; asked for: {asked:#?}");
    Ok(())
}

#[test]
fn a_right_that_a_page_lacks_or_widens_is_found() -> Result<()> {
    let page = fs::read_to_string(tree::top().join("deploy/kubernetes-access.md"))?;
    let all = accounts(&page)?;
    let line = page.lines().find(|line| line.contains("`tokenreviews`")).context("no such line")?;
    ensure!(accounts(&page.replace(&format!("{line}\n"), ""))?.len() == all.len() - 1);
    let wider = accounts(&page.replace("`get`, `update`", "`get`, `list`"))?;
    ensure!(wider.iter().map(told).ne(all.iter().map(told)));
    Ok(())
}

/// The rows under the headings that name an account. A cell that is empty is as above, but for names and the core group.
fn accounts(page: &str) -> Result<Vec<Right>> {
    let mut found = Vec::new();
    for part in page.split("\n## ").filter(|part| part.contains(": service account `")) {
        let account = quoted(part.lines().next().unwrap_or_default()).pop().context("no account")?;
        let mut kind = String::new();
        for row in rows(part, "| feature ") {
            let [_, kinds, group, resource, names, verbs, _] = row.as_slice() else {
                anyhow::bail!("not seven columns: {row:?}")
            };
            if !kinds.is_empty() {
                kind.clone_from(kinds);
            }
            let rule = rule(first(group), &first(resource), &quoted(names), verbs);
            ensure!(items(&rule["verbs"]).count() > 0 && !text(&rule["resources"][0]).is_empty(), "{row:?}");
            found.push((account.clone(), kind.starts_with("ClusterRole"), rule));
        }
    }
    ensure!(found.len() >= 3, "only {found:?} is said");
    Ok(found)
}

fn told((account, cluster, rule): &Right) -> String {
    format!("{account}, {}: {rule}", if *cluster { "cluster" } else { "namespace" })
}

fn rule(group: impl AsRef<str>, resource: &str, names: &[String], verbs: &str) -> Value {
    let mut rule = json!({"apiGroups": [group.as_ref()], "resources": [resource], "verbs": quoted(verbs)});
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

/// The rows of the tables whose heads begin so, each as its cells.
fn rows(page: &str, head: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut lines = page.lines();
    while lines.by_ref().any(|line| line.starts_with(head)) {
        let body = lines.by_ref().take_while(|line| line.starts_with('|')).skip(1);
        rows.extend(body.map(|line| {
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        }));
    }
    rows
}

/// What stands between backticks; the empty text is written with quotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(|text| text.trim_matches('"').to_owned()).collect()
}

fn first(cell: &str) -> String {
    quoted(cell).into_iter().next().unwrap_or_default()
}
