//! What words tell and must not tell, and how several controllers' words on a knock are put together.

use std::time::Duration;

use fleetknock_core::{
    door::{DoorParts, Opens, Sequence, Step},
    explain::{Outcome, Verdict},
    host::HostSelector,
    knock::ObservationId,
};

use super::{words::seconds, *};

#[test]
fn without_reveal_no_word_tells_a_port_or_a_host_of_a_step() {
    let door = door();
    let wrong = knock("edge-1", "tcp/7412", 1, pb::KnockOutcome::Miss);
    for verdict in verdicts() {
        for (reveal, knock) in [(false, &wrong), (true, &wrong)] {
            let gathered = gathered([answer([knock.clone()])]);
            let told = said(&door, &gathered, &verdict, reveal);
            let text = format!("{told:?}");
            assert!(!told.1.is_empty(), "{verdict:?} says nothing");
            if !reveal {
                assert!(!text.contains("7412") && !text.contains("23981"), "{verdict:?}: {text}");
                assert!(!text.contains("vault-1"), "{verdict:?}: {text}");
            }
        }
    }
}

#[test]
fn with_reveal_hosts_and_ports_of_steps_are_named() {
    let gathered = gathered([answer([])]);
    let in_use = Verdict::PortInUse { step: 2, hosts: vec!["vault-1".parse().unwrap()] };
    let (_, message, _) = said(&door(), &gathered, &in_use, true);
    assert_eq!(message, "step 2 of 2 cannot be seen: a local service has its port: vault-1");
    let missing = Verdict::Incomplete { done: 1, later: None, deadline: None, doubtful: vec![] };
    let (_, _, remedy) = said(&door(), &gathered, &missing, true);
    assert!(remedy.contains("udp/23981 on vault-1"), "{remedy}");
}

#[test]
fn a_knock_at_a_steps_port_is_shown_without_it() {
    for (port, reveal, shown) in
        [("tcp/7412", false, false), ("tcp/7412", true, true), ("tcp/4444", false, true)]
    {
        let gathered = gathered([answer([knock("edge-1", port, 1, pb::KnockOutcome::Miss)])]);
        let told = words(&door(), &gathered, reveal, |words| words.knock(&gathered.knocks[0]));
        assert_eq!((told.port.is_some(), told.hidden), (shown, !shown), "{port}, reveal {reveal}");
    }
}

#[test]
fn numbers_are_told_as_people_say_them() {
    let slow = Verdict::TooSlow {
        step: 2,
        late: Duration::from_millis(3_210),
        took: Duration::from_millis(18_210),
        knock: id(1),
    };
    let (code, message, remedy) = said(&door(), &gathered([answer([])]), &slow, false);
    assert_eq!(code, pb::ExplainCode::TooSlow);
    assert_eq!(
        message,
        "step 2 of 2 came 3.2 s too late: the door wants all steps within 15s, and they took 18.2 s"
    );
    assert_eq!(remedy, "knock faster, or raise spec.knock.within");
    assert_eq!(seconds(Duration::from_micros(900)), "900 us");
    assert_eq!(seconds(Duration::from_millis(999)), "999 ms");
    assert_eq!(seconds(Duration::from_secs(61)), "61.0 s");
}

#[test]
fn a_knock_that_several_judged_counts_once_with_the_most_telling_word() {
    let lost = pb::KnockSeen { judged_us: 500, ..knock("edge-1", "tcp/7412", 1, pb::KnockOutcome::Waiting) };
    let found = pb::KnockSeen {
        judged_us: 900,
        door: "vault".to_owned(),
        step: 1,
        of: 2,
        ..knock("edge-1", "tcp/7412", 1, pb::KnockOutcome::Step)
    };
    let other = knock("edge-1", "tcp/4444", 2, pb::KnockOutcome::Miss);
    let gathered = gathered([answer([lost, other]), answer([found])]);
    assert_eq!(gathered.knocks.len(), 2);
    let seen = gathered.knocks.iter().find(|knock| knock.said.counter == 1).unwrap();
    assert_eq!((seen.seen.outcome, seen.said.step), (Outcome::Step, 1));
    assert_eq!(seen.seen.judged, Timestamp::from_micros(500), "as old as the first word on it");
}

