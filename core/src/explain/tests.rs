//! What is told of one source at one door. `h1:tcp/7@100` is a knock at TCP port 7 of host h1 after 100 ms; hosts h1 and
//! h2 are `role=edge`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::matcher::{
    self as matching, Verdict as Judged,
    tests::{Knocks, at, door, hosts, matcher, properties, source},
};

const STEPS: &str = "role=edge:tcp/7 h3:udp/8 *:tcp/9";

#[test]
fn the_steps_so_far_were_right_and_the_next_is_missing() {
    let told = tell("h1:tcp/7@0 h3:udp/8@100");
    assert_eq!((told.done, told.total), (2, 3));
    let deadline = Some(at(5_000));
    assert_eq!(told.verdict, Verdict::Incomplete { done: 2, later: None, deadline, doubtful: vec![] });
}

#[test]
fn a_wrong_knock_between_steps_is_named_with_what_came_before_it() {
    let told = tell("h1:tcp/7@0 h1:tcp/4444@50 h3:udp/8@100 h4:tcp/9@200");
    let Verdict::WrongKnock { after: 1, knock } = told.verdict else { panic!("{told:?}") };
    assert_eq!((knock.host, knock.counter), (HostId(1), 2));
    assert_eq!(told.done, 1);
    let told = tell("h1:tcp/7@0 h3:udp/8@100 h4:tcp/4444@200");
    assert!(matches!(told.verdict, Verdict::WrongKnock { after: 2, .. }), "{told:?}");
}

#[test]
fn steps_in_another_order_are_told_as_that() {
    for (knocks, early, before) in [
        ("h1:tcp/7@0 h4:tcp/9@100 h3:udp/8@200", 3, 2),
        ("h3:udp/8@0 h1:tcp/7@100 h4:tcp/9@200", 2, 1),
        ("h3:udp/8@0 h1:tcp/7@100", 2, 1),
        ("h4:tcp/9@0 h3:udp/8@100 h1:tcp/7@200", 2, 1),
    ] {
        assert_eq!(tell(knocks).verdict, Verdict::WrongOrder { early, before }, "{knocks}");
    }
}

#[test]
fn a_right_port_at_a_wrong_host_is_told_with_the_host() {
    for (knocks, wrong, on) in [
        ("h3:tcp/7@0", 1, 3),
        ("h3:tcp/7@0 h3:udp/8@100 h3:tcp/9@200", 1, 3),
        ("h1:tcp/7@0 h4:udp/8@100", 2, 4),
        ("h1:tcp/7@0 h4:udp/8@100 h3:udp/8@150 h3:tcp/9@200", 2, 4),
    ] {
        let told = tell(knocks);
        let Verdict::WrongHost { step, knock } = told.verdict else { panic!("{knocks}: {told:?}") };
        assert_eq!((step, knock.host), (wrong, HostId(on)), "{knocks}");
    }
}

#[test]
fn what_came_too_late_is_told_by_packet_times() {
    let told = tell("h1:tcp/7@0 h3:udp/8@100 h4:tcp/9@8200");
    let (late, took) = (Duration::from_millis(3_200), Duration::from_millis(8_200));
    let knock = ObservationId { host: HostId(4), boot: 1, counter: 1 };
    assert_eq!(told.verdict, Verdict::TooSlow { step: 3, late, took, knock });
    let told = tell("h1:tcp/7@0 h3:udp/8@5001");
    let (late, took) = (Duration::from_millis(1), Duration::from_millis(5_001));
    let knock = ObservationId { host: HostId(3), boot: 1, counter: 1 };
    assert_eq!(told.verdict, Verdict::TooSlow { step: 2, late, took, knock });
}

