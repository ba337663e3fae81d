//! From observation to push, and what operators are told.

use std::sync::Arc;

use fleetknock_controller::store::memory::MemoryStore;
use fleetknock_proto::{
    status,
    v1::{self as pb, agent_message::Kind as Say, controller_message::Kind as Told},
};
use tonic::Code;

use crate::support::{Controller, apply, door, shown_steps, tcp};

const CLIENT: [u8; 4] = [203, 0, 113, 5];

#[tokio::test]
async fn knocks_on_three_hosts_open_the_door_on_its_host() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut edge = controller.agent("edge-1", "edge").await;
    let mut db = controller.agent("db-1", "db").await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    let applied = operator.apply_door(apply(door())).await.unwrap().into_inner();
    assert_eq!(applied.outcome(), pb::ApplyOutcome::Created);
    assert_eq!(applied.door.unwrap().hosts, ["bastion-1"]);
    let guard = bastion.until(|told| match told {
        Told::Delta(delta) => delta.guard.clone(),
        _ => None,
    });
    assert_eq!(guard.await.ports, [tcp(22)]);

    edge.knock(CLIENT, 7412).await;
    db.knock(CLIENT, 23981).await;
    bastion.knock(CLIENT, 5103).await;
    let opening = bastion.opening().await;
    assert_eq!((opening.source.as_str(), &opening.ports[..]), ("203.0.113.5", &[tcp(22)][..]));
    assert!((25_000..=30_000).contains(&opening.remaining_ms), "{}", opening.remaining_ms);

    let pending = get(&mut operator, &opening.id).await;
    assert_eq!(pending.hosts[0].state(), pb::HostOpeningState::Pending);
    let result = pb::OpeningResult {
        id: opening.id.clone(),
        generation: 1,
        state: pb::HostOpeningState::Applied.into(),
        reason: String::new(),
        took_us: 20,
    };
    bastion.tell(Say::Results(pb::ResultBatch { results: vec![result] })).await;
    while get(&mut operator, &opening.id).await.hosts[0].state() != pb::HostOpeningState::Applied {
        tokio::task::yield_now().await;
    }

    // So soon after the first it would be taken for the same knock, sent again.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    edge.knock(CLIENT, 7412).await;
    db.knock(CLIENT, 23981).await;
    bastion.knock(CLIENT, 5103).await;
    let again = bastion.opening().await;
    assert_eq!((again.id, again.generation), (opening.id, 2), "knocking again extends the one opening");
}

#[tokio::test]
async fn a_wrong_knock_in_between_opens_nothing() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut edge = controller.agent("edge-1", "edge").await;
    let mut db = controller.agent("db-1", "db").await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    operator.apply_door(apply(door())).await.unwrap();
    edge.knock(CLIENT, 7412).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    db.knock_many(&[(CLIENT, 999), (CLIENT, 23981)]).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    bastion.knock(CLIENT, 5103).await;
    // The right knock of another source comes after it through the same queues: when that opened, this did not.
    let other = [203, 0, 113, 6];
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    edge.knock(other, 7412).await;
    db.knock(other, 23981).await;
    bastion.knock(other, 5103).await;
    assert_eq!(bastion.opening().await.source, "203.0.113.6");
    let listed = operator.list_openings(pb::ListOpeningsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.openings.len(), 1);
}

#[tokio::test]
async fn misses_bring_a_ban_on_every_host_but_not_for_management() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut edge = controller.agent("edge-1", "edge").await;
    let mut db = controller.agent("db-1", "db").await;
    operator.apply_door(apply(door())).await.unwrap();
    let misses = |source| (2_000..2_010).map(|port| (source, port)).collect::<Vec<_>>();
    edge.knock_many(&misses([192, 0, 2, 7])).await;
    edge.knock_many(&misses(CLIENT)).await;
    let ban = db.until(|told| match told {
        Told::Delta(delta) => delta.bans.first().cloned(),
        _ => None,
    });
    assert_eq!(ban.await.source, "203.0.113.5");
    let bans = operator.list_bans(pb::ListBansRequest::default()).await.unwrap().into_inner().bans;
    assert_eq!(bans.len(), 1, "{bans:?}");
    assert_eq!(bans[0].by, "policy");

    let open =
        pb::OpenRequest { door: "bastion-ssh".into(), source: "203.0.113.5".into(), ..Default::default() };
    let refused = operator.open(open.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("fleetknock unban 203.0.113.5"), "{}", refused.message());
    operator.unban_source(pb::UnbanSourceRequest { source: "203.0.113.5".into() }).await.unwrap();
    operator.open(open).await.unwrap();
}

