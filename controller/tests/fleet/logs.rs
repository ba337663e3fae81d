//! What is logged is changed while everything runs, and goes back by itself.

use std::time::Duration;

use fleetknock_proto::v1::{
    self as pb, control_service_client::ControlServiceClient, controller_message::Kind as Told,
    set_log_request::Whose,
};
use tokio::time::timeout;
use tonic::Code;

use crate::{
    several::{Fleet, until},
    support::Controller,
    trust::Office,
};

fn order(whose: Option<Whose>, filter: &str, for_ms: u64) -> pb::SetLogRequest {
    pb::SetLogRequest { whose, filter: filter.to_owned(), for_ms }
}

fn host(name: &str) -> Option<Whose> {
    Some(Whose::Host(name.to_owned()))
}

fn controller(name: &str) -> Option<Whose> {
    Some(Whose::Controller(name.to_owned()))
}

#[tokio::test]
async fn any_controller_is_told_through_any_other() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2"]).await;
    let [mut first, _] = fleet.operators().await.try_into().unwrap();
    let current = |at: usize| fleet.controllers[at].log_dial.current().unwrap();

    let answer = first.set_log(order(None, "debug", 0)).await.unwrap().into_inner();
    assert_eq!((current(0).as_str(), current(1).as_str()), ("debug", "info"));
    let now = first.overview(pb::OverviewRequest::default()).await.unwrap().into_inner().now_ms;
    assert!(answer.until_ms > now && answer.until_ms <= now + 600_000, "ten minutes unless said");
    first.set_log(order(controller("ctl-2"), "warn", 3_600_000)).await.unwrap();
    assert_eq!((current(0).as_str(), current(1).as_str()), ("debug", "warn"));
    let reset = first.set_log(order(controller("ctl-1"), "", 0)).await.unwrap().into_inner();
    assert_eq!((current(0).as_str(), reset.until_ms), ("info", 0));
    first.set_log(order(controller("ctl-2"), "trace", 1_000)).await.unwrap();
    until(async || (current(1) == "info").then_some(())).await;
}

#[tokio::test]
async fn a_hosts_agent_is_told_by_whoever_has_it() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2"]).await;
    let [mut first, mut second] = fleet.operators().await.try_into().unwrap();
    let mut agent = fleet.controllers[1].agent("edge-1", "edge").await;
    let logged = |told: &Told| match told {
        Told::Log(order) => Some(order.clone()),
        _ => None,
    };
    for operator in [&mut second, &mut first] {
        operator.set_log(order(host("edge-1"), "fleetknock_agent=debug", 5_000)).await.unwrap();
        let told = agent.until(logged).await;
        assert_eq!((told.filter.as_str(), told.for_ms), ("fleetknock_agent=debug", 5_000));
    }
    let unknown = first.set_log(order(host("nowhere"), "debug", 0)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    drop(agent);
    let gone = until(async || first.set_log(order(host("edge-1"), "debug", 0)).await.err()).await;
    assert_eq!(gone.code(), Code::FailedPrecondition);
    assert!(gone.message().contains("it is not connected"), "{gone}");
}

#[tokio::test]
async fn what_is_no_filter_is_refused_by_name_and_changes_nothing() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    for (wrong, field) in [
        (order(None, "no=such=level", 0), "filter"),
        (order(None, "debug\ninfo", 0), "filter"),
        (order(None, &"a=debug,".repeat(100), 0), "filter"),
        (order(None, "debug", 999), "for_ms"),
        (order(None, "debug", 86_400_001), "for_ms"),
        (order(host("No Host"), "debug", 0), "host"),
    ] {
        let refused = operator.set_log(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(field), "{refused}");
    }
    let nobody = Some(Whose::Controller("ctl-9".to_owned()));
    assert_eq!(operator.set_log(order(nobody, "debug", 0)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(controller.log_dial.current().unwrap(), "info");
}

#[tokio::test]
async fn the_trail_says_who_changed_whose_logs() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let edge = blue.dial(&controller, "host/edge-1").await;
    let _agent = crate::support::Agent::over(edge, "edge-1", "edge", false).await.unwrap();
    let mut operator = ControlServiceClient::new(blue.dial(&controller, "user/bob?role=operator").await);
    let refused = operator.set_log(order(None, "debug", 0)).await.unwrap_err();
    assert_eq!(
        (refused.code(), controller.log_dial.current().unwrap().as_str()),
        (Code::PermissionDenied, "info")
    );
    let mut admin = ControlServiceClient::new(blue.dial(&controller, "user/alice?role=admin").await);
    let mut events = admin.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();
    admin.set_log(order(None, "debug", 60_000)).await.unwrap();
    admin.set_log(order(host("edge-1"), "trace", 60_000)).await.unwrap();
    for (host, message) in
        [("", "controller ctl-1 logs 'debug' for 1m"), ("edge-1", "host edge-1 logs 'trace' for 1m")]
    {
        let event = async {
            loop {
                let event = events.message().await.unwrap().unwrap();
                if event.kind() == pb::EventKind::LogChanged {
                    return event;
                }
            }
        };
        let event = timeout(Duration::from_secs(20), event).await.unwrap();
        assert_eq!((event.message.as_str(), event.host.as_str()), (message, host));
        assert!(!event.id.is_empty(), "it is kept");
        assert_eq!(event.actor.unwrap().who, "user alice");
    }
}
