//! One table per promise of matching.

use super::*;

const THREE: &str = "h1:tcp/7 h2:udp/8 *:tcp/9";

/// Delivers in time order; tells how often the one door opens.
fn openings_of(steps: &str, knocks: &str) -> usize {
    let reports = Knocks::default().knocks(knocks);
    openings(steps, &reports)
}

fn openings(steps: &str, reports: &[Observation]) -> usize {
    let mut matcher = matcher(Config { bans: None, ..Config::default() }, &[door("a", steps, 5_000)]);
    opened(&deliver(&mut matcher, reports).1).len()
}

#[test]
fn order_is_kept_on_one_host_and_by_time_across_hosts() {
    for (steps, knocks, opens) in [
        (THREE, "h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@200", 1),
        (THREE, "h2:udp/8@0 h1:tcp/7@100 h3:tcp/9@200", 0),
        (THREE, "h1:tcp/7@0 h3:tcp/9@100 h2:udp/8@200", 0),
        // Overlapping uncertainty counts in either order, but only just.
        (THREE, "h2:udp/8@0 h1:tcp/7@10 h3:tcp/9@100", 1),
        (THREE, "h2:udp/8@0 h1:tcp/7@11 h3:tcp/9@100", 0),
        // On one host capture order decides, whatever the clock says.
        ("*:tcp/7 *:tcp/8", "h1:tcp/7@0 h1:tcp/8@0", 1),
        ("*:tcp/7 *:tcp/8", "h1:tcp/8@0 h1:tcp/7@0", 0),
        ("*:tcp/7 *:tcp/8", "h1:tcp/7@4 h1:tcp/8@1", 1),
        // A step on the wrong host does not count.
        (THREE, "h2:tcp/7@0 h2:udp/8@100 h3:tcp/9@200", 0),
        ("role=edge:tcp/7 role=db:tcp/8", "h2:tcp/7@0 h4:tcp/8@100", 1),
        ("role=edge:tcp/7 role=db:tcp/8", "h2:tcp/7@0 h1:tcp/8@100", 0),
        // A host that nobody told of matches any host only.
        ("role=edge:tcp/7 *:tcp/8", "h1:tcp/7@0 h9:tcp/8@100", 1),
        ("role=edge:tcp/7 *:tcp/8", "h9:tcp/7@0 h9:tcp/8@100", 0),
        ("*:tcp/7", "h9:tcp/7@0", 1),
        ("*:icmp/700 *:udp/7", "h1:icmp/700@0 h1:udp/7@1", 1),
        ("*:icmp/700 *:udp/7", "h1:icmp/700@0 h1:tcp/7@1", 0),
    ] {
        assert_eq!(openings_of(steps, knocks), opens, "{steps}: {knocks}");
    }
}

#[test]
fn a_later_boot_of_a_host_comes_after_an_earlier_one() {
    let mut reports = Knocks::default().knocks("h1:tcp/7@0 h1:tcp/8@100");
    (reports[0].id.counter, reports[1].id.counter) = (900, 1);
    assert_eq!(openings("*:tcp/7 *:tcp/8", &reports), 0);
    reports[1].id.boot = 2;
    assert_eq!(openings("*:tcp/7 *:tcp/8", &reports), 1);
}

#[test]
fn the_last_needed_report_opens_whatever_order_they_come_in() {
    let reports = Knocks::default().knocks("h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@200");
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut matcher = matcher(Config::default(), &[door("a", THREE, 5_000)]);
        let mut decisions = Vec::new();
        for (nth, which) in order.into_iter().enumerate() {
            assert!(decisions.is_empty(), "{order:?} opened after {nth}");
            matcher.observe(&reports[which], at(200), &mut decisions);
        }
        let completion = Completion {
            door: "a".parse().unwrap(),
            source: source(1),
            first: at(0),
            last: at(200),
            end: reports[2].id,
            knocks: order.map(|which| reports[which].id).into(),
        };
        assert_eq!(decisions, [Decision::Complete(completion)], "{order:?}");
    }
}

