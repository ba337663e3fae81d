//! From resources to doors, and what is said of those that are none.

use serde_json::json;

use super::*;

#[test]
fn a_resource_and_a_file_of_one_spec_declare_the_same_door() {
    let spec = spec(
        json!({"sequence": [{"hosts": {"names": ["db-1"]}, "port": "tcp/17412"}, {"port": "icmp/0"}], "within": "15s"}),
    );
    let declared = resource(&spec).door(&name(), Found::NotYet).unwrap().unwrap();
    let file = json!({
        "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "ssh", "labels": {"team": "core"}}, "spec": spec,
    });
    assert_eq!(declared, yaml::parse(&file.to_string()).unwrap()[0].door);
    let all = resource(&spec).door_name(&Scope::All).unwrap();
    assert_eq!(all.as_str(), "ssh.ops");
}

#[test]
fn a_sequence_from_a_secret_is_that_sequence() {
    let inline = spec(json!({"sequence": [{"port": "tcp/17412"}, {"port": "udp/23981"}], "within": "15s"}));
    let inline = resource(&inline).door(&name(), Found::NotYet).unwrap().unwrap();
    let kept = resource(&from_secret());
    assert_eq!(kept.secret(), Some(SecretKey { name: "s".to_owned(), key: "k".to_owned() }));
    assert!(kept.door(&name(), Found::NotYet).is_none(), "nothing is said before the secrets were read");
    for text in ["[{port: tcp/17412}, {port: udp/23981}]", "- port: tcp/17412\n- port: udp/23981\n"] {
        let secret = secret(text);
        assert_eq!(kept.door(&name(), Found::Known(Some(&secret))).unwrap().unwrap(), inline);
    }
}

#[test]
fn what_is_wrong_is_said_without_a_word_of_the_sequence() {
    let kept = resource(&from_secret());
    let long = format!("[{}]", "{port: tcp/17412}, ".repeat(5_000));
    let cases = [
        "",
        "tcp/17412",
        "[17412",
        "[{port: 17412}]",
        "[{port: tcp/174120}]",
        "[{prot: tcp/17412}]",
        "[{tcp/17412: 1}]",
        "[{port: tcp/17412, hosts: {names: [tcp/17412]}}]",
        "[tcp/17412]",
        "[{port: tcp/22}]",
        &long,
        "\u{0}17412",
    ];
    for text in cases {
        let secret = secret(text);
        let refusal = kept.door(&name(), Found::Known(Some(&secret))).unwrap().unwrap_err();
        assert!(!refusal.message.contains("1741"), "{text:.40}: {}", refusal.message);
        assert!(!format!("{kept:?} {secret:?} {refusal:?}").contains("1741"), "{text:.40}");
    }
    let missing = kept.door(&name(), Found::Known(None)).unwrap().unwrap_err();
    assert!(missing.reason == "SecretMissing" && missing.message.contains("'s'"), "{missing:?}");
    let forbidden = kept.door(&name(), Found::Forbidden).unwrap().unwrap_err();
    assert_eq!(forbidden.reason, "SecretForbidden");
    let mut both = from_secret();
    both["knock"]["sequence"] = json!([{"port": "tcp/17412"}]);
    let secret = secret("[{port: tcp/17412}]");
    let both = resource(&both).door(&name(), Found::Known(Some(&secret))).unwrap().unwrap_err();
    assert!(both.message.contains("exactly one"), "{both:?}");
}

#[test]
fn secrets_of_other_types_are_not_read() {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"k": "eA=="},
        "metadata": {"name": "s", "namespace": "ops", "resourceVersion": "1"},
    });
    assert_eq!(Secret::read(serde_json::from_value(object).unwrap()), None);
}

fn spec(knock: Value) -> Value {
    json!({"mode": "enforce", "knock": knock, "opens": {"hosts": {}, "ports": ["tcp/22"], "for": "30s"}})
}

fn from_secret() -> Value {
    spec(json!({"sequenceFrom": {"secretKeyRef": {"name": "s", "key": "k"}}, "within": "15s"}))
}

fn resource(spec: &Value) -> Resource {
    let metadata = json!({
        "name": "ssh", "namespace": "ops", "uid": "u1", "resourceVersion": "5", "labels": {"team": "core"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "tcp/17412"},
    });
    let object = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec});
    Resource::read(serde_json::from_value(object).unwrap()).unwrap()
}

fn secret(text: &str) -> Secret {
    let data = json!({"k": BASE64.encode(text.as_bytes())});
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE, "data": data,
        "metadata": {"name": "s", "namespace": "ops", "resourceVersion": "1"},
    });
    Secret::read(serde_json::from_value(object).unwrap()).unwrap()
}

fn name() -> DoorName {
    "ssh".parse().unwrap()
}
