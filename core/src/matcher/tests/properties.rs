//! Properties over random knocks, against the [model](super::super::model) and against the promises themselves.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::{
    super::model::{Model, Outcome, Said},
    *,
};

/// What the matcher said, in the model's words.
fn outcome(verdict: Verdict, decisions: Vec<Decision>) -> Outcome {
    let verdict = match verdict {
        Verdict::Completed => Said::Completed,
        Verdict::Advanced { door, step, .. } => Said::Advanced(DoorName::clone(&door), step),
        Verdict::Repeat => Said::Repeat,
        Verdict::Waiting => Said::Waiting,
        Verdict::Miss => Said::Miss,
        Verdict::Ignored(reason) => Said::Ignored(reason),
    };
    let mut told = Outcome { verdict, ..Outcome::said(Said::Miss) };
    for decision in decisions {
        match decision {
            Decision::Complete(completion) => told.completed.push(completion.door),
            Decision::Ban { misses, .. } => told.ban = Some(misses),
            Decision::Failed(failure) => told.failed.push((failure.door, failure.step)),
        }
    }
    told.failed.sort();
    told
}

/// Doors that share ports, over few ports and hosts so that much matches.
pub(crate) fn doors() -> impl Strategy<Value = Vec<Door>> {
    let step = (prop::sample::select(vec!["*", "h1", "h2", "h1,h3", "role=edge"]), 1..=4u8);
    let one = (vec(step, 1..=4), prop::sample::select(vec![1_000, 2_000, 4_000u64]));
    vec(one, 1..=3).prop_map(|doors| {
        let named = doors.into_iter().enumerate().map(|(number, (steps, within))| {
            let steps: Vec<_> = steps.iter().map(|(host, port)| format!("{host}:tcp/{port}")).collect();
            door(&format!("d{number}"), &steps.join(" "), within)
        });
        named.collect()
    })
}

/// Reports from few hosts at few ports: (host, port, ms after the one before, uncertainty, fingerprint).
fn reports() -> impl Strategy<Value = Vec<Observation>> {
    let gap = prop_oneof![4 => 0..30u64, 4 => 0..300u64, 1 => 0..3_000u64];
    let uncertainty = prop_oneof![6 => 0..60u64, 1 => 0..2_500u64];
    let fingerprint = prop_oneof![6 => Just(0u32), 1 => 1..4u32];
    let one = (1..=4u32, prop_oneof![9 => 1..=4u16, 1 => 5..=6u16], gap, uncertainty, fingerprint, 1..=2u32);
    vec(one, 1..=12).prop_map(|all| {
        let mut knocks = Knocks::default();
        let mut ms = 0;
        let mut last_boot = 1;
        let report = |(host, port, gap, uncertainty, fingerprint, boot): (u32, u16, u64, u64, u32, u32)| {
            ms += gap;
            last_boot = last_boot.max(if gap > 250 { boot } else { 1 });
            let mut report = knocks.knock(&format!("h{host}:tcp/{port}"), ms);
            report.uncertainty = Duration::from_millis(uncertainty);
            report.fingerprint = fingerprint;
            report.id.boot = last_boot;
            report
        };
        all.into_iter().map(report).collect()
    })
}

/// Reports with delays and redelivery: (report, when it arrives).
pub(crate) fn deliveries() -> impl Strategy<Value = Vec<(Observation, Timestamp)>> {
    reports().prop_flat_map(|reports| {
        let delay = prop_oneof![3 => 0..20u64, 2 => 0..2_500u64, 1 => 0..9_000u64];
        let again = prop_oneof![8 => Just(None), 1 => (0..5_000u64).prop_map(Some)];
        let delays = vec((delay, again), reports.len());
        (Just(reports), delays).prop_map(|(reports, delays)| {
            let mut arrivals = Vec::new();
            for (report, (delay, again)) in reports.into_iter().zip(delays) {
                arrivals.push((report, report.time + Duration::from_millis(delay)));
                arrivals
                    .extend(again.map(|again| (report, report.time + Duration::from_millis(delay + again))));
            }
            arrivals.sort_by_key(|(_, at)| *at);
            arrivals
        })
    })
}