#[test]
fn what_one_controller_refused_another_may_have_answered() {
    let completed = |outcome, message: &str| pb::KnockSeen {
        door: "vault".to_owned(),
        message: message.to_owned(),
        ..knock("vault-1", "udp/23981", 1, outcome)
    };
    let refused = || completed(pb::KnockOutcome::Refused, "the lease is gone");
    let vault = "vault".parse().unwrap();
    let alone = gathered([answer([refused()])]);
    assert_eq!(alone.refusals(&vault).len(), 1);
    let both = gathered([answer([refused()]), answer([completed(pb::KnockOutcome::Completed, "")])]);
    assert!(both.refusals(&vault).is_empty());
    assert_eq!(both.knocks[0].seen.outcome, Outcome::Completed);
}

#[test]
fn what_makes_no_sense_is_left_out_and_later_runs_have_larger_numbers() {
    let stranger = knock("unknown-1", "tcp/1", 1, pb::KnockOutcome::Miss);
    let broken = pb::KnockSeen { port: None, ..knock("edge-1", "tcp/1", 2, pb::KnockOutcome::Miss) };
    let late = pb::KnockSeen {
        boot: vec![1; 16],
        time_us: 9_000,
        ..knock("edge-1", "tcp/1", 1, pb::KnockOutcome::Miss)
    };
    let early = pb::KnockSeen { boot: vec![2; 16], ..knock("edge-1", "tcp/1", 7, pb::KnockOutcome::Miss) };
    let gathered = gathered([answer([stranger, broken, late, early])]);
    let ids: Vec<_> = gathered.knocks.iter().map(|knock| knock.seen.observation.id).collect();
    assert_eq!(ids.iter().map(|id| (id.boot, id.counter)).collect::<Vec<_>>(), [(1, 7), (2, 1)]);
}

#[test]
fn hosts_that_may_hide_knocks_are_named() {
    let host = |name: &str, change: &dyn Fn(&mut pb::Host)| {
        let mut host = pb::Host { name: name.to_owned(), connected: true, ..pb::Host::default() };
        change(&mut host);
        (name.to_owned(), host)
    };
    let hosts = HashMap::from([
        host("a", &|_| ()),
        host("b", &|host| host.connected = false),
        host("c", &|host| host.drops_kernel = 1),
        host("d", &|host| host.clock_offset_us = -600_000),
    ]);
    let told = caveats(&hosts, false);
    assert!(
        matches!(&told[..], [away, lost, drift]
        if away.ends_with(": b") && lost.ends_with(": c") && drift.ends_with(": d")),
        "{told:?}"
    );
    assert_eq!(caveats(&hosts, true).len(), 2, "it may be connected to one that did not answer");
}

