//! The picture against a plain model, after any snapshots and deltas.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::*;

mod properties;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_opening_becomes_elements_and_expires_by_time() {
    let now = Instant::now();
    let mut picture = Picture::default();
    let changes =
        picture.take_delta(delta(vec![order("o", 1, "203.0.113.5", &["tcp/22", "udp/53"], 30)]), now);
    let expected = vec![
        (element("203.0.113.5", "tcp/22"), 30 * SECOND),
        (element("203.0.113.5", "udp/53"), 30 * SECOND),
    ];
    assert_eq!(changes.open[0].elements, expected);
    assert_eq!(picture.desired(now + 29 * SECOND).openings.len(), 2);
    assert_eq!(picture.active(now + 30 * SECOND), 0);
    assert!(picture.desired(now + 30 * SECOND).openings.is_empty());
    assert_eq!(picture.openings().count(), 0, "what has expired is forgotten");
}

#[test]
fn the_latest_deadline_counts_and_withdrawing_one_opening_leaves_what_another_needs() {
    let now = Instant::now();
    let mut picture = Picture::default();
    let both = vec![
        order("long", 1, "203.0.113.5", &["tcp/22", "tcp/80"], 60),
        order("short", 1, "203.0.113.5", &["tcp/22"], 20),
    ];
    let changes = picture.take_delta(delta(both), now);
    assert_eq!(changes.open[1].elements, [(element("203.0.113.5", "tcp/22"), 60 * SECOND)]);

    let withdrawal = Delta { withdrawn: vec![("long".into(), true)], ..Delta::default() };
    let changes = picture.take_delta(withdrawal, now + 5 * SECOND);
    assert_eq!(changes.shorten, [(element("203.0.113.5", "tcp/22"), 15 * SECOND)]);
    assert_eq!(changes.close, [element("203.0.113.5", "tcp/80")]);
    assert_eq!(changes.cut, [element("203.0.113.5", "tcp/80")], "the other's connections are spared");
}

#[test]
fn an_older_generation_does_not_overtake_its_refresh() {
    let now = Instant::now();
    let mut picture = Picture::default();
    picture.take_delta(delta(vec![order("o", 2, "203.0.113.5", &["tcp/22"], 60)]), now);
    let changes = picture.take_delta(delta(vec![order("o", 1, "203.0.113.5", &["tcp/22"], 10)]), now);
    assert!(changes.is_empty());
    assert_eq!(picture.opening("o").unwrap().generation, 2);
}

#[test]
fn a_refresh_that_moves_an_opening_closes_what_it_no_longer_needs() {
    let now = Instant::now();
    let mut picture = Picture::default();
    picture.take_delta(delta(vec![order("o", 1, "203.0.113.5", &["tcp/22", "tcp/80"], 60)]), now);
    let changes = picture.take_delta(delta(vec![order("o", 2, "203.0.113.5", &["tcp/22"], 60)]), now);
    assert_eq!(changes.close, [element("203.0.113.5", "tcp/80")]);
}

#[test]
fn a_snapshot_takes_effect_with_its_last_part_and_replaces_everything() {
    let now = Instant::now();
    let mut picture = Picture::default();
    picture.take_delta(delta(vec![order("gone", 1, "203.0.113.5", &["tcp/22"], 60)]), now);
    let guard = FleetGuard { ports: ports(&["tcp/22"]), ..FleetGuard::default() };
    let first = Snapshot {
        guard: Some(guard),
        openings: vec![order("a", 1, "203.0.113.6", &["tcp/22"], 60)],
        more: true,
        ..Snapshot::default()
    };
    assert_eq!(picture.take_snapshot(first.clone(), now), None);
    assert!(!picture.was_told());
    let last = Snapshot {
        revision: 9,
        openings: vec![order("b", 1, "203.0.113.7", &["tcp/22"], 60)],
        bans: vec![(source("203.0.113.8"), 5 * SECOND)],
        ..Snapshot::default()
    };
    let changes = picture.take_snapshot(last.clone(), now).unwrap();
    assert_eq!(changes.close, [element("203.0.113.5", "tcp/22")]);
    assert_eq!(changes.open.len(), 2);
    assert_eq!(changes.ban, [(source("203.0.113.8"), 5 * SECOND)]);
    assert_eq!(changes.guard.unwrap().ports, ports(&["tcp/22"]));
    assert_eq!((picture.revision(), picture.was_told()), (9, true));

    // A stream that ends between the parts leaves nothing behind.
    picture.take_snapshot(first, now);
    picture.stream_ended();
    let changes = picture.take_snapshot(last, now).unwrap();
    assert_eq!(changes.close, [element("203.0.113.6", "tcp/22")]);
}

#[test]
fn a_reassertion_says_only_what_is_new_and_a_first_snapshot_everything() {
    let now = Instant::now();
    let mut picture = Picture::default();
    let snapshot = |reassertion, remaining| Snapshot {
        openings: vec![order("a", 1, "203.0.113.6", &["tcp/22"], remaining)],
        reassertion,
        ..Snapshot::default()
    };
    assert_eq!(picture.take_snapshot(snapshot(false, 60), now).unwrap().open.len(), 1);
    assert!(picture.take_snapshot(snapshot(true, 50), now + 10 * SECOND).unwrap().is_empty());
    assert_eq!(picture.take_snapshot(snapshot(true, 90), now + 10 * SECOND).unwrap().open.len(), 1);
    assert_eq!(picture.take_snapshot(snapshot(false, 90), now + 10 * SECOND).unwrap().open.len(), 1);
}

