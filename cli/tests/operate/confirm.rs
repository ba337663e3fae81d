//! Changes that wait to be confirmed, and doors that could shut out whoever applies them.

use super::{DOOR, Ran, run, stand_in::StandIn};

const SESSION: &str = "203.0.113.5 50123 192.0.2.1 22";

#[test]
fn changes_that_wait_say_how_they_are_confirmed() {
    let fleet = StandIn::start();
    let two = ["a", "b"].map(|name| DOOR.replace("NAME", name)).join("---\n");
    let applied = fleet.run(&["apply", "-f", "-", "--confirm-within", "60s"], &two);
    assert_eq!(applied.lines, ["door/a created", "door/b created"]);
    assert_eq!(
        applied.errors,
        ["fleetknock: confirm with: fleetknock confirm a b (within 1m; otherwise it is rolled back)"]
    );
    let table = fleet.run(&["get", "doors"], "");
    assert!(
        table.lines[1].contains("  in 1m unless confirmed  ") || table.lines[1].contains("  in 59s"),
        "{table:?}"
    );

    assert_eq!(fleet.run(&["confirm", "b"], "").lines, ["door/b confirmed"]);
    assert_eq!(fleet.run(&["confirm", "--all"], "").lines, ["door/a confirmed"]);
    let none = fleet.run(&["confirm", "--all"], "");
    assert_eq!(none.code, 1);
    assert!(none.errors[0].contains("nothing waits to be confirmed"), "{none:?}");
    let again = fleet.run(&["confirm", "-f", "-"], &two);
    assert_eq!((again.code, again.errors.len()), (1, 2), "{again:?}");
    assert!(again.errors[1].contains("door 'b': ") && again.errors[1].contains("nothing waits"), "{again:?}");
    assert_eq!(fleet.run(&["confirm"], "").code, 64);

    // What changes nothing waits for nothing.
    let same = fleet.run(&["apply", "-f", "-", "--confirm-within", "60s"], &two);
    assert_eq!((same.lines[0].as_str(), same.errors.len()), ("door/a unchanged", 0), "{same:?}");
    for wrong in ["4s", "61m", "0s", "60"] {
        assert_eq!(fleet.run(&["apply", "-f", "-", "--confirm-within", wrong], "").code, 64, "{wrong}");
    }
}

#[test]
fn programs_read_until_when_a_change_waits() {
    let fleet = StandIn::start();
    let door = DOOR.replace("NAME", "a");
    let applied = fleet.run(&["apply", "-f", "-", "--confirm-within", "60s", "-o", "json"], &door);
    let doors: serde_json::Value = serde_json::from_str(&applied.lines.join("\n")).unwrap();
    assert_eq!(doors[0]["metadata"]["name"], "a");
    assert!(doors[0]["status"]["confirmUntil"].as_str().unwrap().ends_with('Z'), "{doors}");
    let applied = fleet.run(&["apply", "-f", "-", "-o", "json"], &door);
    let doors: serde_json::Value = serde_json::from_str(&applied.lines.join("\n")).unwrap();
    assert!(doors[0]["status"]["confirmUntil"].is_null(), "{doors}");
}

#[test]
fn a_door_that_could_shut_the_operator_out_is_not_applied_unasked() {
    let fleet = StandIn::start();
    let door = DOOR.replace("NAME", "ssh");
    let refused = over_ssh(&fleet, &["apply", "-f", "-"], &door);
    assert_eq!((refused.code, refused.lines.len()), (1, 0), "{refused:?}");
    assert!(
        refused.errors[0].contains("warning: (standard input):1: door 'ssh': this door guards tcp/22"),
        "{refused:?}"
    );
    for remedy in ["--yes", "--confirm-within", "mode: observe", "management networks"] {
        assert!(refused.errors[1].contains(remedy), "{remedy}: {refused:?}");
    }
    assert_eq!(fleet.run(&["get", "doors", "-o", "json"], "").lines, ["[]"]);

    let dry = over_ssh(&fleet, &["apply", "-f", "-", "--dry-run"], &door);
    assert_eq!((dry.code, dry.errors.len()), (0, 1), "{dry:?}");
    let observed = door.replace("spec:", "spec:\n  mode: observe");
    let quiet = over_ssh(&fleet, &["apply", "-f", "-"], &observed);
    assert_eq!((quiet.lines, quiet.errors.len()), (vec!["door/ssh created".to_owned()], 0));
    assert_eq!(over_ssh(&fleet, &["apply", "-f", "-"], &door).code, 1, "now it would enforce");
    let safe = over_ssh(&fleet, &["apply", "-f", "-", "--confirm-within", "60s"], &door);
    assert_eq!((safe.code, safe.errors.len()), (0, 2), "{safe:?}");
    let again = over_ssh(&fleet, &["apply", "-f", "-"], &door);
    assert_eq!((again.code, again.errors.len()), (0, 0), "it is so already: {again:?}");

    let other = DOOR.replace("NAME", "web").replace("tcp/22", "tcp/443");
    assert_eq!(over_ssh(&fleet, &["apply", "-f", "-"], &other).errors.len(), 0);
    let meant = over_ssh(&fleet, &["apply", "-f", "-", "--yes"], &DOOR.replace("NAME", "meant"));
    assert_eq!((meant.code, meant.errors.len()), (0, 1), "{meant:?}");
    assert_eq!(fleet.run(&["apply", "-f", "-"], &DOOR.replace("NAME", "here")).errors.len(), 0);
}

fn over_ssh(fleet: &StandIn, args: &[&str], input: &str) -> Ran {
    let mut command = fleet.command(args);
    command.env("SSH_CONNECTION", SESSION);
    run(command, input)
}