#[test]
fn the_latest_attempt_counts() {
    let told = tell("h1:tcp/7@0 h3:udp/8@100 h4:tcp/4444@200 h1:tcp/7@1000 h3:udp/8@1100");
    assert!(matches!(told.verdict, Verdict::Incomplete { done: 2, .. }), "{told:?}");
    let told = tell("h1:tcp/7@0 h3:udp/8@100 h4:tcp/9@8200 h1:tcp/7@9000");
    assert!(matches!(told.verdict, Verdict::Incomplete { done: 1, .. }), "{told:?}");
    let told = tell("h1:tcp/7@0 h4:tcp/4444@200 h1:tcp/7@90000");
    assert!(matches!(told.verdict, Verdict::Incomplete { done: 1, .. }), "long after: {told:?}");
    let told = tell("h1:tcp/7@0 h3:udp/8@100 h1:tcp/7@200");
    assert!(matches!(told.verdict, Verdict::Incomplete { done: 2, .. }), "a repeat is harmless: {told:?}");
}

#[test]
fn knocks_elsewhere_are_no_step_and_no_knocks_are_nothing() {
    assert_eq!(tell("h1:tcp/4444@0 h2:tcp/4445@100").verdict, Verdict::NoStep { knocks: 2 });
    assert_eq!(tell("").verdict, Verdict::NothingSeen);
}

#[test]
fn what_keeps_the_next_step_from_being_seen_is_told_before_what_was_knocked() {
    let changed = |knocks: &str, change: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::new(STEPS, knocks);
        change(&mut scene);
        scene.tell().verdict
    };
    let in_use = |scene: &mut Scene| drop(scene.in_use.insert(3, vec!["udp/8".parse().unwrap()]));
    let away = |scene: &mut Scene| scene.away = BTreeSet::from([3]);
    let h3 = || vec!["h3".parse().unwrap()];
    for knocks in ["h1:tcp/7@0 h4:tcp/9@200", "h1:tcp/7@0 h1:tcp/4444@9", "h1:tcp/7@0", "", "h1:tcp/4444@0"] {
        assert_eq!(changed(knocks, &in_use), Verdict::PortInUse { step: 2, hosts: h3() }, "{knocks}");
        assert_eq!(changed(knocks, &away), Verdict::HostAway { step: 2, hosts: h3() }, "{knocks}");
    }
    let seen = "h1:tcp/7@0 h3:udp/8@100";
    assert!(matches!(changed(seen, &away), Verdict::Incomplete { done: 2, .. }), "it was seen before");
    let one_of_two = |scene: &mut Scene| scene.away = BTreeSet::from([1]);
    assert_eq!(changed("", &one_of_two), Verdict::NothingSeen, "the other host can see it");
    let nobody = Scene::new("role=none:tcp/7 *:tcp/9", "").tell().verdict;
    assert_eq!(nobody, Verdict::NoHost { step: 1 });
}

#[test]
fn bans_sources_and_refusals_come_before_what_was_knocked() {
    let knocks = "h1:tcp/7@0 h3:udp/8@100 h4:tcp/9@200";
    let mut scene = Scene::new(STEPS, knocks);
    let end = scene.seen.last().unwrap().observation.id;
    scene.refusals = vec![Refusal { end, reason: "the store is away".to_owned(), waits: false }];
    let refused = Verdict::Refused { reason: "the store is away".to_owned(), waits: false };
    assert_eq!(scene.tell().verdict, refused);
    scene.ban = Some(at(60_000));
    assert_eq!(scene.tell().verdict, Verdict::Banned { until: Some(at(60_000)) });
    scene.ban = Some(at(100));
    assert_eq!(scene.tell().verdict, refused, "the ban is over");
    scene.sources = vec!["192.0.2.0/24".parse().unwrap()];
    assert_eq!(scene.tell().verdict, Verdict::NotAdmitted);
    let mut banned = Scene::new(STEPS, knocks);
    banned.seen.iter_mut().for_each(|seen| seen.outcome = Outcome::Banned);
    assert_eq!(banned.tell().verdict, Verdict::Banned { until: None }, "the ban is over since");
}

