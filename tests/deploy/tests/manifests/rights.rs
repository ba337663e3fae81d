//! Nothing asks for more than is said here, with the reason.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use fleetknock_deploy::manifests::{containers, items, overlay, pods, rendered, text, which};
use serde_json::{Value, json};

use crate::cases;

/// Who may do what at the API server: the role, the rule, and which code uses it.
pub(crate) fn rights() -> Vec<(&'static str, Value, &'static str)> {
    let rule = |group: &str, resource: &str, names: &[&str], verbs: &[&str]| {
        let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
        if !names.is_empty() {
            rule["resourceNames"] = json!(names);
        }
        rule
    };
    vec![
        (
            "ClusterRole -/fleetknock:fleetknock-controller",
            rule("authentication.k8s.io", "tokenreviews", &[], &["create"]),
            "--kubernetes-enroll: whose is the token of an agent that has no certificate yet",
        ),
        (
            "ClusterRole -/fleetknock:fleetknock-controller",
            rule("apiextensions.k8s.io", "customresourcedefinitions", &["doors.fleetknock.io"], &["get"]),
            "--kubernetes-doors: tell a door that is deleted from all of them going with their definition",
        ),
        (
            "Role fleetknock/fleetknock-controller",
            rule("fleetknock.io", "doors", &[], &["list", "watch", "patch"]),
            "--kubernetes-doors: follow them, and keep a finalizer in them",
        ),
        (
            "Role fleetknock/fleetknock-controller",
            rule("fleetknock.io", "doors/status", &[], &["patch"]),
            "--kubernetes-doors: say what became of them",
        ),
        (
            "ClusterRole -/fleetknock:fleetknock-agent",
            rule("", "nodes", &[], &["get"]),
            "kubernetes node-config: the labels of the node",
        ),
        (
            "Role fleetknock/fleetknock-pki",
            rule("", "secrets", &[], &["create"]),
            "kubernetes pki: what is created cannot be named",
        ),
        (
            "Role fleetknock/fleetknock-pki",
            rule("", "secrets", &["fleetknock-tls", "fleetknock-admin"], &["get", "update"]),
            "kubernetes pki: what is there is left or renewed",
        ),
        (
            "Role fleetknock/fleetknock-pki",
            rule("", "configmaps", &[], &["create"]),
            "kubernetes pki: what is created cannot be named",
        ),
        (
            "Role fleetknock/fleetknock-pki",
            rule("", "configmaps", &["fleetknock-ca"], &["get", "update"]),
            "kubernetes pki: agents' trust follows the authority",
        ),
    ]
}

#[test]
fn nobody_may_ask_for_more_than_is_said() -> Result<()> {
    let wanted: BTreeSet<(String, String)> =
        rights().into_iter().map(|(role, rule, _)| (role.to_owned(), rule.to_string())).collect();
    for (name, objects) in everywhere()? {
        let given = |object: &Value| -> BTreeSet<(String, String)> {
            items(&object["rules"]).map(|rule| (which(object), rule.to_string())).collect()
        };
        let roles = objects.iter().filter(|object| text(&object["kind"]).ends_with("Role"));
        let given: BTreeSet<_> = roles.flat_map(given).collect();
        if ["single", "ha"].contains(&name.as_str()) {
            ensure!(given == wanted, "{name}: given {given:#?}, wanted {wanted:#?}");
        } else if name == "everything set" {
            // Doors of all namespaces, and sequences in Secrets.
            let of_doors =
                given.iter().filter(|(role, _)| role == "ClusterRole -/fleetknock:fleetknock-doors");
            let of_doors: Vec<_> = of_doors.map(|(_, rule)| rule.as_str()).collect();
            ensure!(of_doors.len() == 3, "{of_doors:#?}");
            let secret = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]});
            ensure!(of_doors.contains(&secret.to_string().as_str()), "{of_doors:#?}");
        } else {
            ensure!(given.is_subset(&wanted), "{name}: {:#?} is more than wanted", &given - &wanted);
        }
        for object in objects.iter().filter(|object| text(&object["kind"]).ends_with("Binding")) {
            let subjects: Vec<_> = items(&object["subjects"]).collect();
            let bound = subjects.len() == 1
                && subjects[0]["kind"] == "ServiceAccount"
                && subjects[0]["namespace"] == "fleetknock"
                && text(&object["roleRef"]["name"]) == text(&object["metadata"]["name"]);
            ensure!(bound, "{name}: {object:#}");
        }
    }
    Ok(())
}

