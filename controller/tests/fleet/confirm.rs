//! Changes of doors that are rolled back unless somebody confirms them in time.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fleetknock_controller::store::memory::MemoryStore;
use fleetknock_proto::v1::{
    self as pb, control_service_client::ControlServiceClient, controller_message::Kind as Told,
};
use tokio::time::sleep;
use tonic::{Code, transport::Channel};

use crate::{
    several::{Doomed, until},
    store_away::Away,
    support::{Agent, Controller, apply, door, tcp},
};

/// The shortest that is allowed.
const WITHIN: Duration = Duration::from_secs(5);

type Operator = ControlServiceClient<Channel>;

#[tokio::test]
async fn a_confirmed_change_stays_and_says_who_confirmed_it() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let answer = operator.apply_door(waiting(door())).await.unwrap().into_inner();
    let until_ms = answer.door.unwrap().confirm_until_ms;
    assert!(until_ms > 0 && shown(&mut operator).await.unwrap().confirm_until_ms == until_ms);
    let mut events = operator.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();
    let confirmed = operator.confirm_door(name()).await.unwrap().into_inner();
    assert_eq!(confirmed.confirm_until_ms, 0);
    loop {
        let event = events.message().await.unwrap().unwrap();
        if event.kind() == pb::EventKind::DoorConfirmed {
            let actor = event.actor.map(|actor| actor.who);
            assert_eq!((event.door.as_str(), actor.as_deref()), ("bastion-ssh", Some("anybody")));
            break;
        }
    }
    let again = operator.confirm_door(name()).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    assert!(again.message().contains("nothing waits to be confirmed"), "{}", again.message());
    sleep(WITHIN + Duration::from_secs(2)).await;
    assert_eq!(shown(&mut operator).await.unwrap().revision, confirmed.revision);

    for wrong in [1, 4_999, 3_600_001] {
        let request = pb::ApplyDoorRequest { confirm_within_ms: wrong, ..apply(door()) };
        let refused = operator.apply_door(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("from 5s to 1h"), "{}", refused.message());
    }
}

#[tokio::test]
async fn a_new_door_that_nobody_confirms_is_gone_with_its_guard_and_openings() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    let mut events = operator.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();
    operator.apply_door(waiting(door())).await.unwrap();
    guards(&mut bastion, &[22]).await;
    let open = pb::OpenRequest {
        door: "bastion-ssh".to_owned(),
        source: "203.0.113.5".to_owned(),
        for_ms: 3_600_000,
        ..pb::OpenRequest::default()
    };
    operator.open(open).await.unwrap();
    bastion.opening().await;
    guards(&mut bastion, &[]).await;
    until(async || shown(&mut operator).await.is_none().then_some(())).await;
    until(async || {
        let all = pb::ListOpeningsRequest { ended: true, ..Default::default() };
        let openings = operator.list_openings(all).await.unwrap().into_inner().openings;
        openings[0].closed_reason.contains("not confirmed in time").then_some(())
    })
    .await;
    loop {
        let event = events.message().await.unwrap().unwrap();
        if event.kind() == pb::EventKind::DoorRolledBack {
            assert!(event.message.contains("the change by anybody was not confirmed"), "{event:?}");
            break;
        }
    }
    let late = operator.confirm_door(name()).await.unwrap_err();
    assert_eq!(late.code(), Code::NotFound);
    assert!(late.message().contains("was not confirmed in time"), "{}", late.message());

    // The same door again is a new one.
    operator.apply_door(apply(door())).await.unwrap();
    let openings = operator.list_openings(pb::ListOpeningsRequest::default()).await.unwrap().into_inner();
    assert!(openings.openings.is_empty());
}

