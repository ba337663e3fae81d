//! The bound of the trail, its shares, and what an event may say.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::store::{Changes, bounds};

const MAX: usize = 40;

fn fleet() -> Fleet {
    Fleet::default()
}

fn controller() -> HostName {
    "ctl-1".parse().unwrap()
}

fn alice() -> Actor {
    Actor {
        who: "user alice".to_owned(),
        role: Some(fleetknock_core::identity::Role::Admin),
        by: "certificate".to_owned(),
        address: "192.0.2.1:1000".to_owned(),
    }
}

/// An event that nobody has written yet, of either share.
fn event(number: u32, share: Share) -> AuditRecord {
    let (controller, alice) = (controller(), alice());
    let at = Timestamp::from_millis(1_000 + u64::from(number / 3));
    let actor = (share == Share::Orders).then_some(&alice);
    entry(pb::EventKind::OpeningGranted, Stamp { at, random: number, controller: &controller, actor }, "x")
}

fn commit(fleet: &mut Fleet, transaction: Transaction) {
    bounds::check_transaction(&transaction).unwrap();
    let revision = fleet.revision() + 1;
    fleet.apply(Changes { revision, changes: transaction.changes });
}

fn counted(fleet: &Fleet, share: Share) -> usize {
    fleet.trail().ids(share).len()
}

proptest! {
    /// Whatever is written, one after another or at the same moment by three controllers that do not see each other's
    /// events yet: the trail is at most that much above its bound, and within it again after a few more.
    #[test]
    fn the_trail_is_bounded(
        rounds in proptest::collection::vec((1usize..=3, 1usize..=25, any::<bool>()), 1..60),
    ) {
        let mut fleet = fleet();
        let mut number = 0;
        let mut surplus = 0;
        for (at_once, events, by_user) in rounds {
            let share = if by_user { Share::Orders } else { Share::Rest };
            let transactions: Vec<_> = (0..at_once).map(|_| {
                let mut transaction = Transaction::default();
                let events: Vec<_> = (0..events).map(|_| { number += 1; event(number, share) }).collect();
                append_within(MAX, &mut transaction, &fleet, events).unwrap();
                transaction
            }).collect();
            transactions.into_iter().for_each(|transaction| commit(&mut fleet, transaction));
            surplus = if at_once == 1 { surplus.max(events) - events } else { surplus + events * (at_once - 1) };
            prop_assert!(fleet.audit().len() <= MAX + surplus, "{} events, {surplus} may be too many", fleet.audit().len());
        }
        for _ in 0..surplus {
            let mut transaction = Transaction::default();
            number += 1;
            append_within(MAX, &mut transaction, &fleet, [event(number, Share::Rest)]).unwrap();
            commit(&mut fleet, transaction);
        }
        prop_assert!(fleet.audit().len() <= MAX);
    }

    /// Each share is sure of its half, however much of the other is written, and the newest are those that stay.
    #[test]
    fn knocks_and_refusals_never_flush_out_what_users_ordered(orders in 1u32..60, rest in 1u32..300) {
        let mut fleet = fleet();
        let write = |fleet: &mut Fleet, number, share| {
            let mut transaction = Transaction::default();
            append_within(MAX, &mut transaction, fleet, [event(number, share)]).unwrap();
            commit(fleet, transaction);
        };
        for number in 0..orders {
            write(&mut fleet, number, Share::Orders);
        }
        for number in orders..orders + rest {
            write(&mut fleet, number, Share::Rest);
        }
        let kept = (orders as usize).min(MAX);
        let squeezed = kept.min(MAX / 2).max(kept.min(MAX.saturating_sub(rest as usize)));
        prop_assert_eq!(counted(&fleet, Share::Orders), squeezed);
        prop_assert_eq!(fleet.audit().len(), MAX.min(kept + rest as usize));
        let newest: HashSet<_> = (orders - squeezed as u32..orders).map(|n| event(n, Share::Orders).id).collect();
        prop_assert!(fleet.trail().ids(Share::Orders).iter().all(|id| newest.contains(id)));
    }
}

