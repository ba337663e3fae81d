//! What no container is needed for: the files that the services are given fit each other.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use fleetknock_deploy::{run::run, tree};
use serde_json::Value;

use crate::whole_file;

#[test]
fn everything_that_is_mounted_is_there_and_images_are_pinned() {
    let file = whole_file().unwrap();
    let volumes: BTreeSet<&str> = file["volumes"].as_object().unwrap().keys().map(String::as_str).collect();
    let (mut used, mut mounted) = (BTreeSet::new(), 0);
    for (name, service) in file["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap();
        let tag = image.rsplit_once(':').unwrap().1;
        assert!(tag.contains('.') && tag != "latest", "{name}: {image} is another one tomorrow");
        for mount in service["volumes"].as_array().into_iter().flatten() {
            // SOURCE:TARGET:MODE
            let mount = mount.as_str().unwrap();
            let source = mount.split(':').next().unwrap();
            if source.starts_with('/') {
                assert!(Path::new(source).exists(), "{name}: {source} is not there");
                assert!(mount.ends_with(":ro"), "{name}: {mount} can be written to");
                mounted += 1;
            } else {
                used.insert(source);
            }
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(
                port.as_str().unwrap().starts_with("127.0.0.1:"),
                "{name}: {port} is open to the network"
            );
        }
    }
    assert_eq!(used, volumes, "volumes that are used, and those that are declared");
    assert!(mounted >= 7, "{mounted}");
}

