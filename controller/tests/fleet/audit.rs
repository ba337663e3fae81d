//! The audit trail: every change leaves one event with whose hand it was, and no secret.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleetknock_controller::{
    audit::{AUDIT_MAX, code},
    store::memory::MemoryStore,
    trust::gate,
};
use fleetknock_core::identity::Role;
use fleetknock_proto::v1::{self as pb, control_service_client::ControlServiceClient};
use tokio::time::{sleep, timeout};
use tonic::{Code, transport::Channel};

use crate::{
    backup::{backup, restore},
    store_away::Away,
    support::{Agent, Controller, apply, door, shown_steps, tcp},
    trust::Office,
};

type Operator = ControlServiceClient<Channel>;

const PATIENCE: Duration = Duration::from_secs(20);
const STEPS: [&str; 4] = ["7412", "7413", "23981", "5103"];

/// Every method that changes something is called here, and what the trail says afterwards is looked at. Methods whose
/// events are proven where they are made: tokens and confirmation.
#[tokio::test]
async fn each_change_leaves_one_event_with_its_actor_and_no_secret() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let mut alice = ControlServiceClient::new(blue.dial(&controller, "user/alice?role=admin").await);
    let agent = Agent::over(blue.dial(&controller, "host/bastion-1").await, "bastion-1", "bastion", false);
    let agent = agent.await.unwrap();
    let source = || "203.0.113.5".to_owned();
    let name = || "bastion-ssh".to_owned();
    let open =
        || pb::OpenRequest { door: name(), source: source(), for_ms: 60_000, reason: "ticket 1".into() };
    let mut changed = door();
    changed.spec.as_mut().unwrap().open_for_ms = 60_000;
    let Some(pb::door_spec::Knock::Sequence(sequence)) = changed.spec.as_mut().unwrap().knock.as_mut() else {
        panic!("not a sequence")
    };
    sequence.steps[0].port = Some(tcp(7413));
    let mut seen = BTreeMap::new();
    let mut called = vec!["ConfirmDoor", "CreateToken", "ListTokens", "RevokeToken"];
    let mut left = async |alice: &mut Operator, method: &'static str, expected: &[pb::EventKind]| {
        let new: Vec<_> = trail(alice)
            .await
            .into_iter()
            .filter(|event| seen.insert(event.id.clone(), ()).is_none())
            .collect();
        // Those of one millisecond come in any order.
        let mut codes: Vec<_> = new.iter().map(|event| code(event.kind())).collect();
        let mut expected: Vec<_> = expected.iter().map(|kind| code(*kind)).collect();
        codes.sort_unstable();
        expected.sort_unstable();
        assert_eq!(codes, expected, "{method}");
        for event in &new {
            let actor = event.actor.clone().unwrap();
            assert_eq!(
                (actor.who.as_str(), actor.role.as_str(), actor.by.as_str()),
                ("user alice", "admin", "certificate")
            );
            assert!(actor.address.starts_with("127.0.0.1:"), "{actor:?}");
            assert_eq!(event.controller, "ctl-1");
            let told = format!("{} {:?}", event.message, event.changes);
            assert!(STEPS.iter().all(|step| !told.contains(step)), "{told}");
        }
        called.push(method);
        new
    };
    use pb::EventKind as Kind;

    alice.apply_door(apply(door())).await.unwrap();
    let events = left(&mut alice, "ApplyDoor", &[Kind::DoorApplied]).await;
    assert!(events[0].changes.iter().any(|c| (c.field.as_str(), c.before.as_str(), c.after.as_str()) == ("spec.opens.for", "", "30s")));
    alice.apply_door(apply(door())).await.unwrap();
    let dry = pb::ApplyDoorRequest { dry_run: true, ..apply(changed.clone()) };
    alice.apply_door(dry).await.unwrap();
    left(&mut alice, "ApplyDoor without a change", &[]).await;
    alice.apply_door(apply(changed)).await.unwrap();
    let events = left(&mut alice, "ApplyDoor", &[Kind::DoorApplied]).await;
    let fields: Vec<_> = events[0].changes.iter().map(|c| (c.field.as_str(), c.after.as_str())).collect();
    assert_eq!(fields, [("spec.opens.for", "1m"), ("spec.knock.sequence", "3 steps (new)")]);
    assert_eq!(events[0].door, "bastion-ssh");

    let opened = alice.open(open()).await.unwrap().into_inner();
    assert_eq!(opened.opened_by, "user alice");
    let events = left(&mut alice, "Open", &[Kind::OpeningGranted]).await;
    assert_eq!((&events[0].opening, &events[0].source), (&opened.id, &source()));
    assert!(events[0].message.ends_with("by user alice: ticket 1"), "{}", events[0].message);
    alice.open(open()).await.unwrap();
    left(&mut alice, "Open", &[Kind::OpeningRefreshed]).await;
    alice.close(pb::CloseRequest { source: source(), ..Default::default() }).await.unwrap();
    left(&mut alice, "Close", &[Kind::OpeningWithdrawn]).await;
    alice.close(pb::CloseRequest { source: source(), ..Default::default() }).await.unwrap();
    left(&mut alice, "Close of nothing", &[]).await;

    alice.open(open()).await.unwrap();
    left(&mut alice, "Open", &[Kind::OpeningGranted]).await;
    let ban = pb::BanSourceRequest { source: source(), reason: "rude".into(), ..Default::default() };
    let banned = alice.ban_source(ban).await.unwrap().into_inner();
    assert_eq!(banned.by, "user alice");
    left(&mut alice, "BanSource", &[Kind::SourceBanned, Kind::OpeningWithdrawn]).await;
    alice.unban_source(pb::UnbanSourceRequest { source: source() }).await.unwrap();
    left(&mut alice, "UnbanSource", &[Kind::SourceUnbanned]).await;

    let shown = alice.get_door(pb::GetDoorRequest { name: name(), reveal: true }).await.unwrap().into_inner();
    assert!(shown_steps(&shown).contains(&7413));
    let events = left(&mut alice, "GetDoor", &[Kind::DoorRevealed]).await;
    assert_eq!(events[0].door, "bastion-ssh");
    alice.list_doors(pb::ListDoorsRequest { reveal: true, ..Default::default() }).await.unwrap();
    left(&mut alice, "ListDoors", &[Kind::DoorRevealed]).await;

    alice.open(open()).await.unwrap();
    left(&mut alice, "Open", &[Kind::OpeningGranted]).await;
    alice.delete_door(pb::DeleteDoorRequest { name: name(), kill_connections: false }).await.unwrap();
    left(&mut alice, "DeleteDoor", &[Kind::DoorDeleted, Kind::OpeningWithdrawn]).await;
    drop(agent);
    let delete = pb::DeleteHostRequest { name: "bastion-1".into() };
    let deleted = async {
        while alice.delete_host(delete.clone()).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, deleted).await.unwrap();
    let events = left(&mut alice, "DeleteHost", &[Kind::HostDeleted]).await;
    assert_eq!(events[0].host, "bastion-1");

    alice.set_log(pb::SetLogRequest { filter: "info".into(), ..Default::default() }).await.unwrap();
    left(&mut alice, "SetLog", &[Kind::LogChanged]).await;

    let file = backup(&mut alice).await;
    left(&mut alice, "Backup", &[Kind::BackupMade]).await;
    restore(&mut alice, pb::RestoreOptions::default(), &file).await.unwrap();
    left(&mut alice, "Restore", &[Kind::BackupRestored, Kind::BackupRestored]).await;

    for (method, role) in gate::methods() {
        assert!(role == Role::Viewer || called.contains(&method), "{method} was not called");
    }
}

