//! Several controllers over one store: what agents report to different ones comes together, and any of them answers for
//! all.

use std::{sync::Arc, time::Duration};

use fleetknock_controller::store::{Store, memory::MemoryStore};
use fleetknock_proto::v1::{
    self as pb, agent_message::Kind as Say, control_service_client::ControlServiceClient,
};
use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};
use tonic::{Code, transport::Channel};

use crate::support::{Agent, Controller, apply, door, events_until};

const CLIENT: [u8; 4] = [203, 0, 113, 5];
const CLIENT_TEXT: &str = "203.0.113.5";
/// A person who knocks is slower than this.
const BETWEEN_KNOCKS: Duration = Duration::from_millis(30);
/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

type Operator = ControlServiceClient<Channel>;

#[tokio::test]
async fn knocks_reported_to_three_controllers_open_the_door_once() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2", "ctl-3"]).await;
    let mut operators = fleet.operators().await;
    operators[0].apply_door(apply(door())).await.unwrap();
    let mut edge = fleet.controllers[0].agent("edge-1", "edge").await;
    let mut db = fleet.controllers[1].agent("db-1", "db").await;
    let mut bastion = fleet.controllers[2].agent("bastion-1", "bastion").await;
    knock_all(&mut edge, &mut db, &mut bastion, CLIENT).await;
    let opening = bastion.opening().await;
    assert_eq!((opening.source.as_str(), opening.generation), (CLIENT_TEXT, 1));
    // Another source, whose knocks come after the first one's through the same queues: whatever the first one's opened
    // more than once would be seen by now.
    knock_all(&mut edge, &mut db, &mut bastion, [203, 0, 113, 6]).await;
    assert_eq!(bastion.opening().await.source, "203.0.113.6");
    for operator in &mut operators {
        let all = pb::ListOpeningsRequest { ended: true, ..Default::default() };
        let openings = operator.list_openings(all).await.unwrap().into_inner().openings;
        let seen: Vec<_> = openings.iter().map(|o| (o.source.as_str(), o.generation)).collect();
        assert_eq!(seen, [(CLIENT_TEXT, 1), ("203.0.113.6", 1)]);
        assert_eq!(openings[0].id, opening.id);
    }
}

#[tokio::test]
async fn a_host_connected_to_one_controller_is_described_through_another() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2"]).await;
    let [mut here, mut there] = fleet.operators().await.try_into().unwrap();
    let agent = fleet.controllers[0].agent("edge-1", "edge").await;
    let drops = Some(pb::DropCounters { kernel: 7, ..pb::DropCounters::default() });
    agent.tell(Say::Report(pb::HostReport { drops, revision: 3, ..pb::HostReport::default() })).await;

    let host =
        until(async || Some(host(&mut there, "edge-1").await).filter(|host| host.drops_kernel == 7)).await;
    assert!(host.connected);
    assert_eq!((host.controller.as_str(), host.revision), ("ctl-1", 3));
    assert_eq!(host.labels["role"], "edge");
    assert!(host.connected_since_ms > 0 && host.last_seen_ms >= host.connected_since_ms);
    assert!(host.clock_uncertainty_us > 0 && host.warnings.is_empty(), "{host:?}");
    let listed = there.list_hosts(pb::ListHostsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.hosts[0].controller, "ctl-1");
    assert!(listed.unanswered.is_empty());

    let delete = pb::DeleteHostRequest { name: "edge-1".to_owned() };
    let refused = there.delete_host(delete.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("connected to controller ctl-1"), "{}", refused.message());

    drop(agent);
    let gone =
        until(async || Some(self::host(&mut there, "edge-1").await).filter(|host| !host.connected)).await;
    assert_eq!((gone.controller.as_str(), gone.drops_kernel), ("ctl-1", 7), "what was known last stays");
    there.delete_host(delete).await.unwrap();
    let request = pb::GetHostRequest { name: "edge-1".to_owned() };
    until(async || here.get_host(request.clone()).await.err().filter(|e| e.code() == Code::NotFound)).await;
}

