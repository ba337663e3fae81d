//! Every conversion there and back; hostile messages are refused by field.

use std::collections::BTreeSet;

use fleetknock_core::door::{Door, DoorParts, Knock, Opens, STEPS_MAX, Sequence, Step, yaml};
use proptest::prelude::*;
use prost::Message;

use super::*;

#[test]
fn a_door_goes_over_the_wire_and_back() {
    let door = example();
    let message = door_message(&door, true);
    assert_eq!(super::door(&message).unwrap(), door);
    assert_eq!(message.spec.as_ref().unwrap().open_for_ms, 30_000);
}

#[test]
fn an_unrevealed_door_tells_its_length_only_and_is_no_door() {
    let message = door_message(&example(), false);
    let Some(v1::door_spec::Knock::Sequence(sequence)) = &message.spec.as_ref().unwrap().knock else {
        panic!()
    };
    assert_eq!((sequence.steps.len(), sequence.length), (0, 3));
    let error = super::door(&message).unwrap_err();
    assert_eq!(error.field, "door.spec.sequence.steps");
    assert!(error.reason.contains("not shown"), "{error}");
}

#[test]
fn what_is_wrong_is_named_by_its_field() {
    type Change = fn(&mut v1::Door);
    let cases: [(Change, &str); 16] = [
        (|door| door.name.clear(), "door.name: is missing"),
        (
            |door| door.name = "A".to_owned(),
            "door.name: 'A' is not a door name: it may hold lower-case letters, digits, '-' and '.' only",
        ),
        (|door| door.name = "a".repeat(1_000), "door.name: has more than 512 bytes"),
        (
            |door| door.labels = HashMap::from([("a b".to_owned(), String::new())]),
            "door.labels: 'a b' is not a label key: it takes letters, digits, '-', '_', '.' and '/'",
        ),
        (|door| door.spec = None, "door.spec: is missing"),
        (|door| spec(door).knock = None, "door.spec.sequence: is missing; this version knows no other knock"),
        (
            |door| spec(door).open_ports[1].port = 70_000,
            "door.spec.open_ports[1].port: port 70000 is too large; the highest is 65535",
        ),
        (
            |door| spec(door).open_ports[0].protocol = 9,
            "door.spec.open_ports[0].protocol: must be tcp, udp or icmp, not number 9",
        ),
        (
            |door| spec(door).open_ports[0].protocol = 0,
            "door.spec.open_ports[0].protocol: must be tcp, udp or icmp, and is missing",
        ),
        (
            |door| spec(door).open_ports[0].port = 0,
            "door.spec.open_ports[0].port: tcp/0 is no port; the lowest is 1",
        ),
        (|door| spec(door).open_ports.clear(), "door.spec.open_ports: a door opens 1 to 64 ports, not 0"),
        (
            |door| spec(door).open_for_ms = 90_000_000,
            "door.spec.open_for_ms: must be from 1s to 1day, not 1day 1h",
        ),
        (|door| sequence(door).within_ms = 0, "door.spec.sequence.within_ms: must be from 1s to 5m, not 0s"),
        (|door| sequence(door).steps[1].port = None, "door.spec.sequence.steps[1].port: is missing"),
        (
            |door| sequence(door).steps = vec![v1::Step::default(); STEPS_MAX + 1],
            "door.spec.sequence.steps: a sequence has 1 to 32 steps, not 33",
        ),
        (
            |door| {
                sequence(door).steps[1].hosts = Some(v1::HostSelector {
                    names: vec!["db-1".to_owned(), "?".to_owned()],
                    ..v1::HostSelector::default()
                })
            },
            "door.spec.sequence.steps[1].hosts.names[1]: '?' is not a host name: it may hold lower-case letters, digits, '-' and '.' only",
        ),
    ];
    for (change, wanted) in cases {
        let mut message = door_message(&example(), true);
        change(&mut message);
        assert_eq!(super::door(&message).unwrap_err().to_string(), wanted);
    }
}

#[test]
fn an_error_becomes_a_status_with_its_field() {
    let status = tonic::Status::from(FieldError::new("door.name", "is missing"));
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(crate::status::describe(&status), "door.name: is missing");
}

#[test]
fn observations_are_read() {
    let message = v1::Observation {
        counter: 7,
        time_us: 8,
        source: vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 203, 0, 113, 5],
        destination: vec![192, 0, 2, 1],
        protocol: v1::Protocol::Udp.into(),
        port: 53,
        fingerprint: 9,
    };
    let seen = Seen::try_from(&message).unwrap();
    assert_eq!(
        seen,
        Seen {
            counter: 7,
            time: Timestamp::from_micros(8),
            source: "203.0.113.5".parse().unwrap(),
            port: "udp/53".parse().unwrap(),
            fingerprint: 9,
        }
    );
    let error = Seen::try_from(v1::Observation { source: vec![1, 2, 3], ..message.clone() }).unwrap_err();
    assert_eq!(error.to_string(), "observation.source: an address has 4 or 16 bytes, not 3");
    let error = Seen::try_from(v1::Observation { port: 65_536, ..message }).unwrap_err();
    assert_eq!(error.field, "observation.port");
}