#[test]
fn the_knock_for_the_last_step_ends_a_chain_even_when_another_seems_later() {
    let mut reports = Knocks::default().knocks("h1:tcp/7@0 h2:udp/8@102 h3:tcp/9@100");
    reports.iter_mut().for_each(|report| report.uncertainty = Duration::from_millis(20));
    let (_, decisions) = deliver(&mut matcher(Config::default(), &[door("a", THREE, 5_000)]), &reports);
    let [Decision::Complete(completion)] = &decisions[..] else { panic!("{decisions:?}") };
    assert_eq!((completion.last, completion.end), (at(102), reports[2].id));
}

#[test]
fn what_merely_repeats_a_step_is_not_among_a_chains_knocks() {
    let reports = Knocks::default().knocks("h1:tcp/7@0 h1:tcp/7@50 h2:udp/8@100 h2:udp/8@150 h3:tcp/9@200");
    let (_, decisions) = deliver(&mut matcher(Config::default(), &[door("a", THREE, 5_000)]), &reports);
    let [Decision::Complete(completion)] = &decisions[..] else { panic!("{decisions:?}") };
    assert_eq!((completion.knocks.len(), completion.end), (3, reports[4].id));
    let hosts: Vec<_> = completion.knocks.iter().map(|knock| knock.host.0).collect();
    assert_eq!(hosts, [1, 2, 3]);
}

#[test]
fn repeats_are_harmless() {
    for (knocks, opens) in [
        ("h1:tcp/7@0 h1:tcp/7@50 h2:udp/8@100 h3:tcp/9@200", 1),
        ("h1:tcp/7@0 h2:udp/8@100 h2:udp/8@150 h3:tcp/9@200", 1),
        ("h1:tcp/7@0 h2:udp/8@100 h1:tcp/7@150 h3:tcp/9@200", 1),
        ("h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@200 h3:tcp/9@250", 1),
        // Before its step it is no repeat.
        ("h1:tcp/7@0 h3:tcp/9@50 h2:udp/8@100 h3:tcp/9@200", 0),
    ] {
        assert_eq!(openings_of(THREE, knocks), opens, "{knocks}");
    }
    let four = "*:tcp/1 *:tcp/2 *:tcp/3 *:tcp/4";
    assert_eq!(openings_of(four, "h1:tcp/1@0 h1:tcp/2@1 h1:tcp/3@2 h1:tcp/2@3 h1:tcp/4@4"), 1);
    assert_eq!(openings_of(four, "h1:tcp/1@0 h1:tcp/3@1 h1:tcp/2@2 h1:tcp/3@3 h1:tcp/4@4"), 0);
}

#[test]
fn a_retransmitted_syn_is_one_knock() {
    let retransmitted = |knocks: &str, copies: &[usize]| {
        let mut reports = Knocks::default().knocks(knocks);
        copies.iter().for_each(|&copy| reports[copy].fingerprint = 77);
        reports
    };
    let slow =
        retransmitted("h1:tcp/7@0 h1:tcp/7@1000 h2:udp/8@1100 h1:tcp/7@3000 h3:tcp/9@3100", &[0, 1, 3]);
    assert_eq!(openings(THREE, &slow), 1);
    let mut matcher = matcher(Config::default(), &[door("a", THREE, 5_000)]);
    let (verdicts, _) = deliver(&mut matcher, &slow);
    assert_eq!((&verdicts[1], &verdicts[3]), (&Verdict::Repeat, &Verdict::Repeat));
    // Even of a wrong knock, and even when the copy is reported first: the earliest counts.
    let wrong = retransmitted("h1:tcp/5@0 h1:tcp/7@100 h1:tcp/5@1000 h2:udp/8@1100 h3:tcp/9@1200", &[0, 2]);
    assert_eq!(openings(THREE, &wrong), 1);
    let order = [1, 2, 0, 3, 4].map(|which| wrong[which]);
    assert_eq!(openings(THREE, &order), 1);
    // Another port, host or fingerprint is another knock.
    let other = retransmitted("h1:tcp/7@0 h1:tcp/5@50 h2:udp/8@100 h3:tcp/9@200", &[0, 1]);
    assert_eq!(openings(THREE, &other), 0);
}

