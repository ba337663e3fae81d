//! Every way in which a change that waits can go on, on a fleet that is a plain map.

use fleetknock_core::{
    door::{DoorParts, Knock, Opens, Sequence, Step as KnockStep},
    host::{HostSelector, Labels},
};

use super::*;
use crate::{
    grant::{Request, grant},
    record::By,
    store::Changes,
};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn applying_decides_what_waits_and_what_it_leads_back_to() {
    let confirmed = |seconds| DoorRecord::new(door(seconds), at(0));
    let waiting = |now, before: Option<u64>, until| DoorRecord {
        pending: Some(Pending { before: before.map(door), until: at(until), by: alice() }),
        ..DoorRecord { updated: at(5), ..confirmed(now) }
    };
    // What is held, what is applied, and whether it waits: what waits then (its `before`, its deadline), whether it is
    // written, whether something is remarked.
    let nothing: Option<(Option<u64>, u64)> = None;
    let table = [
        ("a new door", None, 30, false, nothing, true, false),
        ("a new door that waits", None, 30, true, Some((None, 70)), true, false),
        ("unchanged", Some(confirmed(30)), 30, false, nothing, false, false),
        ("unchanged: nothing waits", Some(confirmed(30)), 30, true, nothing, false, false),
        ("changed", Some(confirmed(30)), 40, false, nothing, true, false),
        ("changed, and waits", Some(confirmed(30)), 40, true, Some((Some(30), 70)), true, false),
        (
            "again: the first before",
            Some(waiting(40, Some(30), 15)),
            50,
            true,
            Some((Some(30), 70)),
            true,
            true,
        ),
        (
            "the same again: later",
            Some(waiting(40, Some(30), 15)),
            40,
            true,
            Some((Some(30), 70)),
            true,
            true,
        ),
        ("new, again", Some(waiting(40, None, 15)), 50, true, Some((None, 70)), true, true),
        ("replaced for good", Some(waiting(40, Some(30), 15)), 50, false, nothing, true, true),
        ("kept for good", Some(waiting(40, Some(30), 15)), 40, false, nothing, true, true),
        ("new, kept for good", Some(waiting(40, None, 15)), 40, false, nothing, true, true),
        ("back again", Some(waiting(40, Some(30), 15)), 30, true, nothing, true, true),
        ("back again for good", Some(waiting(40, Some(30), 15)), 30, false, nothing, true, true),
        ("after its time", Some(waiting(40, Some(30), 9)), 50, true, Some((Some(30), 70)), true, true),
    ];
    for (case, held, applied, waits, expected, write, remark) in table {
        let hold = waits.then(|| Hold { within: MINUTE, by: alice() });
        let done = apply(held.as_ref(), &door(applied), hold, at(10));
        let pending = done.record.pending.as_ref();
        let seen = pending.map(|pending| (pending.before.clone(), pending.until));
        assert_eq!(seen, expected.map(|(before, until)| (before.map(door), at(until))), "{case}");
        assert_eq!((done.write, done.remark.is_some()), (write, remark), "{case}");
        assert_eq!(done.record.door, door(applied), "{case}");
        let held = held.as_ref();
        assert_eq!(done.record.created, held.map_or(at(10), |_| at(0)), "{case}");
        let same = held.filter(|held| held.door == door(applied));
        assert_eq!(done.record.updated, same.map_or(at(10), |held| held.updated), "{case}");
    }
}

#[test]
fn a_change_is_confirmed_before_its_deadline_and_not_from_then_on() {
    let mut fleet = Fleet::default();
    assert!(matches!(confirm(&fleet, &name(), at(10)).unwrap(), Err(ConfirmError::NoDoor(_))));
    applied(&mut fleet, 30, None, at(0));
    assert_eq!(confirm(&fleet, &name(), at(10)).unwrap().unwrap_err(), ConfirmError::Nothing);
    applied(&mut fleet, 40, Some(MINUTE), at(10));
    let last = Timestamp::from_micros(at(70).as_micros() - 1);
    for late in [at(70), at(71)] {
        assert_eq!(confirm(&fleet, &name(), late).unwrap().unwrap_err(), ConfirmError::TooLate(at(70)));
    }
    let transaction = confirm(&fleet, &name(), last).unwrap().unwrap();
    assert_eq!(transaction.expect[0].revision, fleet.doors()[&name()].revision);
    commit(&mut fleet, transaction);
    assert_eq!((record(&fleet).pending, record(&fleet).door), (None, door(40)));
    assert_eq!(record(&fleet).updated, at(10), "the door itself is what it was");
    assert_eq!(confirm(&fleet, &name(), last).unwrap().unwrap_err(), ConfirmError::Nothing);
    assert!(overdue(&fleet, at(1_000)).is_empty());
}

