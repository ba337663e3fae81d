//! What happens at the limits.

use super::*;

const THREE: &str = "*:tcp/7 *:udp/8 *:tcp/9";

fn limited(limits: Limits) -> Matcher {
    matcher(Config { limits, bans: None, ..Config::default() }, &[door("a", THREE, 60_000)])
}

/// A spoofed source, each in a prefix of its own.
fn spoofed(number: u32) -> Source {
    Source::new(Ipv4Addr::from(0x0b00_0000 + (number << 8)).into()).unwrap()
}

#[test]
fn a_flood_of_spoofed_first_knocks_stops_no_real_one() {
    let limits = Limits { sources: 1_000, ..Limits::default() };
    let mut matcher = limited(limits);
    let mut decisions = Vec::new();
    let mut knocks = Knocks::default();
    let early = knocks.knocks("h1:tcp/7@0 h1:udp/8@1");
    early.iter().for_each(|report| drop(matcher.observe(report, at(1), &mut decisions)));
    let mut most = 0;
    for number in 0..1_000_000u32 {
        let what = if number % 3 == 0 { "h2:tcp/5" } else { "h2:tcp/7" };
        let flood = Observation {
            source: spoofed(number & 0xffff),
            ..knocks.knock(what, 10 + u64::from(number / 100))
        };
        matcher.observe(&flood, flood.time, &mut decisions);
        // A real knock in the middle of it, whose steps are 500 floods apart.
        if let 500_000 | 500_500 | 501_000 = number {
            let what = ["h3:tcp/7", "h3:udp/8", "h3:tcp/9"][(number as usize - 500_000) / 500];
            let real = Observation { source: source(2), ..knocks.knock(what, 10 + u64::from(number / 100)) };
            matcher.observe(&real, real.time, &mut decisions);
        }
        if number % 1_000 == 0 {
            most = most.max(matcher.stats().memory);
        }
    }
    assert_eq!(opened(&decisions), ["a"], "the knock in the middle");
    let last = knocks.knock("h1:tcp/9", 10_100);
    matcher.observe(&last, last.time, &mut decisions);
    assert_eq!(opened(&decisions), ["a", "a"], "the progressed attempt survived");
    let stats = matcher.stats();
    assert_eq!(stats.sources, 1_000);
    assert_eq!(stats.sources, stats.noise + stats.first + stats.progressed);
    assert!(stats.evicted_first > 600_000, "{stats:?}");
    assert!(most < 400_000, "{most} bytes for 1,000 sources");
}

#[test]
fn a_higher_class_is_never_evicted_for_a_lower_one() {
    let mut matcher = limited(Limits { sources: 4, ..Limits::default() });
    let mut knocks = Knocks::default();
    let mut see = |matcher: &mut Matcher, number: u32, what: &str| {
        let report = Observation { source: spoofed(number), ..knocks.knock(what, 0) };
        matcher.observe(&report, at(0), &mut Vec::new())
    };
    for number in 0..4 {
        assert_eq!(see(&mut matcher, number, "h1:tcp/5"), Verdict::Miss);
    }
    for number in 4..8 {
        assert!(matches!(see(&mut matcher, number, "h1:tcp/7"), Verdict::Advanced { .. }));
    }
    assert_eq!(matcher.stats().evicted_noise, 4);
    assert_eq!(
        see(&mut matcher, 8, "h1:tcp/5"),
        Verdict::Ignored(Ignored::Refused),
        "noise takes no first's place"
    );
    for number in 4..7 {
        see(&mut matcher, number, "h1:udp/8");
    }
    see(&mut matcher, 9, "h1:tcp/7");
    let stats = matcher.stats();
    assert_eq!((stats.progressed, stats.first, stats.evicted_first, stats.refused), (3, 1, 1, 1));
    see(&mut matcher, 9, "h1:udp/8");
    assert_eq!(
        see(&mut matcher, 10, "h1:tcp/7"),
        Verdict::Ignored(Ignored::Refused),
        "only progressed ones are left"
    );
    for number in [4, 5, 6, 9] {
        assert_eq!(see(&mut matcher, number, "h1:tcp/9"), Verdict::Completed, "{number}");
    }
}

#[test]
fn a_door_of_one_step_opens_even_when_there_is_no_room() {
    let doors = [door("a", THREE, 60_000), door("b", "*:tcp/6", 60_000)];
    let config =
        Config { limits: Limits { sources: 1, ..Limits::default() }, bans: None, ..Config::default() };
    let mut matcher = matcher(config, &doors);
    deliver(&mut matcher, &Knocks::default().knocks("h1:tcp/7@0 h1:udp/8@1"));
    let knock = Observation { source: source(2), ..Knocks::default().knock("h2:tcp/6", 2) };
    let (verdicts, decisions) = deliver(&mut matcher, &[knock]);
    assert_eq!((verdicts, opened(&decisions)), (vec![Verdict::Completed], vec!["b"]));
    assert_eq!(matcher.stats().refused, 1);
}

#[test]
fn a_flood_within_a_prefix_harms_that_prefix_only() {
    let mut matcher = limited(Limits { sources_per_prefix: 16, ..Limits::default() });
    let mut knocks = Knocks::default();
    let mut see = |matcher: &mut Matcher, source: &str, what: &str| {
        let report = Observation { source: source.parse().unwrap(), ..knocks.knock(what, 0) };
        matcher.observe(&report, at(0), &mut Vec::new())
    };
    see(&mut matcher, "2001:db8:0:ff::1", "h1:tcp/7");
    see(&mut matcher, "2001:db8:0:ff::1", "h1:udp/8");
    see(&mut matcher, "2001:db8:0:100::1", "h1:tcp/7");
    for number in 1..10_000 {
        see(&mut matcher, &format!("2001:db8:0:{:x}::{number:x}", number % 256), "h1:tcp/7");
    }
    assert_eq!(matcher.stats().sources, 17);
    see(&mut matcher, "2001:db8:0:100::1", "h1:udp/8");
    for whole in ["2001:db8:0:ff::1", "2001:db8:0:100::1"] {
        assert_eq!(see(&mut matcher, whole, "h1:tcp/9"), Verdict::Completed);
    }
}

