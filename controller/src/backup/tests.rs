//! What is written is read back and restored as it was; what was cut or changed is refused.

use bytes::Bytes;
use fleetknock_core::{door::yaml, source::Source, time::Timestamp};
use proptest::prelude::*;

use super::{
    file::{self, FileError, Origin},
    plan::{Options, Target, targets},
    records::Records,
};
use crate::{
    fleet::Fleet,
    record::{
        Actor, AuditRecord, BanRecord, By, DoorRecord, EventId, Holder, HostRecord, Key, Pending, TokenId,
        TokenRecord, encode,
    },
    seal::{Keyring, SealKey},
    store::{Changes, Entry, Listing},
};

const FLEET: &str = "blue";
const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);

proptest! {
    #[test]
    fn an_empty_store_becomes_the_one_that_was_backed_up(
        doors in 0_u8..6, hosts in 0_u8..6, bans in 0_u8..6, tokens in 0_u8..6, events in 0_u8..6, later in 1_u64..1_000,
    ) {
        let records = some(doors, hosts, bans, tokens, events, later);
        let ring = ring("k1");
        let file = file::write(&listing(&records, &ring), origin()).unwrap();
        let backup = file::read(&file).unwrap();
        prop_assert_eq!(backup.header.records, records.len());
        let read = Records::of(&backup, |key, value| ring.open(key, &value).unwrap()).unwrap();
        prop_assert_eq!(&read, &records);

        let options = Options { replace: true, tokens: true };
        let mut fleet = Fleet::default();
        let planned = targets(&read, &fleet, options, AT, |_| false);
        prop_assert_eq!(planned.left_out, 0);
        restore(&mut fleet, &planned.targets);
        prop_assert_eq!(of(&fleet), read.clone());
        let again = targets(&read, &fleet, options, AT, |_| false);
        prop_assert!(again.targets.iter().all(|target| target.step(&fleet, AT).unwrap().is_none()));
    }

    #[test]
    fn a_file_that_was_cut_or_changed_anywhere_is_refused(at in 0_usize..10_000, bit in 0_u8..8) {
        let file = file::write(&listing(&some(2, 1, 1, 1, 1, 9), &ring("k1")), origin()).unwrap();
        let at = at % file.len();
        prop_assert!(file::read(&file[..at]).is_err());
        let mut changed = file.clone();
        changed[at] ^= 1 << bit;
        prop_assert!(file::read(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn what_is_not_for_this_version_or_these_keys_is_refused_with_the_reason() {
    let records = some(1, 0, 0, 0, 0, 9);
    let file = file::write(&listing(&records, &ring("k1")), origin()).unwrap();
    let text = String::from_utf8(file.clone()).unwrap();
    assert!(!text.contains("7412") && text.contains(r#""keys":["k1"]"#), "{text}");
    let newer = text.replacen("\"format\":1", "\"format\":2", 1);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    assert_eq!(file::read(newer.as_bytes()).unwrap_err(), FileError::Newer { format: 2, version });
    assert_eq!(file::read(b"apiVersion: v1\n").unwrap_err(), FileError::Other);
    assert_eq!(file::read(&file[..file.len() - 80]).unwrap_err(), FileError::Cut);

    let other = ring("k2");
    let opened = |key: &str, value: Bytes| {
        other.open(key, &value).unwrap_or_else(|why| {
            Bytes::from(format!(r#"{{"format":2,"unopened":{}}}"#, serde_json::to_string(&why).unwrap()))
        })
    };
    let refused = Records::of(&file::read(&file).unwrap(), opened).unwrap_err().to_string();
    assert!(refused.contains("doors/d0") && refused.contains("'k1'"), "{refused}");
}

#[test]
fn nothing_is_removed_unless_asked_and_what_the_store_knows_better_stays() {
    let records = some(2, 2, 2, 1, 0, 9);
    let mut fleet = Fleet::default();
    let mut others = some(4, 0, 4, 4, 0, 9);
    // A longer ban than in the file, and another host's word.
    others.bans.values_mut().for_each(|ban| ban.expires = AT + std::time::Duration::from_secs(9_999));
    others.hosts = records.hosts.clone();
    others.hosts.values_mut().for_each(|host| host.version = "9.9.9".to_owned());
    let all = Options { replace: false, tokens: true };
    restore(&mut fleet, &targets(&others, &Fleet::default(), all, AT, |_| false).targets);

    let planned = targets(&records, &fleet, Options::default(), AT, |_| false);
    assert_eq!(planned.left_out, 1, "tokens are not restored: {:?}", planned.remarks);
    assert!(planned.targets.iter().all(|target| target.step(&fleet, AT).unwrap().is_none()));

    let replace = Options { replace: true, tokens: false };
    let planned = targets(&records, &fleet, replace, AT, |_| false);
    let removed: Vec<_> =
        planned.targets.iter().filter_map(|target| target.step(&fleet, AT).unwrap()).collect();
    let keys: Vec<_> = removed.iter().map(|step| step.key.to_string()).collect();
    assert_eq!(keys, ["doors/d2", "doors/d3", "bans/203.0.113.2", "bans/203.0.113.3"]);
}

#[test]
fn what_is_over_does_not_come_back() {
    let mut records = some(2, 0, 2, 2, 1, 9);
    let gone = |at: &mut Timestamp| *at = Timestamp::from_millis(1);
    gone(&mut records.bans.values_mut().next().unwrap().expires);
    records.tokens.values_mut().for_each(|token| gone(&mut token.expires));
    let pending = |before: Option<&DoorRecord>| Pending {
        before: before.map(|record| record.door.clone()),
        until: Timestamp::from_millis(5),
        by: Actor { who: "user alice".into(), role: None, by: "certificate".into(), address: String::new() },
    };
    let mut doors = records.doors.values_mut();
    doors.next().unwrap().pending = Some(pending(None));
    let second = doors.next().unwrap();
    let confirmed = DoorRecord::new(door("d1", "45s"), AT);
    second.pending = Some(pending(Some(&confirmed)));
    let all = Options { replace: false, tokens: true };
    let planned = targets(&records, &Fleet::default(), all, AT, |source| source == address(1));
    let mut fleet = Fleet::default();
    restore(&mut fleet, &planned.targets);
    let found = of(&fleet);
    assert_eq!(found.doors.len(), 1, "a new door that nobody confirmed is no door");
    assert_eq!(
        found.doors.values().next().unwrap().door,
        confirmed.door,
        "an unconfirmed change is rolled back"
    );
    assert!(found.bans.is_empty(), "one is over, one of a management network");
    assert!(found.tokens.is_empty());
    assert_eq!(planned.left_out, 5, "{:?}", planned.remarks);
}

/// Hosts are written after all doors: a host that is known is told what the store holds.
#[test]
fn doors_come_before_hosts() {
    let planned = targets(&some(3, 3, 3, 3, 3, 9), &Fleet::default(), Options::default(), AT, |_| false);
    let last_door = planned.targets.iter().rposition(|target| matches!(target, Target::Door(_))).unwrap();
    let first_host = planned.targets.iter().position(|target| matches!(target, Target::Host(_))).unwrap();
    assert!(last_door < first_host);
}

fn origin() -> Origin<'static> {
    Origin { fleet: FLEET, store: "0123456789abcdef0123456789abcdef", made: AT }
}

fn ring(id: &str) -> Keyring {
    Keyring::new(FLEET, vec![SealKey::generate(id.parse().unwrap()).unwrap()]).unwrap()
}

fn address(number: u8) -> Source {
    format!("203.0.113.{number}").parse().unwrap()
}

fn door(name: &str, time: &str) -> fleetknock_core::door::Door {
    let text = format!(
        "apiVersion: fleetknock.io/v1\nkind: Door\nmetadata: {{name: {name}}}\nspec:\n  knock: {{sequence: [{{port: tcp/7412}}, \
         {{port: udp/23981}}], within: 15s}}\n  opens: {{hosts: {{names: [a]}}, ports: [tcp/22], for: {time}}}\n"
    );
    yaml::parse(&text).unwrap().remove(0).door
}

fn some(doors: u8, hosts: u8, bans: u8, tokens: u8, events: u8, later: u64) -> Records {
    let expires = AT + std::time::Duration::from_secs(later);
    let mut records = Records::default();
    for n in 0..doors {
        let record = DoorRecord::new(door(&format!("d{n}"), "30s"), Timestamp::from_millis(u64::from(n)));
        records.doors.insert(record.door.name().clone(), record);
    }
    for n in 0..hosts {
        let host = HostRecord {
            name: format!("h{n}").parse().unwrap(),
            labels: Default::default(),
            addresses: vec![format!("10.0.0.{n}")],
            management: Default::default(),
            version: "0.1.0".to_owned(),
            firewall: "nftables".to_owned(),
            created: AT,
        };
        records.hosts.insert(host.name.clone(), host);
    }
    for n in 0..bans {
        let ban =
            BanRecord { source: address(n), since: AT, expires, reason: "misses".into(), by: By::Policy };
        records.bans.insert(ban.source, ban);
    }
    for n in 0..tokens {
        let token = TokenRecord {
            id: TokenId::new(u64::from(n)),
            holder: Holder::Host("h0".parse().unwrap()),
            hash: "00".repeat(32),
            created: AT,
            expires,
            created_by: "user alice".to_owned(),
        };
        records.tokens.insert(token.id.clone(), token);
    }
    for n in 0..events {
        let id = EventId::new(AT, u32::from(n));
        let event = AuditRecord {
            id: id.clone(),
            at: AT,
            code: "DOOR_APPLIED".to_owned(),
            controller: "c".parse().unwrap(),
            actor: None,
            door: None,
            source: None,
            host: None,
            opening: None,
            message: format!("\"{n}\"\n"),
            changes: Vec::new(),
        };
        records.events.insert(id, event);
    }
    records
}

fn listing(records: &Records, ring: &Keyring) -> Listing {
    let mut all: Vec<(String, Bytes)> = Vec::new();
    let Records { doors, hosts, bans, tokens, events } = records;
    all.extend(events.iter().map(|(id, event)| (Key::Audit(id.clone()).to_string(), encode(event).unwrap())));
    all.extend(bans.iter().map(|(source, ban)| (Key::Ban(*source).to_string(), encode(ban).unwrap())));
    all.extend(doors.iter().map(|(name, door)| {
        let key = Key::Door(name.clone()).to_string();
        let sealed = ring.seal(&key, &encode(door).unwrap(), rand::random()).unwrap();
        (key, sealed)
    }));
    all.extend(hosts.iter().map(|(name, host)| (Key::Host(name.clone()).to_string(), encode(host).unwrap())));
    all.extend(tokens.iter().map(|(id, token)| (Key::Token(id.clone()).to_string(), encode(token).unwrap())));
    // None of these is in a backup.
    all.push(("controllers/c-1".to_owned(), Bytes::from_static(b"{}")));
    all.push(("identity".to_owned(), Bytes::from_static(b"{}")));
    let entries = all.into_iter().map(|(key, value)| Entry { key, value, revision: 1 });
    Listing { entries: entries.collect(), revision: 7 }
}

fn restore(fleet: &mut Fleet, targets: &[Target]) {
    for (revision, target) in (1..).zip(targets) {
        let Some(step) = target.step(fleet, AT).unwrap() else { continue };
        fleet.apply(Changes { revision, changes: vec![step.change] });
    }
}

fn of(fleet: &Fleet) -> Records {
    Records {
        doors: fleet.doors().iter().map(|(name, held)| (name.clone(), held.record.clone())).collect(),
        hosts: fleet.hosts().iter().map(|(name, held)| (name.clone(), held.record.clone())).collect(),
        bans: fleet.bans().iter().map(|(source, held)| (*source, held.record.clone())).collect(),
        tokens: fleet.tokens().iter().map(|(id, held)| (id.clone(), held.record.clone())).collect(),
        events: fleet.audit().iter().map(|(id, held)| (id.clone(), held.record.clone())).collect(),
    }
}
