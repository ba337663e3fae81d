//! Who may have how much.

use std::{convert::Infallible, future::pending};

use fleetknock_core::identity::Who;
use tonic::Code;

use super::*;
use crate::trust::caller::Shown;

fn user(name: &str) -> Caller {
    let who = Who::User { name: name.parse().unwrap(), role: Role::Admin };
    Caller { who: Whose::Known(who), shown: Shown::Certificate, address: None }
}

fn limited(metrics: &Metrics) -> LimitsLayer {
    let changes = Some(Arc::new(Mutex::new(Rates::new(CHANGES, CALLERS_MAX))));
    LimitsLayer { changes, metrics: metrics.clone() }
}

fn call(caller: &Caller, path: &str) -> http::Request<Body> {
    let mut request = http::Request::new(Body::empty());
    *request.uri_mut() = format!("/fleetknock.v1.{path}").parse().unwrap();
    request.extensions_mut().insert(caller.clone());
    request
}

fn count(metrics: &Metrics, reason: &'static str) -> u64 {
    metrics.limited.get_or_create(&LimitedLabels { reason }).get()
}

#[tokio::test(start_paused = true)]
async fn one_user_changes_so_much_and_reads_on() {
    let metrics = Metrics::default();
    let layer = limited(&metrics);
    let (mallory, alice) = (user("mallory"), user("alice"));
    for _ in 0..CHANGES.burst {
        layer.admit(&call(&mallory, "ControlService/BanSource")).unwrap();
    }
    let refused = layer.admit(&call(&mallory, "ControlService/Open")).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("user mallory changes too much: at most 1000"), "{refused}");
    assert!(refused.message().ends_with("go on in 20 ms"), "{refused}");
    assert!(layer.admit(&call(&mallory, "ControlService/ListDoors")).is_ok());
    assert!(layer.admit(&call(&alice, "ControlService/Open")).is_ok());
    assert_eq!(count(&metrics, "rate"), 1);
    tokio::time::advance(CHANGES.every).await;
    assert!(layer.admit(&call(&mallory, "ControlService/Open")).is_ok());
}

#[test]
fn what_changes_something_is_counted_and_streams_are_not_hurried() {
    for (path, change, asked) in [
        ("ControlService/ApplyDoor", true, true),
        ("ControlService/GetDoor", false, true),
        ("ControlService/WatchEvents", false, true),
        ("EnrolmentService/Enrol", true, true),
        ("AgentService/Attach", false, false),
        ("PeerService/Forward", false, false),
    ] {
        let path = format!("/fleetknock.v1.{path}");
        assert_eq!((is_change(&path), is_asked(&path)), (change, asked), "{path}");
    }
}

#[test]
fn plain_text_knows_no_callers() {
    let layer = LimitsLayer::new(&Trust::Plain, Metrics::default());
    let anybody = Caller::anybody(None);
    for _ in 0..2 * CHANGES.burst {
        assert!(layer.admit(&call(&anybody, "ControlService/Open")).is_ok());
    }
}

#[derive(Clone)]
struct Stuck;

impl Service<http::Request<Body>> for Stuck {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        Box::pin(pending())
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_waited_for_for_ever() {
    let metrics = Metrics::default();
    let mut stuck = limited(&metrics).layer(Stuck);
    let answer = stuck.call(call(&user("alice"), "ControlService/GetDoor")).await.unwrap();
    let status = Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("no answer after 30s, its limit"), "{status}");
    assert_eq!(count(&metrics, "deadline"), 1);
    let lasting = stuck.call(call(&user("alice"), "AgentService/Attach"));
    assert!(timeout(4 * ANSWER_MAX, lasting).await.is_err(), "an agent's stream is hurried");
}

#[test]
fn one_user_has_some_watchers_and_all_have_more() {
    let (watchers, metrics) = (Watchers::default(), Metrics::default());
    let enter = |name: &str| watchers.enter(&user(name), &metrics);
    let mut held: Vec<_> = (0..WATCHERS_OF_ONE).map(|_| enter("mallory").unwrap()).collect();
    let refused = enter("mallory").unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("user mallory has 16 watchers"), "{refused}");
    assert!(enter("alice").is_ok());
    held.pop();
    held.push(enter("mallory").unwrap());
    for number in 0..WATCHERS_MAX - WATCHERS_OF_ONE {
        held.push(enter(&format!("user-{number}")).unwrap());
    }
    let full = enter("alice").unwrap_err();
    assert!(full.message().contains("128 watchers are connected"), "{full}");
    assert_eq!(count(&metrics, "watchers"), 2);
    drop(held);
    assert!(lock(&watchers.held).is_empty());
}