#[test]
fn an_opening_is_told_as_its_hosts_tell_it() {
    let host = |number: u32| -> HostName { format!("h{number}").parse().unwrap() };
    let open = |on: &[(u32, OnHost)], away: &[u32]| {
        let mut scene = Scene::new(STEPS, "h1:tcp/7@0 h3:udp/8@100 h4:tcp/9@200");
        scene.away = away.iter().copied().collect();
        let on = on.iter().map(|(number, on)| (host(*number), on.clone())).collect();
        scene.opening = Some(opening(200, 30_200, Standing::Active(on)));
        scene.tell().verdict
    };
    let failed = OnHost::Failed("no room".to_owned());
    assert_eq!(open(&[(1, OnHost::Applied)], &[]), Verdict::Open { until: at(30_200) });
    let part = [(1, OnHost::Applied), (2, OnHost::Pending)];
    assert_eq!(open(&part, &[]), Verdict::OpenInPart { pending: vec![host(2)], open_on: 1 });
    assert_eq!(open(&part, &[2]), Verdict::TargetAway { hosts: vec![host(2)] });
    let told = open(&[(1, OnHost::Pending), (2, failed)], &[1]);
    assert_eq!(told, Verdict::FirewallFailed { failed: vec![(host(2), "no room".to_owned())] });
    assert_eq!(open(&[], &[]), Verdict::NoTarget);
}

#[test]
fn an_opening_that_ended_is_told_until_there_is_a_newer_attempt() {
    let knocks = "h1:tcp/7@0 h3:udp/8@100 h4:tcp/9@200";
    let ended = |knocks: &str, standing: Standing| {
        let mut scene = Scene::new(STEPS, knocks);
        scene.opening = Some(opening(210, 30_200, standing));
        scene.now = scene.now.max(at(40_000));
        scene.tell()
    };
    assert_eq!(ended(knocks, Standing::Expired).verdict, Verdict::Expired { at: at(30_200) });
    let withdrawn = Verdict::Withdrawn { at: at(30_200), reason: "closed".to_owned() };
    assert_eq!(ended(knocks, Standing::Withdrawn("closed".to_owned())).verdict, withdrawn);
    let again = format!("{knocks} h1:tcp/7@35000");
    let told = ended(&again, Standing::Expired);
    assert!(matches!(told.verdict, Verdict::Incomplete { done: 1, .. }), "{told:?}");
    let noise = format!("{knocks} h1:tcp/4444@35000");
    assert_eq!(ended(&noise, Standing::Expired).verdict, Verdict::Expired { at: at(30_200) });
}

#[test]
fn a_door_that_only_observes_says_so_and_what_the_knock_was() {
    let mut scene = Scene::new(STEPS, "h1:tcp/7@0 h3:udp/8@100");
    scene.mode = Mode::Observe;
    let Verdict::Observes(inner) = scene.tell().verdict else { panic!() };
    assert!(matches!(*inner, Verdict::Incomplete { done: 2, .. }), "{inner:?}");
}

proptest! {
    #[test]
    fn it_never_contradicts_the_matcher(
        doors in properties::doors(), deliveries in properties::deliveries(),
    ) {
        for door in &doors {
            let scene = Scene::judged(door.clone(), &deliveries);
            let told = scene.tell();
            let completed = scene.seen.iter().any(|seen| seen.outcome.is_complete());
            let Knock::Sequence(sequence) = door.knock();
            prop_assert!(told.done <= told.total);
            match &told.verdict {
                Verdict::Refused { .. } | Verdict::Expired { .. } => {
                    prop_assert!(completed, "{told:?} though no knock was complete");
                }
                Verdict::TooSlow { late, took, step, .. } => {
                    prop_assert_eq!(*late, *took - sequence.within);
                    prop_assert!(!late.is_zero() && (1..=told.total).contains(step));
                }
                Verdict::Incomplete { done, .. } => prop_assert!(*done < told.total),
                Verdict::WrongKnock { after, .. } => prop_assert!(*after >= 1 && *after <= told.total),
                Verdict::WrongOrder { early, before } => prop_assert!(early > before && *before >= 1),
                Verdict::NothingSeen => prop_assert!(scene.seen.is_empty()),
                _ => {}
            }
            // The other way round: whose latest knock completed the door is told that it did.
            let last = scene.seen.iter().max_by_key(|seen| (seen.observation.time, seen.observation.id));
            let certainly_last = |last: &Seen| {
                let mut others = scene.seen.iter().map(|seen| &seen.observation);
                let last = &last.observation;
                others.all(|other| {
                    other.id == last.id || other.time + other.uncertainty < last.time.before(last.uncertainty)
                })
            };
            if last.is_some_and(|last| last.outcome.is_complete() && certainly_last(last)) {
                let answered = matches!(told.verdict, Verdict::Refused { .. } | Verdict::Expired { .. });
                prop_assert!(answered, "{told:?} though the last knock completed the door");
            }
        }
    }
}

