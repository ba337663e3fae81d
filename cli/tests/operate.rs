//! The command against a controller: a stand-in within this process that answers from memory, in pages of two.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Output, Stdio},
    time::Duration,
};

#[path = "operate/backup.rs"]
mod backup;
#[path = "operate/confirm.rs"]
mod confirm;
#[path = "operate/explaining.rs"]
mod explaining;
#[path = "operate/fleet.rs"]
mod fleet;
#[path = "operate/logs.rs"]
mod logs;
#[path = "operate/members.rs"]
mod members;
#[path = "operate/several.rs"]
mod several;
#[path = "operate/stand_in.rs"]
mod stand_in;
#[path = "operate/tokens.rs"]
mod tokens;
#[path = "operate/top.rs"]
mod top;
#[path = "operate/trust.rs"]
mod trust;
#[path = "operate/wall.rs"]
mod wall;

use stand_in::StandIn;

const DOOR: &str = "apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: NAME}
spec:
  knock: {sequence: [{port: tcp/7412}, {port: udp/23981}, {port: tcp/51003}], within: 15s}
  opens: {hosts: {names: [a]}, ports: [tcp/22], for: 30s}
";

#[test]
fn doors_are_applied_listed_and_deleted() {
    let fleet = StandIn::start();
    let names = ["a", "b", "c", "d", "e"];
    let five = names.map(|name| DOOR.replace("NAME", name)).join("---\n");

    let applied = fleet.run(&["apply", "-f", "-"], &five);
    assert_eq!(applied.lines, names.map(|name| format!("door/{name} created")));
    let applied = fleet.run(&["apply", "-f", "-"], &five.replace("for: 30s", "for: 1m"));
    assert_eq!(applied.lines[0], "door/a changed (spec.opens.for: 30s -> 1m)");
    assert_eq!(
        fleet.run(&["apply", "-f", "-", "--dry-run"], &DOOR.replace("NAME", "z")).lines,
        ["door/z created (dry run)"]
    );

    let listed = fleet.run(&["get", "doors", "-o", "json"], "");
    let doors: serde_json::Value = serde_json::from_str(&listed.lines.join("\n")).unwrap();
    let listed: Vec<_> =
        doors.as_array().unwrap().iter().map(|door| door["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(listed, names);
    assert!(!doors.to_string().contains("7412"));

    let table = fleet.run(&["get", "door", "b"], "");
    assert!(table.lines[0].starts_with("NAME  OPENS   ON  FOR  MODE     HOSTS"), "{table:?}");
    assert!(table.lines[1].starts_with("b     tcp/22  a   1m   enforce  0"), "{table:?}");

    let revealed = fleet.run(&["get", "doors", "-o", "yaml", "--reveal"], "").lines.join("\n");
    let again = fleet.run(&["apply", "-f", "-"], &revealed);
    assert_eq!(again.lines, names.map(|name| format!("door/{name} unchanged")));

    let deleted = fleet.run(&["delete", "doors", "a", "nobody", "c"], "");
    assert_eq!(deleted.lines, ["door/a deleted, 1 opening withdrawn", "door/c deleted, 1 opening withdrawn"]);
    assert_eq!(
        (deleted.code, deleted.errors.as_slice()),
        (1, &["fleetknock: error: there is no door 'nobody'".to_owned()][..])
    );
}

#[test]
fn nothing_is_applied_when_anything_is_wrong() {
    let fleet = StandIn::start();
    let good = DOOR.replace("NAME", "good");
    let typo = DOOR.replace("NAME", "typo").replace("ports", "prots");
    let refused = fleet.run(&["apply", "-f", "-"], &format!("{good}---\n{typo}"));
    assert_eq!(refused.code, 65);
    assert_eq!(
        refused.errors,
        [
            "fleetknock: error: (standard input):13: unknown field 'prots' in spec.opens; did you mean 'ports'?; nothing \
             was applied",
        ]
    );
    let scan = DOOR.replace("NAME", "scan").replace("udp/23981", "tcp/23981");
    let refused = fleet.run(&["apply", "-f", "-"], &format!("{good}---\n{scan}"));
    assert_eq!(refused.code, 65);
    assert!(
        refused.errors[0].contains("(standard input):8: door 'scan': the ports of the sequence only rise"),
        "{refused:?}"
    );

    // What only the controller can tell is found before anything is changed, too.
    let taken = DOOR.replace("NAME", "taken-port");
    let refused = fleet.run(&["apply", "-f", "-"], &format!("{good}---\n{taken}"));
    assert_eq!(refused.code, 65);
    assert_eq!(
        refused.errors[0],
        "fleetknock: error: (standard input):8: door.name: the controller does not like it; nothing was applied"
    );
    assert_eq!(fleet.run(&["get", "doors", "-o", "json"], "").lines, ["[]"]);

    assert_eq!(fleet.run(&["apply", "-f", "-", "--weak"], &scan).lines, ["door/scan created"]);
}

#[test]
fn sources_are_let_in_and_kept_out() {
    let fleet = StandIn::start();
    fleet.run(&["apply", "-f", "-"], &DOOR.replace("NAME", "ssh"));
    let opened =
        fleet.run(&["open", "ssh", "--source", "203.0.113.5", "--for", "60s", "--reason", "test"], "");
    assert_eq!(opened.code, 0, "{opened:?}");
    assert!(
        opened.lines[0].starts_with("opening/o1 created: tcp/22 open for 203.0.113.5 on 1 hosts, "),
        "{opened:?}"
    );
    assert_eq!(
        fleet.run(&["close", "--source", "203.0.113.5"], "").lines,
        ["opening/o1 withdrawn: 203.0.113.5 at ssh"]
    );
    let closed = fleet.run(&["close", "--door", "ssh"], "");
    assert_eq!(
        (closed.code, closed.errors[0].as_str()),
        (1, "fleetknock: error: nothing was open; see 'fleetknock get openings'")
    );

    assert!(
        fleet.run(&["ban", "203.0.113.5", "--for", "1h"], "").lines[0].starts_with("ban/203.0.113.5 set, ")
    );
    assert_eq!(fleet.run(&["unban", "203.0.113.5"], "").lines, ["ban/203.0.113.5 lifted"]);
    assert_eq!(fleet.run(&["unban", "203.0.113.5"], "").code, 1);
}

#[test]
fn events_are_listed_with_whose_hand_it_was() {
    let fleet = StandIn::start();
    let table = fleet.run(&["get", "events"], "");
    assert_eq!(table.lines.len(), 4, "{table:?}");
    assert!(
        table.lines[0].starts_with("TIME                      CODE           ACTOR       DOOR"),
        "{table:?}"
    );
    assert!(
        table.lines[1].starts_with("2026-11-22T15:30:11.251Z  door-applied   user alice  ssh"),
        "{table:?}"
    );
    assert!(table.lines[1].ends_with("door changed: spec.opens.for: 30s -> 1m"), "{table:?}");
    let one = fleet.run(
        &["get", "events", "--actor", "user alice", "--code", "door-applied,host-deleted", "-o", "json"],
        "",
    );
    let events: serde_json::Value = serde_json::from_str(&one.lines.join("\n")).unwrap();
    assert_eq!(events.as_array().unwrap().len(), 1, "{events}");
    assert_eq!(events[0]["metadata"]["name"], "e1");
    assert_eq!(events[0]["spec"]["actor"]["who"], "user alice");
    assert_eq!(events[0]["spec"]["changes"][0]["after"], "1m");
    let since = fleet.run(&["get", "events", "--since", "2026-11-22T15:30:11.253Z", "-o", "name"], "");
    assert_eq!(since.lines, ["event/e3"]);
    let wrong = fleet.run(&["get", "events", "--code", "door-aplied"], "");
    assert_eq!(wrong.code, 64, "{wrong:?}");
    assert!(wrong.errors.join(" ").contains("did you mean: door-applied"), "{wrong:?}");
}

#[test]
fn a_controller_that_is_not_there_is_said_so() {
    let fleet = StandIn::start();
    let refused = run(fleet.command(&["get", "attempts"]), "");
    assert_eq!(refused.code, 75);
    let line = format!(
        "fleetknock: error: the controller at {} cannot do this now: the matcher is starting; try again or ask another one \
         (--controller)",
        fleet.url()
    );
    assert_eq!(refused.errors, [line]);

    let mut slow = fleet.command(&["get", "bans"]);
    slow.args(["--timeout", "200ms"]);
    let slow = run(slow, "");
    assert_eq!(slow.code, 69);
    assert!(slow.errors[0].contains("did not answer within 200ms (--timeout)"), "{slow:?}");

    let mut away = Command::new(env!("CARGO_BIN_EXE_fleetknock"));
    away.args(["get", "doors", "--insecure", "--controller", "http://127.0.0.1:1"]);
    let away = run(away, "");
    assert_eq!(away.code, 69);
    assert!(
        away.errors[0].contains("cannot reach the controller at http://127.0.0.1:1 (--controller)"),
        "{away:?}"
    );
}

#[test]
fn a_watch_goes_on_when_the_stream_ends() {
    let fleet = StandIn::start();
    let mut child = fleet
        .command(&["watch", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let events: Vec<String> = lines.take(2).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    for (number, event) in events.iter().enumerate() {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(
            (event["kind"].as_str(), event["message"].as_str()),
            (Some("warning"), Some(format!("stream {}", number + 1).as_str()))
        );
    }
    let said: Vec<String> =
        BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(said[0].contains("ended the stream; connecting again in"), "{said:?}");
    assert!(said[1].contains("again; events in between are not shown"), "{said:?}");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let fleet = StandIn::start();
    let mut child = fleet.command(&["watch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    // The next event meets a closed pipe.
    let ended = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        child.try_wait().unwrap()
    });
    let output = child.wait_with_output().unwrap();
    assert!(ended.unwrap().success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("error"), "{output:?}");
}

/// What a run of the command gave.
#[derive(Debug)]
struct Ran {
    code: i32,
    lines: Vec<String>,
    errors: Vec<String>,
}

impl StandIn {
    /// The command, told where this controller is.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetknock"));
        command.env("FLEETKNOCK_CONTROLLER", self.url()).env("FLEETKNOCK_INSECURE", "true").args(args);
        // The tests may run in an SSH session themselves.
        command.env_remove("SSH_CONNECTION");
        command
    }

    fn run(&self, args: &[&str], input: &str) -> Ran {
        run(self.command(args), input)
    }
}

fn run(mut command: Command, input: &str) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let lines = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect();
    Ran { code: status.code().unwrap(), lines: lines(stdout), errors: lines(stderr) }
}