fn verdicts() -> Vec<Verdict> {
    let vault = || vec!["vault-1".parse().unwrap()];
    let own = || vec!["bastion-1".parse().unwrap()];
    let at = Timestamp::from_millis(1_700_000_000_000);
    let incomplete =
        |done, later, deadline, doubtful| Verdict::Incomplete { done, later, deadline, doubtful };
    vec![
        Verdict::Open { until: at },
        Verdict::OpenInPart { pending: own(), open_on: 1 },
        Verdict::FirewallFailed { failed: vec![("bastion-1".parse().unwrap(), "no".to_owned())] },
        Verdict::TargetAway { hosts: own() },
        Verdict::NoTarget,
        Verdict::Expired { at },
        Verdict::Withdrawn { at, reason: "closed".to_owned() },
        Verdict::Banned { until: Some(at) },
        Verdict::Banned { until: None },
        Verdict::NotAdmitted,
        Verdict::NothingSeen,
        Verdict::NoStep { knocks: 1 },
        incomplete(0, Some(2), None, vault()),
        incomplete(1, None, Some(at), vault()),
        incomplete(1, None, Some(Timestamp::from_millis(5)), vec![]),
        Verdict::WrongKnock { after: 1, knock: id(1) },
        Verdict::WrongOrder { early: 2, before: 1 },
        Verdict::WrongHost { step: 2, knock: id(1) },
        Verdict::TooSlow {
            step: 2,
            late: Duration::from_secs(1),
            took: Duration::from_secs(3),
            knock: id(1),
        },
        Verdict::PortInUse { step: 2, hosts: vault() },
        Verdict::HostAway { step: 2, hosts: vault() },
        Verdict::NoHost { step: 2 },
        Verdict::Refused { reason: "the store is away".to_owned(), waits: true },
        Verdict::Observes(Box::new(Verdict::PortInUse { step: 2, hosts: vault() })),
    ]
}

fn id(counter: u64) -> ObservationId {
    ObservationId { host: HostId(1), boot: 1, counter }
}

/// `tcp/7412` on any host, then `udp/23981` on vault-1.
fn door() -> Door {
    let vault = HostSelector { names: ["vault-1".parse().unwrap()].into(), ..HostSelector::default() };
    let step = |hosts, port: &str| Step { hosts, port: port.parse().unwrap() };
    Door::new(DoorParts {
        name: "vault".parse().unwrap(),
        labels: Labels::default(),
        knock: Knock::Sequence(Sequence {
            steps: vec![step(HostSelector::default(), "tcp/7412"), step(vault, "udp/23981")],
            within: Duration::from_secs(15),
        }),
        sources: Vec::new(),
        opens: Opens {
            hosts: HostSelector::default(),
            ports: ["tcp/22".parse().unwrap()].into(),
            duration: Duration::from_secs(30),
        },
        mode: Default::default(),
    })
    .unwrap()
}

fn knock(host: &str, port: &str, counter: u64, outcome: pb::KnockOutcome) -> pb::KnockSeen {
    pb::KnockSeen {
        host: host.to_owned(),
        time_us: 1_000,
        port: Some(port.parse::<Port>().unwrap().into()),
        outcome: outcome.into(),
        judged_us: 1_000,
        boot: vec![7; 16],
        counter,
        ..pb::KnockSeen::default()
    }
}

fn answer<const N: usize>(knocks: [pb::KnockSeen; N]) -> pb::OwnKnocksResponse {
    pb::OwnKnocksResponse { knocks: knocks.into(), remembered_from_us: 0 }
}

fn gathered<const N: usize>(answers: [pb::OwnKnocksResponse; N]) -> Gathered {
    let number = |host: &HostName| match host.as_str() {
        "edge-1" => Some(HostId(1)),
        "vault-1" => Some(HostId(2)),
        _ => None,
    };
    Gathered::merge(source(), answers.into_iter(), number)
}

fn source() -> Source {
    "192.0.2.1".parse().unwrap()
}

fn words<T>(door: &Door, gathered: &Gathered, reveal: bool, ask: impl Fn(&Words<'_>) -> T) -> T {
    let secret = ports(door).collect();
    let barred = HashMap::new();
    ask(&Words {
        reveal,
        source: source(),
        now: Timestamp::from_millis(10),
        secret: &secret,
        barred: &barred,
        notes: HashMap::new(),
        knocks: gathered.knocks.iter().map(|knock| (knock.seen.observation.id, knock)).collect(),
    })
}

fn said(
    door: &Door,
    gathered: &Gathered,
    verdict: &Verdict,
    reveal: bool,
) -> (pb::ExplainCode, String, String) {
    words(door, gathered, reveal, |words| words.verdict(door, verdict, 2))
}
