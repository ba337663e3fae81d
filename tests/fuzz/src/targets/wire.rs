//! Messages, and what the programs make of them as far as it is pure.

use std::{collections::BTreeSet, time::Instant};

use fleetknock_agent::{
    link::wire,
    picture::{self, Picture},
};
use fleetknock_controller::{agent_api::hello, record::Boot};
use fleetknock_core::{
    door::{Door, OPEN_PORTS_MAX},
    host::{HostName, LABELS_MAX},
    port::Protocol,
};
use fleetknock_proto::{
    Seen, convert, limits,
    v1::{self, agent_message, controller_message, peer_message},
};
use prost::Message;

use super::messages;

/// Tags with their lengths, numbers at the edges, and texts that fields take.
pub(super) const WORDS: &[&[u8]] = &[
    b"\x08",
    b"\x0a",
    b"\x10",
    b"\x12",
    b"\x18",
    b"\x1a",
    b"\x20",
    b"\x22",
    b"\x28",
    b"\x2a",
    b"\x30",
    b"\x32",
    b"\x3a",
    b"\x42",
    b"\x4a",
    b"\x52",
    b"\x08\x01",
    b"\x08\x02",
    b"\x08\x03",
    b"\x0a\x00",
    b"\x12\x00",
    b"\x0b",
    b"\x0c",
    b"\x80\x01",
    b"\xff\xff\x03",
    b"\x80\x80\x04",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"203.0.113.5",
    b"::ffff:203.0.113.5",
    b"2001:db8::1",
    b"0.0.0.0",
    b"255.255.255.255",
    b"10.0.0.0/8",
    b"::/0",
    b"db-1",
    b"bastion-ssh",
    b"role",
    b"edge",
    b"\x0c203.0.113.50",
    b"\x04\xcb\x00\x71\x05",
    b"\x08\x01\x10\x16",
];

/// What an agent says to a controller.
pub(super) fn agent_message(input: &[u8]) {
    read("AgentMessage", input);
    let Ok(v1::AgentMessage { kind: Some(kind) }) = v1::AgentMessage::decode(input) else { return };
    match kind {
        agent_message::Kind::Hello(message) => greeting(message),
        agent_message::Kind::Observations(batch) => batch.observations.iter().for_each(observation),
        agent_message::Kind::Report(message) => report(message),
        agent_message::Kind::ProbeReply(_)
        | agent_message::Kind::Probe(_)
        | agent_message::Kind::Results(_) => {}
    }
}

fn greeting(message: v1::Hello) {
    let host = message.host.clone();
    let Ok(greeting) = hello::parse(message) else { return };
    let record = &greeting.record;
    assert_eq!((greeting.host.as_str(), &greeting.host), (host.as_str(), &record.name));
    assert!(record.labels.iter().count() <= LABELS_MAX);
    assert!(
        record.addresses.len() <= limits::ADDRESSES_MAX && record.management.len() <= limits::ADDRESSES_MAX
    );
    plain(&record.version);
    plain(&record.firewall);
}

fn report(message: v1::HostReport) {
    let Ok(report) = hello::bounded(message) else { return };
    plain(&report.last_repair);
    assert!(report.warnings.len() <= 16 && report.addresses.len() <= limits::ADDRESSES_MAX);
    report.warnings.iter().for_each(|warning| plain(warning));
}

/// A text of an agent, as logs and terminals get it.
fn plain(text: &str) {
    assert!(text.chars().count() <= 300 && !text.contains(char::is_control), "a text could steer a terminal");
}

fn observation(message: &v1::Observation) {
    let Ok(seen) = Seen::try_from(message) else { return };
    assert!(seen.port.protocol() == Protocol::Icmp || seen.port.number() > 0);
    assert_eq!(Seen::try_from(v1::Observation::from(seen)), Ok(seen), "an observation changes on its way");
}

/// What a controller says to an agent.
pub(super) fn controller_message(input: &[u8]) {
    read("ControllerMessage", input);
    let Ok(v1::ControllerMessage { kind: Some(kind) }) = v1::ControllerMessage::decode(input) else { return };
    let now = Instant::now();
    let mut picture = Picture::new(BTreeSet::new());
    match kind {
        controller_message::Kind::Snapshot(message) => {
            let told = message.openings.len();
            let Ok((snapshot, refused)) = wire::snapshot(message) else { return };
            assert_eq!(snapshot.openings.len() + refused.len(), told, "an opening is lost");
            ordered(&snapshot.openings);
            guarded(snapshot.guard.as_ref());
            picture.take_snapshot(snapshot, now);
        }
        controller_message::Kind::Delta(message) => {
            let told = message.openings.len();
            let Ok((delta, refused)) = wire::delta(message) else { return };
            assert_eq!(delta.openings.len() + refused.len(), told, "an opening is lost");
            ordered(&delta.openings);
            guarded(delta.guard.as_ref());
            picture.take_delta(delta, now);
        }
        _ => return,
    }
    picture.expire(now);
    picture.desired(now);
    assert!(picture.openings().count() <= picture::OPENINGS_MAX);
    assert!(picture.bans().count() <= picture::BANS_MAX);
}