#[test]
fn ports_that_are_only_observed_are_opened_and_never_cut() {
    let now = Instant::now();
    let mut picture = Picture::default();
    let guard =
        FleetGuard { ports: ports(&["tcp/22"]), observed: ports(&["tcp/80"]), ..FleetGuard::default() };
    let first = Delta {
        guard: Some(guard.clone()),
        ..delta(vec![order("o", 1, "203.0.113.5", &["tcp/22", "tcp/80"], 60)])
    };
    let changes = picture.take_delta(first, now);
    let told = changes.guard.unwrap();
    assert_eq!((told.ports, told.observed), (ports(&["tcp/22"]), ports(&["tcp/80"])));
    assert_eq!(changes.open[0].elements.len(), 2);
    assert_eq!(picture.desired(now).guard.observed, ports(&["tcp/80"]));

    let gone = Delta { withdrawn: vec![("o".into(), true)], ..Delta::default() };
    let changes = picture.take_delta(gone, now);
    assert_eq!(changes.close.len(), 2);
    assert_eq!(changes.cut, [element("203.0.113.5", "tcp/22")]);

    // A door that is enforced from now on is a new guard.
    let enforced = FleetGuard { ports: ports(&["tcp/22", "tcp/80"]), observed: ports(&[]), ..guard };
    let changes = picture.take_delta(Delta { guard: Some(enforced), ..Delta::default() }, now);
    assert_eq!(changes.guard.unwrap().ports, ports(&["tcp/22", "tcp/80"]));
}

#[test]
fn management_networks_are_never_banned() {
    let now = Instant::now();
    let mut picture = Picture::new(BTreeSet::from(["10.0.0.0/8".parse().unwrap()]));
    let ban = |address| Delta { bans: vec![(source(address), 60 * SECOND)], ..Delta::default() };
    assert!(picture.take_delta(ban("10.1.2.3"), now).is_empty());
    assert_eq!(picture.take_delta(ban("192.0.2.1"), now).ban.len(), 1);
    let guard =
        FleetGuard { management: BTreeSet::from(["192.0.2.0/24".parse().unwrap()]), ..FleetGuard::default() };
    let changes = picture.take_delta(Delta { guard: Some(guard), ..Delta::default() }, now);
    assert_eq!(changes.unban, [source("192.0.2.1")]);
    let management: Vec<_> = changes.guard.unwrap().management.iter().map(ToString::to_string).collect();
    assert_eq!(management, ["10.0.0.0/8", "192.0.2.0/24"]);
    assert!(picture.desired(now).bans.is_empty());
}

#[test]
fn a_ban_and_its_end_in_one_message_leave_the_ban() {
    let now = Instant::now();
    let mut picture = Picture::default();
    let who = source("192.0.2.1");
    picture.take_delta(Delta { bans: vec![(who, SECOND)], ..Delta::default() }, now);
    let both = Delta { bans: vec![(who, 9 * SECOND)], unbanned: vec![who], ..Delta::default() };
    let changes = picture.take_delta(both, now);
    assert_eq!((changes.unban.len(), changes.ban), (0, vec![(who, 9 * SECOND)]));
    let changes = picture.take_delta(Delta { unbanned: vec![who], ..Delta::default() }, now);
    assert_eq!(changes.unban, [who]);
}

#[test]
fn beyond_the_limit_an_opening_is_refused_until_others_expire() {
    let now = Instant::now();
    let mut picture = Picture::default();
    let many = (0..OPENINGS_MAX).map(|n| order(&n.to_string(), 1, "203.0.113.5", &["tcp/22"], 10)).collect();
    let changes = picture.take_delta(delta(many), now);
    assert!(changes.refused.is_empty());
    let one_more = || delta(vec![order("one more", 1, "203.0.113.6", &["tcp/22"], 10)]);
    let changes = picture.take_delta(one_more(), now);
    assert_eq!(changes.refused.len(), 1);
    assert_eq!(&*changes.refused[0].id, "one more");
    assert!(changes.open.is_empty());
    let changes = picture.take_delta(one_more(), now + 10 * SECOND);
    assert_eq!((changes.refused.len(), changes.open.len()), (0, 1));
}

fn delta(openings: Vec<Order>) -> Delta {
    Delta { openings, ..Delta::default() }
}

fn order(id: &str, generation: u64, from: &str, to: &[&str], seconds: u64) -> Order {
    let remaining = Duration::from_secs(seconds);
    Order { id: id.into(), generation, source: source(from), ports: ports(to), remaining }
}

fn source(text: &str) -> Source {
    text.parse().unwrap()
}

fn ports(texts: &[&str]) -> BTreeSet<Port> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn element(from: &str, port: &str) -> Element {
    Element { source: source(from), port: port.parse().unwrap() }
}