#[test]
fn a_wrong_knock_fails_the_attempt() {
    for (knocks, opens) in [
        ("h1:tcp/7@0 h1:tcp/5@50 h2:udp/8@100 h3:tcp/9@200", 0),
        ("h1:tcp/7@0 h4:tcp/5@50 h2:udp/8@100 h3:tcp/9@200", 0),
        ("h1:tcp/7@0 h1:udp/7@50 h2:udp/8@100 h3:tcp/9@200", 0),
        ("h1:tcp/7@0 h4:tcp/7@50 h2:udp/8@100 h3:tcp/9@200", 0),
        ("h1:tcp/7@0 h2:udp/8@100 h9:tcp/5@150 h3:tcp/9@200", 0),
        // It may be between, by the clocks.
        ("h4:tcp/5@0 h1:tcp/7@10 h2:udp/8@100 h3:tcp/9@200", 0),
        ("h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@200 h4:tcp/5@210", 1),
        // It is not between.
        ("h4:tcp/5@0 h1:tcp/7@11 h2:udp/8@100 h3:tcp/9@200", 1),
        ("h1:tcp/5@0 h1:tcp/7@1 h2:udp/8@100 h3:tcp/9@200", 1),
        // A new attempt begins, with the wrong knock or after it.
        ("h1:tcp/7@0 h1:tcp/5@10 h1:tcp/7@20 h2:udp/8@100 h3:tcp/9@200", 1),
        // A ping is no knock, unless its length is that of a step.
        ("h1:tcp/7@0 h1:icmp/56@50 h2:udp/8@100 h3:tcp/9@200", 1),
    ] {
        assert_eq!(openings_of(THREE, knocks), opens, "{knocks}");
    }
    assert_eq!(
        openings_of("*:tcp/7 *:tcp/8 *:tcp/9", "h1:tcp/7@0 h1:tcp/8@1 h1:tcp/7@2 h1:tcp/8@3 h1:tcp/9@4"),
        1
    );
    assert_eq!(openings_of("*:tcp/7 *:icmp/9", "h1:tcp/7@0 h1:icmp/8@1 h1:icmp/9@2"), 1);
    let two = [door("a", "*:tcp/7 *:icmp/9", 5_000), door("b", "*:icmp/8", 5_000)];
    let mut matcher = matcher(Config::default(), &two);
    let reports = Knocks::default().knocks("h1:tcp/7@0 h1:icmp/8@1 h1:icmp/9@2");
    assert_eq!(opened(&deliver(&mut matcher, &reports).1), ["b"]);
}

#[test]
fn a_late_report_of_a_wrong_knock_fails_the_attempt_too() {
    let reports = Knocks::default().knocks("h1:tcp/7@0 h4:tcp/5@50 h2:udp/8@100 h3:tcp/9@200");
    assert_eq!(openings(THREE, &[0, 2, 1, 3].map(|which| reports[which])), 0);
}

#[test]
fn within_is_exact_by_packet_time() {
    assert_eq!(openings_of(THREE, "h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@5000"), 1);
    assert_eq!(openings_of(THREE, "h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@5001"), 0);
    // Where the order is open, a middle knock may be the earliest or the latest: it counts, too.
    for (middle, opens) in [(5_000, 1), (5_001, 0)] {
        let mut reports = Knocks::default().knocks(&format!("h1:tcp/7@0 h3:tcp/9@4990 h2:udp/8@{middle}"));
        reports.iter_mut().for_each(|report| report.uncertainty = Duration::from_millis(50));
        assert_eq!(openings(THREE, &reports), opens, "{middle}");
    }
    let mut late = Knocks::default().knocks("h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@5000");
    let mut matcher = matcher(Config::default(), &[door("a", THREE, 5_000)]);
    let mut decisions = Vec::new();
    for report in &mut late {
        matcher.observe(report, at(8_900), &mut decisions);
    }
    assert_eq!(opened(&decisions), ["a"]);
}

#[test]
fn redelivery_is_harmless_and_knocking_again_opens_again() {
    let mut knocks = Knocks::default();
    let once = knocks.knocks("h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@200");
    let twice = [&once[..], &once[..1], &once[..]].concat();
    assert_eq!(openings(THREE, &twice), 1);
    let again = knocks.knocks("h1:tcp/7@1000 h2:udp/8@1100 h3:tcp/9@1200");
    assert_eq!(openings(THREE, &[&once[..], &again[..], &once[..], &again[..]].concat()), 2);
    // Half of an old knock does not help a new one.
    let half = knocks.knocks("h2:udp/8@2000 h3:tcp/9@2100");
    assert_eq!(openings(THREE, &[&once[..], &half[..]].concat()), 1);
}