#[test]
fn prometheus_asks_every_agent_controller_and_member_where_it_answers() {
    let file = whole_file().unwrap();
    let text = fs::read_to_string(deploy("compose/prometheus.yml")).unwrap();
    let configuration: Value = serde_saphyr::from_str(&text).unwrap();
    let jobs = configuration["scrape_configs"].as_array().unwrap();
    let targets: BTreeSet<String> = jobs
        .iter()
        .flat_map(|job| job["static_configs"][0]["targets"].as_array().unwrap())
        .map(|target| target.as_str().unwrap().to_owned())
        .collect();
    let wanted: BTreeSet<String> = file["services"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(name, service)| {
            let setting = |name: &str| service["environment"][name].as_str();
            let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
            if let Some(host) = setting("FLEETKNOCK_HOST") {
                return Some(format!("{host}:{}", port(setting("FLEETKNOCK_HTTP").unwrap())));
            }
            if let Some(address) = setting("ETCD_LISTEN_METRICS_URLS") {
                return Some(format!("{name}:{}", port(address)));
            }
            let address = setting("FLEETKNOCK_HTTP_PLAIN")?;
            let alias = service.pointer("/networks/fleet/aliases/0")?.as_str()?;
            Some(format!("{alias}:{}", port(address)))
        })
        .collect();
    assert_eq!(targets, wanted);
    assert_eq!(targets.len(), 9);

    // The alerts choose by these names; promtool reads the rules beside it, as they are mounted.
    let names = |text: &str| -> BTreeSet<String> {
        let file: Value = serde_saphyr::from_str(text).unwrap();
        let jobs = file["scrape_configs"].as_array().unwrap();
        jobs.iter().map(|job| job["job_name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&text), names(&fs::read_to_string(deploy("prometheus/prometheus.yml")).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), &text).unwrap();
    fs::copy(deploy("prometheus/rules.yml"), folder.path().join("rules.yml")).unwrap();
    run(Command::new("promtool").args(["check", "config", "prometheus.yml"]).current_dir(&folder)).unwrap();
}

#[test]
fn grafana_finds_its_dashboards_and_they_find_their_data() {
    let file = whole_file().unwrap();
    let grafana = &file["services"]["grafana"];
    let mounts: Vec<&str> = grafana["volumes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let read = |name: &str| -> Value {
        serde_saphyr::from_str(&fs::read_to_string(deploy(&format!("compose/grafana/{name}"))).unwrap())
            .unwrap()
    };
    let provider = &read("dashboards.yaml")["providers"][0];
    let path = provider["options"]["path"].as_str().unwrap().to_owned();
    assert!(mounts.iter().any(|mount| mount.ends_with(&format!("/deploy/grafana:{path}:ro"))), "{mounts:?}");
    for name in ["datasources", "dashboards"] {
        let place = format!(
            "/deploy/compose/grafana/{name}.yaml:/etc/grafana/provisioning/{name}/fleetknock.yaml:ro"
        );
        assert!(mounts.iter().any(|mount| mount.ends_with(&place)), "{mounts:?}");
    }
    let home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().unwrap();
    assert!(deploy("grafana").join(home.strip_prefix(&format!("{path}/")).unwrap()).is_file(), "{home}");

    // The variable of a dashboard takes the default of its type, and every panel goes by the variable.
    let sources = read("datasources.yaml");
    let of_type = |kind: &str| {
        let sources = sources["datasources"].as_array().unwrap().iter();
        sources.filter(|source| source["type"] == kind).collect::<Vec<_>>()
    };
    let prometheus = of_type("prometheus");
    assert_eq!(prometheus.len(), 1);
    assert_eq!(prometheus[0]["isDefault"], true);
    assert_eq!(prometheus[0]["url"], "http://prometheus:9090");
    assert_eq!(of_type("jaeger")[0]["url"], "http://jaeger:16686");
    let mut dashboards = 0;
    for entry in fs::read_dir(deploy("grafana")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        assert!(variables.iter().any(|v| v["type"] == "datasource" && v["query"] == "prometheus"));
        for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        }
        dashboards += 1;
    }
    assert_eq!(dashboards, 4);
}

#[test]
fn jaeger_listens_where_traces_are_sent_and_looked_at() {
    let file = whole_file().unwrap();
    let configuration: Value =
        serde_saphyr::from_str(&fs::read_to_string(deploy("compose/jaeger.yaml")).unwrap()).unwrap();
    let at =
        |pointer: &str| configuration.pointer(pointer).unwrap_or(&Value::Null).as_str().unwrap_or_default();
    let sent = file["services"]["ctl-1"]["environment"]["FLEETKNOCK_OTLP"].as_str().unwrap();
    assert_eq!(sent, file["services"]["agent-edge-1"]["environment"]["FLEETKNOCK_OTLP"]);
    let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(at("/receivers/otlp/protocols/grpc/endpoint"), format!("0.0.0.0:{}", port(sent)));
    let shown = file["services"]["jaeger"]["ports"][0].as_str().unwrap();
    assert_eq!(
        at("/extensions/jaeger_query/http/endpoint"),
        format!("0.0.0.0:{}", port(shown).trim_end_matches("/tcp"))
    );
    // Each pipeline goes by parts that there are; those of metrics too, because agents and controllers send both.
    let is_there =
        |kind: &str, name: &Value| !configuration[kind].get(name.as_str().unwrap()).is_none_or(|_| false);
    for pipeline in ["traces", "metrics"] {
        for kind in ["receivers", "processors", "exporters"] {
            for name in configuration["service"]["pipelines"][pipeline][kind].as_array().into_iter().flatten()
            {
                assert!(is_there(kind, name), "{pipeline}: {kind} {name}");
            }
        }
        assert!(configuration["service"]["pipelines"][pipeline]["exporters"][0].is_string(), "{pipeline}");
    }
    for name in configuration["service"]["extensions"].as_array().unwrap() {
        assert!(is_there("extensions", name), "{name}");
    }
}

#[test]
fn without_the_extras_nothing_is_sent_to_them() {
    let everything = whole_file().unwrap();
    let mut core = Command::new("docker-compose");
    core.args(["--env-file", "compose/core.env", "config"]).current_dir(deploy(""));
    let core: Value = serde_saphyr::from_str(&run(core.env_remove("COMPOSE_PROFILES")).unwrap()).unwrap();
    for (name, service) in core["services"].as_object().unwrap() {
        assert!(service["environment"]["FLEETKNOCK_OTLP"].is_null(), "{name}");
        let profiles = service["profiles"].as_array().map_or(0, Vec::len);
        let needed = everything["services"].as_object().unwrap().values();
        let needs = |other: &Value| other["depends_on"].get(name).is_some();
        assert!(
            profiles == 0 || !needed.into_iter().any(needs),
            "{name} is needed by others, and only an extra"
        );
    }
    let settings = |name: &str| fs::read_to_string(deploy(name)).unwrap();
    assert!(settings(".env").contains("\nCOMPOSE_PROFILES=extras\n"));
    assert!(settings("compose/core.env").contains("\nCOMPOSE_PROFILES=\n"));
}

#[test]
fn the_door_is_the_readmes() {
    let door = |text: &str| -> Value {
        let begin = text.find("apiVersion: fleetknock.io/v1").unwrap();
        serde_saphyr::from_str(text[begin..].split("\n```").next().unwrap()).unwrap()
    };
    let mut written = door(&fs::read_to_string(tree::top().join("README.md")).unwrap());
    // Everybody may knock unless the door says otherwise.
    assert!(written["spec"].as_object_mut().unwrap().remove("sources").is_some());
    assert_eq!(door(&fs::read_to_string(deploy("compose/doors.yaml")).unwrap()), written);
}

fn deploy(name: &str) -> std::path::PathBuf {
    tree::top().join("deploy").join(name)
}
