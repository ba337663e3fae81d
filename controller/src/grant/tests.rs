//! Decisions on a fleet of two hosts and one door, written to a store that is a plain map.

use fleetknock_core::door::{Door, DoorParts, Knock, Opens, Sequence, Step};
use fleetknock_core::host::{HostSelector, Labels};

use super::*;
use crate::{
    record::{Boot, DoorRecord, Holder, HostRecord, TokenId, TokenRecord},
    store::{Changes, Entry, Listing},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_opening_is_for_the_doors_hosts_ports_and_time() {
    let fleet = fleet();
    let granted = grant(&fleet, &request(), "op-1", at(10)).unwrap();
    assert_eq!(granted.opening.id, "op-1");
    assert_eq!(granted.opening.expires, at(40));
    assert_eq!(granted.opening.generation, 1);
    let hosts: Vec<_> = granted.opening.hosts.iter().map(HostName::as_str).collect();
    assert_eq!(hosts, ["bastion-1"]);
    assert_eq!(granted.transaction.expect.iter().map(|e| e.revision).collect::<Vec<_>>(), [0, 3]);
}

#[test]
fn knocking_again_extends_the_one_opening() {
    let mut fleet = fleet();
    open(&mut fleet, 5);
    let again = grant(&fleet, &request(), "op-2", at(20)).unwrap();
    assert_eq!((again.opening.id.as_str(), again.opening.generation), ("op-1", 2));
    assert_eq!((again.opening.opened, again.opening.expires), (at(10), at(50)));
    assert_eq!(again.transaction.expect[0].revision, 5);
}

#[test]
fn a_knock_that_is_sent_again_neither_extends_nor_brings_back() {
    let mut fleet = fleet();
    let knock = |second: u64| {
        let uncertainty = Duration::from_millis(1);
        let knocked = Knocked { at: at(second), uncertainty, end: None, packets: Vec::new() };
        Request { knocked: Some(knocked), ..request() }
    };
    let transaction = grant(&fleet, &knock(10), "op-1", at(10)).unwrap().transaction;
    commit(&mut fleet, 5, transaction);
    for earlier in [5, 10] {
        assert_eq!(grant(&fleet, &knock(earlier), "op-2", at(12)).unwrap_err(), Refusal::Known);
    }
    assert_eq!(grant(&fleet, &knock(12), "op-2", at(12)).unwrap().opening.generation, 2);
    let how = Withdrawn { at: at(20), ..withdrawn() };
    let held: Vec<_> = fleet.openings().values().collect();
    let (_, transaction) = withdraw(&held, &how, at(20)).unwrap().unwrap();
    commit(&mut fleet, 6, transaction);
    assert_eq!(grant(&fleet, &knock(19), "op-2", at(21)).unwrap_err(), Refusal::Known);
    assert_eq!(grant(&fleet, &knock(21), "op-2", at(21)).unwrap().opening.id, "op-2");
}

#[test]
fn a_packet_opens_once_whatever_the_clocks_say() {
    let mut fleet = fleet();
    let first = [packet("edge-1", 1, 7), packet("bastion-1", 1, 40)];
    answer(&mut fleet, 5, &knocked(10, &first));
    // The fleet's time jumps by an hour, and the agents send again what they keep; the chain may be found another way.
    assert_eq!(grant(&fleet, &knocked(3_610, &first), "op-2", at(3_611)).unwrap_err(), Refusal::Known);
    let turned = [first[1].clone(), first[0].clone()];
    assert_eq!(grant(&fleet, &knocked(3_610, &turned), "op-2", at(3_611)).unwrap_err(), Refusal::Known);
    let repeated = [packet("edge-1", 1, 8), first[1].clone()];
    assert_eq!(grant(&fleet, &knocked(3_610, &repeated), "op-2", at(3_611)).unwrap_err(), Refusal::Known);
    let older = [packet("edge-1", 1, 5), packet("bastion-1", 1, 39)];
    assert_eq!(grant(&fleet, &knocked(3_610, &older), "op-2", at(3_611)).unwrap_err(), Refusal::Known);
}

#[test]
fn knocking_again_with_new_packets_is_another_knock() {
    let mut fleet = fleet();
    answer(&mut fleet, 5, &knocked(10, &[packet("edge-1", 1, 7), packet("bastion-1", 1, 40)]));
    for (revision, end) in [packet("bastion-1", 1, 41), packet("bastion-1", 2, 1)].into_iter().enumerate() {
        let revision = 6 + revision as u64;
        // Its first packet may be taken for that of the knock before.
        let again = knocked(10 + revision, &[packet("edge-1", 1, 7), end]);
        assert_eq!(answer(&mut fleet, revision, &again).generation, revision - 4);
        assert_eq!(grant(&fleet, &again, "op", at(3_000)).unwrap_err(), Refusal::Known);
    }
}

#[test]
fn packets_are_remembered_past_withdrawal_end_and_an_operators_opening() {
    let mut fleet = fleet();
    let packets = [packet("edge-1", 1, 7)];
    answer(&mut fleet, 5, &knocked(10, &packets));
    let held: Vec<_> = fleet.openings().values().collect();
    let (_, transaction) = withdraw(&held, &withdrawn(), at(11)).unwrap().unwrap();
    commit(&mut fleet, 6, transaction);
    assert_eq!(grant(&fleet, &knocked(20, &packets), "op-2", at(20)).unwrap_err(), Refusal::Known);
    let operator = Request { by: By::Operator, ..request() };
    answer(&mut fleet, 7, &operator);
    for second in [20, 100] {
        let again = grant(&fleet, &knocked(second, &packets), "op-2", at(second));
        assert_eq!(again.unwrap_err(), Refusal::Known);
    }
}

#[test]
fn of_each_run_of_an_agent_the_last_packet_is_remembered_and_of_many_those_of_the_latest_knocks() {
    let mut fleet = fleet();
    for number in 0..=ANSWERED_MAX as u64 {
        let run = packet("edge-1", 1 + number as u8, 1);
        answer(&mut fleet, 5 + number, &knocked(10 + number, &[run, packet("bastion-1", 1, 1 + number)]));
    }
    let held = fleet.openings().values().next().unwrap();
    let answered = &held.record.answered;
    assert_eq!(answered.len(), ANSWERED_MAX);
    assert_eq!(answered[0], packet("edge-1", 1 + ANSWERED_MAX as u8, 1));
    assert_eq!(answered[1], packet("bastion-1", 1, 1 + ANSWERED_MAX as u64));
    assert!(!answered.contains(&packet("edge-1", 1, 1)));
}

#[test]
fn a_shorter_request_never_shortens_what_is_open() {
    let mut fleet = fleet();
    open(&mut fleet, 5);
    let short = Request { duration: Some(SECOND), by: By::Operator, ..request() };
    assert_eq!(grant(&fleet, &short, "op-2", at(11)).unwrap().opening.expires, at(40));
}

#[test]
fn after_its_end_a_new_opening_begins() {
    let mut fleet = fleet();
    open(&mut fleet, 5);
    let later = grant(&fleet, &request(), "op-2", at(40)).unwrap();
    assert_eq!((later.opening.id.as_str(), later.opening.generation), ("op-2", 1));
}

#[test]
fn a_banned_source_and_an_unknown_door_are_refused() {
    let mut fleet = fleet();
    let transaction = ban(&fleet, &a_ban()).unwrap();
    commit(&mut fleet, 5, transaction);
    assert!(matches!(grant(&fleet, &request(), "op", at(10)), Err(Refusal::Banned { .. })));
    assert!(grant(&fleet, &request(), "op", at(60)).is_ok(), "the ban is over then");
    let other = Request { door: "other".parse().unwrap(), ..request() };
    assert!(matches!(grant(&fleet, &other, "op", at(10)), Err(Refusal::NoDoor(_))));
}

#[test]
fn a_withdrawn_opening_lets_nobody_in_and_a_new_knock_opens_anew() {
    let mut fleet = fleet();
    open(&mut fleet, 5);
    let held: Vec<_> = fleet.openings().values().collect();
    let (records, transaction) = withdraw(&held, &withdrawn(), at(11)).unwrap().unwrap();
    assert_eq!(records.len(), 1);
    commit(&mut fleet, 6, transaction);
    assert_eq!(fleet.openings_on(&"bastion-1".parse().unwrap(), at(12)).count(), 0);
    let held: Vec<_> = fleet.openings().values().collect();
    assert!(withdraw(&held, &withdrawn(), at(12)).unwrap().is_none(), "it is withdrawn once");
    assert_eq!(grant(&fleet, &request(), "op-2", at(12)).unwrap().opening.id, "op-2");
}

#[test]
fn an_opening_on_ten_thousand_hosts_fits_and_one_that_does_not_is_refused() {
    let with = |hosts: usize| {
        let mut fleet = fleet();
        let (name, door) =
            ("all".parse::<DoorName>().unwrap(), fleet.doors().values().next().unwrap().clone());
        let mut parts = door.record.door.into_parts();
        (parts.name, parts.opens.hosts) = (name.clone(), HostSelector::default());
        let door = DoorRecord::new(Door::new(parts).unwrap(), at(0));
        let mut changes = vec![put(&Key::Door(name.clone()), &door).unwrap()];
        for number in 0..hosts {
            let name = format!("host-{number}");
            changes.push(put(&Key::Host(name.parse().unwrap()), &host(&name)).unwrap());
        }
        fleet.apply(Changes { revision: 4, changes });
        let request = Request { door: name, ..request() };
        grant(&fleet, &request, "op-1", at(10)).map(|granted| granted.opening.hosts.len())
    };
    assert_eq!(with(10_000), Ok(10_002));
    assert!(matches!(with(30_000), Err(Refusal::TooManyHosts { hosts: 30_002, .. })));
}

#[test]
fn ended_records_are_cleared_away_after_their_time() {
    let mut fleet = fleet();
    open(&mut fleet, 5);
    let transaction = ban(&fleet, &a_ban()).unwrap();
    commit(&mut fleet, 6, transaction);
    assert!(clear(&fleet, at(40), 10).is_none(), "the ban holds, the opening just ended");
    assert_eq!(clear(&fleet, at(60), 10).unwrap().changes.len(), 1, "the ban is over");
    assert_eq!(clear(&fleet, at(40) + KEEP_ENDED, 10).unwrap().changes.len(), 2);
    assert_eq!(clear(&fleet, at(40) + KEEP_ENDED, 1).unwrap().changes.len(), 1);
}

#[test]
fn a_token_is_cleared_away_when_it_ends() {
    let mut fleet = fleet();
    let record = TokenRecord {
        id: TokenId::new(7),
        holder: Holder::Host("edge-1".parse().unwrap()),
        hash: String::new(),
        created: at(10),
        expires: at(30),
        created_by: "user a".to_owned(),
    };
    let key = Key::Token(record.id.clone());
    let changes = vec![put(&key, &record).unwrap()];
    commit(&mut fleet, 5, Transaction { changes, ..Transaction::default() });
    assert!(clear(&fleet, at(29), 10).is_none());
    let transaction = clear(&fleet, at(30), 10).unwrap();
    assert_eq!(transaction.expect, [expect(&key, Some(5))]);
    commit(&mut fleet, 6, transaction);
    assert!(fleet.tokens().is_empty());
}

fn open(fleet: &mut Fleet, revision: u64) {
    let transaction = grant(fleet, &request(), "op-1", at(10)).unwrap().transaction;
    commit(fleet, revision, transaction);
}

/// The record of what a request opens, once it is written.
fn answer(fleet: &mut Fleet, revision: u64, request: &Request) -> OpeningRecord {
    let now = request.knocked.as_ref().map_or(at(20), |knocked| knocked.at);
    let granted = grant(fleet, request, "op-1", now).unwrap();
    commit(fleet, revision, granted.transaction);
    granted.opening
}

/// A knock of these packets, the last of which stands for the last step.
fn knocked(second: u64, packets: &[Packet]) -> Request {
    let knocked = Knocked {
        at: at(second),
        uncertainty: Duration::from_millis(1),
        end: packets.last().cloned(),
        packets: packets.to_vec(),
    };
    Request { knocked: Some(knocked), ..request() }
}

fn packet(host: &str, run: u8, counter: u64) -> Packet {
    Packet { host: host.parse().unwrap(), boot: Boot([run; 16]), counter }
}

fn request() -> Request {
    Request {
        door: "bastion-ssh".parse().unwrap(),
        source: "203.0.113.5".parse().unwrap(),
        duration: None,
        knocked: None,
        by: By::Knock,
        reason: String::new(),
        trace: None,
    }
}

fn a_ban() -> BanRecord {
    let source = request().source;
    BanRecord {
        source,
        since: at(0),
        expires: at(60),
        reason: "10 misses in 60 s".to_owned(),
        by: By::Policy,
    }
}

fn withdrawn() -> Withdrawn {
    Withdrawn { at: at(11), reason: "closed by an operator".to_owned(), kill_connections: false }
}

fn fleet() -> Fleet {
    let door = Door::new(DoorParts {
        name: "bastion-ssh".parse().unwrap(),
        labels: Labels::default(),
        knock: Knock::Sequence(Sequence {
            steps: vec![Step { hosts: HostSelector::default(), port: "tcp/7412".parse().unwrap() }],
            within: 15 * SECOND,
        }),
        sources: Vec::new(),
        opens: Opens {
            hosts: HostSelector { names: ["bastion-1".parse().unwrap()].into(), ..HostSelector::default() },
            ports: ["tcp/22".parse().unwrap()].into(),
            duration: 30 * SECOND,
        },
        mode: Default::default(),
    })
    .unwrap();
    let door = DoorRecord::new(door, at(0));
    let entry = |key: Key, value, revision| Entry { key: key.to_string(), value, revision };
    let entries = vec![
        entry(Key::Host("bastion-1".parse().unwrap()), encode(&host("bastion-1")).unwrap(), 1),
        entry(Key::Host("edge-1".parse().unwrap()), encode(&host("edge-1")).unwrap(), 2),
        entry(Key::Door("bastion-ssh".parse().unwrap()), encode(&door).unwrap(), 3),
    ];
    let (fleet, broken) = Fleet::load(Listing { entries, revision: 3 });
    assert_eq!(broken, []);
    fleet
}

fn host(name: &str) -> HostRecord {
    HostRecord {
        name: name.parse().unwrap(),
        labels: Labels::default(),
        addresses: Vec::new(),
        management: BTreeSet::new(),
        version: "0".to_owned(),
        firewall: "dry-run".to_owned(),
        created: at(0),
    }
}

fn commit(fleet: &mut Fleet, revision: u64, transaction: Transaction) {
    fleet.apply(Changes { revision, changes: transaction.changes });
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_795_361_411_000 + seconds * 1_000)
}
