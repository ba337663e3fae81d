//! A backup brings a lost fleet back, and no guard is taken off meanwhile.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use fleetknock_controller::{
    backup::file::{self, Origin},
    grant,
    record::{HostRecord, Key},
    seal::{Keyring, SealKey, Sealed},
    shared::local_now,
    store::{
        EtcdOptions, Listing, Store, Transaction, embedded::EmbeddedStore, etcd::EtcdStore,
        memory::MemoryStore,
    },
};
use fleetknock_core::{
    host::{HostName, Labels},
    time::Timestamp,
};
use fleetknock_proto::v1::{
    self as pb, agent_service_client::AgentServiceClient, control_service_client::ControlServiceClient,
    restore_part::Part, restore_progress::Progress,
};
use tokio::{task, time};
use tonic::{Code, Status, transport::Channel};

use crate::{
    etcd_server::Cluster,
    store_away::Away,
    support::{Agent, Controller, apply, door, shown_steps, tcp},
};

/// So many that a restore cannot be done before somebody breaks it off.
const DOORS: usize = 150;
/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

type Operator = ControlServiceClient<Channel>;

#[tokio::test]
async fn a_fleet_in_memory_comes_back() {
    comes_back(Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn a_fleet_on_disk_comes_back() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open = |number: usize| EmbeddedStore::open(folders[number].path().to_owned());
    comes_back(Arc::new(open(0).await.unwrap()), Arc::new(open(1).await.unwrap())).await;
}

async fn comes_back(lost: Arc<dyn Store>, empty: Arc<dyn Store>) {
    let key = SealKey::generate("k1".parse().unwrap()).unwrap().line().clone();
    let first = Controller::over(sealed(lost, &key)).await;
    let mut operator = first.operator().await;
    operator.apply_door(apply(door())).await.unwrap();
    operator
        .ban_source(pb::BanSourceRequest { source: "203.0.113.9".into(), ..Default::default() })
        .await
        .unwrap();
    let holder = Some(pb::create_token_request::Holder::Host("new-1".into()));
    operator.create_token(pb::CreateTokenRequest { holder, ..Default::default() }).await.unwrap();
    let bastion = first.agent("bastion-1", "bastion").await;
    let held = bastion.snapshot.revision;
    assert!(held > 0);
    let file = backup(&mut operator).await;
    let text = String::from_utf8(file.clone()).unwrap();
    assert!(!text.contains("7412") && text.contains("doors/bastion-ssh") && !text.contains("openings/"));
    drop((bastion, first));

    let second = Controller::over(sealed(empty, &key)).await;
    let mut operator = second.operator().await;
    let refused = attach(&second, "bastion-1", held).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("fleetknock restore"), "{refused}");
    let dry = pb::RestoreOptions { dry_run: true, ..Default::default() };
    let (changes, summary) = restore(&mut operator, dry, &file).await.unwrap();
    assert_eq!(changes, ["add door bastion-ssh", "add host bastion-1", "add ban 203.0.113.9"]);
    assert!(doors(&mut operator).await.is_empty());
    let done = restore(&mut operator, pb::RestoreOptions::default(), &file).await.unwrap();
    assert_eq!((&done.0, done.1.added, done.1.left_out), (&changes, summary.added, 1), "{:?}", done.1);

    let found = doors(&mut operator).await;
    assert_eq!((found.len(), shown_steps(&found[0])), (1, vec![7412, 23981, 5103]));
    let again = attach(&second, "bastion-1", held).await.unwrap();
    assert_eq!(again.snapshot.guard.as_ref().unwrap().ports, [tcp(22)]);
    let bans = operator.list_bans(pb::ListBansRequest::default()).await.unwrap().into_inner().bans;
    assert_eq!(bans[0].source, "203.0.113.9");
    let events = operator.list_events(pb::ListEventsRequest { page_size: 1_000, ..Default::default() });
    let events = events.await.unwrap().into_inner().events;
    let of = |kind: pb::EventKind| events.iter().filter(|event| event.kind() == kind).count();
    assert_eq!((of(pb::EventKind::TokenCreated), of(pb::EventKind::BackupMade)), (1, 1), "the trail is back");
    assert_eq!(of(pb::EventKind::BackupRestored), 2, "when it began, and when it was done");

    let (changes, _) = restore(&mut operator, pb::RestoreOptions::default(), &file).await.unwrap();
    assert!(changes.is_empty(), "{changes:?}");
    let tokens = pb::RestoreOptions { tokens: true, ..Default::default() };
    assert_eq!(restore(&mut operator, tokens, &file).await.unwrap().1.added, 1);

    let mut changed = door();
    changed.spec.as_mut().unwrap().open_for_ms = 60_000;
    operator.apply_door(apply(changed)).await.unwrap();
    operator.apply_door(apply(pb::Door { name: "more".into(), ..door() })).await.unwrap();
    let replace = pb::RestoreOptions { replace: true, ..Default::default() };
    let (changes, _) = restore(&mut operator, replace, &file).await.unwrap();
    assert_eq!(changes, ["change door bastion-ssh", "remove door more"]);
    let found = doors(&mut operator).await;
    assert_eq!((found.len(), found[0].spec.as_ref().unwrap().open_for_ms), (1, 30_000));
}

