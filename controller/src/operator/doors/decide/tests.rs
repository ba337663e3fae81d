//! Every state of a resource and of its door, and what is done next.

use fleetknock_core::{door::yaml, time::Timestamp};
use serde_json::json;

use super::*;
use crate::{
    grant,
    operator::crd::FINALIZER,
    record::{Key, Pending},
    store::{Changes, Transaction},
};

#[test]
fn each_state_has_one_next_step() {
    let (at, api, adopted) = (resource(|_| {}), held(None), resource(adopting));
    let own = held(Some(owner("u1", false)));
    let changed = Held { record: DoorRecord { door: door("40s"), ..own.record.clone() }, ..own.clone() };
    let api_changed = Held { record: DoorRecord { door: door("40s"), ..api.record.clone() }, ..api.clone() };
    let waiting = {
        let by = crate::record::Actor {
            who: String::new(),
            role: None,
            by: String::new(),
            address: String::new(),
        };
        let pending = Some(Pending { before: None, until: Timestamp::ZERO, by });
        Held { record: DoorRecord { pending, ..own.record.clone() }, ..own.clone() }
    };
    let elsewhere = |lost| held(Some(Owner { name: "other".to_owned(), ..owner("u9", lost) }));
    let earlier = held(Some(owner("u0", false)));
    let lost = held(Some(owner("u1", true)));
    let taken = |step: Step| matches!(step, Step::Rest(Err(refusal)) if refusal.reason == "NameTaken");
    let next = |resource: &Resource, finalized, held: Option<&Held<DoorRecord>>| {
        decide(resource, finalized, &Ok(door("30s")), held)
    };

    assert_eq!(next(&at, false, None), Step::Finalize);
    assert_eq!(next(&at, true, None), Step::Apply(None));
    assert_eq!(next(&at, true, Some(&own)), Step::Rest(Ok(())));
    assert_eq!(next(&at, false, Some(&own)), Step::Finalize, "somebody took the finalizer off");
    assert_eq!(next(&at, true, Some(&changed)), Step::Apply(Some(7)));
    assert_eq!(next(&at, true, Some(&waiting)), Step::Apply(Some(7)), "nothing waits for a confirmation");
    assert_eq!(next(&at, true, Some(&earlier)), Step::Apply(Some(7)), "an earlier one of that name is gone");
    assert_eq!(next(&at, true, Some(&lost)), Step::Apply(Some(7)), "it is there again");
    assert_eq!(next(&at, true, Some(&api)), Step::Apply(Some(7)), "the very same door");
    assert!(taken(next(&at, false, Some(&api_changed))) && taken(next(&at, true, Some(&api_changed))));
    assert_eq!(next(&adopted, true, Some(&api_changed)), Step::Apply(Some(7)));
    assert!(taken(next(&at, true, Some(&elsewhere(false)))));
    assert_eq!(next(&at, true, Some(&elsewhere(true))), Step::Apply(Some(7)));
}

#[test]
fn only_a_deletion_with_the_finalizer_withdraws_and_only_the_own_door() {
    let deleting = resource(|metadata| metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    let refused = Err(Refusal::new("Invalid", "x"));
    for door in [Ok(door("30s")), refused] {
        let next = |finalized, held: Option<&Held<DoorRecord>>| decide(&deleting, finalized, &door, held);
        let own = held(Some(owner("u1", false)));
        assert_eq!(next(true, Some(&own)), Step::Withdraw);
        assert_eq!(next(false, Some(&own)), Step::Rest(Ok(())));
        for other in [
            None,
            Some(held(None)),
            Some(held(Some(owner("u0", false)))),
            Some(held(Some(owner("u1", true)))),
        ] {
            assert_eq!(next(true, other.as_ref()), Step::Release);
        }
    }
}

#[test]
fn a_refused_resource_changes_nothing_and_says_what_is_in_force() {
    let refused = Err(Refusal::new("Invalid", "it is wrong"));
    let at = resource(|_| {});
    let own = held(Some(owner("u1", false)));
    for finalized in [false, true] {
        let said = |held: Option<&Held<DoorRecord>>| match decide(&at, finalized, &refused, held) {
            Step::Rest(Err(refusal)) => refusal.message,
            step => panic!("{step:?}"),
        };
        assert_eq!(said(None), "it is wrong");
        assert_eq!(said(Some(&own)), "it is wrong; the door that was accepted last stays in force");
    }
}

#[test]
fn doors_are_lost_whose_resources_are_not_there_and_no_others() {
    let mut fleet = Fleet::default();
    for (name, owner) in [
        ("api", None),
        ("there", Some(owner("u1", false))),
        ("gone", Some(Owner { name: "gone".to_owned(), ..owner("u2", false) })),
        ("known", Some(Owner { name: "known".to_owned(), ..owner("u3", true) })),
        ("elsewhere", Some(Owner { namespace: "dev".to_owned(), ..owner("u4", false) })),
    ] {
        let key = Key::Door(name.parse().unwrap());
        let change = grant::put(&key, &held(owner).record).unwrap();
        let Transaction { changes, .. } = Transaction { changes: vec![change], ..Transaction::default() };
        fleet.apply(Changes { revision: 1, changes });
    }
    let lost = lost(&fleet, |namespace| namespace == "ops", |owner| owner.name == "ssh");
    let names: Vec<_> = lost.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["gone"]);
}

fn adopting(metadata: &mut serde_json::Value) {
    metadata["annotations"] = json!({"fleetknock.io/adopt": "true"});
}

fn resource(change: impl Fn(&mut serde_json::Value)) -> Resource {
    let mut metadata = json!({
        "name": "ssh", "namespace": "ops", "uid": "u1", "resourceVersion": "5", "generation": 1, "finalizers": [FINALIZER],
    });
    change(&mut metadata);
    let object = json!({"apiVersion": "fleetknock.io/v1", "kind": "Door", "metadata": metadata, "spec": {}});
    Resource::read(serde_json::from_value(object).unwrap()).unwrap()
}

fn owner(uid: &str, lost: bool) -> Owner {
    Owner { namespace: "ops".to_owned(), name: "ssh".to_owned(), uid: uid.to_owned(), lost }
}

fn held(owner: Option<Owner>) -> Held<DoorRecord> {
    let record = DoorRecord { owner, ..DoorRecord::new(door("30s"), Timestamp::ZERO) };
    Held { record, revision: 7 }
}

fn door(open_for: &str) -> Door {
    let document = json!({
        "apiVersion": "fleetknock.io/v1", "kind": "Door", "metadata": {"name": "ssh"},
        "spec": {
            "knock": {"sequence": [{"port": "tcp/17412"}, {"port": "udp/23981"}], "within": "15s"},
            "opens": {"hosts": {}, "ports": ["tcp/22"], "for": open_for},
        },
    });
    yaml::parse(&document.to_string()).unwrap().remove(0).door
}
