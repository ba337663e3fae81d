//! Doors as operators write them: the round trip, and what each mistake is told.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    door::{DoorParts, Knock, Mode, Opens, Sequence, Step},
    host::{HostSelector, Labels},
    port::{Port, Protocol},
};

const BASTION: &str = r#"# who may reach the bastion
apiVersion: fleetknock.io/v1
kind: Door
metadata:
  name: bastion-ssh
  labels: {team: core}
spec:
  knock:
    sequence:
      - {hosts: {matchLabels: {role: edge}}, port: tcp/7412}
      - {hosts: {names: [db-1]},             port: udp/23981}
      - {port: tcp/51003}
    within: 15s
  sources: [0.0.0.0/0, "::/0"]
  opens:
    hosts: {matchLabels: {role: bastion}}
    ports: [tcp/22]
    for: 1m30s
"#;

#[test]
fn the_documented_door_is_read() {
    let documents = parse(BASTION).unwrap();
    let [document] = documents.as_slice() else { panic!("{documents:?}") };
    let door = &document.door;
    assert_eq!(document.line, 2);
    assert_eq!(door.name().as_str(), "bastion-ssh");
    assert_eq!(door.labels().value("team"), Some("core"));
    let Knock::Sequence(sequence) = door.knock();
    assert_eq!(sequence.within, Duration::from_secs(15));
    let steps: Vec<_> =
        sequence.steps.iter().map(|step| format!("{} on {}", step.port, step.hosts)).collect();
    assert_eq!(steps, ["tcp/7412 on role=edge", "udp/23981 on db-1", "tcp/51003 on any host"]);
    assert_eq!(door.sources().len(), 2);
    assert_eq!(door.opens().hosts.to_string(), "role=bastion");
    assert_eq!(door.opens().duration, Duration::from_secs(90));
}

#[test]
fn several_documents_and_lists_are_read() {
    let two = format!("{BASTION}---\n---\n{}", BASTION.replace("bastion-ssh", "other"));
    let documents = parse(&two).unwrap();
    assert_eq!(
        documents.iter().map(|d| d.door.name().as_str()).collect::<Vec<_>>(),
        ["bastion-ssh", "other"]
    );
    assert_eq!(documents[1].line, 22);

    let json = serde_json::to_string(&vec![DoorDocument::new(&documents[0].door, true)]).unwrap();
    assert_eq!(parse(&json).unwrap()[0].door, documents[0].door);
    assert_eq!(parse("").unwrap(), []);
    assert_eq!(parse("# nothing\n---\n").unwrap(), []);
}

#[test]
fn one_name_twice_is_refused() {
    let twice = format!("{BASTION}---\n{BASTION}");
    assert_eq!(
        parse(&twice).unwrap_err().to_string(),
        "21: metadata.name: a door of this name is already in line 2; names are unique in a fleet"
    );
}

#[test]
fn each_document_reports_its_own_error() {
    let text =
        format!("{}---\n{}", change("ports: [tcp/22]", "prots: [tcp/22]"), change("for: 1m30s", "for: soon"));
    let errors: Vec<_> = parse_each(&text).unwrap().into_iter().map(|r| r.unwrap_err().to_string()).collect();
    assert_eq!(
        errors,
        [
            "17: unknown field 'prots' in spec.opens; did you mean 'ports'?",
            "37: spec.opens.for: 'soon' is not a time; write it like 15s or 1m30s",
        ]
    );
}