#[test]
fn only_agents_touch_the_node_and_only_with_two_capabilities() -> Result<()> {
    let mut agents = 0;
    for (name, objects) in everywhere()? {
        for (owner, pod) in pods(&objects) {
            let owner = format!("{name}: {owner}");
            let is_agent = owner.contains("DaemonSet");
            ensure!(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "{owner}");
            ensure!(pod["enableServiceLinks"] == false, "{owner}: services would set FLEETKNOCK_ variables");
            for forbidden in ["hostPID", "hostIPC", "shareProcessNamespace"] {
                ensure!(pod[forbidden].is_null(), "{owner}: {forbidden}");
            }
            let paths: Vec<_> =
                items(&pod["volumes"]).filter_map(|volume| volume["hostPath"]["path"].as_str()).collect();
            for container in containers(pod) {
                let who = format!("{owner}, {}", text(&container["name"]));
                let security = &container["securityContext"];
                ensure!(security["allowPrivilegeEscalation"] == false, "{who}");
                ensure!(security["readOnlyRootFilesystem"] == true, "{who}");
                ensure!(security["privileged"].is_null(), "{who}");
                ensure!(container["resources"]["limits"]["memory"].is_string(), "{who} has no limit");
                if container["name"] == "agent" {
                    agents += 1;
                    let exactly = json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]});
                    ensure!(security["capabilities"] == exactly, "{who}: {}", security["capabilities"]);
                } else {
                    ensure!(security["capabilities"] == json!({"drop": ["ALL"]}), "{who}");
                    let user = [&security["runAsUser"], &pod["securityContext"]["runAsUser"]];
                    ensure!(user.into_iter().any(|user| *user == 65532), "{who} is of no user of its own");
                    let rootless = [&security["runAsNonRoot"], &pod["securityContext"]["runAsNonRoot"]];
                    ensure!(rootless.into_iter().any(|rootless| *rootless == true), "{who} may be root");
                }
            }
            if !is_agent {
                ensure!(pod["hostNetwork"].is_null() && paths.is_empty(), "{owner}: {paths:?}");
                continue;
            }
            ensure!(pod["hostNetwork"] == true && pod["dnsPolicy"] == "ClusterFirstWithHostNet", "{owner}");
            let paths: Vec<_> =
                paths.into_iter().filter(|path| !path.ends_with("fleetknock/agent")).collect();
            let locks: &[&str] = if name == "everything set" { &["/run/xtables.lock"] } else { &[] };
            ensure!(paths == locks, "{owner}: {paths:?}");
            ensure!(items(&pod["tolerations"]).eq([&json!({"operator": "Exists"})]), "{owner}");
            ensure!(pod["priorityClassName"] == "system-node-critical", "{owner}");
        }
    }
    ensure!(agents >= 9, "only {agents} agents were looked at");
    Ok(())
}

#[test]
fn tokens_for_the_api_server_are_where_they_are_used() -> Result<()> {
    for (name, objects) in everywhere()? {
        for account in objects.iter().filter(|object| object["kind"] == "ServiceAccount") {
            ensure!(account["automountServiceAccountToken"] == false, "{name}: {}", which(account));
        }
        for (owner, pod) in pods(&objects) {
            let automatic = &pod["automountServiceAccountToken"];
            let asks = name != "everything off" && owner.contains("fleetknock-controller")
                || owner.ends_with("fleetknock-pki");
            ensure!(*automatic == asks, "{name}: {owner} has {automatic}");
            if !owner.contains("DaemonSet") {
                continue;
            }
            let mounted = |container: &str, volume: &str| {
                let container = containers(pod).find(|it| it["name"] == container);
                items(&container.unwrap_or(&Value::Null)["volumeMounts"]).any(|mount| mount["name"] == volume)
            };
            ensure!(mounted("node-config", "api") && !mounted("node-config", "token"), "{name}: {owner}");
            ensure!(mounted("agent", "token") && !mounted("agent", "api"), "{name}: {owner}");
            let token =
                items(&pod["volumes"]).find(|volume| volume["name"] == "token").context("no token")?;
            let token = &token["projected"]["sources"][0]["serviceAccountToken"];
            ensure!(token["audience"] == "fleetknock" && token["expirationSeconds"] == 3600, "{token}");
        }
    }
    Ok(())
}

#[test]
fn an_update_of_agents_lifts_no_guard() -> Result<()> {
    for (name, objects) in everywhere()? {
        for object in objects.iter().filter(|object| object["kind"] == "DaemonSet") {
            let update = &object["spec"]["updateStrategy"];
            ensure!(
                update["type"] == "RollingUpdate" && update["rollingUpdate"]["maxSurge"] == 0,
                "{name}: {update}"
            );
            let pod = &object["spec"]["template"]["spec"];
            ensure!(containers(pod).all(|container| container["lifecycle"].is_null()), "{name}: a hook");
            let agent = containers(pod).find(|it| it["name"] == "agent").context("no agent")?;
            let said =
                items(&agent["env"]).find(|it| it["name"] == "FLEETKNOCK_ON_EXIT").context("not said")?;
            let wanted = if name == "everything set" { "open" } else { "keep" };
            ensure!(said["value"] == wanted, "{name}: {said}");
            // The agent waits for a controller without end: nothing kills it for that.
            ensure!(agent["livenessProbe"]["httpGet"]["path"] == "/live", "{name}");
        }
    }
    Ok(())
}

/// Every rendering of the chart and every overlay, with its name.
fn everywhere() -> Result<Vec<(String, Vec<Value>)>> {
    let (names, values): (Vec<_>, Vec<_>) = cases::all().into_iter().unzip();
    let made =
        names.into_iter().map(str::to_owned).zip(rendered(&values)?.into_iter().map(|(objects, _)| objects));
    let mut all: Vec<_> = made.collect();
    for name in ["single", "ha"] {
        all.push((name.to_owned(), overlay(name)?));
    }
    Ok(all)
}