#[tokio::test]
async fn steps_are_not_shown_while_that_cannot_be_written_down() {
    let store = Arc::new(Away::default());
    let controller = Controller::over(store.clone()).await;
    let mut operator = controller.operator().await;
    operator.apply_door(apply(door())).await.unwrap();
    store.leave();
    let one = pb::GetDoorRequest { name: "bastion-ssh".into(), reveal: true };
    let all = pb::ListDoorsRequest { reveal: true, ..Default::default() };
    assert_eq!(operator.get_door(one.clone()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(operator.list_doors(all.clone()).await.unwrap_err().code(), Code::Unavailable);
    let hidden = pb::GetDoorRequest { reveal: false, ..one.clone() };
    operator.get_door(hidden).await.unwrap();
    store.come_back();
    operator.get_door(one).await.unwrap();
    operator.list_doors(all).await.unwrap();
    let revealed = trail(&mut operator).await.into_iter().filter(|e| e.kind() == pb::EventKind::DoorRevealed);
    assert_eq!(revealed.count(), 2);
}

#[tokio::test]
async fn a_flood_of_refusals_is_one_event() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let mut viewer = ControlServiceClient::new(blue.dial(&controller, "user/mallory?role=viewer").await);
    let open = pb::OpenRequest { door: "x".into(), source: "203.0.113.5".into(), ..Default::default() };
    for _ in 0..300 {
        assert_eq!(viewer.open(open.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let told = async {
        loop {
            let events = trail(&mut viewer).await;
            if !events.is_empty() {
                return events;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, told).await.unwrap();
    // Whatever comes of another's refusal comes after what comes of those.
    let mut other = ControlServiceClient::new(blue.dial(&controller, "user/eve?role=viewer").await);
    other.open(open).await.unwrap_err();
    let told = async {
        loop {
            let events = trail(&mut viewer).await;
            if events.iter().any(|event| event.actor.as_ref().unwrap().who == "user eve") {
                return events;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let events = timeout(PATIENCE, told).await.unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(
        (events[0].kind(), events[0].actor.as_ref().unwrap().who.as_str()),
        (pb::EventKind::CallDenied, "user mallory")
    );
    assert_eq!(
        events[0].message,
        "the call /fleetknock.v1.ControlService/Open was refused: Open needs the role operator, and user mallory has \
         the role viewer"
    );
}

#[tokio::test]
async fn events_are_chosen_and_come_in_pages_from_any_controller() {
    let store = Arc::new(MemoryStore::new());
    let controller = Controller::over(store.clone()).await;
    let second = Controller::named("second", store).await;
    let mut operator = controller.operator().await;
    for name in ["a", "b", "c"] {
        operator.apply_door(apply(pb::Door { name: name.into(), ..door() })).await.unwrap();
    }
    // Events of one millisecond come in any order.
    sleep(Duration::from_millis(5)).await;
    let ban = pb::BanSourceRequest { source: "203.0.113.5".into(), ..Default::default() };
    operator.ban_source(ban).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    operator.list_doors(pb::ListDoorsRequest { reveal: true, ..Default::default() }).await.unwrap();
    let mut elsewhere = second.operator().await;
    let all = async {
        while trail(&mut elsewhere).await.len() < 5 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all).await.unwrap();
    let all = trail(&mut elsewhere).await;
    assert_eq!(all, trail(&mut operator).await, "each controller answers the same");
    assert!(all.is_sorted_by_key(|event| event.id.clone()));
    let list = async |request: pb::ListEventsRequest| -> Vec<String> {
        let mut client = elsewhere.clone();
        let (mut token, mut codes) = (String::new(), Vec::new());
        loop {
            let request = pb::ListEventsRequest { page_size: 2, page_token: token, ..request.clone() };
            let page = client.list_events(request).await.unwrap().into_inner();
            assert!(page.events.len() <= 2);
            codes.extend(page.events.iter().map(|event| code(event.kind()).to_owned()));
            token = page.next_page_token;
            if token.is_empty() {
                return codes;
            }
        }
    };
    let of = pb::ListEventsRequest::default;
    let everything = ["DOOR_APPLIED", "DOOR_APPLIED", "DOOR_APPLIED", "SOURCE_BANNED", "DOOR_REVEALED"];
    assert_eq!(list(of()).await, everything);
    let door = pb::ListEventsRequest { door: "b".into(), ..of() };
    assert_eq!(list(door).await, ["DOOR_APPLIED", "DOOR_REVEALED"], "it was among those that were shown");
    let source = pb::ListEventsRequest { source: "203.0.113.5".into(), ..of() };
    assert_eq!(list(source).await, ["SOURCE_BANNED"]);
    let kinds = vec![pb::EventKind::SourceBanned.into(), pb::EventKind::DoorRevealed.into()];
    assert_eq!(list(pb::ListEventsRequest { kinds, ..of() }).await, ["SOURCE_BANNED", "DOOR_REVEALED"]);
    assert_eq!(list(pb::ListEventsRequest { actor: "anybody".into(), ..of() }).await, everything);
    assert!(list(pb::ListEventsRequest { actor: "user alice".into(), ..of() }).await.is_empty());
    let since = |event: &pb::Event| pb::ListEventsRequest { since_ms: event.time_ms, ..of() };
    assert!(list(since(&all[4])).await.contains(&"DOOR_REVEALED".to_owned()));
    let later = pb::ListEventsRequest { since_ms: all[4].time_ms + 1, ..of() };
    assert!(list(later).await.is_empty());
    let wrong = pb::ListEventsRequest { kinds: vec![9_999], ..of() };
    assert_eq!(elsewhere.list_events(wrong).await.unwrap_err().code(), Code::InvalidArgument);
}

/// A change is streamed once, as the event that tells whose hand it was; what comes of a knock too.
#[tokio::test]
async fn a_watcher_hears_of_each_change_once() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut events = operator.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();
    operator.apply_door(apply(door())).await.unwrap();
    let mut edge = controller.agent("edge-1", "edge").await;
    let mut db = controller.agent("db-1", "db").await;
    let mut bastion = controller.agent("bastion-1", "bastion").await;
    let source = [203, 0, 113, 5];
    edge.knock(source, 7412).await;
    db.knock(source, 23981).await;
    bastion.knock(source, 5103).await;
    bastion.opening().await;
    operator.close(pb::CloseRequest { door: "bastion-ssh".into(), ..Default::default() }).await.unwrap();
    operator
        .delete_door(pb::DeleteDoorRequest { name: "bastion-ssh".into(), ..Default::default() })
        .await
        .unwrap();
    let mut heard = Vec::new();
    let all = async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if !event.door.is_empty() && event.kind() != pb::EventKind::AttemptAdvanced {
                heard.push((
                    code(event.kind()),
                    event.actor.clone().map(|actor| actor.who),
                    event.id.is_empty(),
                ));
            }
            if event.kind() == pb::EventKind::DoorDeleted {
                return;
            }
        }
    };
    timeout(PATIENCE, all).await.unwrap();
    let anybody = || Some("anybody".to_owned());
    assert_eq!(
        heard,
        [
            ("DOOR_APPLIED", anybody(), false),
            ("OPENING_GRANTED", None, false),
            ("OPENING_WITHDRAWN", anybody(), false),
            ("DOOR_DELETED", anybody(), false),
        ]
    );
}

/// All events that are kept.
async fn trail(operator: &mut Operator) -> Vec<pb::Event> {
    let request = pb::ListEventsRequest { page_size: 1_000, ..Default::default() };
    let page = operator.list_events(request).await.unwrap().into_inner();
    assert!(page.next_page_token.is_empty() && page.events.len() < AUDIT_MAX);
    page.events
}