#[tokio::test]
async fn a_changed_door_that_nobody_confirms_is_as_it_was_before_the_first_change() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    operator.apply_door(apply(door())).await.unwrap();
    guards(&mut bastion, &[22]).await;
    let first = operator.apply_door(waiting(opening(&[22, 443]))).await.unwrap().into_inner();
    guards(&mut bastion, &[22, 443]).await;
    let second = operator.apply_door(waiting(opening(&[80]))).await.unwrap().into_inner();
    guards(&mut bastion, &[80]).await;
    assert!(second.warnings.iter().any(|warning| warning.contains("both are rolled back")), "{second:?}");
    let deadline = |answer: pb::ApplyDoorResponse| answer.door.unwrap().confirm_until_ms;
    assert!(deadline(second) >= deadline(first));
    guards(&mut bastion, &[22]).await;
    let back = shown(&mut operator).await.unwrap();
    assert_eq!((back.confirm_until_ms, back.spec.unwrap().open_ports), (0, vec![tcp(22)]));
    let late = operator.confirm_door(name()).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert!(late.message().contains("rolled back since"), "{}", late.message());

    // What is applied for good takes the place of what waits.
    operator.apply_door(waiting(opening(&[80]))).await.unwrap();
    let good = operator.apply_door(apply(opening(&[443]))).await.unwrap().into_inner();
    assert!(good.warnings.iter().any(|warning| warning.contains("replaces it and stays")), "{good:?}");
    assert_eq!(good.door.unwrap().confirm_until_ms, 0);
}

#[tokio::test]
async fn when_the_eldest_controller_dies_before_the_deadline_another_rolls_back() {
    let store = Arc::new(MemoryStore::new());
    let eldest = Doomed::start("ctl-1", store.clone()).await;
    let other = Controller::named("ctl-2", store).await;
    let mut operator = other.operator().await;
    operator.apply_door(waiting(door())).await.unwrap();
    eldest.kill();
    until(async || shown(&mut operator).await.is_none().then_some(())).await;
}

#[tokio::test]
async fn a_deadline_that_passes_while_the_store_is_away_is_kept_late() {
    let store = Arc::new(Away::default());
    let controller = Controller::over(store.clone()).await;
    let mut operator = controller.operator().await;
    operator.apply_door(waiting(door())).await.unwrap();
    store.away.store(true, Ordering::SeqCst);
    sleep(WITHIN + Duration::from_secs(1)).await;
    let shown_late = shown(&mut operator).await.expect("nothing can be written while the store is away");
    assert!(shown_late.confirm_until_ms > 0);
    let late = operator.confirm_door(name()).await.unwrap_err();
    assert!(late.message().contains("not confirmed in time"), "{}", late.message());
    store.away.store(false, Ordering::SeqCst);
    until(async || shown(&mut operator).await.is_none().then_some(())).await;
}

#[tokio::test]
async fn a_deadline_that_passes_while_no_controller_runs_is_kept_by_the_next_one() {
    let store = Arc::new(MemoryStore::new());
    let first = Doomed::start("ctl-1", store.clone()).await;
    first.controller.operator().await.apply_door(waiting(door())).await.unwrap();
    first.kill();
    sleep(WITHIN).await;
    let next = Controller::named("ctl-2", store).await;
    let mut operator = next.operator().await;
    until(async || shown(&mut operator).await.is_none().then_some(())).await;
}

fn waiting(door: pb::Door) -> pb::ApplyDoorRequest {
    pb::ApplyDoorRequest { confirm_within_ms: WITHIN.as_millis() as u64, ..apply(door) }
}

/// The door, opening these ports.
fn opening(ports: &[u32]) -> pb::Door {
    let mut door = door();
    door.spec.as_mut().unwrap().open_ports = ports.iter().map(|port| tcp(*port)).collect();
    door
}

fn name() -> pb::ConfirmDoorRequest {
    pb::ConfirmDoorRequest { name: "bastion-ssh".to_owned() }
}

/// The door as operators see it, when there is one.
async fn shown(operator: &mut Operator) -> Option<pb::Door> {
    let request = pb::GetDoorRequest { name: "bastion-ssh".to_owned(), reveal: false };
    operator.get_door(request).await.ok().map(tonic::Response::into_inner)
}

/// Waits until the host is told to guard these ports and no other.
async fn guards(agent: &mut Agent, ports: &[u32]) {
    let wanted: BTreeSet<u32> = ports.iter().copied().collect();
    agent
        .until(|told| {
            let guard = match told {
                Told::Delta(delta) => delta.guard.as_ref(),
                Told::Snapshot(snapshot) => snapshot.guard.as_ref(),
                _ => None,
            };
            let guarded: BTreeSet<u32> = guard?.ports.iter().map(|port| port.port).collect();
            (guarded == wanted).then_some(())
        })
        .await;
}