#[test]
fn lists_are_bounded() {
    let many = vec!["10.0.0.0/8".to_owned(); limits::ADDRESSES_MAX + 1];
    assert_eq!(networks(&many, "x").unwrap_err().to_string(), "x: there are more than 256 networks");
    assert_eq!(addresses(&many, "x").unwrap_err().to_string(), "x: there are more than 256 addresses");
    let many = v1::HostSelector {
        names: vec!["a".to_owned(); limits::NAMES_MAX + 1],
        ..v1::HostSelector::default()
    };
    assert_eq!(selector(Some(&many), "x").unwrap_err().field, "x.names");
    let many = (0..=limits::LABELS_MAX).map(|n| (n.to_string(), String::new())).collect();
    assert!(labels(&many, "x").is_err());
    assert_eq!(limits::page_size(0), 100);
    assert_eq!(limits::page_size(5), 5);
    assert_eq!(limits::page_size(u32::MAX), 1_000);
}

proptest! {
    #[test]
    fn every_door_goes_over_the_wire_and_back(door in any_door()) {
        let bytes = door_message(&door, true).encode_to_vec();
        prop_assert_eq!(super::door(&v1::Door::decode(bytes.as_slice()).unwrap()).unwrap(), door);
    }

    #[test]
    fn ports_ranges_and_sources_go_and_come_back(port in any_port(), last in any::<u16>(), address in any::<IpAddr>()) {
        prop_assert_eq!(super::port(&port.into(), "p").unwrap(), port);
        if let Ok(range) = PortRange::new(port.protocol(), port.number(), last) {
            prop_assert_eq!(port_range(&range.into(), "r").unwrap(), range);
        }
        if let Ok(source) = Source::new(address) {
            prop_assert_eq!(Source::from_bytes(&source_bytes(source)).unwrap(), source);
            prop_assert_eq!(super::source(&source.to_string(), "s").unwrap(), source);
        }
    }

    #[test]
    fn hostile_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = v1::Door::decode(bytes.as_slice()) {
            let _ = super::door(&message);
        }
        if let Ok(message) = v1::Observation::decode(bytes.as_slice()) {
            let _ = Seen::try_from(message);
        }
        if let Ok(message) = v1::PortRange::decode(bytes.as_slice()) {
            let _ = PortRange::try_from(message);
        }
    }

    #[test]
    fn a_damaged_door_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = door_message(&example(), true).encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(message) = v1::Door::decode(bytes.as_slice()) {
            let _ = super::door(&message);
        }
    }
}

fn example() -> Door {
    let text = "
apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: bastion-ssh, labels: {team: core}}
spec:
  knock:
    sequence:
    - {hosts: {matchLabels: {role: edge}}, port: tcp/7412}
    - {hosts: {names: [db-1]}, port: udp/23981}
    - {port: icmp/731}
    within: 15s
  sources: [0.0.0.0/0, '::/0']
  opens: {hosts: {matchLabels: {role: bastion}}, ports: [tcp/22, udp/1194], for: 30s}
";
    yaml::parse(text).unwrap().remove(0).door
}

fn spec(door: &mut v1::Door) -> &mut v1::DoorSpec {
    door.spec.as_mut().unwrap()
}

fn sequence(door: &mut v1::Door) -> &mut v1::Sequence {
    let Some(v1::door_spec::Knock::Sequence(sequence)) = &mut spec(door).knock else { panic!() };
    sequence
}

fn any_port() -> impl Strategy<Value = Port> {
    (0..3usize, 1..=u16::MAX).prop_map(|(protocol, number)| {
        Port::new([Protocol::Tcp, Protocol::Udp, Protocol::Icmp][protocol], number).unwrap()
    })
}

fn any_selector() -> impl Strategy<Value = HostSelector> {
    let names = prop::collection::btree_set("[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", 0..3);
    let labels = prop::collection::btree_map("[A-Za-z0-9_./-]{1,12}", "[A-Za-z0-9_.-]{0,12}", 0..3);
    (labels, names).prop_map(|(labels, names)| HostSelector {
        match_labels: Labels::new(labels).unwrap(),
        names: names.into_iter().map(|name| name.parse().unwrap()).collect(),
    })
}

fn any_door() -> impl Strategy<Value = Door> {
    let step = (any_selector(), any_port()).prop_map(|(hosts, port)| Step { hosts, port });
    let network = (any::<IpAddr>(), 0..=32u8)
        .prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc());
    (
        prop::collection::vec(step, 1..=STEPS_MAX),
        1_000..=300_000u64,
        prop::collection::vec(network, 0..4),
        any_selector(),
        prop::collection::btree_set(any_port(), 1..5),
        1_000..=86_400_000u64,
    )
        .prop_filter_map("no door", |(steps, within, sources, hosts, ports, duration)| {
            let ports: BTreeSet<_> =
                ports.into_iter().filter(|port| port.protocol() != Protocol::Icmp).collect();
            Door::new(DoorParts {
                name: "a".parse().unwrap(),
                labels: hosts.match_labels.clone(),
                knock: Knock::Sequence(Sequence { steps, within: Duration::from_millis(within) }),
                sources,
                opens: Opens { hosts, ports, duration: Duration::from_millis(duration) },
                mode: Default::default(),
            })
            .ok()
        })
}
