//! The store in etcd: failures of servers and connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fleetknock_controller::store::etcd::{DEADLINE, EtcdStore};
use fleetknock_controller::store::{Changes, EtcdOptions, LeaseId, Revision, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::{task, time};

use crate::etcd_server::{Cluster, Server};
use crate::support::*;

/// The deadline, and what a busy machine adds.
const DEADLINE_AND_SLACK: Duration = Duration::from_millis(4500);

pub(crate) struct Fixture {
    pub(crate) store: Shared,
    pub(crate) cluster: Cluster,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::of(1).await
    }

    async fn of(count: usize) -> Self {
        let cluster = task::spawn_blocking(move || Cluster::start(count)).await.unwrap();
        Self { store: open(EtcdOptions::new(cluster.urls())), cluster }
    }

    pub(crate) fn store(&self) -> &Shared {
        &self.store
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.cluster.members[0]
    }
}

crate::conformance!(Fixture);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_its_server_and_loses_nothing() {
    let mut fixture = Fixture::new().await;
    let store = fixture.store().clone();
    let start = revision(&store).await;
    let mut watch = store.watch("", start).await.unwrap();
    let mut committed = vec![];
    for round in 0..3 {
        for turn in 0..10 {
            committed.push(set(&store, [put("a", format!("{round}/{turn}"))]).await);
        }
        if round < 2 {
            // Half of this round is read before the server dies, the rest after.
            let read = take(&mut watch, 5).await;
            assert_eq!(read.last().map(|changes| changes.revision), committed.get(round * 5 + 4).copied());
            fixture.server().kill();
            time::sleep(Duration::from_millis(300)).await;
            fixture.server().restart();
        }
    }
    let rest: Vec<_> = take(&mut watch, 20).await.into_iter().map(|changes| changes.revision).collect();
    assert_eq!(rest, committed[10..]);
    is_quiet(&mut watch).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_said_within_the_deadline() {
    let mut fixture = Fixture::new().await;
    let store = fixture.store().clone();
    let seen = set(&store, [put("a", "1")]).await;

    fixture.server().kill();
    every_verb_is_unavailable_in_time(&store, seen).await;
    fixture.server().restart();
    assert_eq!(value(&store, "a").await.unwrap(), "1");

    // It takes connections and packets, and says nothing.
    fixture.server().freeze();
    every_verb_is_unavailable_in_time(&store, seen).await;
    fixture.server().resume();
    store.probe().await.unwrap();
}

async fn every_verb_is_unavailable_in_time(store: &Shared, seen: Revision) {
    let start = Instant::now();
    let (get, list, probe, blind, guarded, watch, lease, keep_alive, revoke) = tokio::join!(
        store.get("a"),
        store.list(""),
        store.probe(),
        commit(store, [], [put("b", "1")]),
        commit(store, [expect("a", seen)], [put("c", "1")]),
        store.watch("", 0),
        store.lease(Duration::from_secs(5)),
        store.keep_alive(LeaseId(1)),
        store.revoke(LeaseId(1)),
    );
    assert!(start.elapsed() < DEADLINE_AND_SLACK, "{:?}", start.elapsed());
    let errors = [get.err(), list.err(), probe.err(), blind.err(), guarded.err(), watch.err()];
    for error in errors.into_iter().chain([lease.err(), keep_alive.err(), revoke.err()]) {
        assert!(matches!(error, Some(StoreError::Unavailable(_))), "{error:?}");
    }
}

#[tokio::test]
async fn a_cluster_that_was_never_there_is_found_when_it_comes() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let store = open(EtcdOptions::new(vec![url.clone()]));
    let start = Instant::now();
    let error = store.probe().await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains(&url)), "{error}");
    assert!(start.elapsed() < DEADLINE_AND_SLACK, "{:?}", start.elapsed());

    let fixture = Fixture::new().await;
    let both = [vec![url], fixture.cluster.urls()].concat();
    let store = open(EtcdOptions::new(both));
    // Nothing was sent to the absent one, so even a blind put is safe to send to the other.
    set(&store, [put("a", "1")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_leader_loses_no_increment_and_counts_none_twice() {
    let mut fixture = Fixture::of(3).await;
    let store = fixture.store().clone();
    set(&store, [put("counter", "0")]).await;
    let mut watch = store.watch("counter", revision(&store).await).await.unwrap();
    let done = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (store, done) = (store.clone(), done.clone());
            tokio::spawn(async move {
                let mut unknown = 0;
                for _ in 0..50 {
                    // A commit of which nobody can say what became of it may count or not.
                    if let Err(error) = increment(&store, "counter").await {
                        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                        unknown += 1;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                unknown
            })
        })
        .collect();
    while done.load(Ordering::Relaxed) < 60 {
        time::sleep(Duration::from_millis(5)).await;
    }
    let leader = fixture.cluster.leader();
    fixture.cluster.members[leader].kill();
    let mut unknown = 0;
    for task in tasks {
        unknown += task.await.unwrap();
    }
    let total = number(&value(&store, "counter").await.unwrap());
    assert!(total <= 200 && total + unknown >= 200, "{total} counted, {unknown} unknown");
    for expected in 1..=total {
        assert_eq!(next(&mut watch).await.unwrap().changes, [put("counter", expected.to_string())]);
    }
    println!("after the leader's death {unknown} of 200 commits were reported as unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_resolved_or_said_to_be_unknown() {
    let mut fixture = Fixture::new().await;
    let direct = fixture.store().clone();
    let proxy = Proxy::start(fixture.server()).await;
    let urls = vec![proxy.url.clone(), fixture.server().url()];
    let start = set(&direct, [put("guarded", "0")]).await;
    let mut watch = direct.watch("", start).await.unwrap();

    // Guarded: the repetition finds its own tag and reports the success, at the revision at which it happened.
    let store = open(EtcdOptions::new(urls.clone()));
    store.probe().await.unwrap();
    proxy.swallow(1);
    let committed =
        commit(&store, [expect("guarded", start)], [put("guarded", "1"), put("other", "1")]).await.unwrap();
    assert_eq!(proxy.swallowed(), 1);
    assert_eq!(direct.get("guarded").await.unwrap().unwrap().revision, committed);
    assert_eq!(next(&mut watch).await.unwrap().revision, committed);
    is_quiet(&mut watch).await;

    // A creation, of a value that anybody might have written.
    let store = open(EtcdOptions::new(urls.clone()));
    store.probe().await.unwrap();
    proxy.swallow(1);
    let created = commit(&store, [expect("code", 0)], [put("code", "used")]).await.unwrap();
    assert_eq!(proxy.swallowed(), 2);
    assert_eq!(
        next(&mut watch).await.unwrap(),
        Changes { revision: created, changes: vec![put("code", "used")] }
    );

    // Nothing keeps a blind put from happening twice: it is not repeated, and nobody claims to know.
    let store = open(EtcdOptions::new(urls.clone()));
    store.probe().await.unwrap();
    proxy.swallow(1);
    let unknown = commit(&store, [], [put("blind", "1")]).await;
    assert!(matches!(&unknown, Err(StoreError::Unavailable(why)) if why.contains("unknown")), "{unknown:?}");
    assert_eq!(next(&mut watch).await.unwrap().changes, [put("blind", "1")]);
    is_quiet(&mut watch).await;

    // A real loser whose answer got lost is never told that it won.
    let store = open(EtcdOptions::new(urls));
    store.probe().await.unwrap();
    proxy.swallow(1);
    let lost = commit(&store, [expect("code", 0)], [put("code", "used")]).await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_) | StoreError::Conflict)), "{lost:?}");
    is_quiet(&mut watch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_a_leader_and_a_member_that_says_nothing() {
    let mut fixture = Fixture::of(3).await;
    let leader = fixture.cluster.leader();
    let mut urls = fixture.cluster.urls();
    // The leader is asked first.
    urls.rotate_left(leader);
    let store = open(EtcdOptions::new(urls));
    let ttl = Duration::from_secs(5);
    let lease = store.lease(ttl).await.unwrap().id;
    let bound = bind(&store, lease, [], [put("member/a", "1")]).await.unwrap();
    assert!(store.keep_alive(lease).await.unwrap().is_some());

    fixture.cluster.members[leader].freeze();
    let begun = Instant::now();
    assert!(store.keep_alive(lease).await.unwrap().is_some());
    println!("a keep-alive over the loss of the leader took {:?}", begun.elapsed());
    assert!(begun.elapsed() < ttl, "{:?}", begun.elapsed());
    for _ in 0..20 {
        assert!(store.keep_alive(lease).await.unwrap().is_some());
        time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(store.get("member/a").await.unwrap().unwrap().revision, bound);
    fixture.cluster.members[leader].resume();

    store.revoke(lease).await.unwrap();
    assert_eq!(keys(&store, "").await, Vec::<String>::new());
    // Its server is gone: the next one is asked at once.
    fixture.cluster.members[leader].kill();
    let next = store.lease(ttl).await.unwrap();
    bind(&store, next.id, [], [put("member/a", "1")]).await.unwrap();
    assert!(store.keep_alive(next.id).await.unwrap().is_some());
}

pub(crate) fn open(options: EtcdOptions) -> Shared {
    Arc::new(EtcdStore::open(options).unwrap())
}

/// A relay in front of a server that can lose answers: it passes a request on, swallows what comes back, and then
/// breaks the connection.
struct Proxy {
    url: String,
    to_swallow: Arc<AtomicU32>,
    swallowed: Arc<AtomicU32>,
}

impl Proxy {
    async fn start(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let proxy = Self { url, to_swallow: Arc::default(), swallowed: Arc::default() };
        let (to_swallow, swallowed, address) =
            (proxy.to_swallow.clone(), proxy.swallowed.clone(), server.address());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to_swallow, swallowed) = (to_swallow.clone(), swallowed.clone());
                tokio::spawn(async move {
                    let server = tokio::net::TcpStream::connect(address).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let forward = async { tokio::io::copy(&mut from_client, &mut to_server).await };
                    let back = async {
                        let mut buffer = vec![0; 64 * 1024];
                        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                            if to_swallow.load(Ordering::SeqCst) > 0 {
                                // Longer than etcd needs to carry the request out, whatever these bytes were.
                                time::sleep(Duration::from_millis(500)).await;
                                to_swallow.fetch_sub(1, Ordering::SeqCst);
                                swallowed.fetch_add(1, Ordering::SeqCst);
                                return;
                            }
                            if to_client.write_all(&buffer[..count]).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! { _ = forward => {}, () = back => {} }
                });
            }
        });
        proxy
    }

    fn swallow(&self, count: u32) {
        self.to_swallow.store(count, Ordering::SeqCst);
    }

    fn swallowed(&self) -> u32 {
        self.swallowed.load(Ordering::SeqCst)
    }
}

#[test]
fn the_deadline_covers_an_election() {
    assert!(DEADLINE >= Duration::from_millis(2500));
}