fn configs() -> impl Strategy<Value = Config> {
    let bans = prop_oneof![
        Just(None),
        (1..=6u32, 100..5_000u64).prop_map(|(misses, window)| {
            Some(MissPolicy { misses, window: Duration::from_millis(window) })
        })
    ];
    let records = prop_oneof![3 => Just(64u32), 1 => 2..=6u32];
    (bans, 0..1_000u64, records).prop_map(|(bans, settle, records_per_source)| Config {
        // More misses than records are never seen together; the matcher takes a policy as that.
        bans: bans
            .map(|policy: MissPolicy| MissPolicy { misses: policy.misses.min(records_per_source), ..policy }),
        settle: Duration::from_millis(settle),
        limits: Limits { records_per_source, ..Limits::default() },
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// Every verdict, completion and ban is the model's, and other sources change nothing.
    #[test]
    fn the_matcher_is_the_model(
        doors in doors(),
        config in configs(),
        mine in deliveries(),
        others in deliveries(),
    ) {
        let mut matcher = matcher(config, &doors);
        let new_model = || Model::new(config, matcher.retention(), doors.clone(), hosts());
        let mut models = [new_model(), new_model()];
        let of = |number: u32, reports: Vec<(Observation, Timestamp)>| {
            reports.into_iter().map(move |(report, at)| (number, Observation { source: source(number), ..report }, at))
        };
        let mut all: Vec<_> = of(0, mine).chain(of(1, others)).collect();
        all.sort_by_key(|(_, _, at)| *at);
        for (number, report, now) in all {
            let mut decisions = Vec::new();
            let verdict = matcher.observe(&report, now, &mut decisions);
            let model = &mut models[number as usize];
            let expected = model.observe(&report, now);
            for decision in &decisions {
                let Decision::Complete(completion) = decision else { continue };
                let knocks: BTreeSet<_> = completion.knocks.iter().collect();
                let is_said = |(door, chain): &(DoorName, Vec<_>)| {
                    *door == completion.door
                        && chain.last() == Some(&completion.end)
                        && chain.iter().collect::<BTreeSet<_>>() == knocks
                };
                prop_assert!(model.found.iter().any(is_said), "{:?} in {:?}", completion, model.found);
            }
            prop_assert_eq!(outcome(verdict, decisions), expected, "{:?} at {}", report, now);
            if now.as_micros() % 3 == 0 {
                let mut decisions = Vec::new();
                matcher.end_due(now, usize::MAX, &mut decisions);
                let mut overdue: Vec<_> = models.iter_mut().flat_map(|model| model.end_overdue(now)).collect();
                overdue.sort();
                prop_assert_eq!(outcome(Verdict::Miss, decisions).failed, overdue, "swept at {}", now);
            }
        }
        let mut decisions = Vec::new();
        for number in 0..2 {
            matcher.forget(source(number), at(100_000), &mut decisions);
        }
        let left: u64 = models.iter_mut().map(|model| model.forget().len() as u64).sum();
        prop_assert_eq!(decisions.len() as u64, left);
        // Each that began has ended, once.
        let sum = |which: usize| models.iter().map(|model| model.attempts[which]).sum::<u64>();
        let told = matcher.stats().attempts;
        let failed = FailReason::ALL.into_iter().map(|reason| told.failed(reason)).sum::<u64>();
        prop_assert_eq!([told.started, told.completed, failed], [sum(0), sum(1), sum(2)]);
        prop_assert_eq!(told.started, told.completed + failed);
    }

    /// A knock in the right order in true time opens exactly once, however its reports come in, with clocks wrong
    /// within their uncertainty, packets retransmitted and steps repeated.
    #[test]
    fn a_real_knock_opens_exactly_once(
        steps in vec((1..=4u32, 1..=6u16, 0..900u64), 1..=6),
        skews in vec(-1.0..1.0f64, 5),
        uncertainty in 0..200u64,
        retransmitted in vec(any::<bool>(), 6),
        order in vec(any::<u32>(), 24),
    ) {
        let text: Vec<_> = steps.iter().map(|(host, port, _)| format!("h{host}:tcp/{port}")).collect();
        let mut matcher = matcher(Config { bans: None, ..Config::default() }, &[door("a", &text.join(" "), 20_000)]);
        let mut knocks = Knocks::default();
        let mut reports = Vec::new();
        let mut ms = 1_000;
        for (step, ((host, _, gap), what)) in steps.iter().zip(&text).enumerate() {
            ms += gap;
            let mut report = knocks.knock(what, ms);
            report.fingerprint = step as u32 + 1;
            report.uncertainty = Duration::from_millis(uncertainty);
            let skew = (skews[*host as usize] * 1_000.0 * uncertainty as f64) as i64;
            report.time = report.time.shifted(skew);
            reports.push(report);
        }
        // Its copies are captured after everything else on that host: so late that they would be wrong.
        for step in 0..steps.len() {
            if retransmitted[step] {
                let copy = knocks.knock(&text[step], ms + 500);
                reports.push(Observation { fingerprint: reports[step].fingerprint, ..copy });
            }
        }
        let doubled = [&reports[..], &reports[..]].concat();
        let mut shuffled: Vec<_> = doubled.iter().zip(&order).collect();
        shuffled.sort_by_key(|(_, key)| **key);
        let mut decisions = Vec::new();
        for (report, _) in shuffled {
            matcher.observe(report, at(20_000), &mut decisions);
        }
        for report in &reports {
            matcher.observe(report, at(20_000), &mut decisions);
        }
        prop_assert_eq!(opened(&decisions), ["a"]);
    }

    /// A client that knocks again from the start after a mistake gets in, whatever it did before.
    #[test]
    fn a_fresh_knock_opens_whatever_came_before(mut before in reports(), gap in 150..2_000u64) {
        // What came before must have been before: a knock that may have been in between is wrong.
        let uncertainty_max = Duration::from_millis(60);
        before.iter_mut().for_each(|report| report.uncertainty = report.uncertainty.min(uncertainty_max));
        let steps = ["h1:tcp/4", "h2:tcp/2", "h3:tcp/3"];
        let mut matcher = matcher(Config { bans: None, ..Config::default() }, &[door("a", &steps.join(" "), 4_000)]);
        deliver(&mut matcher, &before);
        let mut knocks = Knocks { counters: (1..=4).map(|host| (host, 1_000)).collect() };
        let start = before[before.len() - 1].time.since(BEGIN).as_millis() as u64;
        let mut decisions = Vec::new();
        for (nth, step) in steps.iter().enumerate() {
            let mut report = knocks.knock(step, start + gap * (nth as u64 + 1));
            report.id.boot = 2;
            matcher.observe(&report, report.time, &mut decisions);
        }
        prop_assert_eq!(opened(&decisions), ["a"]);
    }
}

/// In which order a scan visits hosts and ports.
#[derive(Clone, Copy, Debug)]
enum Visit {
    HostByHost,
    PortByPort,
    AllHostsAtOnce,
}

/// Steps at three ports that lie apart and off the edges, in an order that does not rise or fall.
fn secret() -> impl Strategy<Value = (Vec<u16>, Vec<&'static str>)> {
    let ports = subsequence((108..140u16).step_by(2).collect::<Vec<_>>(), 3);
    let hosts = vec(prop::sample::select(vec!["*", "h1", "h2", "role=edge"]), 3);
    (ports, prop::sample::select(vec![[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1]]), hosts)
        .prop_map(|(ports, order, hosts)| (order.map(|which| ports[which]).to_vec(), hosts))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_scan_opens_anything(
        (secret, hosts) in secret(),
        ports in prop_oneof![
            Just((100..148u16).collect::<Vec<_>>()),
            Just((100..148u16).rev().collect::<Vec<_>>()),
            Just((100..148u16).collect::<Vec<_>>()).prop_shuffle(),
        ],
        visit in prop::sample::select(vec![Visit::HostByHost, Visit::PortByPort, Visit::AllHostsAtOnce]),
        scanned in 1..=4u32,
        gap_us in prop::sample::select(vec![0, 10, 1_000, 100_000, 1_000_000u64]),
        uncertainty in prop::sample::select(vec![0, 5, 500u64]),
        rounds in 1..=2usize,
    ) {
        // A permutation that happens to hold two steps in a row, or one at its edge, may be a knock by chance.
        let place = |port: u16| ports.iter().position(|other| *other == port).unwrap();
        let places: Vec<_> = secret.iter().map(|port| place(*port)).collect();
        prop_assume!(places.iter().all(|at| (1..ports.len() - 1).contains(at)));
        prop_assume!(places.windows(2).all(|pair| pair[0] + 1 != pair[1]));
        let steps: Vec<_> = secret.iter().zip(&hosts).map(|(port, host)| format!("{host}:tcp/{port}")).collect();
        let steps = door("a", &steps.join(" "), 300_000);
        let mut matcher = matcher(Config { bans: None, ..Config::default() }, &[steps]);
        let hosts = 1..=scanned;
        let probes: Vec<(u32, u16, bool)> = match visit {
            Visit::HostByHost => hosts.flat_map(|host| ports.iter().map(move |port| (host, *port, true))).collect(),
            Visit::PortByPort => ports.iter().flat_map(|port| hosts.clone().map(move |host| (host, *port, true))).collect(),
            Visit::AllHostsAtOnce => {
                ports.iter().flat_map(|port| hosts.clone().map(move |host| (host, *port, host == 1))).collect()
            }
        };
        let mut knocks = Knocks::default();
        let mut time = BEGIN;
        let mut decisions = Vec::new();
        for _ in 0..rounds {
            for (host, port, wait) in &probes {
                time = time + Duration::from_micros(if *wait { gap_us } else { 0 });
                let mut report = knocks.knock(&format!("h{host}:tcp/{port}"), 0);
                report.time = time;
                report.uncertainty = Duration::from_millis(uncertainty);
                matcher.observe(&report, time, &mut decisions);
            }
        }
        prop_assert!(decisions.is_empty(), "{:?}", decisions);
    }
}
