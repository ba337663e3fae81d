//! The definition: generated, structural, and of one mind with the reader of doors.

use std::path::Path;

use serde_json::Value;

use super::{against::wrong, *};

/// Where deployments find it.
const COPIES: [&str; 2] = ["deploy/helm/fleetknock/crds/doors.yaml", "deploy/kustomize/base/crd.yaml"];

#[test]
fn what_lies_in_deploy_is_what_is_generated() {
    let generated = yaml().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for copy in COPIES {
        let path = root.join(copy);
        if std::env::var_os("FLEETKNOCK_UPDATE_GENERATED").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &generated).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == generated,
            "{copy} is not what is generated: run this test with FLEETKNOCK_UPDATE_GENERATED=1"
        );
    }
}

/// As the API server asks of a structural schema: every value has a type, and what a schema says about fields stands
/// outside of allOf, anyOf, oneOf and not (Kubernetes: "Specifying a structural schema").
#[test]
fn the_schema_is_structural() {
    let definition = serde_json::to_value(Door::crd()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(schema["type"], "object");
    let mut seen = 0;
    check(schema, "", &mut seen);
    assert!(seen > 30, "only {seen} schemas were looked at");
}

fn check(schema: &Value, path: &str, seen: &mut usize) {
    *seen += 1;
    let Value::Object(keywords) = schema else { panic!("{path} is no schema: {schema}") };
    let type_of =
        keywords.get("type").and_then(Value::as_str).unwrap_or_else(|| panic!("{path} has no type"));
    let forbidden = [
        "$ref",
        "definitions",
        "$defs",
        "deprecated",
        "discriminator",
        "id",
        "patternProperties",
        "readOnly",
        "writeOnly",
        "xml",
        "dependencies",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "const",
        "propertyNames",
        "examples",
        "$schema",
        "exclusiveMinimum",
        "contains",
    ];
    for keyword in forbidden {
        assert!(!keywords.contains_key(keyword), "{path} has {keyword}");
    }
    assert_ne!(keywords.get("uniqueItems"), Some(&Value::Bool(true)), "{path}");
    match type_of {
        "object" => {
            let properties = keywords.get("properties").and_then(Value::as_object);
            assert!(
                properties.is_none() || !keywords.contains_key("additionalProperties"),
                "{path} has properties and additionalProperties"
            );
            if let Some(values) = keywords.get("additionalProperties") {
                check(values, &format!("{path}.*"), seen);
            }
            for (name, property) in properties.into_iter().flatten() {
                check(property, &format!("{path}.{name}"), seen);
            }
        }
        "array" => {
            assert!(keywords.contains_key("maxItems"), "{path} has no bound");
            check(&keywords["items"], &format!("{path}[]"), seen);
        }
        "string" => {
            let said_by_others = path.contains(".status.conditions[]");
            let bound = ["maxLength", "enum", "format"].iter().any(|keyword| keywords.contains_key(*keyword));
            assert!(bound || said_by_others, "{path} has no bound");
        }
        "integer" | "boolean" => {}
        other => panic!("{path} is of type {other}"),
    }
}

/// What the reader of files takes, the schema takes too, but for what this file's head and the page in `deploy/` name; and
/// of one mistake each, both refuse the same.
#[test]
fn the_schema_and_the_reader_of_files_are_of_one_mind() {
    let definition = serde_json::to_value(Door::crd()).unwrap();
    let schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    let is_valid = |spec: &Value| wrong(&schema, spec).is_none();
    let read = |spec: &Value| {
        let document = serde_json::json!({
            "apiVersion": "fleetknock.io/v1", "kind": "Door", "metadata": {"name": "ssh"}, "spec": spec,
        });
        fleetknock_core::door::yaml::parse(&document.to_string()).is_ok()
    };
    let good = serde_json::json!({
        "mode": "observe",
        "knock": {
            "sequence": [{"hosts": {"names": ["db-1"], "matchLabels": {"role": "edge"}}, "port": "tcp/7412"}, {"port": "icmp/0"}],
            "within": "1m 30s",
        },
        "sources": ["0.0.0.0/0", "::/0"],
        "opens": {"hosts": {}, "ports": ["tcp/22", "udp/65535"], "for": "1day"},
    });
    assert!(read(&good) && is_valid(&good));
    let many = |count: usize, port: &str| Value::from(vec![serde_json::json!({"port": port}); count]);
    let ports = |count: u16| Value::from((1..=count).map(|port| format!("tcp/{port}")).collect::<Vec<_>>());
    for (place, value, accepted) in [
        ("/mode", "enforce".into(), true),
        ("/mode", "Enforce".into(), false),
        ("/mode", "off".into(), false),
        ("/knock/sequence", many(32, "tcp/1"), true),
        ("/knock/sequence", many(33, "tcp/1"), false),
        ("/knock/sequence", many(0, "tcp/1"), false),
        ("/knock/sequence/0/port", "tcp/0".into(), false),
        ("/knock/sequence/0/port", "tcp/65535".into(), true),
        ("/knock/sequence/0/port", "tcp/65536".into(), false),
        ("/knock/sequence/0/port", "udp/6553".into(), true),
        ("/knock/sequence/0/port", "icmp/65535".into(), true),
        ("/knock/sequence/0/port", "sctp/1".into(), false),
        ("/knock/sequence/0/port", "TCP/1".into(), false),
        ("/knock/sequence/0/port", 22.into(), false),
        ("/knock/sequence/0/hosts/names", serde_json::json!([]), false),
        ("/knock/sequence/0/hosts/names", serde_json::json!(["DB"]), false),
        ("/knock/sequence/0/hosts/names", serde_json::json!(["-db"]), false),
        ("/knock/sequence/0/hosts/matchLabels/role", "x".repeat(64).into(), false),
        ("/knock/sequence/0/hosts/matchLabels/role", 5.into(), false),
        ("/knock/within", "15".into(), false),
        ("/knock/within", 15.into(), false),
        ("/knock/within", "soon".into(), false),
        ("/knock/within", "1500ms".into(), true),
        ("/opens/ports", ports(64), true),
        ("/opens/ports", ports(65), false),
        ("/opens/ports", ports(0), false),
        ("/opens/ports/0", "icmp/5".into(), false),
        ("/opens/for", "".into(), false),
        ("/opens/hosts", Value::Null, false),
        ("/sources", vec!["10.0.0.0/8"; 257].into(), false),
        ("/sources", vec!["10.0.0.0/8"; 256].into(), true),
    ] {
        let mut spec = good.clone();
        *spec.pointer_mut(place).unwrap() = value;
        let what = spec.pointer(place).unwrap().to_string();
        assert_eq!((read(&spec), is_valid(&spec)), (accepted, accepted), "{place}: {what:.60}");
    }
    for missing in ["/knock/within", "/opens/for", "/opens/hosts", "/opens/ports", "/knock", "/opens"] {
        let mut spec = good.clone();
        let (parent, field) = missing.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field);
        assert_eq!((read(&spec), is_valid(&spec)), (false, false), "{missing}");
    }
}

