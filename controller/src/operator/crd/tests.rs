//! The definition: generated, structural, and of one mind with the reader of doors.

use std::path::Path;

use serde_json::Value;

use super::*;

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