/// Two controllers on a real etcd. The first restore is broken off after its first door, the second one is asked of the other
/// controller.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_broken_off_is_run_again_at_another_controller_on_etcd() {
    let key = SealKey::generate("k1".parse().unwrap()).unwrap().line().clone();
    let [lost, empty] = [(); 2].map(|()| task::spawn_blocking(|| Cluster::start(1)));
    let (lost, empty) = (lost.await.unwrap(), empty.await.unwrap());
    let first = Controller::named("ctl-1", sealed(etcd(&lost), &key)).await;
    let mut operator = first.operator().await;
    for number in 0..DOORS {
        operator.apply_door(apply(pb::Door { name: format!("door-{number}"), ..door() })).await.unwrap();
    }
    let held = first.agent("bastion-1", "bastion").await.snapshot.revision;
    let file = backup(&mut operator).await;
    drop(first);

    let one = Controller::named("ctl-1", sealed(etcd(&empty), &key)).await;
    let other = Controller::named("ctl-2", sealed(etcd(&empty), &key)).await;
    let [mut operator, mut another] = [one.operator().await, other.operator().await];
    let parts = restore_parts(pb::RestoreOptions::default(), &file);
    let mut told = operator.restore(tokio_stream::iter(parts)).await.unwrap().into_inner();
    while !matches!(told.message().await.unwrap().unwrap().progress.unwrap(), Progress::Done(_)) {}
    drop(told);
    let mut before = 0;
    loop {
        time::sleep(Duration::from_millis(300)).await;
        let now = doors(&mut another).await.len();
        if now == before {
            break;
        }
        before = now;
    }
    assert!((1..DOORS).contains(&before), "{before} doors");
    for controller in [&one, &other] {
        let refused = attach(controller, "bastion-1", held).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unavailable, "half of a fleet is not told to its hosts: {refused}");
    }

    let (changes, _) = restore(&mut another, pb::RestoreOptions::default(), &file).await.unwrap();
    assert_eq!(changes.len(), DOORS - before + 1, "the doors that lacked, and the host: {changes:?}");
    for controller in [&one, &other] {
        let begun = Instant::now();
        let again = loop {
            match attach(controller, "bastion-1", held).await {
                Ok(agent) => break agent,
                // Its copy is a moment behind the store.
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(again.snapshot.guard.as_ref().unwrap().ports, [tcp(22)]);
        assert_eq!(doors(&mut controller.operator().await).await.len(), DOORS);
    }
}

#[tokio::test]
async fn what_is_not_whole_or_not_for_here_changes_nothing() {
    let key = SealKey::generate("k1".parse().unwrap()).unwrap().line().clone();
    let first = Controller::over(sealed(Arc::new(MemoryStore::new()), &key)).await;
    let mut operator = first.operator().await;
    operator.apply_door(apply(door())).await.unwrap();
    let file = backup(&mut operator).await;

    let other = SealKey::generate("k2".parse().unwrap()).unwrap().line().clone();
    let second = Controller::over(sealed(Arc::new(MemoryStore::new()), &other)).await;
    let mut operator = second.operator().await;
    let plain = pb::RestoreOptions::default;
    let refused = restore(&mut operator, plain(), &file).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("'k1'"), "{refused}");
    for (broken, said) in [(&file[..file.len() - 70], "cut"), (&file[..100], "no backup")] {
        let refused = restore(&mut operator, plain(), broken).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(said), "{refused}");
    }
    let made = |fleet, store| {
        let origin = Origin { fleet, store, made: local_now() };
        file::write(&Listing { entries: Vec::new(), revision: 1 }, origin).unwrap()
    };
    let refused = restore(&mut operator, plain(), &made("green", "a")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    restore(&mut operator, plain(), &made("test", "a")).await.unwrap();
    let refused = restore(&mut operator, plain(), &made("test", "b")).await.unwrap_err();
    assert!(refused.message().contains("--another-store"), "{refused}");
    let another = pb::RestoreOptions { another_store: true, ..plain() };
    restore(&mut operator, another, &made("test", "b")).await.unwrap();
    assert!(doors(&mut operator).await.is_empty());
}

#[tokio::test]
async fn a_new_store_becomes_the_fleets_when_a_host_comes_back_that_it_has_long_known() {
    let store = Arc::new(MemoryStore::new());
    knows(&*store, "young-1").await;
    let controller = Controller::over(store).await;
    attach(&controller, "young-1", 3).await.unwrap();
    attach(&controller, "renamed-1", 7).await.unwrap();
}