proptest::proptest! {
    /// Whatever door there is, written as a file it is good for the schema.
    #[test]
    fn every_door_is_good_as_a_resource(
        steps in proptest::collection::vec((0..3_u8, 1..=65_535_u16), 1..=32),
        opens in proptest::collection::btree_set((proptest::bool::ANY, 1..=65_535_u16), 1..=64),
        within in 1_000..=300_000_u64,
        open_for in 1..=86_400_u64,
    ) {
        use std::time::Duration;
        use fleetknock_core::door::{Door as Checked, DoorParts, Knock, Mode as Checking, Opens, Sequence, Step, yaml};
        let port = |protocol: &str, number| format!("{protocol}/{number}").parse().unwrap();
        let steps: Vec<_> = steps.iter().map(|(protocol, number)| Step {
            hosts: Default::default(),
            port: port(["tcp", "udp", "icmp"][usize::from(*protocol)], *number),
        }).collect();
        let parts = DoorParts {
            name: "d".parse().unwrap(),
            labels: Default::default(),
            knock: Knock::Sequence(Sequence { steps, within: Duration::from_millis(within) }),
            sources: Vec::new(),
            opens: Opens {
                hosts: Default::default(),
                ports: opens.iter().map(|(tcp, number)| port(if *tcp { "tcp" } else { "udp" }, *number)).collect(),
                duration: Duration::from_secs(open_for),
            },
            mode: Checking::Enforce,
        };
        if let Ok(door) = Checked::new(parts) {
            let document = serde_json::to_value(yaml::DoorDocument::new(&door, true)).unwrap();
            let typed: DoorSpec = serde_json::from_value(document["spec"].clone()).unwrap();
            proptest::prop_assert_eq!(typed.knock.sequence.unwrap().len(), match door.knock() { Knock::Sequence(s) => s.steps.len() });
            static SCHEMA: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
            let schema = SCHEMA.get_or_init(|| {
                let definition = serde_json::to_value(Door::crd()).unwrap();
                definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
            });
            proptest::prop_assert_eq!(wrong(schema, &document["spec"]), None, "{}", document);
        }
    }
}