#[test]
fn what_a_full_window_drops_may_not_be_bridged() {
    let mut matcher = limited(Limits { records_per_source: 4, ..Limits::default() });
    let mut knocks = Knocks::default();
    // The wrong knock at 20 is dropped in favour of newer ones; no chain may begin before it.
    let reports = knocks.knocks("h1:tcp/7@10 h1:tcp/5@20 h1:tcp/4@30 h1:tcp/4@40 h1:tcp/4@50 h1:tcp/4@60");
    deliver(&mut matcher, &reports);
    assert_eq!(deliver(&mut matcher, &reports[..1]).0, [Verdict::Ignored(Ignored::TooLate)]);
    let again = knocks.knocks("h1:tcp/7@70 h1:udp/8@80 h1:tcp/9@90");
    assert_eq!(opened(&deliver(&mut matcher, &again).1), ["a"]);
}

#[test]
fn what_has_expired_may_not_be_bridged() {
    let mut knocks = Knocks::default();
    let mut wrong = knocks.knock("h1:tcp/5", 1);
    wrong.uncertainty = Duration::from_millis(200);
    let reports = knocks.knocks("h2:tcp/7@100 h2:udp/8@200 h2:tcp/9@300");
    let retention = limited(Limits::default()).retention();
    for (expired, opens) in [(wrong, 0), (Observation { uncertainty: Duration::ZERO, ..wrong }, 1)] {
        let mut matcher = limited(Limits::default());
        deliver(&mut matcher, &[expired]);
        let mut decisions = Vec::new();
        for report in &reports {
            matcher.observe(report, at(50) + retention, &mut decisions);
        }
        assert_eq!(opened(&decisions).len(), opens);
    }
}

#[test]
fn the_records_of_all_sources_are_bounded() {
    let mut matcher = limited(Limits { records: 1_000, ..Limits::default() });
    let mut knocks = Knocks::default();
    let mut see = |matcher: &mut Matcher, number: u32, what: &str| {
        let report = Observation { source: spoofed(number), ..knocks.knock(what, 0) };
        matcher.observe(&report, at(0), &mut Vec::new())
    };
    for round in 0..60 {
        for number in 0..300 {
            see(&mut matcher, number, if round == 0 { "h1:tcp/5" } else { "h1:tcp/4" });
        }
    }
    let stats = matcher.stats();
    assert!(stats.evicted_noise > 0 && stats.sources > 0, "{stats:?}");
    let records = limited(Limits::default()).stats().memory + 1_000 * 40 + 300 * 16 + 2 * 1_024 * 80;
    assert!(stats.memory < records + 100_000, "{stats:?}");
    // When nothing of its class can go, the source itself is forgotten, and with it what it had achieved.
    let mut matcher = limited(Limits { records: 128, ..Limits::default() });
    let mut refused = 0;
    for number in 0..65 {
        see(&mut matcher, number, "h1:tcp/7");
        refused += u32::from(see(&mut matcher, number, "h1:udp/8") == Verdict::Ignored(Ignored::Refused));
    }
    assert_eq!((refused, matcher.stats().progressed, matcher.stats().sources), (1, 64, 64));
}

#[test]
fn sweeping_drops_the_silent_and_gives_memory_back() {
    let mut matcher = limited(Limits::default());
    let empty = matcher.stats().memory;
    let mut knocks = Knocks::default();
    for number in 0..20_000u32 {
        let what = ["h1:tcp/7", "h1:tcp/5"][number as usize % 2];
        let report = Observation { source: spoofed(number), ..knocks.knock(what, u64::from(number)) };
        matcher.observe(&report, report.time, &mut Vec::new());
    }
    let full = matcher.stats();
    assert!(full.memory > 20_000 * 80 && full.memory < 20_000 * 160, "{full:?}");
    let retention = matcher.retention();
    assert_eq!(matcher.sweep(at(0) + retention, usize::MAX, &mut Vec::new()), 0);
    assert_eq!(matcher.sweep(at(10_000) + retention, 100, &mut Vec::new()), 100);
    assert_eq!(matcher.sweep(at(10_000) + retention, usize::MAX, &mut Vec::new()), 9_900);
    assert_eq!(matcher.stats().sources, 10_000);
    assert_eq!(matcher.sweep(at(20_000) + retention, usize::MAX, &mut Vec::new()), 10_000);
    assert!(matcher.stats().memory < empty + 10_000, "{:?}", matcher.stats());
}

#[test]
fn hostile_overlap_costs_a_bounded_search() {
    // Sixteen equal steps, then one that never comes in order: every subset of the knocks is a prefix.
    let steps = format!("{} *:tcp/8 *:tcp/9", "*:tcp/7 ".repeat(16));
    let mut matcher = matcher(Config { bans: None, ..Config::default() }, &[door("a", &steps, 60_000)]);
    let mut decisions = Vec::new();
    let mut knocks = Knocks::default();
    for number in 0..2_000 {
        let host = 1 + number % 50;
        let port = [7, 7, 7, 8, 9, 9][number % 6];
        let mut report = knocks.knock(&format!("h{host}:tcp/{port}"), number as u64);
        report.uncertainty = Duration::from_secs(1);
        matcher.observe(&report, report.time, &mut decisions);
    }
    assert!(matcher.stats().sources == 1);
}