fn ordered(orders: &[picture::Order]) {
    for order in orders {
        assert!((1..=OPEN_PORTS_MAX).contains(&order.ports.len()));
        assert!(order.ports.iter().all(|port| port.protocol() != Protocol::Icmp));
        assert!((1..=128).contains(&order.id.len()));
    }
}

fn guarded(guard: Option<&picture::FleetGuard>) {
    let Some(guard) = guard else { return };
    assert!(guard.ports.is_disjoint(&guard.observed), "a port is guarded and only observed");
    assert!(guard.management.len() <= limits::ADDRESSES_MAX);
}

/// What controllers say to each other; the first byte chooses the message.
pub(super) fn peer_message(input: &[u8]) {
    const OF_PEERS: [&str; 14] = [
        "PeerMessage",
        "PeerReply",
        "PeerHello",
        "PeerWelcome",
        "PeerProbeReply",
        "ForwardBatch",
        "HostObservations",
        "DescribeRequest",
        "ConnectedHostsRequest",
        "ConnectedHostsResponse",
        "OpeningReportsRequest",
        "OpeningReportsResponse",
        "OpeningReports",
        "OpeningReport",
    ];
    let Some((first, bytes)) = input.split_first() else { return };
    let name = OF_PEERS[usize::from(*first) % OF_PEERS.len()];
    read(name, bytes);
    if name != "PeerMessage" {
        return;
    }
    let Ok(v1::PeerMessage { kind: Some(peer_message::Kind::Batch(batch)) }) = v1::PeerMessage::decode(bytes)
    else {
        return;
    };
    for host in &batch.hosts {
        if let Ok(name) = convert::parsed::<HostName>(&host.host, "host") {
            assert_eq!(name.as_str(), host.host);
        }
        if let Ok(boot) = Boot::try_from(host.boot.as_slice()) {
            assert_eq!(Boot::try_from(String::from(boot)), Ok(boot));
        }
        host.observations.iter().for_each(observation);
    }
}

/// Any message; the first byte chooses it.
pub(super) fn control(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let (name, read) = messages::ALL[usize::from(*first) % messages::ALL.len()];
    read(bytes);
    match name {
        "ApplyDoorRequest" => {
            if let Ok(v1::ApplyDoorRequest { door: Some(message), .. }) = v1::ApplyDoorRequest::decode(bytes)
            {
                door(&message);
            }
        }
        "Door" => {
            if let Ok(message) = v1::Door::decode(bytes) {
                door(&message);
            }
        }
        "Observation" => {
            if let Ok(message) = v1::Observation::decode(bytes) {
                observation(&message);
            }
        }
        "PortRange" => {
            let message = v1::PortRange::decode(bytes).ok();
            if let Some(range) = message.and_then(|message| convert::port_range(&message, "range").ok()) {
                assert!(range.first() <= range.last());
                assert_eq!(convert::port_range(&range.into(), "range"), Ok(range));
            }
        }
        "HostSelector" => {
            let message = v1::HostSelector::decode(bytes).ok();
            if let Ok(selector) = convert::selector(message.as_ref(), "hosts") {
                assert!(selector.names.len() <= limits::NAMES_MAX);
                assert_eq!(convert::selector(Some(&(&selector).into()), "hosts"), Ok(selector));
            }
        }
        "Hello" => {
            if let Ok(message) = v1::Hello::decode(bytes) {
                greeting(message);
            }
        }
        "CreateTokenRequest" => {
            if let Ok(message) = v1::CreateTokenRequest::decode(bytes)
                && let Some(v1::create_token_request::Holder::User(user)) = message.holder
                && let Ok(role) = convert::role(user.role, "role")
            {
                assert_eq!(i32::from(v1::Role::from(role)), user.role);
            }
        }
        _ => {}
    }
}

fn door(message: &v1::Door) {
    if let Ok(door) = convert::door(message) {
        there_and_back(&door);
    }
}

/// A door goes over the wire with its steps and is none without them.
pub(super) fn there_and_back(door: &Door) {
    assert_eq!(
        convert::door(&convert::door_message(door, true)).as_ref(),
        Ok(door),
        "a door changes on its way"
    );
    assert!(
        convert::door(&convert::door_message(door, false)).is_err(),
        "a door without its steps is a door"
    );
}

fn read(name: &str, bytes: &[u8]) {
    let found = messages::ALL.iter().find(|(known, _)| *known == name);
    assert!(found.is_some(), "{name} is no message");
    if let Some((_, read)) = found {
        read(bytes);
    }
}
