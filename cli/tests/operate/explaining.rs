//! What the command says of why a door did not open.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use super::stand_in::StandIn;

#[test]
fn an_explanation_shows_knocks_verdict_and_what_to_do() {
    let fleet = StandIn::start();
    let told = fleet.run(&["explain", "--source", "203.0.113.5"], "");
    assert_eq!(told.code, 0, "{told:?}");
    let text = told.lines.join("\n");
    assert!(text.contains("(hidden)") && text.contains("1/3 bastion-ssh"), "{text}");
    assert!(text.contains("bastion-ssh: incomplete, 1 of 3 steps"), "{text}");
    assert!(text.contains("To do: knock the next step too."), "{text}");
    assert!(text.contains("Note: not connected now"), "{text}");
    assert!(!text.contains("7001"), "{text}");
    let revealed = fleet.run(&["explain", "--source", "203.0.113.5", "--reveal", "-o", "json"], "");
    let json: serde_json::Value = serde_json::from_str(&revealed.lines.join("\n")).unwrap();
    assert_eq!(
        (&json["knocks"][0]["port"], &json["doors"][0]["code"]),
        (&"tcp/7001".into(), &"incomplete".into())
    );
}

#[test]
fn following_shows_only_what_is_new() {
    let fleet = StandIn::start();
    let mut command = fleet.command(&["explain", "--source", "203.0.113.5", "--follow", "-o", "json"]);
    let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut next = || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    for (step, code, caveats) in [(1, "incomplete", 1), (2, "incomplete", 0), (3, "open", 0)] {
        let told = next();
        assert_eq!(told["knocks"].as_array().unwrap().len(), 1, "{told}");
        assert_eq!((&told["knocks"][0]["step"], &told["doors"][0]["code"]), (&step.into(), &code.into()));
        assert_eq!(told["caveats"].as_array().unwrap().len(), caveats, "{told}");
    }
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn what_is_missing_or_does_not_go_together_is_said() {
    let fleet = StandIn::start();
    let told = fleet.run(&["explain"], "");
    assert_eq!(told.code, 64, "{told:?}");
    assert!(told.errors.join(" ").contains("--source"), "{told:?}");
    let told = fleet.run(&["explain", "--source", "203.0.113.5", "--door", "none"], "");
    assert_eq!((told.code, told.errors[0].as_str()), (1, "fleetknock: error: there is no door 'none'"));
    let told = fleet.run(&["explain", "--source", "203.0.113.5", "--follow", "--reveal"], "");
    assert_eq!(told.code, 64, "{told:?}");
    let told = fleet.run(&["explain", "--source", "203.0.113.5", "-o", "name"], "");
    assert_eq!(told.code, 64, "{told:?}");
}
