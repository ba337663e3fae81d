//! What each agent is told when the fleet changes: those whom it concerns, once, and nobody else.

use std::{collections::BTreeSet, time::Duration};

use fleetknock_core::{
    door::{Door, DoorParts, Knock, Opens, Sequence, Step},
    host::{HostSelector, Labels},
    source::Source,
};
use pb::controller_message::Kind;
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::{
    grant,
    record::{BanRecord, By, DoorRecord, HostRecord, Key, Withdrawn, encode},
    store::{Change, Changes, Transaction},
};

#[test]
fn a_new_agent_gets_the_whole_picture() {
    let mut bench = Bench::new(&["bastion-1", "edge-1"]);
    bench.open();
    bench.connect("bastion-1");
    bench.connect("edge-1");
    let Kind::Snapshot(there) = bench.heard("bastion-1").remove(0) else { panic!("no snapshot") };
    assert_eq!(there.openings.len(), 1);
    assert_eq!(there.openings[0].remaining_ms, 30_000);
    assert_eq!(there.guard.unwrap().ports.len(), 1);
    let Kind::Snapshot(elsewhere) = bench.heard("edge-1").remove(0) else { panic!("no snapshot") };
    assert_eq!(elsewhere.openings, []);
    assert_eq!(elsewhere.guard.unwrap().ports, []);
}

#[test]
fn an_opening_is_pushed_to_its_hosts_only() {
    let mut bench = Bench::connected();
    bench.open();
    assert!(bench.heard("edge-1").is_empty());
    let [Kind::Delta(delta)] = &bench.heard("bastion-1")[..] else { panic!("not one delta") };
    assert_eq!(delta.openings.len(), 1);
    assert_eq!((delta.openings[0].source.as_str(), delta.openings[0].generation), ("203.0.113.5", 1));
    assert_eq!((&delta.guard, delta.withdrawn.len()), (&None, 0));
}

#[test]
fn a_withdrawal_says_whether_to_cut() {
    let mut bench = Bench::connected();
    bench.open();
    bench.heard("bastion-1");
    let how = Withdrawn { at: bench.now, reason: "test".into(), kill_connections: true };
    let held: Vec<_> = bench.fleet.openings().values().collect();
    let (_, transaction) = grant::withdraw(&held, &how, bench.now).unwrap().unwrap();
    bench.commit(transaction);
    let [Kind::Delta(delta)] = &bench.heard("bastion-1")[..] else { panic!("not one delta") };
    assert!(delta.openings.is_empty() && delta.withdrawn[0].kill_connections);
}

#[test]
fn a_deleted_door_takes_its_guard_and_its_openings_along() {
    let mut bench = Bench::connected();
    bench.open();
    bench.heard("bastion-1");
    let key = Key::Door("bastion-ssh".parse().unwrap()).to_string();
    bench.commit(Transaction { changes: vec![Change::Delete { key }], ..Transaction::default() });
    let [Kind::Delta(delta)] = &bench.heard("bastion-1")[..] else { panic!("not one delta") };
    assert_eq!(delta.withdrawn.len(), 1);
    assert_eq!(delta.guard.as_ref().unwrap().ports, []);
    assert!(bench.heard("edge-1").is_empty(), "its guard did not change");
}

#[test]
fn a_ban_reaches_every_host() {
    let mut bench = Bench::connected();
    let ban = BanRecord {
        source: source(),
        since: bench.now,
        expires: bench.now + Duration::from_secs(600),
        reason: "test".into(),
        by: By::Policy,
    };
    bench.commit(grant::ban(&bench.fleet, &ban).unwrap());
    for host in ["bastion-1", "edge-1"] {
        let [Kind::Delta(delta)] = &bench.heard(host)[..] else { panic!("not one delta") };
        assert_eq!(delta.bans[0].remaining_ms, 600_000);
    }
}

#[test]
fn an_agent_that_does_not_read_is_cut_off() {
    let mut bench = Bench::connected();
    for _ in 0..=SESSION_QUEUE {
        bench.open();
    }
    assert!(bench.sessions.of(&"bastion-1".parse().unwrap()).is_none());
    assert_eq!(bench.sessions.cut_off, 1);
    assert!(bench.sessions.of(&"edge-1".parse().unwrap()).is_some());
}