#[test]
fn the_next_knock_opens_even_when_some_of_it_is_reported_first() {
    let all = Knocks::default()
        .knocks("h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@200 h1:tcp/7@1000 h2:udp/8@1100 h3:tcp/9@1200");
    // Whole windows of hosts that come one after the other, as when another controller begins to follow the source.
    for order in [[0, 3, 1, 2, 4, 5], [0, 3, 1, 4, 2, 5], [0, 3, 2, 5, 1, 4], [2, 5, 1, 4, 0, 3]] {
        let reports = order.map(|which| all[which]);
        assert_eq!(openings(THREE, &reports), 2, "{order:?}");
    }
}

#[test]
fn what_is_not_taken_in_says_why() {
    let config = Config { bans: None, ..Config::default() };
    let mut matcher = matcher(config, &[door("a", THREE, 5_000)]);
    assert_eq!(matcher.retention(), Duration::from_secs(9));
    let mut knocks = Knocks::default();
    let mut see =
        |what: &str, ms: u64, now: u64| matcher.observe(&knocks.knock(what, ms), at(now), &mut Vec::new());
    assert_eq!(see("h1:tcp/7", 0, 9_001), Verdict::Ignored(Ignored::TooLate));
    assert_eq!(see("h1:tcp/7", 10_006, 0), Verdict::Ignored(Ignored::Future));
    assert_eq!(see("h1:icmp/56", 0, 0), Verdict::Ignored(Ignored::IcmpUnused));
    assert_eq!(see("h1:tcp/5", 0, 0), Verdict::Miss);
    assert_eq!(see("h3:tcp/9", 300, 400), Verdict::Waiting);
    assert_eq!(see("h3:tcp/9", 300, 2_301), Verdict::Miss);
    let a = || Arc::new("a".parse().unwrap());
    assert_eq!(see("h1:tcp/7", 4_000, 4_000), Verdict::Advanced { door: a(), step: 1, of: 3 });
    assert_eq!(see("h2:udp/8", 4_100, 4_100), Verdict::Advanced { door: a(), step: 2, of: 3 });
    assert_eq!(see("h2:udp/8", 4_150, 4_150), Verdict::Repeat);
    assert_eq!(see("h3:tcp/9", 4_200, 4_200), Verdict::Completed);
}

#[test]
fn misses_ban_once_and_only_their_source() {
    let bans = MissPolicy { misses: 3, window: Duration::from_secs(60) };
    let config = Config { bans: Some(bans), ..Config::default() };
    for (knocks, banned) in [
        ("h1:tcp/1@0 h1:tcp/2@1 h1:tcp/3@2", true),
        ("h1:tcp/1@0 h1:tcp/2@1 h1:tcp/2@60000", true),
        ("h1:tcp/1@0 h1:tcp/2@1 h1:tcp/2@60002", false),
        ("h1:tcp/1@0 h2:udp/8@1 h4:tcp/3@2", false),
        ("h1:tcp/1@0 h2:udp/8@1 h4:tcp/3@2002", true),
        ("h1:tcp/1@0 h1:tcp/2@1 h1:tcp/7@2 h1:tcp/7@3 h2:udp/8@100 h3:tcp/9@200", false),
        ("h1:icmp/1@0 h1:icmp/2@1 h1:icmp/3@2 h1:icmp/4@3", false),
    ] {
        let mut matcher = matcher(config, &[door("a", THREE, 5_000)]);
        let mut elsewhere = Knocks::default().knocks("h4:tcp/7@0 h4:tcp/5@0");
        elsewhere.iter_mut().for_each(|report| report.source = source(2));
        deliver(&mut matcher, &elsewhere);
        let (_, decisions) = deliver(&mut matcher, &Knocks::default().knocks(knocks));
        let ban = Decision::Ban { source: source(1), misses: 3, window: bans.window };
        assert_eq!(decisions.contains(&ban), banned, "{knocks}: {decisions:?}");
        let now = at(0);
        let known = Verdict::Ignored(Ignored::Duplicate);
        assert_eq!(
            matcher.observe(&elsewhere[0], now, &mut Vec::new()),
            known,
            "the other source is untouched"
        );
    }
}

