//! Who is slowed and who is not, and what is told.

use fleetknock_core::identity::Role;

use super::*;
use crate::{
    store::memory::MemoryStore,
    trust::{gate::Reason, tally::FEW, ticket::tests::controller},
};

#[tokio::test]
async fn a_network_that_fails_often_waits_for_its_answers_and_others_do_not() {
    let (refusals, _teller) = refusals().await;
    for port in 0..FEW {
        assert!(matches!(fail(&refusals, "198.51.100.1", port), Answer::Now));
    }
    let Answer::Later(_place) = fail(&refusals, "198.51.100.1", 99) else { panic!("it fails often") };
    assert!(matches!(fail(&refusals, "198.51.100.2", 1), Answer::Now));
    for host in 0..FEW {
        assert!(matches!(fail(&refusals, &format!("2001:db8::{host}"), 1), Answer::Now));
    }
    assert!(matches!(fail(&refusals, "2001:db8::ffff", 1), Answer::Later(_)), "a /64 is one");
    let failures = &refusals.0.shared.metrics.authentication_failures;
    let counted = failures.get_or_create(&FailedLabels { reason: "token_wrong" }).get();
    assert_eq!(counted, u64::from(FEW) * 2 + 3);
}

#[tokio::test]
async fn so_many_answers_wait_and_no_more() {
    let (refusals, _teller) = refusals().await;
    let mut waiting = Vec::new();
    for _ in 0..FEW as usize + WAITING_MAX {
        waiting.push(fail(&refusals, "198.51.100.1", 1));
    }
    let held = waiting.iter().filter(|answer| matches!(answer, Answer::Later(_))).count();
    assert_eq!(held, WAITING_MAX);
    let Answer::Exhausted(status) = fail(&refusals, "198.51.100.1", 1) else {
        panic!("all places are taken")
    };
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    drop(waiting);
    assert!(matches!(fail(&refusals, "198.51.100.1", 1), Answer::Later(_)), "places are free again");
}

#[tokio::test]
async fn a_flood_is_told_as_one_event_and_without_what_was_shown() {
    let (refusals, teller) = refusals().await;
    let mut events = refusals.0.shared.events();
    let _task = tokio::spawn(teller.run());
    for port in 0..1_000 {
        fail(&refusals, "198.51.100.1", port);
    }
    fail(&refusals, "198.51.100.2", 1);
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(events.recv().await.unwrap().event);
    }
    for (event, network) in told.iter().zip(["198.51.100.1", "198.51.100.2"]) {
        assert_eq!(event.kind(), pb::EventKind::AuthenticationFailed);
        assert_eq!(event.source, network);
        assert_eq!(event.message, format!("somebody at {network} could not show who it is: not known"));
    }
    assert!(events.try_recv().is_err());
}

#[tokio::test]
async fn somebody_who_is_known_is_told_by_name_and_not_slowed() {
    let (refusals, teller) = refusals().await;
    let mut events = refusals.0.shared.events();
    let _task = tokio::spawn(teller.run());
    let actor = Actor {
        who: "user v".to_owned(),
        role: Some(Role::Viewer),
        by: "certificate".to_owned(),
        address: "198.51.100.1:7".to_owned(),
    };
    for _ in 0..100 {
        let reason = Reason::Denied { actor: Box::new(actor.clone()) };
        let refusal = Refusal { status: Status::permission_denied("it may not"), reason };
        let address = Some("198.51.100.1:7".parse().unwrap());
        assert!(matches!(refusals.note(&refusal, "/a/b", address), Answer::Now));
    }
    let event = events.recv().await.unwrap().event;
    assert_eq!(event.kind(), pb::EventKind::CallDenied);
    assert_eq!(event.message, "user v tried what it may not: it may not");
    let told = event.actor.unwrap();
    assert_eq!(
        (told.who.as_str(), told.role.as_str(), told.by.as_str()),
        ("user v", "viewer", "certificate")
    );
    assert!(events.try_recv().is_err());
}

#[test]
fn many_are_told_as_one() {
    let network = "2001:db8::".parse().unwrap();
    assert_eq!(from(network, 1), "somebody at 2001:db8::/64");
    assert_eq!(from(network, 12), "somebody at 2001:db8::/64 and 11 other networks");
    assert_eq!(times_text(1), "");
    assert_eq!(times_text(30), ", 30 times");
}

async fn refusals() -> (Refusals, Teller) {
    Refusals::new(controller("ctl-1", Arc::new(MemoryStore::new())).await)
}

fn fail(refusals: &Refusals, address: &str, port: u32) -> Answer {
    let reason = Reason::Unknown { why: "token_wrong" };
    let refusal = Refusal { status: Status::unauthenticated("not known"), reason };
    let address = SocketAddr::new(address.parse().unwrap(), port as u16);
    refusals.note(&refusal, "/fleetknock.v1.ControlService/Open", Some(address))
}