fn tell(knocks: &str) -> Explained {
    Scene::new(STEPS, knocks).tell()
}

fn opening(granted: u64, ends: u64, standing: Standing) -> Opening {
    Opening { id: "0123".to_owned(), granted: at(granted), ends: at(ends), standing }
}

/// What a question is made of.
struct Scene {
    door: Door,
    seen: Vec<Seen>,
    in_use: BTreeMap<u32, Vec<PortRange>>,
    away: BTreeSet<u32>,
    sources: Vec<ipnet::IpNet>,
    mode: Mode,
    ban: Option<Timestamp>,
    opening: Option<Opening>,
    refusals: Vec<Refusal>,
    now: Timestamp,
}

impl Scene {
    /// Within 5 s.
    fn new(steps: &str, knocks: &str) -> Self {
        let reports = Knocks::default().knocks(knocks).into_iter().map(|report| (report, report.time));
        Self::judged(door("d", steps, 5_000), &reports.collect::<Vec<_>>())
    }

    /// As a matcher of that door alone judges it.
    fn judged(door: Door, deliveries: &[(Observation, Timestamp)]) -> Self {
        let config = matching::Config { bans: None, ..matching::Config::default() };
        let mut matcher = matcher(config, std::slice::from_ref(&door));
        let mut decisions = Vec::new();
        let mut seen: Vec<Seen> = Vec::new();
        for (observation, judged) in deliveries {
            let outcome = match matcher.observe(observation, *judged, &mut decisions) {
                Judged::Completed => Outcome::Completed,
                Judged::Advanced { .. } => Outcome::Step,
                Judged::Repeat => Outcome::Repeat,
                Judged::Waiting => Outcome::Waiting,
                Judged::Miss => Outcome::Miss,
                Judged::Ignored(matching::Ignored::TooLate) => Outcome::TooLate,
                Judged::Ignored(_) => continue,
            };
            seen.push(Seen { observation: *observation, judged: *judged, outcome });
        }
        let now = deliveries.last().map_or(at(0), |(_, judged)| *judged) + Duration::from_millis(300);
        Self {
            door,
            seen,
            in_use: BTreeMap::new(),
            away: BTreeSet::new(),
            sources: Vec::new(),
            mode: Mode::Enforce,
            ban: None,
            opening: None,
            refusals: Vec::new(),
            now,
        }
    }

    fn tell(&self) -> Explained {
        let mut parts = self.door.clone().into_parts();
        parts.sources.clone_from(&self.sources);
        parts.mode = self.mode;
        let door = Door::new(parts).unwrap();
        let known = hosts();
        let nothing = Vec::new();
        let hosts: Vec<_> = known
            .iter()
            .map(|(id, (name, labels))| Host {
                id: HostId(*id),
                name,
                labels,
                connected: !self.away.contains(id),
                in_use: self.in_use.get(id).unwrap_or(&nothing),
            })
            .collect();
        explain(&Question {
            door: &door,
            hosts: &hosts,
            source: source(1),
            knocks: &self.seen,
            ban: self.ban,
            opening: self.opening.clone(),
            refusals: &self.refusals,
            now: self.now,
        })
    }
}