#[test]
fn a_second_agent_of_the_same_host_replaces_the_first() {
    let mut bench = Bench::connected();
    let first = bench.queues.remove("edge-1").unwrap();
    bench.connect("edge-1");
    assert!(bench.stops["edge-1"][0].is_cancelled());
    let mut first = first;
    let last = std::iter::from_fn(|| first.try_recv().ok()).last().unwrap().unwrap();
    assert!(matches!(last.kind, Some(Kind::Goodbye(goodbye)) if !goodbye.move_now));
    assert!(
        bench.sessions.remove(&"edge-1".parse().unwrap(), 1).is_none(),
        "the first's end is not the second's"
    );
}

/// A fleet of which the named hosts are known, and the agents that listen.
struct Bench {
    fleet: Fleet,
    sessions: Sessions,
    wide: FleetWide,
    now: Timestamp,
    revision: u64,
    number: u64,
    queues: HashMap<String, Receiver<Result<pb::ControllerMessage, Status>>>,
    stops: HashMap<String, Vec<CancellationToken>>,
}

impl Bench {
    fn new(hosts: &[&str]) -> Self {
        let mut bench = Self {
            fleet: Fleet::default(),
            sessions: Sessions::default(),
            wide: FleetWide { knock_space: vec!["tcp/1-65535".parse().unwrap()], management: Vec::new() },
            now: Timestamp::from_millis(1_795_361_411_000),
            revision: 0,
            number: 0,
            queues: HashMap::new(),
            stops: HashMap::new(),
        };
        let mut changes = vec![grant::put(&Key::Door("bastion-ssh".parse().unwrap()), &door()).unwrap()];
        for host in hosts {
            changes.push(grant::put(&Key::Host(host.parse().unwrap()), &host_record(host)).unwrap());
        }
        bench.commit(Transaction { changes, ..Transaction::default() });
        bench
    }

    fn connected() -> Self {
        let mut bench = Self::new(&["bastion-1", "edge-1"]);
        for host in ["bastion-1", "edge-1"] {
            bench.connect(host);
            assert!(matches!(bench.heard(host)[..], [Kind::Snapshot(_)]));
        }
        bench
    }

    fn connect(&mut self, host: &str) {
        let (outbound, queue) = mpsc::channel(SESSION_QUEUE);
        let stop = CancellationToken::new();
        self.number += 1;
        let session = Session::new(self.number, self.now, outbound, stop.clone());
        self.sessions.add(host.parse().unwrap(), session, &self.fleet, &self.wide, self.now);
        self.queues.insert(host.to_owned(), queue);
        self.stops.entry(host.to_owned()).or_default().push(stop);
    }

    fn open(&mut self) {
        let request = grant::Request {
            door: "bastion-ssh".parse().unwrap(),
            source: source(),
            duration: None,
            knocked: None,
            by: By::Knock,
            reason: String::new(),
            trace: None,
        };
        let granted = grant::grant(&self.fleet, &request, "op-1", self.now).unwrap();
        self.commit(granted.transaction);
    }

    fn commit(&mut self, transaction: Transaction) {
        self.revision += 1;
        let effects = self.fleet.apply(Changes { revision: self.revision, changes: transaction.changes });
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Broken(_))), "{effects:?}");
        self.sessions.push(&effects, &self.fleet, &self.wide, self.now);
    }

    fn heard(&mut self, host: &str) -> Vec<Kind> {
        let queue = self.queues.get_mut(host).unwrap();
        std::iter::from_fn(|| queue.try_recv().ok()).map(|message| message.unwrap().kind.unwrap()).collect()
    }
}

fn source() -> Source {
    "203.0.113.5".parse().unwrap()
}

fn door() -> DoorRecord {
    let door = Door::new(DoorParts {
        name: "bastion-ssh".parse().unwrap(),
        labels: Labels::default(),
        knock: Knock::Sequence(Sequence {
            steps: vec![Step { hosts: HostSelector::default(), port: "tcp/7412".parse().unwrap() }],
            within: Duration::from_secs(15),
        }),
        sources: Vec::new(),
        opens: Opens {
            hosts: HostSelector { names: ["bastion-1".parse().unwrap()].into(), ..HostSelector::default() },
            ports: ["tcp/22".parse().unwrap()].into(),
            duration: Duration::from_secs(30),
        },
        mode: Default::default(),
    });
    DoorRecord::new(door.unwrap(), Timestamp::ZERO)
}

fn host_record(name: &str) -> HostRecord {
    let record = HostRecord {
        name: name.parse().unwrap(),
        labels: Labels::default(),
        addresses: Vec::new(),
        management: BTreeSet::new(),
        version: String::new(),
        firewall: "dry-run".to_owned(),
        created: Timestamp::ZERO,
    };
    assert!(encode(&record).is_ok());
    record
}