#[tokio::test]
async fn a_host_that_comes_back_soon_lets_nobody_in_who_knows_another_store() {
    let controller = Controller::start().await;
    drop(attach(&controller, "young-1", 0).await.unwrap());
    attach(&controller, "young-1", 3).await.unwrap();
    assert!(attach(&controller, "old-1", 7).await.is_err());
}

#[tokio::test]
async fn a_new_store_that_a_host_of_an_earlier_one_has_missed_becomes_the_fleets_by_an_operators_word_alone()
{
    let store = Arc::new(MemoryStore::new());
    knows(&*store, "young-1").await;
    let controller = Controller::over(store.clone()).await;
    assert!(attach(&controller, "old-1", 7).await.is_err());
    attach(&controller, "young-1", 3).await.unwrap();
    assert!(attach(&controller, "old-1", 7).await.is_err());
    // It is written down, not remembered.
    let again = Controller::named("other", store).await;
    attach(&again, "young-1", 3).await.unwrap();
    assert!(attach(&again, "old-1", 7).await.is_err());

    let anew = pb::RestoreOptions { begin_anew: true, ..Default::default() };
    let (_, summary) = restore(&mut again.operator().await, anew, b"").await.unwrap();
    assert_eq!((summary.changed, summary.remarks), (1, vec![]));
    attach(&again, "old-1", 7).await.unwrap();
    let (_, summary) = restore(&mut again.operator().await, anew, b"").await.unwrap();
    assert!(summary.changed == 0 && summary.remarks[0].contains("nothing to do"), "{summary:?}");
}

#[tokio::test]
async fn a_store_that_is_away_keeps_no_known_host_out_and_becomes_the_fleets_later() {
    let store = Arc::new(Away::default());
    knows(&*store, "young-1").await;
    let controller = Controller::over(store.clone()).await;
    drop(attach(&controller, "young-1", 0).await.unwrap());
    store.leave();
    drop(attach(&controller, "young-1", 3).await.unwrap());
    store.come_back();
    attach(&controller, "young-1", 3).await.unwrap();
    attach(&controller, "renamed-1", 7).await.unwrap();
}

/// The store has known a host for as long as there are stores.
async fn knows(store: &dyn Store, host: &str) {
    let name: HostName = host.parse().unwrap();
    let record = HostRecord {
        name: name.clone(),
        labels: Labels::default(),
        addresses: Vec::new(),
        management: BTreeSet::new(),
        version: String::new(),
        firewall: String::new(),
        created: Timestamp::ZERO,
    };
    let changes = vec![grant::put(&Key::Host(name), &record).unwrap()];
    store.commit(Transaction { changes, ..Transaction::default() }).await.unwrap();
}

fn sealed(store: Arc<dyn Store>, line: &str) -> Arc<dyn Store> {
    Arc::new(Sealed::new(store, Keyring::new("test", vec![SealKey::parse(line).unwrap()]).unwrap()))
}

/// An agent that holds a picture of this revision.
async fn attach(controller: &Controller, host: &str, revision: u64) -> Result<Agent, Status> {
    let client = AgentServiceClient::connect(format!("http://{}", controller.address)).await.unwrap();
    Agent::holding(client, host, "bastion", false, revision).await
}

pub(crate) async fn backup(operator: &mut Operator) -> Vec<u8> {
    let mut parts = operator.backup(pb::BackupRequest {}).await.unwrap().into_inner();
    let mut file = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        file.extend(part.data);
    }
    file
}

pub(crate) async fn restore(
    operator: &mut Operator,
    options: pb::RestoreOptions,
    file: &[u8],
) -> Result<(Vec<String>, pb::RestoreSummary), Status> {
    let mut told = operator.restore(tokio_stream::iter(restore_parts(options, file))).await?.into_inner();
    let mut changes = Vec::new();
    while let Some(next) = told.message().await? {
        match next.progress.unwrap() {
            Progress::Change(change) => {
                let action =
                    change.action().as_str_name().trim_start_matches("RESTORE_ACTION_").to_lowercase();
                changes.push(format!("{action} {} {}", change.kind, change.name));
            }
            Progress::Done(_) => {}
            Progress::Summary(summary) => return Ok((changes, summary)),
        }
    }
    panic!("the stream ended without a summary")
}

fn restore_parts(options: pb::RestoreOptions, file: &[u8]) -> Vec<pb::RestorePart> {
    let data = file.chunks(1_000).map(|data| Part::Data(data.to_vec()));
    let parts = [Part::Options(options)].into_iter().chain(data);
    parts.map(|part| pb::RestorePart { part: Some(part) }).collect()
}

fn etcd(cluster: &Cluster) -> Arc<dyn Store> {
    Arc::new(EtcdStore::open(EtcdOptions::new(cluster.urls())).unwrap())
}

async fn doors(operator: &mut Operator) -> Vec<pb::Door> {
    let request = pb::ListDoorsRequest { reveal: true, page_size: 1_000, ..Default::default() };
    operator.list_doors(request).await.unwrap().into_inner().doors
}