#[test]
fn every_mistake_gives_its_line_its_field_and_a_remedy() {
    for (from, to, wanted) in [
        ("fleetknock.io/v1", "v1", "2: apiVersion: must be 'fleetknock.io/v1', not 'v1'"),
        ("kind: Door", "kind: Gate", "3: kind: must be 'Door', not 'Gate'"),
        ("kind: Door", "kind: 5", "3: kind: must be text in quotes, not a number"),
        ("kind: Door\n", "", "2: the field 'kind' is missing or empty"),
        ("kind: Door", "knid: Door", "3: unknown field 'knid' in a door; did you mean 'kind'?"),
        ("  name: bastion-ssh", "  name:", "5: metadata: the field 'name' is missing or empty"),
        (
            "name: bastion-ssh",
            "name: Bastion",
            "5: metadata.name: 'Bastion' is not a door name: it may hold lower-case letters, digits, '-' and '.' only",
        ),
        ("team: core", "team: 1", "6: metadata.labels: must be text in quotes, not a number"),
        (
            "team: core",
            "te am: core",
            "6: metadata.labels: 'te am' is not a label key: it takes letters, digits, '-', '_', '.' and '/'",
        ),
        (
            "matchLabels: {role: edge}",
            "matchlabel: {role: edge}",
            "10: unknown field 'matchlabel' in spec.knock.sequence[0].hosts; did you mean 'matchLabels'?",
        ),
        ("names: [db-1]", "names: db-1", "11: spec.knock.sequence[1].hosts.names: must be a list, not text"),
        (
            "names: [db-1]",
            "names: []",
            "11: spec.knock.sequence[1].hosts.names: the list is empty; name a host, or leave 'names' out for any name",
        ),
        (
            "tcp/51003",
            "51003",
            "12: spec.knock.sequence[2].port: must be a port such as tcp/22, not a number",
        ),
        (
            "tcp/51003",
            "tcp/510030",
            "12: spec.knock.sequence[2].port: port 510030 is too large; the highest is 65535",
        ),
        (
            "within: 15s",
            "within: 15",
            "13: spec.knock.within: a time needs its unit; write it like 15s or 1m30s",
        ),
        ("within: 15s", "within: 1h", "13: spec.knock.within: must be from 1s to 5m, not 1h"),
        ("within: 15s\n", "\n", "9: spec.knock: the field 'within' is missing or empty"),
        (
            "within: 15s",
            "within: 1s 5us",
            "13: spec.knock.within: '1s 5us' is finer than a millisecond; write it like 15s or 1500ms",
        ),
        (
            "[0.0.0.0/0, \"::/0\"]",
            "[10.0.0.0/40]",
            "14: spec.sources[0]: '10.0.0.0/40' is not a network; write it like 192.0.2.0/24, 2001:db8::/32 or 203.0.113.5",
        ),
        ("ports: [tcp/22]", "ports: []", "17: spec.opens.ports: a door opens 1 to 64 ports, not 0"),
        (
            "ports: [tcp/22]",
            "ports: [icmp/22]",
            "17: spec.opens.ports: icmp/22 cannot be opened: only tcp and udp ports can",
        ),
        (
            "ports: [tcp/22]",
            "ports: [tcp/22, tcp/22]",
            "17: spec.opens.ports[1]: tcp/22 is listed twice; keep one of them",
        ),
        (
            "ports: [tcp/22]",
            "ports: [tcp/51003]",
            "10: spec.knock.sequence: a step knocks at a port that this door opens; guarded ports are not in the knock space",
        ),
        (
            "    hosts: {matchLabels: {role: bastion}}\n",
            "",
            "16: spec.opens: the field 'hosts' is missing; name hosts or labels, or write 'hosts: {}' for every host",
        ),
        (
            "  opens:",
            "  opens: 5\n  x:",
            "16: unknown field 'x' in spec; known are mode, knock, sources, opens",
        ),
        ("kind: Door", "kind: Door\nkind: Door", "4: a field is given twice; keep one of them"),
    ] {
        let error = parse(&change(from, to)).unwrap_err();
        let text = error.to_string();
        let line = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
        assert_eq!(text.trim_start_matches(&line(&text)), wanted.trim_start_matches(&line(wanted)), "{to}");
        assert_eq!(line(&text), line(wanted), "{text}");
    }
}

#[test]
fn later_kinds_of_knock_are_named_as_such() {
    for kind in ["rotating", "spa", "fwknop"] {
        let text = change("    within: 15s\n", &format!("    {kind}: {{}}\n"));
        assert_eq!(
            parse(&text).unwrap_err().to_string(),
            format!("13: spec.knock: a '{kind}' knock is not supported by this version; use 'sequence'")
        );
    }
}

