//! What the controller says, as operators read it.

use fleetknock_core::door::yaml;
use fleetknock_proto::convert;

use super::*;

const DOOR: &str = "
apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: bastion-ssh, labels: {team: core}}
spec:
  knock:
    sequence:
    - {hosts: {matchLabels: {role: edge}}, port: tcp/7412}
    - {hosts: {names: [db-1]}, port: udp/23981}
    - {port: tcp/51003}
    within: 15s
  sources: [10.0.0.0/8]
  opens: {hosts: {matchLabels: {role: bastion}}, ports: [tcp/22], for: 1m30s}
";

#[test]
fn a_revealed_door_can_be_applied_again() {
    let door = yaml::parse(DOOR).unwrap().remove(0).door;
    let message = v1::Door {
        revision: 7,
        strength_bits: 47.96,
        hosts: vec!["b-1".into()],
        created_ms: 1_795_361_400_000,
        ..convert::door_message(&door, true)
    };
    let document = message.document();
    assert_eq!(document["status"]["strengthBits"], 48.0);
    assert_eq!(yaml::parse(&document.to_string()).unwrap()[0].door, door);
    assert_eq!(yaml::parse(&serde_saphyr::to_string(&document).unwrap()).unwrap()[0].door, door);
}

#[test]
fn an_unrevealed_door_shows_the_number_of_its_steps_only() {
    let door = yaml::parse(DOOR).unwrap().remove(0).door;
    let text = convert::door_message(&door, false).document().to_string();
    assert_eq!(text.matches(r#"{"port":"(secret)"}"#).count(), 3);
    assert!(!text.contains("7412") && !text.contains("db-1"), "{text}");
}

#[test]
fn a_door_is_one_row() {
    let now = Timestamp::from_millis(1_795_361_411_000);
    let door = yaml::parse(DOOR).unwrap().remove(0).door;
    let message = v1::Door {
        strength_bits: 47.96,
        hosts: vec!["b-1".into(), "b-2".into()],
        active_openings: 3,
        created_ms: 1_795_361_400_000,
        ..convert::door_message(&door, false)
    };
    assert_eq!(
        message.cells(now),
        [
            "bastion-ssh",
            "tcp/22",
            "role=bastion",
            "1m30s",
            "enforce",
            "2",
            "3",
            "48",
            "-",
            "3",
            "15s",
            "10.0.0.0/8",
            "team=core",
            "11s"
        ]
    );
    let waiting = v1::Door { confirm_until_ms: now.as_millis() + 41_500, ..message };
    assert_eq!(waiting.cells(now)[8], "in 42s unless confirmed");
}

#[test]
fn a_door_that_observes_says_so_and_can_be_applied_again() {
    let text = DOOR.replace("spec:\n", "spec:\n  mode: observe\n");
    let door = yaml::parse(&text).unwrap().remove(0).door;
    let message = convert::door_message(&door, true);
    assert_eq!(message.cells(Timestamp::ZERO)[4], "observe");
    assert_eq!(yaml::parse(&message.document().to_string()).unwrap()[0].door, door);
}

#[test]
fn a_host_carries_what_its_guard_counted() {
    let count = |number, dropped, observed| v1::GuardCount {
        port: Some(v1::Port { protocol: 1, port: number }),
        dropped,
        observed,
    };
    let host = v1::Host {
        observed: vec![v1::Port { protocol: 1, port: 80 }],
        guard_counts: vec![count(22, 3, 0), count(80, 1, 7)],
        ..v1::Host::default()
    };
    let status = &host.document()["status"];
    assert_eq!(status["observed"], serde_json::json!(["tcp/80"]));
    assert_eq!(
        status["guardCounts"][1],
        serde_json::json!({ "port": "tcp/80", "dropped": 1, "observed": 7 })
    );
    let cells = host.cells(Timestamp::ZERO);
    let cell = |name: &str| &cells[v1::Host::COLUMNS.iter().position(|(column, _)| *column == name).unwrap()];
    assert_eq!((cell("REFUSED").as_str(), cell("OBSERVED").as_str()), ("4", "7"));
}

#[test]
fn every_kind_has_a_cell_for_each_column_even_when_empty() {
    fn check<R: Resource + Default>() {
        let item = R::default();
        assert_eq!(item.cells(Timestamp::ZERO).len(), R::COLUMNS.len(), "{}", R::PLURAL);
        assert!(item.document()["kind"].is_string());
    }
    check::<v1::Attempt>();
    check::<v1::Ban>();
    check::<v1::Controller>();
    check::<v1::Door>();
    check::<v1::Host>();
    check::<v1::Opening>();
}
