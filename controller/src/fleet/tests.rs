//! What a change of the store means, and that broken records are left aside.

use bytes::Bytes;

use super::*;
use crate::record::{By, encode};

#[test]
fn a_broken_record_is_left_aside_and_said() {
    let put = |key: &str, value: &'static [u8]| Change::Put {
        key: key.to_owned(),
        value: Bytes::from_static(value),
    };
    let mut fleet = Fleet::default();
    let effects = fleet.apply(Changes {
        revision: 1,
        changes: vec![
            put("doors/x", b"garbage"),
            put("strange", b""),
            Change::Delete { key: "bans/1.2.3.4".into() },
        ],
    });
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Broken(_))).count(), 2, "{effects:?}");
    assert_eq!(effects.len(), 2);
    assert!(fleet.doors().is_empty());
}

#[test]
fn a_record_that_can_no_longer_be_read_keeps_its_guard_when_everything_is_read_anew() {
    let entry = |key: &str, value: &'static [u8], revision| Entry {
        key: key.to_owned(),
        value: Bytes::from_static(value),
        revision,
    };
    let door: &[u8] =
        br#"{"format":1,"record":{"door":{"name":"d","knock":{"sequence":{"steps":[{"port":"tcp/7412"}],
        "within":{"secs":15,"nanos":0}}},"opens":{"hosts":{"names":["h"]},"ports":["tcp/22"],
        "for":{"secs":30,"nanos":0}}},"created":0,"updated":0}}"#;
    let host: &[u8] =
        br#"{"format":1,"record":{"name":"h","labels":{},"addresses":[],"management":[],"version":"",
        "firewall":"","created":0}}"#;
    let (mut fleet, broken) = Fleet::load(Listing {
        entries: vec![entry("doors/d", door, 1), entry("doors/gone", b"x", 2), entry("hosts/h", host, 3)],
        revision: 3,
    });
    assert_eq!(broken.len(), 1, "{broken:?}");
    let name: HostName = "h".parse().unwrap();
    let known = fleet.doors().clone();

    let sealed = br#"{"format":2,"sealed":{"key":"k","nonce":"","text":""}}"#;
    for round in 0..2 {
        let broken = fleet.replace(Listing {
            entries: vec![
                entry("doors/d", sealed, 5),
                entry("doors/new", sealed, 6),
                entry("hosts/h", b"x", 7),
            ],
            revision: 7 + round,
        });
        assert_eq!(broken.len(), 3, "{broken:?}");
        assert!(broken[0].reason.contains("sealed with key 'k'"), "{broken:?}");
        // What was known of it, with the revision of that: nobody overwrites unseen what is there now.
        assert_eq!(fleet.doors(), &known);
        assert_eq!(fleet.guarded(&fleet.hosts()[&name].record), BTreeSet::from(["tcp/22".parse().unwrap()]));
    }
    // A record that is gone is gone.
    assert_eq!(fleet.replace(Listing { entries: vec![], revision: 9 }), []);
    assert!(fleet.doors().is_empty() && fleet.hosts().is_empty());
}

#[test]
fn a_ban_ends_by_its_time_and_by_its_deletion() {
    let source: Source = "203.0.113.5".parse().unwrap();
    let at = Timestamp::from_millis;
    let record = BanRecord { source, since: at(0), expires: at(10), reason: String::new(), by: By::Operator };
    let key = Key::Ban(source).to_string();
    let mut fleet = Fleet::default();
    let value = encode(&record).unwrap();
    let effects =
        fleet.apply(Changes { revision: 1, changes: vec![Change::Put { key: key.clone(), value }] });
    assert_eq!(effects, [Effect::Banned(record)]);
    assert!(fleet.ban(source, at(9)).is_some());
    assert!(fleet.ban(source, at(10)).is_none());
    assert_eq!(
        fleet.apply(Changes { revision: 2, changes: vec![Change::Delete { key }] }),
        [Effect::Unbanned(source)]
    );
    assert_eq!(fleet.revision(), 2);
}

#[test]
fn a_new_store_becomes_the_fleets_by_a_host_that_it_has_long_known_and_that_nobody_missed() {
    let (known, stranger): (HostName, HostName) = ("known".parse().unwrap(), "stranger".parse().unwrap());
    let host = HostRecord {
        name: known.clone(),
        labels: Default::default(),
        addresses: Vec::new(),
        management: BTreeSet::new(),
        version: String::new(),
        firewall: String::new(),
        created: Timestamp::from_millis(5),
    };
    let due = host.created + KNOWN_AFTER;
    let fleet_of = |new, missed| {
        let mut fleet = Fleet::default();
        let identity = IdentityRecord { id: "a".to_owned(), new, missed };
        let identity = Change::Put { key: Key::Identity.to_string(), value: encode(&identity).unwrap() };
        let host = Change::Put { key: Key::Host(known.clone()).to_string(), value: encode(&host).unwrap() };
        fleet.apply(Changes { revision: 1, changes: vec![identity, host] });
        fleet
    };
    let settled = Some((false, false));
    let missed = Some((true, true));
    for (new, was_missed, name, picture, at, written) in [
        (true, false, &known, 1, due, settled),
        (true, false, &known, 1, host.created + Duration::from_secs(599), None),
        (true, false, &known, 0, due, None),
        (true, false, &stranger, 1, due, missed),
        (true, false, &stranger, 0, due, None),
        (true, true, &known, 1, due, None),
        (true, true, &stranger, 1, due, None),
        (false, false, &known, 1, due, None),
        (false, false, &stranger, 1, due, None),
    ] {
        let record = fleet_of(new, was_missed).identity_after(name, picture, at);
        let record = record.map(|record| (record.new, record.missed));
        assert_eq!(record, written, "new {new}, missed {was_missed}, {name} holds {picture} at {at:?}");
    }
}