#[test]
fn a_door_observes_or_enforces_and_enforces_unless_it_says_so() {
    assert_eq!(bastion().mode(), Mode::Enforce);
    for (written, mode) in [("observe", Mode::Observe), ("enforce", Mode::Enforce)] {
        let text = change("spec:\n", &format!("spec:\n  mode: {written}\n"));
        let door = parse(&text).unwrap().remove(0).door;
        assert_eq!(door.mode(), mode);
        let json = serde_json::to_string(&vec![DoorDocument::new(&door, true)]).unwrap();
        let again = parse(&json).unwrap().remove(0).door;
        assert_eq!(again, door);
    }
    for wrong in ["audit", "Observe", "\"\"", "[observe]", "1"] {
        let text = change("spec:\n", &format!("spec:\n  mode: {wrong}\n"));
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.starts_with("8: spec.mode: "), "{wrong}: {error}");
    }
    let error = parse(&change("spec:\n", "spec:\n  mode: audit\n")).unwrap_err();
    assert_eq!(error.reason, "a door's mode is 'enforce' or 'observe'");
}

#[test]
fn errors_never_quote_what_stands_around_them() {
    for (from, to) in [
        ("within: 15s", "within: [}"),
        ("within: 15s", "\twithin: 15s"),
        ("within: 15s", "within: *nothing"),
        ("within: 15s", "within: \"15s"),
        ("      - {port: tcp/51003}", "      - tcp/51003: 1"),
        ("      - {port: tcp/51003}", "      - tcp/51003"),
        ("      - {port: tcp/51003}", "      - {tcp/51003, tcp/51003}"),
        ("{port: tcp/51003}", "{port: [tcp/51003]}"),
        ("{port: tcp/51003}", "{port: tcp/51003, port: tcp/51003}"),
        ("spec:", "spec: &a\n  again: *a"),
    ] {
        let text = parse(&change(from, to)).unwrap_err().to_string();
        for secret in ["7412", "23981", "51003"] {
            assert!(!text.contains(secret), "{to}: {text}");
        }
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn an_error_cannot_steer_a_terminal() {
    let error = parse(&change("name: bastion-ssh", r#"name: "a\e[2Jb\nc""#)).unwrap_err();
    assert!(!error.to_string().chars().any(char::is_control), "{error}");
}

#[test]
fn a_status_is_passed_over() {
    let text = format!("{BASTION}status: {{revision: 7, hosts: [a]}}\n");
    assert_eq!(parse(&text).unwrap()[0].door, bastion());
}

#[test]
fn bombs_and_giants_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", "));
    }
    let error = parse(&bomb).unwrap_err();
    assert!(error.reason.contains("repeats too much"), "{error:?}");

    let deep = format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(parse(&deep).is_err());
    let deep = (0..2_000).map(|level| format!("{}a:\n", " ".repeat(level))).take(200).collect::<String>();
    assert!(parse(&deep).is_err());

    let giant = " ".repeat(TEXT_MAX + 1);
    assert!(parse(&giant).unwrap_err().reason.contains("at most 1048576 are read"));

    let many = (0..=DOCUMENTS_MAX).map(|n| format!("---\na: {n}\n")).collect::<String>();
    let error = parse(&many).unwrap_err();
    assert!(error.reason.contains("more than 1000 doors") || error.reason.contains("documents"), "{error}");
}

#[test]
fn a_door_is_written_as_it_is_read() {
    assert_eq!(
        print(&bastion(), true),
        "apiVersion: fleetknock.io/v1
kind: Door
metadata:
  name: bastion-ssh
  labels:
    team: core
spec:
  knock:
    sequence:
    - hosts:
        matchLabels:
          role: edge
      port: tcp/7412
    - hosts:
        names:
        - db-1
      port: udp/23981
    - port: tcp/51003
    within: 15s
  sources:
  - 0.0.0.0/0
  - \"::/0\"
  opens:
    hosts:
      matchLabels:
        role: bastion
    ports:
    - tcp/22
    for: 1m30s
"
    );
}

