//! What the command shows of controllers, and of hosts that are connected to any of them.

use serde_json::Value;

use super::stand_in::StandIn;

#[test]
fn controllers_are_listed_in_every_format() {
    let fleet = StandIn::of_three();
    for kind in ["controllers", "controller", "ctl"] {
        let table = fleet.run(&["get", kind], "").lines;
        let columns = |row: usize| table[row].split("  ").filter(|cell| !cell.is_empty()).map(str::trim);
        assert_eq!(
            columns(0).collect::<Vec<_>>(),
            ["NAME", "ADDRESS", "STATE", "AGENTS", "SOURCES", "EPOCH", "SINCE", "CLOCK", "VERSION"]
        );
        let (first, second, third): (Vec<_>, Vec<_>, Vec<_>) =
            (columns(1).collect(), columns(2).collect(), columns(3).collect());
        assert_eq!(first[..6], ["ctl-1", "http://ctl-1.example:7600", "serving", "12", "34", "10"]);
        assert_eq!(first[7..], ["leads", "0.1.0"]);
        assert_eq!(second[2..6], ["suspended", "3", "0", "20"]);
        assert_eq!(second[7], "-1.5ms ±0.2ms");
        assert_eq!(third[2..6], ["unreachable", "-", "-", "30"]);
    }
    let wide = fleet.run(&["get", "controllers", "-o", "wide"], "").lines;
    assert!(wide[0].ends_with("VERSION  REVISION  KNOCKS  REFUSED  LEASE UNTIL"), "{wide:?}");
    assert!(wide[1].ends_with("77        5000    1        2026-11-22T15:30:05.000Z"), "{wide:?}");

    assert_eq!(
        fleet.run(&["get", "ctl", "-o", "name"], "").lines,
        ["controller/ctl-1", "controller/ctl-2", "controller/ctl-3"]
    );

    let json = fleet.run(&["get", "controllers", "-o", "json"], "").lines.join("\n");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["kind"], &json[0]["metadata"]["name"]), (&"Controller".into(), &"ctl-1".into()));
    assert_eq!(json[0]["status"]["peers"][1]["state"], "cut");
    assert_eq!(json[1]["status"]["clockOffsetMicroseconds"], -1_500);
    // Zero would be a lie.
    assert_eq!(json[2]["status"]["agents"], Value::Null);

    let one = fleet.run(&["get", "controller", "ctl-2", "-o", "yaml"], "").lines;
    assert!(one.contains(&"kind: Controller".to_owned()), "{one:?}");
    let missing = fleet.run(&["get", "controller", "ctl-9"], "");
    assert_eq!(
        (missing.code, missing.errors[0].as_str()),
        (1, "fleetknock: error: there is no controller 'ctl-9'")
    );
}

#[test]
fn a_controller_is_described_with_what_is_wrong() {
    let fleet = StandIn::of_three();
    let text = fleet.run(&["describe", "controller", "ctl-1"], "").lines.join("\n");
    assert!(text.contains("leads the fleet's time"), "{text}");
    assert!(text.contains("ctl-1 has had no answer from ctl-3 for"), "{text}");
    let text = fleet.run(&["describe", "ctl", "ctl-2"], "").lines.join("\n");
    assert!(text.contains("ctl-2 cannot renew its lease: check that it reaches the store"), "{text}");
    let deleted = fleet.run(&["delete", "controller", "ctl-2"], "");
    assert_eq!(deleted.code, 64, "{deleted:?}");
}

#[test]
fn a_host_is_described_through_any_controller() {
    let fleet = StandIn::of_three();
    let text = fleet.run(&["describe", "host", "edge-1"], "").lines.join("\n");
    assert!(text.contains("ctl-2, since 2026-11-22T15:30:00.000Z"), "{text}");
    assert!(text.contains("+1.2ms ±0.4ms"), "{text}");
    let text = fleet.run(&["describe", "host", "edge-2"], "").lines.join("\n");
    assert!(text.contains("not connected: what follows is the last known"), "{text}");
}

#[test]
fn a_list_without_what_a_controller_knows_says_so() {
    let fleet = StandIn::of_three();
    let said = "fleetknock: warning: controller ctl-3 does not answer; what only it knows is missing (see: fleetknock \
                describe controller ctl-3)";
    for (kind, count) in [("hosts", 2), ("openings", 0), ("attempts", 0)] {
        let listed = fleet.run(&["get", kind, "-o", "json"], "");
        // Once, however many pages there are.
        assert_eq!((listed.code, listed.errors.as_slice()), (0, &[said.to_owned()][..]), "{kind}");
        let json: Value = serde_json::from_str(&listed.lines.join("\n")).unwrap();
        assert_eq!(json.as_array().unwrap().len(), count, "{kind}");
    }
    assert_eq!(fleet.run(&["get", "doors", "-o", "json"], "").errors, [""; 0]);
}

#[test]
fn shells_complete_the_kinds() {
    let fleet = StandIn::start();
    for shell in ["bash", "zsh", "fish"] {
        let script = fleet.run(&["completions", shell], "").lines.join("\n");
        assert!(script.contains("attempts") && script.contains("controllers"), "{shell}");
    }
}