/// A controller that takes over hears of old knocks host by host: later steps before the first ones, or without them.
#[test]
fn later_steps_that_are_sent_again_ban_nobody() {
    let bans = MissPolicy { misses: 3, window: Duration::from_secs(60) };
    let config = Config { bans: Some(bans), ..Config::default() };
    let mut matcher = matcher(config, &[door("a", "h1:tcp/7 h2:tcp/8 h2:tcp/9 h2:tcp/10 h2:tcp/11", 5_000)]);
    let mut knocks = Knocks::default();
    let mut see = |what: &str, ms: u64, now: u64| {
        let mut decisions = Vec::new();
        matcher.observe(&knocks.knock(what, ms), at(now), &mut decisions);
        decisions
    };
    for (what, ms) in [("h2:tcp/8", 100), ("h2:tcp/9", 200), ("h2:tcp/10", 300), ("h2:tcp/11", 400)] {
        assert_eq!(see(what, ms, 3_000), []);
    }
    assert_eq!(see("h1:tcp/7", 3_100, 3_100), [], "nor does the next knock");
    // What matches nothing is a miss whenever it comes.
    assert_eq!(see("h1:tcp/1", 3_200, 8_000), []);
    assert_eq!(see("h1:tcp/2", 8_001, 8_001), []);
    let ban = Decision::Ban { source: source(1), misses: 3, window: bans.window };
    assert_eq!(see("h1:tcp/3", 8_002, 8_002), [ban]);
}

#[test]
fn doors_and_hosts_change_under_way() {
    let reports = Knocks::default().knocks("h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@200");
    let see = |matcher: &mut Matcher, report: &Observation| {
        let mut decisions = Vec::new();
        matcher.observe(report, at(200), &mut decisions);
        decisions.len()
    };
    // Knocks that are kept are judged by new doors.
    let mut changing = matcher(Config::default(), &[]);
    assert_eq!(see(&mut changing, &reports[0]) + see(&mut changing, &reports[1]), 0);
    changing.set_doors(&[door("a", THREE, 5_000)]);
    assert_eq!(see(&mut changing, &reports[2]), 1);
    // What was spent stays spent when the door changes, and is usable when it was deleted and made again.
    let longer = [door("a", "h1:tcp/7 h2:udp/8 *:tcp/9 *:tcp/10", 5_000)];
    let last = Observation { port: "tcp/10".parse().unwrap(), ..reports[2] };
    let last = |counter| Observation { id: ObservationId { counter, ..last.id }, ..last };
    changing.set_doors(&longer);
    assert_eq!(see(&mut changing, &last(2)), 0);
    let mut deleted = matcher(Config::default(), &[door("a", THREE, 5_000)]);
    assert_eq!(reports.iter().map(|report| see(&mut deleted, report)).sum::<usize>(), 1);
    deleted.set_doors(&[]);
    deleted.set_doors(&longer);
    assert_eq!(see(&mut deleted, &last(2)), 1);
    // A host's labels count as they are when a report arrives.
    let mut relabelled = matcher(Config::default(), &[door("a", "role=edge:tcp/7 *:udp/8", 5_000)]);
    relabelled.set_hosts([]);
    assert_eq!(see(&mut relabelled, &reports[0]), 0);
    let hosts = hosts();
    relabelled.set_hosts(hosts.iter().map(|(id, (name, labels))| (HostId(*id), name, labels)));
    assert_eq!(see(&mut relabelled, &reports[1]), 1);
}

#[test]
fn a_door_admits_its_sources_only() {
    let mut parts = door("a", "*:tcp/7 *:tcp/8", 5_000).into_parts();
    parts.sources = vec!["10.0.0.2/32".parse().unwrap()];
    let mut matcher = matcher(Config::default(), &[Door::new(parts).unwrap()]);
    let mut reports = Knocks::default().knocks("h1:tcp/7@0 h1:tcp/8@1");
    let (verdicts, decisions) = deliver(&mut matcher, &reports);
    assert_eq!((verdicts, decisions), (vec![Verdict::Miss, Verdict::Miss], vec![]));
    reports.iter_mut().for_each(|report| report.source = source(2));
    assert_eq!(opened(&deliver(&mut matcher, &reports).1), ["a"]);
}