#[tokio::test]
async fn an_agent_that_moved_is_told_of_where_it_is_now() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2"]).await;
    let [mut first, mut second] = fleet.operators().await.try_into().unwrap();
    let before = fleet.controllers[0].agent("edge-1", "edge").await;
    sleep(Duration::from_millis(5)).await;
    let _after = fleet.controllers[1].agent("edge-1", "edge").await;
    assert_eq!(host(&mut second, "edge-1").await.controller, "ctl-2");
    drop(before);
    until(async || Some(host(&mut first, "edge-1").await).filter(|host| host.controller == "ctl-2")).await;
    assert!(host(&mut first, "edge-1").await.connected);
}

#[tokio::test]
async fn what_became_of_an_opening_on_its_host_is_told_by_any_controller() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2", "ctl-3"]).await;
    let mut operators = fleet.operators().await;
    let mut bastion = fleet.controllers[2].agent("bastion-1", "bastion").await;
    operators[0].apply_door(apply(door())).await.unwrap();
    let open = pb::OpenRequest {
        door: "bastion-ssh".to_owned(),
        source: CLIENT_TEXT.to_owned(),
        ..pb::OpenRequest::default()
    };
    let opened = operators[1].open(open).await.unwrap().into_inner();
    assert_eq!(opened.hosts[0].state(), pb::HostOpeningState::Pending);
    assert_eq!(opened.hosts[0].reason, "");
    bastion.opening().await;
    result(&bastion, &opened.id, pb::HostOpeningState::Failed, "no such table").await;
    for operator in &mut operators {
        let told = until(async || stands(operator, &opened.id, pb::HostOpeningState::Failed).await).await;
        assert_eq!((told.reason.as_str(), told.took_us), ("no such table", 20));
    }
    result(&bastion, &opened.id, pb::HostOpeningState::Applied, "").await;
    for operator in &mut operators {
        until(async || stands(operator, &opened.id, pb::HostOpeningState::Applied).await).await;
        let listed = operator.list_openings(pb::ListOpeningsRequest::default()).await.unwrap().into_inner();
        assert_eq!(listed.openings[0].hosts[0].state(), pb::HostOpeningState::Applied);
        assert!(listed.unanswered.is_empty());
    }
}

#[tokio::test]
async fn attempts_are_told_once_by_any_controller_on_pages_of_any_size() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2", "ctl-3"]).await;
    let mut operators = fleet.operators().await;
    operators[0].apply_door(apply(door())).await.unwrap();
    let mut edge = fleet.controllers[0].agent("edge-1", "edge").await;
    let knocks: Vec<_> = (1..=24).map(|last| ([203, 0, 113, last], 7412)).collect();
    edge.knock_many(&knocks).await;
    let mut expected: Vec<_> = (1..=24).map(|last| format!("203.0.113.{last}")).collect();
    expected.sort();
    for operator in &mut operators {
        until(async || Some(attempts(operator, 0).await).filter(|seen| *seen == expected)).await;
        for size in [1, 5, 24, 25] {
            assert_eq!(attempts(operator, size).await, expected, "{size}");
        }
        let listed = operator.list_attempts(pb::ListAttemptsRequest::default()).await.unwrap().into_inner();
        assert_eq!(listed.sources_in_flight, 24);
        let own = self::controller(operator, "ctl-2").await;
        assert_eq!(listed.sources_limit, 3 * own.sources_limit);
        assert!(own.sources_in_flight > 0 && own.sources_in_flight < 24, "each follows its share");
        assert!(own.knocks >= own.sources_in_flight);
    }
}