#[test]
fn debug_shows_no_step() {
    let door = bastion();
    let seen = crate::knock::Observation {
        id: crate::knock::ObservationId { host: crate::host::HostId(0), boot: 1, counter: 2 },
        source: "203.0.113.5".parse().unwrap(),
        port: "tcp/7412".parse().unwrap(),
        time: crate::time::Timestamp::from_millis(1),
        uncertainty: std::time::Duration::ZERO,
        fingerprint: 0,
    };
    let document = DoorDocument::new(&door, true);
    for text in [format!("{door:?} {door:#?}"), format!("{document:?} {document:#?}"), format!("{seen:?}")] {
        for secret in ["7412", "23981", "51003", "db-1", "edge"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn an_unrevealed_door_shows_no_secret_and_is_no_door() {
    let text = print(&bastion(), false);
    for secret in ["7412", "23981", "51003", "db-1", "edge"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(text.matches("port: (secret)").count(), 3);
    assert!(parse(&text).unwrap_err().reason.contains("'(secret)' is not a port"));
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(door in door()) {
        let text = print(&door, true);
        let documents = parse(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(documents.len(), 1);
        prop_assert_eq!(&documents[0].door, &door);
        let json = serde_json::to_string(&DoorDocument::new(&door, true)).unwrap();
        prop_assert_eq!(&parse(&json).unwrap()[0].door, &door);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-a-z0-9:{}\\[\\],&*!|>'\"%@`#\n \t/\\\\.]{0,300}") {
        let _ = parse(&text);
    }

    #[test]
    fn a_damaged_door_is_read_or_refused(at in 0..BASTION.len(), byte in any::<char>()) {
        let mut text: Vec<char> = BASTION.chars().collect();
        text[at] = byte;
        let _ = parse(&text.into_iter().collect::<String>());
    }
}

fn bastion() -> Door {
    parse(BASTION).unwrap().remove(0).door
}

fn change(from: &str, to: &str) -> String {
    assert!(BASTION.contains(from), "{from}");
    BASTION.replacen(from, to, 1)
}

fn door() -> impl Strategy<Value = Door> {
    // Opened ports and steps are kept apart: a step at an opened port is no door.
    let step = (selector(), 0..3u8, 30_000..=u16::MAX).prop_map(|(hosts, protocol, number)| {
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp][usize::from(protocol)];
        Step { hosts, port: Port::new(protocol, number).unwrap() }
    });
    let opened = (any::<bool>(), 1..30_000u16).prop_map(|(tcp, number)| {
        Port::new(if tcp { Protocol::Tcp } else { Protocol::Udp }, number).unwrap()
    });
    (
        name(),
        labels(),
        prop::collection::vec(step, 1..=super::super::STEPS_MAX),
        1_000..=300_000u64,
        prop::collection::vec(network(), 0..5),
        selector(),
        prop::collection::btree_set(opened, 1..5),
        1_000..=86_400_000u64,
        prop::sample::select(vec![Mode::Enforce, Mode::Observe]),
    )
        .prop_map(|(name, labels, steps, within, sources, hosts, ports, duration, mode)| {
            Door::new(DoorParts {
                name: name.parse().unwrap(),
                labels,
                knock: Knock::Sequence(Sequence { steps, within: Duration::from_millis(within) }),
                sources,
                opens: Opens { hosts, ports, duration: Duration::from_millis(duration) },
                mode,
            })
            .unwrap()
        })
}

/// Names that YAML would rather read as something else are among them.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?",
        "null|true|no|y|1e3|0x1f|1\\.5|007|0|on|2026-11-22|nan"
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    let value = prop_oneof!["[-A-Za-z0-9_.]{0,12}", "null|True|no|1|1_000|-|\\."];
    prop::collection::btree_map("[A-Za-z0-9][-A-Za-z0-9_./]{0,12}|true|1|-", value, 0..4)
        .prop_map(|map| Labels::new(map).unwrap())
}

fn selector() -> impl Strategy<Value = HostSelector> {
    (labels(), prop::collection::btree_set(name(), 0..3)).prop_map(|(match_labels, names)| HostSelector {
        match_labels,
        names: names.into_iter().map(|name| name.parse().unwrap()).collect::<BTreeSet<_>>(),
    })
}

fn network() -> impl Strategy<Value = ipnet::IpNet> {
    (any::<std::net::IpAddr>(), 0..=128u8).prop_map(|(address, length)| {
        let max = if address.is_ipv4() { 32 } else { 128 };
        ipnet::IpNet::new(address, length.min(max)).unwrap().trunc()
    })
}