#[test]
fn one_knock_may_serve_several_doors() {
    let doors = [
        door("a", "*:tcp/7 *:tcp/8", 5_000),
        door("b", "*:tcp/7 *:tcp/8 *:tcp/9", 5_000),
        door("c", "h1:tcp/8 *:tcp/9", 5_000),
    ];
    let mut matcher = matcher(Config::default(), &doors);
    let (_, decisions) = deliver(&mut matcher, &Knocks::default().knocks("h1:tcp/7@0 h1:tcp/8@1 h1:tcp/9@2"));
    assert_eq!(opened(&decisions), ["a", "b", "c"]);
}

#[test]
fn attempts_show_how_far_a_source_is() {
    let mut matcher = matcher(Config::default(), &[door("a", THREE, 5_000)]);
    let mut knocks = Knocks::default();
    deliver(&mut matcher, &knocks.knocks("h1:tcp/7@100 h2:udp/8@200"));
    let other = Observation { source: source(2), ..knocks.knock("h1:tcp/7", 150) };
    deliver(&mut matcher, &[other]);
    let attempt = Attempt {
        door: "a".parse().unwrap(),
        source: source(1),
        done: 2,
        total: 3,
        started: at(100),
        deadline: at(5_100),
        last_host: HostId(2),
    };
    assert_eq!(matcher.attempts_of(source(1), at(300)), std::slice::from_ref(&attempt));
    let all: Vec<_> = matcher.attempts(at(300)).collect();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0], attempt);
    assert_eq!((all[1].source, all[1].done), (source(2), 1));
    assert_eq!(matcher.attempts(at(7_101)).count(), 1, "past its deadline by more than settle");
    deliver(&mut matcher, &knocks.knocks("h1:tcp/5@300"));
    assert_eq!(matcher.attempts_of(source(1), at(300)), [], "failed by a wrong knock");
    matcher.forget(source(2), at(0), &mut Vec::new());
    assert_eq!(matcher.attempts(at(300)).count(), 0);
    assert_eq!(matcher.stats().sources, 1);
}

#[test]
fn ipv6_and_mapped_ipv4_sources_are_told_apart_and_together() {
    let mut reports = Knocks::default().knocks("h1:tcp/7@0 h1:tcp/8@1");
    for (first, second, opens) in [
        ("2001:db8::1", "2001:db8::1", 1),
        ("2001:db8::1", "2001:db8::2", 0),
        ("10.0.0.9", "::ffff:10.0.0.9", 1),
        ("10.0.0.9", "::10.0.0.9", 0),
    ] {
        (reports[0].source, reports[1].source) = (first.parse().unwrap(), second.parse().unwrap());
        assert_eq!(openings("*:tcp/7 *:tcp/8", &reports), opens, "{first} {second}");
    }
}

/// What is told of failed attempts, and how the sums stand.
fn failures(decisions: &[Decision]) -> Vec<(FailReason, usize, usize, u64)> {
    let failed = decisions.iter().filter_map(|decision| match decision {
        Decision::Failed(failure) => {
            let ms = failure.at.since(BEGIN).as_millis() as u64;
            Some((failure.reason, failure.step, failure.of, ms))
        }
        _ => None,
    });
    failed.collect()
}