#[test]
fn a_change_that_is_not_confirmed_leads_back_to_what_was_confirmed_last() {
    let mut fleet = Fleet::default();
    applied(&mut fleet, 30, None, at(0));
    applied(&mut fleet, 40, Some(MINUTE), at(10));
    applied(&mut fleet, 50, Some(MINUTE), at(20));
    let last = Timestamp::from_micros(at(80).as_micros() - 1);
    assert!(overdue(&fleet, last).is_empty() && roll_back(&fleet, &name(), last).unwrap().is_none());
    for late in [at(80), at(100_000)] {
        assert_eq!(overdue(&fleet, late), [name()], "however late");
    }
    let (step, transaction) = roll_back(&fleet, &name(), at(80)).unwrap().unwrap();
    assert_eq!(step, Step::Restored);
    assert_eq!(transaction.expect.iter().map(|e| e.revision).collect::<Vec<_>>(), [fleet.revision()]);
    commit(&mut fleet, transaction);
    let back = record(&fleet);
    assert_eq!((back.door, back.created, back.updated, back.pending), (door(30), at(0), at(80), None));
    assert!(overdue(&fleet, at(100)).is_empty() && roll_back(&fleet, &name(), at(100)).unwrap().is_none());
    assert_eq!(confirm(&fleet, &name(), at(100)).unwrap().unwrap_err(), ConfirmError::TooLate(at(80)));

    // The next change begins anew.
    applied(&mut fleet, 40, Some(MINUTE), at(110));
    assert_eq!(record(&fleet).rolled_back, None);
    assert!(confirm(&fleet, &name(), at(111)).unwrap().is_ok());
}

#[test]
fn a_door_that_was_new_is_deleted_after_its_openings() {
    let mut fleet = Fleet::default();
    applied(&mut fleet, 300, Some(MINUTE), at(10));
    for last in 1..=3 {
        let request = Request {
            door: name(),
            source: format!("203.0.113.{last}").parse().unwrap(),
            duration: None,
            knocked: None,
            by: By::Operator,
            reason: String::new(),
            trace: None,
        };
        let granted = grant(&fleet, &request, &format!("op-{last}"), at(20)).unwrap();
        commit(&mut fleet, granted.transaction);
    }
    let of_door = fleet.doors()[&name()].revision;
    let (step, transaction) = roll_back(&fleet, &name(), at(70)).unwrap().unwrap();
    assert!(matches!(step, Step::Withdrawn(openings) if openings.len() == 3));
    assert!(
        transaction.expect.iter().any(|expect| expect.key == "doors/ssh" && expect.revision == of_door),
        "a door that was confirmed at the same moment keeps its openings"
    );
    commit(&mut fleet, transaction);
    let (step, transaction) = roll_back(&fleet, &name(), at(71)).unwrap().unwrap();
    assert_eq!(step, Step::Deleted);
    assert_eq!(transaction.expect[0].revision, of_door);
    commit(&mut fleet, transaction);
    assert!(fleet.doors().is_empty() && roll_back(&fleet, &name(), at(72)).unwrap().is_none());
    assert!(fleet.openings().values().all(|held| held.record.withdrawn.is_some()));
}

#[test]
fn records_of_doors_that_never_waited_are_read() {
    let mut record = serde_json::to_value(DoorRecord::new(door(30), at(0))).unwrap();
    assert_eq!(record.as_object().unwrap().len(), 3, "they are as they were");
    record.as_object_mut().unwrap().remove("pending");
    assert_eq!(serde_json::from_value::<DoorRecord>(record).unwrap(), DoorRecord::new(door(30), at(0)));
}

fn applied(fleet: &mut Fleet, seconds: u64, within: Option<Duration>, now: Timestamp) {
    let held = fleet.doors().get(&name()).map(|held| held.record.clone());
    let hold = within.map(|within| Hold { within, by: alice() });
    let done = apply(held.as_ref(), &door(seconds), hold, now);
    let changes = vec![put(&Key::Door(name()), &done.record).unwrap()];
    commit(fleet, Transaction { changes, ..Transaction::default() });
}

fn commit(fleet: &mut Fleet, transaction: Transaction) {
    fleet.apply(Changes { revision: fleet.revision() + 1, changes: transaction.changes });
}

fn record(fleet: &Fleet) -> DoorRecord {
    fleet.doors()[&name()].record.clone()
}

fn alice() -> Actor {
    Actor {
        who: "user alice".to_owned(),
        role: None,
        by: "certificate".to_owned(),
        address: "203.0.113.9:4711".to_owned(),
    }
}

fn name() -> DoorName {
    "ssh".parse().unwrap()
}

/// A door that opens for so many seconds.
fn door(seconds: u64) -> Door {
    Door::new(DoorParts {
        name: name(),
        labels: Labels::default(),
        knock: Knock::Sequence(Sequence {
            steps: vec![KnockStep { hosts: HostSelector::default(), port: "tcp/7412".parse().unwrap() }],
            within: Duration::from_secs(15),
        }),
        sources: Vec::new(),
        opens: Opens {
            hosts: HostSelector::default(),
            ports: ["tcp/22".parse().unwrap()].into(),
            duration: Duration::from_secs(seconds),
        },
        mode: Default::default(),
    })
    .unwrap()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_795_361_411_000 + seconds * 1_000)
}