#[tokio::test]
async fn one_source_that_floods_is_banned_once() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut edge = controller.agent("edge-1", "edge").await;
    operator.apply_door(apply(door())).await.unwrap();
    let mut events = operator.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();
    let flood: Vec<_> = (2_000..2_500).map(|port| (CLIENT, port)).collect();
    edge.knock_many(&flood).await;
    let other = [203, 0, 113, 6];
    edge.knock_many(&(2_000..2_010).map(|port| (other, port)).collect::<Vec<_>>()).await;
    let mut banned = Vec::new();
    let all = async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if event.kind() == pb::EventKind::SourceBanned {
                banned.push(event.source);
            }
        }
    };
    // More bans of the first source would be decided, and lose races, for as long as this.
    let _time_is_up = tokio::time::timeout(std::time::Duration::from_secs(2), all).await;
    banned.sort();
    assert_eq!(banned, ["203.0.113.5", "203.0.113.6"]);
}

#[tokio::test]
async fn an_operator_opens_and_closes() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    operator.apply_door(apply(door())).await.unwrap();
    let open = pb::OpenRequest {
        door: "bastion-ssh".into(),
        source: "203.0.113.9".into(),
        for_ms: 5_000,
        ..Default::default()
    };
    let opening = operator.open(open).await.unwrap().into_inner();
    assert_eq!(opening.opened_by, "operator");
    let pushed = bastion.opening().await;
    assert_eq!(pushed.id, opening.id);
    assert!(pushed.remaining_ms <= 5_000);
    let door = operator.get_door(pb::GetDoorRequest { name: "bastion-ssh".into(), reveal: false });
    assert_eq!(door.await.unwrap().into_inner().active_openings, 1);
    let close = pb::CloseRequest { id: opening.id.clone(), kill_connections: true, ..Default::default() };
    let closed = operator.close(close).await.unwrap().into_inner().closed;
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].state(), pb::OpeningState::Withdrawn);
    let withdrawal = bastion.until(|told| match told {
        Told::Delta(delta) => delta.withdrawn.first().cloned(),
        _ => None,
    });
    let withdrawal = withdrawal.await;
    assert_eq!((withdrawal.id, withdrawal.kill_connections), (opening.id, true));
}

#[tokio::test]
async fn steps_are_shown_only_when_asked_for() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    operator.apply_door(apply(door())).await.unwrap();
    let ask = |reveal| pb::GetDoorRequest { name: "bastion-ssh".into(), reveal };
    let hidden = operator.get_door(ask(false)).await.unwrap().into_inner();
    assert!(shown_steps(&hidden).is_empty());
    let shown = operator.get_door(ask(true)).await.unwrap().into_inner();
    assert!(shown_steps(&shown).contains(&7412));
    let mut changed = door();
    changed.spec.as_mut().unwrap().open_for_ms = 60_000;
    let Some(pb::door_spec::Knock::Sequence(sequence)) = changed.spec.as_mut().unwrap().knock.as_mut() else {
        panic!("not a sequence")
    };
    sequence.steps[0].port = Some(tcp(7413));
    let applied = operator.apply_door(apply(changed)).await.unwrap().into_inner();
    let fields: Vec<_> = applied.changes.iter().map(|change| change.field.as_str()).collect();
    assert_eq!(fields, ["spec.opens.for", "spec.knock.sequence"]);
    assert!(shown_steps(applied.door.as_ref().unwrap()).is_empty());
    let told = format!("{:?} {:?}", applied.changes, applied.warnings);
    assert!(!told.contains("741"), "{told}");
}

#[tokio::test]
async fn a_bad_door_is_refused_with_its_field() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut weak = door();
    let Some(pb::door_spec::Knock::Sequence(sequence)) = weak.spec.as_mut().unwrap().knock.as_mut() else {
        panic!("not a sequence")
    };
    sequence.steps.truncate(1);
    let refused = operator.apply_door(apply(weak.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(status::describe(&refused).contains("--weak"), "{}", status::describe(&refused));
    let weakly = pb::ApplyDoorRequest { weak: true, ..apply(weak) };
    assert!(!operator.apply_door(weakly).await.unwrap().into_inner().warnings.is_empty());
    let nameless = pb::Door { name: "Bastion!".into(), ..door() };
    let refused = operator.apply_door(apply(nameless)).await.unwrap_err();
    assert!(status::describe(&refused).contains("door.name"), "{}", status::describe(&refused));
}

#[tokio::test]
async fn another_controller_over_the_same_store_knows_everything() {
    let store = Arc::new(MemoryStore::new());
    let first = Controller::over(store.clone()).await;
    let second = Controller::named("second", store).await;
    let mut operator = first.operator().await;
    operator.apply_door(apply(door())).await.unwrap();
    let mut edge = first.agent("edge-1", "edge").await;
    let mut bastion = second.agent("bastion-1", "bastion").await;
    assert_eq!(bastion.snapshot.guard.as_ref().unwrap().ports, [tcp(22)]);
    let open =
        pb::OpenRequest { door: "bastion-ssh".into(), source: "203.0.113.5".into(), ..Default::default() };
    operator.open(open).await.unwrap();
    bastion.opening().await;
    edge.knock(CLIENT, 1).await;
}

async fn get(
    operator: &mut pb::control_service_client::ControlServiceClient<tonic::transport::Channel>,
    id: &str,
) -> pb::Opening {
    operator.get_opening(pb::GetOpeningRequest { id: id.to_owned() }).await.unwrap().into_inner()
}
