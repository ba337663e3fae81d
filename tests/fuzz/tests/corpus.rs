//! What the corpus calls valid is read, and what it calls almost valid is not: mutants begin at both sides of the line.

#![cfg(test)]

use fleetknock_agent::capture::packet;
use fleetknock_controller::{
    record::{self, DoorRecord, Key},
    web::json::Methods,
};
use fleetknock_core::{door::yaml, identity::Identity, knockd};
use fleetknock_fuzz::{corpus, targets};
use fleetknock_proto::{convert, v1};
use prost::Message as _;

#[test]
fn doors_and_configurations_are_read() {
    for (name, bytes) in files("door-yaml") {
        let read = yaml::parse(std::str::from_utf8(&bytes).unwrap());
        assert_eq!(read.is_ok(), !name.starts_with("almost"), "{name}: {read:?}");
    }
    let doors = |name| knockd::import(&text("knockd-conf", name), &Default::default()).unwrap().doors.len();
    assert_eq!(
        (doors("debian"), doors("manual"), doors("multiport"), doors("nft"), doors("ufw")),
        (2, 1, 1, 1, 1)
    );
}

#[test]
fn messages_hold_whole_doors_and_observations() {
    let door = v1::Door::decode(&bytes("control", "Door")[1..]).unwrap();
    convert::door(&door).unwrap();
    let message =
        v1::AgentMessage::decode(bytes("agent-message", "AgentMessage-observations").as_slice()).unwrap();
    let Some(v1::agent_message::Kind::Observations(batch)) = message.kind else { panic!() };
    fleetknock_proto::Seen::try_from(&batch.observations[0]).unwrap();
    let message = v1::AgentMessage::decode(bytes("agent-message", "AgentMessage-hello").as_slice()).unwrap();
    let Some(v1::agent_message::Kind::Hello(hello)) = message.kind else { panic!() };
    fleetknock_controller::agent_api::hello::parse(hello).unwrap();
    let message =
        v1::ControllerMessage::decode(bytes("controller-message", "ControllerMessage-delta").as_slice())
            .unwrap();
    let Some(v1::controller_message::Kind::Delta(delta)) = message.kind else { panic!() };
    let (delta, refused) = fleetknock_agent::link::wire::delta(delta).unwrap();
    assert_eq!((delta.openings.len(), delta.withdrawn.len(), refused), (1, 1, vec![]));
}

#[test]
fn requests_in_json_are_read() {
    let methods = Methods::new().unwrap();
    for (name, bytes) in files("json") {
        let text = String::from_utf8(bytes).unwrap();
        let (method, body) = text.split_once('\n').unwrap();
        let read = methods.of(method).map(|method| method.read(body.as_bytes()).is_ok()).unwrap_or_default();
        assert_eq!(read, !name.starts_with("almost"), "{name}");
    }
}

#[test]
fn packets_are_knocks() {
    for (name, kind) in [("v4-syn", 0x0800), ("v4-udp", 0x0800), ("v4-echo", 0x0800), ("v6-syn", 0x86dd)] {
        let bytes = bytes("packet", name);
        packet::parse(kind, &bytes[4..], bytes.len() - 4).unwrap_or_else(|why| panic!("{name}: {why:?}"));
    }
    let bytes = bytes("packet", "v6-every-extension");
    packet::parse(0x86dd, &bytes[4..], bytes.len() - 4).unwrap();
}

#[test]
fn records_seals_and_names_are_read() {
    for (name, bytes) in files("record").iter().filter(|(name, _)| !name.starts_with("almost")) {
        let text = std::str::from_utf8(bytes).unwrap();
        let Some((key, value)) = text.split_once('\n') else { continue };
        let key: Key = key.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        let read = match key {
            Key::Door(_) => record::decode::<DoorRecord>(&key, value.as_bytes()).map(drop),
            Key::Audit(_) => record::decode::<record::AuditRecord>(&key, value.as_bytes()).map(drop),
            Key::Ban(_) => record::decode::<record::BanRecord>(&key, value.as_bytes()).map(drop),
            Key::Controller(_) => record::decode::<record::MemberRecord>(&key, value.as_bytes()).map(drop),
            Key::Host(_) => record::decode::<record::HostRecord>(&key, value.as_bytes()).map(drop),
            Key::Identity => record::decode::<record::IdentityRecord>(&key, value.as_bytes()).map(drop),
            Key::Opening(..) => record::decode::<record::OpeningRecord>(&key, value.as_bytes()).map(drop),
            Key::Token(_) => record::decode::<record::TokenRecord>(&key, value.as_bytes()).map(drop),
        };
        read.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let ring = targets::keyring(targets::FLEET, 0).unwrap();
    let opened = ring.open(targets::PLACE, &bytes("sealed", "sealed-0-key-1").into()).unwrap();
    assert_eq!(opened, bytes("record", "no-key"));
    for name in ["host", "controller", "user", "other-fleet", "longest"] {
        text("identity", name).parse::<Identity>().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn files(target: &str) -> Vec<corpus::File> {
    corpus::files(targets::named(target).unwrap())
}

fn bytes(target: &str, name: &str) -> Vec<u8> {
    files(target).into_iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}")).1
}

fn text(target: &str, name: &str) -> String {
    String::from_utf8(bytes(target, name)).unwrap()
}