#[test]
fn an_attempt_beyond_its_first_step_fails_once_and_says_why() {
    let doors = [door("a", "h1:tcp/7 h2:udp/8 h3:tcp/9", 5_000)];
    let mut knocks = Knocks::default();
    let fresh = || matcher(Config { bans: None, ..Config::default() }, &doors);

    let mut wrong = fresh();
    let reports = knocks.knocks("h1:tcp/7@0 h2:udp/8@100 h2:tcp/6@200 h2:tcp/5@300 h3:tcp/9@400");
    let (_, decisions) = deliver(&mut wrong, &reports);
    assert_eq!(failures(&decisions), [(FailReason::WrongKnock, 2, 3, 200)]);
    let [Decision::Failed(failure)] = &decisions[..] else { panic!("{decisions:?}") };
    assert_eq!(failure.knocks, [reports[0].id, reports[1].id]);
    assert_eq!((failure.wrong, failure.first, failure.deadline), (Some(reports[2].id), at(0), at(5_000)));

    // Its last knock comes too late, which is not the same as a wrong one.
    let mut slow = fresh();
    let (_, decisions) = deliver(&mut slow, &knocks.knocks("h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@5050"));
    assert_eq!(failures(&decisions), [(FailReason::TooSlow, 2, 3, 5_000)]);

    // Nothing comes any more: the sweep notices, when reports that were sent in time cannot come in either.
    let mut silent = fresh();
    deliver(&mut silent, &knocks.knocks("h1:tcp/7@0 h2:udp/8@100"));
    let mut decisions = Vec::new();
    silent.sweep(at(6_999), usize::MAX, &mut decisions);
    assert_eq!(decisions, []);
    silent.sweep(at(7_001), usize::MAX, &mut decisions);
    silent.sweep(at(600_000), usize::MAX, &mut decisions);
    assert_eq!(failures(&decisions), [(FailReason::TooSlow, 2, 3, 5_000)]);

    // Noise and first steps are nobody's attempt.
    let mut scanned = fresh();
    let (_, decisions) =
        deliver(&mut scanned, &knocks.knocks("h1:tcp/7@0 h2:tcp/6@200 h2:udp/8@100 h1:tcp/7@900"));
    assert_eq!(decisions, []);
    assert_eq!(scanned.stats().attempts, Attempts::default());
}

#[test]
fn every_attempt_that_began_is_completed_failed_or_under_way() {
    let doors =
        [door("a", "h1:tcp/7 h2:udp/8 h3:tcp/9", 5_000), door("b", "h1:tcp/7 h2:udp/8 h3:tcp/10", 5_000)];
    let bans = Some(MissPolicy { misses: 2, window: Duration::from_secs(60) });
    let mut matcher = matcher(Config { bans, ..Config::default() }, &doors);
    let mut knocks = Knocks::default();
    // At two doors at once: the one is completed, the other by that not.
    let (_, decisions) = deliver(&mut matcher, &knocks.knocks("h1:tcp/7@0 h2:udp/8@100 h3:tcp/9@200"));
    assert_eq!(
        (opened(&decisions), failures(&decisions)),
        (vec!["a"], vec![(FailReason::WrongKnock, 2, 3, 200)])
    );
    // The doors go while somebody knocks.
    deliver(&mut matcher, &knocks.knocks("h1:tcp/7@1000 h2:udp/8@1100"));
    matcher.set_doors(&[]);
    let (_, decisions) = deliver(&mut matcher, &knocks.knocks("h3:tcp/9@1200"));
    assert_eq!(failures(&decisions), []);
    // Somebody is banned by another controller.
    matcher.set_doors(&doors[..1]);
    deliver(&mut matcher, &knocks.knocks("h1:tcp/7@9000 h2:udp/8@9100"));
    let mut decisions = Vec::new();
    matcher.forget(source(1), at(9_200), &mut decisions);
    assert_eq!(failures(&decisions), [(FailReason::Banned, 2, 3, 9_200)]);
    let told = matcher.stats().attempts;
    assert_eq!((told.started, told.completed), (5, 1));
    let failed = FailReason::ALL.map(|reason| told.failed(reason));
    assert_eq!(failed, [1, 2, 0, 0, 1]);
}

#[test]
fn an_attempt_is_shown_though_an_older_one_has_run_out_of_time() {
    let mut matcher = matcher(
        Config { bans: None, ..Config::default() },
        &[door("a", "h1:tcp/7 h2:udp/8 h3:tcp/9", 2_000), door("b", "h3:tcp/1 h3:tcp/2", 60_000)],
    );
    let mut knocks = Knocks::default();
    deliver(&mut matcher, &knocks.knocks("h1:tcp/7@0 h2:udp/8@100 h1:tcp/7@9000 h2:udp/8@9100"));
    let attempts = matcher.attempts_of(source(1), at(9_200));
    assert_eq!(attempts.iter().map(|attempt| attempt.started).collect::<Vec<_>>(), [at(9_000)]);
}
