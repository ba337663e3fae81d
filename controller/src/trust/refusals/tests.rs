//! Who is slowed and who is not, and what is told.

use fleetknock_core::identity::Role;

use super::*;
use crate::record::Actor;

#[test]
fn a_network_that_fails_often_waits_for_its_answers_and_others_do_not() {
    let (refusals, _told) = refusals();
    for port in 0..FEW {
        assert!(matches!(fail(&refusals, "198.51.100.1", port), Answer::Now));
    }
    let Answer::Later(_place) = fail(&refusals, "198.51.100.1", 99) else { panic!("it fails often") };
    assert!(matches!(fail(&refusals, "198.51.100.2", 1), Answer::Now));
    for host in 0..FEW {
        assert!(matches!(fail(&refusals, &format!("2001:db8::{host}"), 1), Answer::Now));
    }
    assert!(matches!(fail(&refusals, "2001:db8::ffff", 1), Answer::Later(_)), "a /64 is one");
    let failures = &refusals.0.metrics.authentication_failures;
    let counted = failures.get_or_create(&FailedLabels { reason: "token_wrong" }).get();
    assert_eq!(counted, u64::from(FEW) * 2 + 3);
}

#[test]
fn so_many_answers_wait_and_no_more() {
    let (refusals, _told) = refusals();
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

#[test]
fn each_refusal_is_told_with_who_it_was_and_without_what_was_shown() {
    let (refusals, mut told) = refusals();
    fail(&refusals, "198.51.100.1", 7);
    let actor = Actor {
        who: "user v".to_owned(),
        role: Some(Role::Viewer),
        by: "certificate".to_owned(),
        address: "198.51.100.1:7".to_owned(),
    };
    let reason = Reason::Denied { actor: Box::new(actor.clone()) };
    let refusal = Refusal { status: Status::permission_denied("it may not"), reason };
    for _ in 0..100 {
        let address = Some("198.51.100.1:7".parse().unwrap());
        assert!(
            matches!(refusals.note(&refusal, "/a/b", address), Answer::Now),
            "who is known is not slowed"
        );
    }
    let stranger = told.try_recv().unwrap();
    assert_eq!(stranger.kind, pb::EventKind::AuthenticationFailed);
    assert_eq!((stranger.actor.who.as_str(), stranger.actor.address.as_str()), ("", "198.51.100.1:7"));
    assert_eq!(stranger.message, "the call /fleetknock.v1.ControlService/Open was refused: not known");
    let known = told.try_recv().unwrap();
    assert_eq!((known.kind, known.actor), (pb::EventKind::CallDenied, actor));
    assert_eq!(known.message, "the call /a/b was refused: it may not");
}

fn refusals() -> (Refusals, mpsc::Receiver<Denied>) {
    let (denials, told) = mpsc::channel(1_024);
    (Refusals::new(Metrics::default(), denials), told)
}

fn fail(refusals: &Refusals, address: &str, port: u32) -> Answer {
    let reason = Reason::Unknown { why: "token_wrong" };
    let refusal = Refusal { status: Status::unauthenticated("not known"), reason };
    let address = SocketAddr::new(address.parse().unwrap(), port as u16);
    refusals.note(&refusal, "/fleetknock.v1.ControlService/Open", Some(address))
}
