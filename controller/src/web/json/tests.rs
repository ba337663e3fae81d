//! Messages as JSON.

use fleetknock_proto::v1 as pb;
use prost_reflect::prost::Message as _;

use super::*;
use crate::trust::gate;

fn method(name: &str) -> Method {
    Methods::new().unwrap().of(name).unwrap()
}

#[test]
fn every_method_that_somebody_may_call_is_there_and_no_other() {
    let methods = Methods::new().unwrap();
    for (name, _) in gate::methods() {
        assert_eq!(methods.of(name).unwrap().path(), format!("/fleetknock.v1.ControlService/{name}"));
    }
    assert_eq!(methods.service.methods().count(), gate::methods().count());
    assert!(methods.of("open").is_none() && methods.of("Attach").is_none() && methods.of("").is_none());
    assert!(methods.of("WatchEvents").unwrap().is_stream() && !methods.of("Open").unwrap().is_stream());
}

#[test]
fn a_request_is_what_the_same_message_is_over_grpc() {
    let text = br#"{"door": {"name": "bastion", "spec": {"sequence": {"steps": [
        {"port": {"protocol": "PROTOCOL_UDP", "port": 7412}}], "withinMs": "15000"},
        "open_for_ms": 30000}}, "weak": true}"#;
    let message = method("ApplyDoor").read(text).unwrap();
    let request = pb::ApplyDoorRequest::decode(message.encode_to_vec().as_slice()).unwrap();
    let spec = request.door.unwrap().spec.unwrap();
    assert!(request.weak && spec.open_for_ms == 30_000);
    let Some(pb::door_spec::Knock::Sequence(sequence)) = spec.knock else { panic!("no sequence") };
    let port = sequence.steps[0].port.unwrap();
    assert_eq!((sequence.within_ms, port.protocol(), port.port), (15_000, pb::Protocol::Udp, 7412));
}

#[test]
fn nothing_is_the_empty_request_and_what_is_wrong_is_named() {
    assert!(method("ListBans").read(b"").unwrap().encode_to_vec().is_empty());
    for (text, said) in [
        (&b"{\"doors\": 1}"[..], "unrecognized field name 'doors'"),
        (b"{", "EOF"),
        (b"{} {}", "trailing characters"),
        (b"[]", "invalid type"),
        (b"\xff", "expected value"),
        (b"{\"weak\": 3}", "invalid type"),
    ] {
        let status = method("ApplyDoor").read(text).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains(said), "{}", status.message());
    }
}

#[test]
fn an_answer_is_whole() {
    let ban = pb::Ban { source: "203.0.113.5".to_owned(), since_ms: u64::MAX, ..pb::Ban::default() };
    let message = DynamicMessage::decode(method("GetBan").codec().answer, ban.encode_to_vec().as_slice());
    assert_eq!(
        write(&message.unwrap()).unwrap(),
        r#"{"source":"203.0.113.5","sinceMs":"18446744073709551615","expiresMs":"0","reason":"","by":""}"#
    );
    let event = pb::Event { kind: pb::EventKind::DoorApplied.into(), ..pb::Event::default() };
    let message =
        DynamicMessage::decode(method("WatchEvents").codec().answer, event.encode_to_vec().as_slice());
    assert!(write(&message.unwrap()).unwrap().contains(r#""kind":"EVENT_KIND_DOOR_APPLIED""#));
}