#[test]
fn events_of_one_transaction_leave_room_for_what_they_tell_of() {
    let mut fleet = fleet();
    for round in 0..3 {
        let mut transaction = Transaction::default();
        let events = (0..100).map(|number| event(round * 100 + number, Share::Rest));
        append_within(MAX, &mut transaction, &fleet, events).unwrap();
        commit(&mut fleet, transaction);
    }
    let most = CHANGES_MAX / (1 + CHANGES_EACH);
    let mut transaction = Transaction::default();
    for number in 0..most {
        transaction.changes.push(Change::Delete { key: format!("openings/x/{number}") });
    }
    let events = (0..most as u32).map(|number| event(1_000 + number, Share::Rest));
    append_within(MAX, &mut transaction, &fleet, events).unwrap();
    let before = fleet.audit().len();
    commit(&mut fleet, transaction);
    assert_eq!(fleet.audit().len(), before - most, "a trail above its bound shrinks");
}

#[test]
fn events_are_cleared_away_when_their_time_is_up() {
    let mut fleet = fleet();
    let mut transaction = Transaction::default();
    append(&mut transaction, &fleet, (0..6).map(|number| event(number, Share::Rest))).unwrap();
    commit(&mut fleet, transaction);
    let first = Timestamp::from_millis(1_000);
    assert_eq!(outdated(&fleet, first + (AUDIT_KEEP - Duration::from_millis(1))).count(), 0);
    assert_eq!(outdated(&fleet, first + AUDIT_KEEP).count(), 3);
    let cleared = grant::clear(&fleet, first + AUDIT_KEEP, 2).unwrap();
    assert_eq!(cleared.changes.len(), 2, "no more than asked for");
}

#[test]
fn texts_of_an_event_are_bounded() {
    let (controller, alice) = (controller(), alice());
    let stamp =
        Stamp { at: Timestamp::from_millis(1), random: 1, controller: &controller, actor: Some(&alice) };
    let long = || "ß".repeat(100_000);
    let change = || FieldChange { field: "spec.sources".to_owned(), before: long(), after: long() };
    let event = entry(pb::EventKind::DoorApplied, stamp, long()).with_changes((0..1_000).map(|_| change()));
    assert_eq!(event.message.chars().count(), MESSAGE_MAX);
    assert!(event.message.ends_with('…'));
    assert_eq!(event.changes.len(), FIELDS_MAX);
    assert!(event.changes.iter().all(|change| change.before.chars().count() == SIDE_MAX));
    let mut transaction = Transaction::default();
    append(&mut transaction, &fleet(), [event]).unwrap();
    assert!(transaction.changes[0].size() < crate::store::VALUE_MAX / 4, "{}", transaction.changes[0].size());
}

#[test]
fn codes_are_the_names_of_kinds_and_lead_back_to_them() {
    let stamp = |controller| Stamp { at: Timestamp::ZERO, random: 0, controller, actor: None };
    let controller = controller();
    for number in 1..64 {
        let Ok(kind) = pb::EventKind::try_from(number) else { continue };
        let event = entry(kind, stamp(&controller), "");
        assert!(!event.code.starts_with("EVENT_KIND"), "{}", event.code);
        assert_eq!(event.kind(), kind);
    }
    let mut later = entry(pb::EventKind::Warning, stamp(&controller), "");
    later.code = "OF_A_LATER_VERSION".to_owned();
    assert_eq!(later.kind(), pb::EventKind::Unspecified);
}

#[test]
fn a_refusal_has_no_share_in_what_users_ordered() {
    let (controller, alice) = (controller(), alice());
    let stamp =
        Stamp { at: Timestamp::from_millis(1), random: 1, controller: &controller, actor: Some(&alice) };
    assert_eq!(entry(pb::EventKind::DoorApplied, stamp, "").share(), Share::Orders);
    assert_eq!(entry(pb::EventKind::CallDenied, stamp, "").share(), Share::Rest);
    let host = Actor { who: "host edge-1".to_owned(), role: None, ..alice.clone() };
    let stamp = Stamp { actor: Some(&host), ..stamp };
    assert_eq!(entry(pb::EventKind::CertificateRenewed, stamp, "").share(), Share::Rest);
}