#[tokio::test]
async fn events_of_all_controllers_are_told_once_by_any() {
    let mut fleet = Fleet::of(&["ctl-1", "ctl-2"]).await;
    let mut operator = fleet.controllers[0].operator().await;
    operator.apply_door(apply(door())).await.unwrap();
    let mut edge = fleet.controllers[0].agent("edge-1", "edge").await;
    let mut db = fleet.controllers[1].agent("db-1", "db").await;
    let mut watchers = Vec::new();
    for operator in &mut fleet.operators().await {
        let watch = operator.watch_events(pb::WatchEventsRequest::default());
        watchers.push(watch.await.unwrap().into_inner());
    }
    // One that joins while they watch is heard as well.
    fleet.join("ctl-3").await;
    let mut bastion = fleet.controllers[2].agent("bastion-1", "bastion").await;
    let mut repairs = 0;
    for watcher in &mut watchers {
        let heard = async || {
            repairs += 1;
            let report = pb::HostReport { repairs, ..pb::HostReport::default() };
            bastion.tell(Say::Report(report)).await;
            let repaired = events_until(watcher, |event| event.kind() == pb::EventKind::Repaired);
            timeout(Duration::from_millis(500), repaired).await.ok()
        };
        let seen = until(heard).await;
        assert!(
            seen.iter().any(|event| event.host == "bastion-1" && event.controller == "ctl-3"),
            "{seen:?}"
        );
    }
    knock_all(&mut edge, &mut db, &mut bastion, CLIENT).await;
    let opening = bastion.opening().await;
    result(&bastion, &opening.id, pb::HostOpeningState::Applied, "").await;
    drop(db);
    for watcher in &mut watchers {
        let seen = events_until(watcher, |event| event.kind() == pb::EventKind::HostDisconnected).await;
        let seen = |kind: pb::EventKind| {
            let of_kind = seen.iter().filter(|event| event.kind() == kind);
            of_kind.map(|event| event.controller.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(seen(pb::EventKind::OpeningGranted).len(), 1);
        assert_eq!(seen(pb::EventKind::OpeningApplied), ["ctl-3"]);
        assert_eq!(seen(pb::EventKind::HostDisconnected), ["ctl-2"]);
        assert_eq!(seen(pb::EventKind::AttemptAdvanced).len(), 1, "the second of three steps");
        assert_eq!(seen(pb::EventKind::Lagged).len(), 0);
    }
}

#[tokio::test]
async fn an_attempt_that_fails_is_told_once_to_whoever_watches() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2"]).await;
    let mut operator = fleet.controllers[0].operator().await;
    operator.apply_door(apply(door())).await.unwrap();
    let mut edge = fleet.controllers[0].agent("edge-1", "edge").await;
    let mut db = fleet.controllers[1].agent("db-1", "db").await;
    let mut watcher = fleet.controllers[1].operator().await;
    let mut watcher = watcher.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();
    // A first step alone is nobody's attempt.
    edge.knock([203, 0, 113, 9], 7412).await;
    edge.knock([203, 0, 113, 9], 7000).await;
    edge.knock(CLIENT, 7412).await;
    sleep(BETWEEN_KNOCKS).await;
    db.knock(CLIENT, 23981).await;
    sleep(BETWEEN_KNOCKS).await;
    db.knock(CLIENT, 7000).await;
    let seen = events_until(&mut watcher, |event| event.kind() == pb::EventKind::AttemptFailed).await;
    let failed: Vec<_> = seen.iter().filter(|event| event.kind() == pb::EventKind::AttemptFailed).collect();
    let [failed] = failed[..] else { panic!("{failed:?}") };
    assert_eq!((failed.source.as_str(), failed.host.as_str()), (CLIENT_TEXT, "db-1"));
    assert_eq!(failed.message, "failed after step 2 of 3: a wrong knock came between");
    assert_eq!((failed.door.as_str(), failed.id.as_str()), ("bastion-ssh", ""));
}

#[tokio::test]
async fn attempts_of_sources_that_moved_are_told_by_whoever_follows_them_now() {
    let mut fleet = Fleet::of(&["ctl-1"]).await;
    let mut operator = fleet.controllers[0].operator().await;
    operator.apply_door(apply(door())).await.unwrap();
    let mut edge = fleet.controllers[0].agent("edge-1", "edge").await;
    let knocks: Vec<_> = (1..=24).map(|last| ([203, 0, 113, last], 7412)).collect();
    edge.knock_many(&knocks).await;
    until(async || (attempts(&mut operator, 0).await.len() == 24).then_some(())).await;

    fleet.join("ctl-2").await;
    // What the first one still holds of the sources that moved may be over by now, for all it knows.
    let mut operators = fleet.operators().await;
    for operator in &mut operators {
        let left = attempts(operator, 0).await.len();
        assert!(left > 0 && left < 24, "{left}");
    }
    edge.knock_many(&knocks).await;
    for operator in &mut operators {
        until(async || (attempts(operator, 0).await.len() == 24).then_some(())).await;
    }
}

#[tokio::test]
async fn events_of_a_controller_that_was_killed_and_came_back_are_told_again() {
    let fleet = Fleet::of(&["ctl-1"]).await;
    let victim = Doomed::start("ctl-2", fleet.store.clone()).await;
    let mut operator = fleet.controllers[0].operator().await;
    until(async || connected(&mut operator, 2).await.then_some(())).await;
    let watch = operator.watch_events(pb::WatchEventsRequest::default());
    let mut watcher = watch.await.unwrap().into_inner();
    let _edge = victim.controller.agent("edge-1", "edge").await;
    let is_connected = |event: &pb::Event| event.kind() == pb::EventKind::HostConnected;
    let seen = events_until(&mut watcher, is_connected).await;
    assert!(seen.iter().any(|event| is_connected(event) && event.controller == "ctl-2"), "{seen:?}");

    victim.kill();
    let seen = events_until(&mut watcher, |event| event.kind() == pb::EventKind::ControllerLeft).await;
    let lagged = seen.iter().find(|event| event.kind() == pb::EventKind::Lagged).unwrap();
    assert!(lagged.message.contains("the connection to controller ctl-2 broke"), "{}", lagged.message);

    let again = Controller::named("ctl-2", fleet.store.clone()).await;
    until(async || connected(&mut operator, 2).await.then_some(())).await;
    let mut bastion = 0;
    let heard = async || {
        bastion += 1;
        let _agent = again.agent(&format!("bastion-{bastion}"), "bastion").await;
        timeout(Duration::from_millis(500), events_until(&mut watcher, is_connected)).await.ok()
    };
    let seen = until(heard).await;
    let seen: Vec<_> = seen.iter().filter(|event| is_connected(event)).map(|event| &event.host).collect();
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn a_watch_of_events_does_not_hold_up_a_controller_that_leaves() {
    let mut fleet = Fleet::of(&["ctl-1", "ctl-2"]).await;
    let [mut stays, mut leaves] = fleet.operators().await.try_into().unwrap();
    let watch = pb::WatchEventsRequest::default();
    let mut held = leaves.watch_events(watch.clone()).await.unwrap().into_inner();
    let mut other = stays.watch_events(watch).await.unwrap().into_inner();
    drop(fleet.controllers.pop());
    let ended = async { while let Ok(Some(_)) = held.message().await {} };
    timeout(PATIENCE, ended).await.expect("the watch goes on");
    let seen = events_until(&mut other, |event| event.kind() == pb::EventKind::ControllerLeft).await;
    assert!(seen.iter().all(|event| event.kind() != pb::EventKind::Lagged), "nothing is missing: {seen:?}");
}

#[tokio::test]
async fn controllers_are_told_by_any_controller_with_their_clock_and_their_peers() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2", "ctl-3"]).await;
    let _agent = fleet.controllers[1].agent("edge-1", "edge").await;
    for mut operator in fleet.operators().await {
        let request = pb::ListControllersRequest { page_size: 2, ..Default::default() };
        let first = operator.list_controllers(request).await.unwrap().into_inner();
        let names: Vec<_> = first.controllers.iter().map(|controller| controller.name.as_str()).collect();
        assert_eq!((names.as_slice(), first.next_page_token.as_str()), (&["ctl-1", "ctl-2"][..], "ctl-2"));
        let second = &first.controllers[1];
        assert_eq!((second.state(), second.agents), (pb::ControllerState::Serving, 1));
        assert_eq!(second.clock_leader, "ctl-1", "the one that joined first");
        assert!(second.clock_uncertainty_us > 0 && second.clock_offset_us.abs() < 1_000_000);
        assert!(second.epoch > first.controllers[0].epoch && second.revision >= second.epoch);
        assert!(second.lease_until_ms > second.started_ms);
        let peers: Vec<_> =
            second.peers.iter().map(|peer| (peer.controller.as_str(), peer.state())).collect();
        assert_eq!(peers, [("ctl-1", pb::PeerState::Up), ("ctl-3", pb::PeerState::Up)]);
        assert_eq!(controller(&mut operator, "ctl-1").await.clock_leader, "ctl-1");
        let unknown = operator.get_controller(pb::GetControllerRequest { name: "ctl-9".to_owned() });
        assert_eq!(unknown.await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_controller_that_was_killed_is_unreachable_and_said_not_to_have_answered() {
    let mut fleet = Fleet::of(&["ctl-1"]).await;
    let victim = Doomed::start("ctl-2", fleet.store.clone()).await;
    let mut operator = fleet.controllers[0].operator().await;
    until(async || connected(&mut operator, 2).await.then_some(())).await;
    let _bastion = victim.controller.agent("bastion-1", "bastion").await;
    operator.apply_door(apply(door())).await.unwrap();
    assert_eq!(host(&mut operator, "bastion-1").await.controller, "ctl-2");
    let open = pb::OpenRequest {
        door: "bastion-ssh".to_owned(),
        source: CLIENT_TEXT.to_owned(),
        ..pb::OpenRequest::default()
    };
    let opening = operator.open(open).await.unwrap().into_inner();

    victim.kill();
    let dead = until(async || {
        let own = controller(&mut operator, "ctl-1").await;
        own.peers.into_iter().find(|peer| peer.state() == pb::PeerState::Dead)
    });
    assert_eq!(dead.await.reason, "its address refuses connections");
    let killed = controller(&mut operator, "ctl-2").await;
    assert_eq!(killed.state(), pb::ControllerState::Unreachable);
    assert!(killed.epoch > 0 && killed.started_ms > 0 && killed.address.starts_with("http://127.0.0.1:"));
    let hosts = operator.list_hosts(pb::ListHostsRequest::default()).await.unwrap().into_inner();
    assert_eq!((hosts.unanswered, hosts.hosts[0].connected), (vec!["ctl-2".to_owned()], false));
    let warnings = host(&mut operator, "bastion-1").await.warnings;
    assert!(warnings[0].contains("controller ctl-2 does not answer"), "{warnings:?}");
    let openings = operator.list_openings(pb::ListOpeningsRequest::default()).await.unwrap().into_inner();
    assert_eq!(openings.unanswered, ["ctl-2"]);
    let row = stands(&mut operator, &opening.id, pb::HostOpeningState::Pending).await.unwrap();
    assert!(row.reason.contains("controller ctl-2 did not answer"), "{}", row.reason);
    let attempts = operator.list_attempts(pb::ListAttemptsRequest::default()).await.unwrap().into_inner();
    assert_eq!(attempts.unanswered, ["ctl-2"]);

    // Its lease ends, and nobody waits for it any more.
    fleet.names.retain(|name| name != "ctl-2");
    until(async || connected(&mut operator, 1).await.then_some(())).await;
    let hosts = operator.list_hosts(pb::ListHostsRequest::default()).await.unwrap().into_inner();
    assert!(hosts.unanswered.is_empty());
}

/// Controllers over one store, each of which reaches all others.
pub(crate) struct Fleet {
    store: Arc<dyn Store>,
    names: Vec<String>,
    pub(crate) controllers: Vec<Controller>,
}

impl Fleet {
    pub(crate) async fn of(names: &[&str]) -> Self {
        let mut fleet =
            Self { store: Arc::new(MemoryStore::new()), names: Vec::new(), controllers: Vec::new() };
        for name in names {
            fleet.join(name).await;
        }
        fleet
    }

    async fn join(&mut self, name: &str) {
        self.controllers.push(Controller::named(name, self.store.clone()).await);
        self.names.push(name.to_owned());
        for mut operator in self.operators().await {
            until(async || connected(&mut operator, self.names.len()).await.then_some(())).await;
        }
    }

    pub(crate) async fn operators(&self) -> Vec<Operator> {
        let mut operators = Vec::new();
        for controller in &self.controllers {
            operators.push(controller.operator().await);
        }
        operators
    }
}

/// A controller in a runtime of its own, which can end without a word to anybody.
pub(crate) struct Doomed {
    pub(crate) controller: Controller,
    runtime: Runtime,
}

impl Doomed {
    pub(crate) async fn start(name: &'static str, store: Arc<dyn Store>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let controller = runtime.spawn(Controller::named(name, store)).await.unwrap();
        Self { controller, runtime }
    }

    pub(crate) fn kill(self) {
        self.runtime.shutdown_background();
    }
}

/// Whether there are so many controllers, who all serve and reach each other.
pub(crate) async fn connected(operator: &mut Operator, count: usize) -> bool {
    let listed = operator.list_controllers(pb::ListControllersRequest::default()).await;
    let controllers = listed.unwrap().into_inner().controllers;
    let serves = |controller: &pb::Controller| {
        let up = controller.peers.iter().filter(|peer| peer.state() == pb::PeerState::Up).count();
        controller.state() == pb::ControllerState::Serving
            && (up, controller.peers.len()) == (count - 1, count - 1)
    };
    controllers.len() == count && controllers.iter().all(serves)
}

pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect("what was waited for did not come")
}

async fn host(operator: &mut Operator, name: &str) -> pb::Host {
    operator.get_host(pb::GetHostRequest { name: name.to_owned() }).await.unwrap().into_inner()
}

pub(crate) async fn controller(operator: &mut Operator, name: &str) -> pb::Controller {
    operator.get_controller(pb::GetControllerRequest { name: name.to_owned() }).await.unwrap().into_inner()
}

/// The only row of an opening's status, if it stands so.
async fn stands(operator: &mut Operator, id: &str, state: pb::HostOpeningState) -> Option<pb::OpeningOnHost> {
    let opening =
        operator.get_opening(pb::GetOpeningRequest { id: id.to_owned() }).await.unwrap().into_inner();
    opening.hosts.into_iter().next().filter(|row| row.state() == state)
}

/// The sources of all attempts, over all pages.
async fn attempts(operator: &mut Operator, page_size: u32) -> Vec<String> {
    let mut request = pb::ListAttemptsRequest { page_size, ..pb::ListAttemptsRequest::default() };
    let mut seen = Vec::new();
    loop {
        let page = operator.list_attempts(request.clone()).await.unwrap().into_inner();
        assert!(page.unanswered.is_empty());
        seen.extend(page.attempts.into_iter().map(|attempt| attempt.source));
        if page.next_page_token.is_empty() {
            return seen;
        }
        request.page_token = page.next_page_token;
    }
}

async fn result(agent: &Agent, id: &str, state: pb::HostOpeningState, reason: &str) {
    let result = pb::OpeningResult {
        id: id.to_owned(),
        generation: 1,
        state: state.into(),
        reason: reason.to_owned(),
        took_us: 20,
    };
    agent.tell(Say::Results(pb::ResultBatch { results: vec![result] })).await;
}

pub(crate) async fn knock_all(edge: &mut Agent, db: &mut Agent, bastion: &mut Agent, source: [u8; 4]) {
    edge.knock(source, 7412).await;
    sleep(BETWEEN_KNOCKS).await;
    db.knock(source, 23981).await;
    sleep(BETWEEN_KNOCKS).await;
    bastion.knock(source, 5103).await;
}
