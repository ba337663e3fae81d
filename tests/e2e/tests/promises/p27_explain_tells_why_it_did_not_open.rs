//! Promise 27: whoever asks why a door did not open is told the right thing: for each of many ways to fail the code that
//! programs read, and a sentence with what happened. Ports and hosts of steps are for admins who ask for them. What one
//! controller remembers, every controller tells.

use std::{thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::{DOOR, Family, IN_TIME, MIXED, Placement, SOON, Several, Three};
use fleetknock_lab::{Fleet, Host, Lab, Operator, Pki, Shot, etcd::Etcd, wait_until};
use serde_json::Value;

/// Agents report every few seconds which ports are in use, and a lease must end before a host counts as gone.
const REPORTED: Duration = Duration::from_secs(30);
/// A port that db-1's own service has.
const BUSY: u16 = 18_080;

#[test]
fn what_was_knocked_wrongly_is_told() -> Result<()> {
    Lab::scenario("explain", |lab| {
        let three = Three::guarded(lab, MIXED, 120)?;
        three.fleet.apply(QUICK)?;
        let [edge, db, bastion] = three.agents().map(|agent| agent.host());
        let [first, second, third] = right(&three);
        let quick = |port: u16| Shot::Tcp(edge.at(port));
        let wrong = Shot::Tcp(db.at(9_123));

        let way = |name: &str, shots: &[Shot], door: &str, code: &str, words: &[&str]| {
            let client = lab.client(name)?;
            client.knock(None, shots)?;
            told(&three.fleet.operator(), &client, door, code, words).with_context(|| name.to_owned())
        };
        way("nothing", &[], DOOR, "nothing-seen", &["no knock of", "To do: check"])?;
        way("elsewhere", &[wrong], DOOR, "no-step", &["none of them a step of this door"])?;
        way(
            "part",
            &[first, second],
            DOOR,
            "incomplete",
            &["steps 1 to 2 were right; step 3 of 3 was not seen"],
        )?;
        way("between", &[first, wrong, second, third], DOOR, "wrong-knock", &["tcp/9123 on db-1"])?;
        way("order", &[first, third, second], DOOR, "wrong-order", &["step 3 came before step 2"])?;
        let stray = Shot::Udp(bastion.at(second.to().port()));
        way(
            "stray",
            &[first, stray],
            DOOR,
            "wrong-host",
            &["the port of step 2 of 3 was knocked on bastion-1"],
        )?;

        let slow = lab.client("slow")?;
        slow.knock(None, &[quick(30_417), quick(17_923)])?;
        sleep(Duration::from_millis(1_300));
        slow.knock(None, &[quick(44_071)])?;
        let words = ["step 3 of 3 came", "too late: the door wants all steps within 1s", "knock faster"];
        told(&three.fleet.operator(), &slow, "quick", "too-slow", &words).context("slow")?;

        let bad = lab.client("bad")?;
        let misses: Vec<_> = (0..10).map(|number| Shot::Tcp(edge.at(9_200 + number * 7))).collect();
        bad.knock(None, &misses)?;
        told(&three.fleet.operator(), &bad, DOOR, "banned", &["is banned for another", "fleetknock unban"])
            .map(drop)
            .context("banned")
    })
}

#[test]
fn what_became_of_a_right_knock_is_told() -> Result<()> {
    Lab::scenario("explain-right", |lab| {
        let three = Three::guarded(lab, MIXED, 120)?;
        three.fleet.apply(QUICK)?;
        three.fleet.apply(BARRED)?;
        let edge = three.edge.host();
        let operator = three.fleet.operator();

        three.client.knock(None, &three.knock(Family::V4))?;
        told(&operator, &three.client, DOOR, "open", &["it is open for"]).context("open")?;
        three.fleet.cli_ok(&["close", "--source", &three.client.v4().to_string(), "--reason", "enough"])?;
        told(&operator, &three.client, DOOR, "withdrawn", &["was closed at", "enough"])
            .context("withdrawn")?;

        let guest = lab.client("guest")?;
        guest.knock(None, &[30_417, 17_923, 44_071].map(|port| Shot::Tcp(edge.at(port))))?;
        told(&operator, &guest, "quick", "expired", &["it was open until", "knock again"])
            .context("expired")?;

        let outside = lab.client("outside")?;
        outside.knock(None, &[Shot::Tcp(edge.at(31_337))])?;
        told(&operator, &outside, "barred", "not-admitted", &["spec.sources lacks it", "192.0.2.0/24"])
            .context("outside the sources")?;

        let looker = lab.client("looker")?;
        looker.knock(None, &[Shot::Tcp(edge.at(35_117))])?;
        told(&operator, &looker, "looks", "observes", &["only observes", "step 2 of 3 was not seen"])
            .map(drop)
            .context("observes")
    })
}

#[test]
fn what_keeps_a_step_from_being_seen_is_told() -> Result<()> {
    Lab::scenario("explain-unseen", |lab| {
        let three = Three::guarded(lab, MIXED, 120)?;
        let (edge, operator) = (three.edge.host(), three.fleet.operator());
        three.db.host().serve(&[BUSY], &[])?;
        wait_until("db-1 to tell which ports are in use", REPORTED, || {
            Ok(three.fleet.cli_ok(&["describe", "host", "db-1"])?.contains(&format!("tcp/{BUSY}")))
        })?;
        let doors = lab.directory().join("unseen.yaml");
        std::fs::write(&doors, UNSEEN)?;
        let applied = operator.cli(&["apply", "-f", doors.to_str().context("a path of text")?])?;
        let warning = "step 2: its port is in use by a local service on host db-1";
        ensure!(applied.stderr.contains(warning), "{}", applied.stderr);
        ensure!(!applied.stderr.contains(&BUSY.to_string()), "{}", applied.stderr);

        let client = lab.client("busy")?;
        let shots =
            [Shot::Tcp(edge.at(33_101)), Shot::Tcp(three.db.host().at(BUSY)), Shot::Tcp(edge.at(21_859))];
        client.knock(None, &shots)?;
        let words = ["step 2 of 3 cannot be seen: a local service has its port", "choose another port"];
        let text = told(&operator, &client, "busy", "port-in-use", &words).context("port in use")?;
        ensure!(!text.contains("db-1"), "the host of a step is told to those who did not ask for it: {text}");
        let nobody = lab.client("nobody")?;
        told(&operator, &nobody, "nowhere", "no-host", &["no host of the fleet matches step 1 of 3"])
            .context("no host")?;

        three.edge.kill()?;
        let away = lab.client("away")?;
        let words = ["step 1 of 3 cannot be seen: no host for it is connected", "start fleetknock-agent"];
        wait_until("edge-1 to be away", REPORTED, || Ok(verdict(&operator, &away, DOOR)?.0 == "host-away"))?;
        told(&operator, &away, DOOR, "host-away", &words).context("host away")?;
        let text = said(&operator, &away, &["--door", DOOR])?;
        ensure!(text.contains("Note: not connected now") && text.contains("edge-1"), "{text}");
        Ok(())
    })
}

#[test]
fn a_store_that_is_away_is_told() -> Result<()> {
    Lab::scenario("explain-store", |lab| {
        let etcd = Etcd::start(&[lab.host("etcd-1")?], lab.directory())?;
        let fleet = Fleet::start_with(lab, lab.host("control")?, etcd.store())?;
        let three = Three::with(lab, fleet, MIXED)?;
        three.apply(120)?;
        let operator = three.fleet.operator();
        etcd.members()[0].pause()?;
        three.client.knock(None, &three.knock(Family::V4))?;
        wait_until("the refusal to be told", IN_TIME + SOON, || {
            Ok(verdict(&operator, &three.client, DOOR)?.0 == "refused")
        })?;
        let words = ["complete and could not be answered", "To do: "];
        told(&operator, &three.client, DOOR, "refused", &words).context("store away")?;
        etcd.members()[0].resume()?;
        Ok(())
    })
}

#[test]
fn ports_and_hosts_of_steps_are_for_admins() -> Result<()> {
    Lab::scenario("explain-secret", |lab| {
        let pki = Pki::create(lab, "fleet", "blue")?;
        let three = Three::with(lab, Fleet::start_trusted(lab, &pki)?, MIXED)?;
        three.apply(60)?;
        let viewer = three.fleet.operator().with(&pki.user("vera", "viewer")?);
        let admin = three.fleet.operator();
        let [first, second, _] = right(&three);
        three.client.knock(None, &[first, second])?;
        told(&viewer, &three.client, DOOR, "incomplete", &["(hidden)"])?;
        let ports = three.steps.ports.map(|port| port.to_string());
        for output in [&["-o", "json"][..], &[]] {
            let text = said(&viewer, &three.client, output)?;
            ensure!(ports.iter().all(|port| !text.contains(port)), "a viewer sees a port: {text}");
            ensure!(!text.contains("bastion-1"), "a viewer sees where the next step goes: {text}");
        }
        let refused = viewer.cli(&["explain", "--source", &three.client.v4().to_string(), "--reveal"])?;
        ensure!(refused.code == 77 && refused.stderr.contains("needs the role admin"), "{}", refused.stderr);
        let text = said(&admin, &three.client, &["--reveal"])?;
        ensure!(ports[..2].iter().all(|port| text.contains(port)), "{text}");
        ensure!(text.contains(&format!("knock tcp/{} on bastion-1", ports[2])), "{text}");
        let events = three.fleet.cli_ok(&["get", "events", "--code", "door-revealed", "-o", "json"])?;
        ensure!(events.contains(&format!("the knocks of {} were shown", three.client.v4())), "{events}");
        ensure!(ports.iter().all(|port| !events.contains(port)), "{events}");
        Ok(())
    })
}

#[test]
fn what_one_controller_remembers_every_controller_tells() -> Result<()> {
    Lab::scenario("explain-several", |lab| {
        let several = Several::guarded(lab, MIXED, Placement::Spread, 120)?;
        let three = &several.three;
        // Not the first, which the operator asks.
        let (client, owner) = several.begun(|owner| owner.name() != several.controllers()[0].name())?;
        owner.kill()?;
        client.knock(None, &right(three)[1..2])?;
        let all = || several.controllers().iter().filter(|controller| controller.process().is_ok());
        for controller in all() {
            wait_until("the steps to be told by every controller", IN_TIME, || {
                let answer = answer(&controller.operator(), &client, DOOR)?;
                Ok(answer["doors"][0]["stepsDone"] == 2)
            })?;
        }
        several.mend()?;
        // Now somebody follows the source who has not seen a thing of it, or only what was sent again.
        for controller in all() {
            let answer = answer(&controller.operator(), &client, DOOR)?;
            ensure!(answer["doors"][0]["stepsDone"] == 2, "{} tells {answer:#}", controller.name());
            ensure!(
                answer["knocks"].as_array().map(Vec::len) == Some(2),
                "each knock counts once: {answer:#}"
            );
            ensure!(answer["unanswered"].as_array().is_some_and(Vec::is_empty), "{answer:#}");
        }
        client.knock(None, &right(three)[2..])?;
        told(&three.fleet.operator(), &client, DOOR, "open", &["it is open for"]).map(drop)
    })
}

/// The steps of the door.
fn right(three: &Three<'_>) -> [Shot; 3] {
    let shots = three.knock(Family::V4);
    [shots[0], shots[1], shots[2]]
}

/// Waits for the verdict of that code, and checks the words; gives the text.
fn told(operator: &Operator, client: &Host, door: &str, code: &str, words: &[&str]) -> Result<String> {
    let mut last = (String::new(), String::new());
    let waited = wait_until(&format!("the verdict {code}"), SOON, || {
        last = verdict(operator, client, door)?;
        Ok(last.0 == code)
    });
    waited.with_context(|| format!("the verdict is {last:?}"))?;
    let text = said(operator, client, &["--door", door])?;
    for words in words {
        ensure!(text.contains(words), "'{words}' is not said:\n{text}");
    }
    ensure!(text.contains(&format!("{door}: {code}")), "{text}");
    Ok(text)
}

fn verdict(operator: &Operator, client: &Host, door: &str) -> Result<(String, String)> {
    let answer = answer(operator, client, door)?;
    let text = |name: &str| answer["doors"][0][name].as_str().unwrap_or_default().to_owned();
    Ok((text("code"), text("message")))
}

fn answer(operator: &Operator, client: &Host, door: &str) -> Result<Value> {
    Ok(serde_json::from_str(&said(operator, client, &["--door", door, "-o", "json"])?)?)
}

fn said(operator: &Operator, client: &Host, more: &[&str]) -> Result<String> {
    let source = client.v4().to_string();
    operator.cli_ok(&[&["explain", "--source", source.as_str()], more].concat())
}

/// Three quick steps on edge-1, open for a second.
const QUICK: &str = "apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: quick}
spec:
  knock:
    sequence:
      - {hosts: {names: [edge-1]}, port: tcp/30417}
      - {hosts: {names: [edge-1]}, port: tcp/17923}
      - {hosts: {names: [edge-1]}, port: tcp/44071}
    within: 1s
  opens: {hosts: {names: [edge-1]}, ports: [tcp/2222], for: 1s}
";

/// One for others only, and one that only observes.
const BARRED: &str = "apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: barred}
spec:
  knock:
    sequence: [{port: tcp/31337}, {port: tcp/12893}, {port: tcp/27011}]
    within: 10s
  sources: [192.0.2.0/24]
  opens: {hosts: {names: [edge-1]}, ports: [tcp/2222], for: 30s}
---
apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: looks}
spec:
  mode: observe
  knock:
    sequence: [{port: tcp/35117}, {port: tcp/19037}, {port: tcp/41843}]
    within: 10s
  opens: {hosts: {names: [edge-1]}, ports: [tcp/2223], for: 30s}
";

/// One with a step where a service is, and one with a step where nobody is.
const UNSEEN: &str = "apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: busy}
spec:
  knock:
    sequence: [{port: tcp/33101}, {hosts: {names: [db-1]}, port: tcp/18080}, {port: tcp/21859}]
    within: 10s
  opens: {hosts: {names: [edge-1]}, ports: [tcp/2222], for: 30s}
---
apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: nowhere}
spec:
  knock:
    sequence: [{hosts: {names: [ghost-1]}, port: tcp/34129}, {port: tcp/16901}, {port: tcp/28657}]
    within: 10s
  opens: {hosts: {names: [edge-1]}, ports: [tcp/2222], for: 30s}
";
