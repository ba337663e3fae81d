//! Where knocks go is decided by the members that the copy knows now.

use fleetknock_core::{host::HostId, knock::ObservationId, matcher};
use fleetknock_runtime::log::{Dial, Filter};

use super::*;
use crate::{
    fleet::Fleet,
    grant,
    metrics::Metrics,
    record::{Key, MemberRecord},
    sessions::FleetWide,
    shared::Parts,
    store::{Changes, memory::MemoryStore},
    trust::Trust,
};

#[tokio::test]
async fn a_knock_goes_where_the_newest_members_say_before_the_links_follow() {
    let shared = shared("ctl-1");
    let (decisions, _decided) = mpsc::channel(1);
    let (_matching, handle) = matching::Service::new(shared.clone(), matcher::Config::default(), decisions);
    let peers = Peers::new(shared.clone(), handle);
    join(&shared, "ctl-2", 1);
    peers.follow_members();
    peers.table().router.set_link(&name("ctl-2"), 1, Link::Up);
    let source = source_of("ctl-1");
    let (here, away) = peers.split(reported(source), 1);
    assert_eq!((here.len(), away.len()), (0, 1), "a controller that is no member follows nobody");

    // Nothing but the copy changes: the task that keeps the links has not run.
    join(&shared, "ctl-1", 2);
    let (here, away) = peers.split(reported(source), 1);
    assert_eq!((here.len(), away.len()), (1, 0));
}

/// As the keeper takes in that a controller joined.
fn join(shared: &Shared, controller: &str, revision: Revision) {
    let record = MemberRecord {
        name: name(controller),
        address: "http://192.0.2.1:7000".to_owned(),
        version: "test".to_owned(),
        started: Timestamp::ZERO,
    };
    let change = grant::put(&Key::Controller(name(controller)), &record).unwrap();
    shared.state().fleet.apply(Changes { revision, changes: vec![change] });
    shared.members_changed();
}

fn reported(source: Source) -> Reported {
    let observation = Observation {
        id: ObservationId { host: HostId(0), boot: 0, counter: 1 },
        source,
        port: "tcp/7412".parse().unwrap(),
        time: Timestamp::ZERO,
        uncertainty: Duration::ZERO,
        fingerprint: 0,
    };
    Reported { host: name("edge-1"), boot: Boot([0; 16]), observations: vec![observation] }
}

/// A source that this one of `ctl-1` and `ctl-2` owns.
fn source_of(owner: &str) -> Source {
    let mut router = Router::new(name("ctl-1"));
    router.set_members([(name("ctl-1"), 1), (name("ctl-2"), 2)]);
    let mut sources = (1..=254).map(|last| format!("203.0.113.{last}").parse().unwrap());
    sources.find(|source| router.owner(*source) == Some(&name(owner))).unwrap()
}

fn name(name: &str) -> HostName {
    name.parse().unwrap()
}

fn shared(controller: &str) -> Arc<Shared> {
    Arc::new(Shared::new(Parts {
        store: Arc::new(MemoryStore::new()),
        name: name(controller),
        address: String::new(),
        fleet_name: "test".to_owned(),
        wide: FleetWide { knock_space: Vec::new(), management: Vec::new() },
        management: Vec::new(),
        ban_for: Duration::from_secs(600),
        trust: Trust::Plain,
        metrics: Metrics::default(),
        log_dial: Dial::new(Filter::detached("info").unwrap(), "info"),
        fleet: Fleet::default(),
    }))
}
