//! What the registry writes is read back, and what breaks the conventions is said.

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use super::{
    CLASSIC, OPENMETRICS, exposition,
    lint::complaints,
    register_process,
    text::{Kind, Number, TextError, classic, parse},
};

type Labels = [(&'static str, String); 1];

/// One of each kind, with labels that have to be escaped.
fn registry() -> Registry {
    let mut registry = Registry::default();
    let knocks = Family::<Labels, Counter>::default();
    knocks.get_or_create(&[("door", "a \"b\" \\ c\nd".to_owned())]).inc_by(9_007_199_254_740_993);
    registry.register("knocks", "Knocks", knocks);
    let level = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    level.set(-2.5);
    registry.register("level", "How \"high\"", level);
    let took = Histogram::new([0.001, 0.5]);
    took.observe(0.25);
    registry.register_with_unit("took", "How long", Unit::Seconds, took);
    registry.register("build", "What", Info::new([("version", "1.2")]));
    registry
}

fn written(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

#[test]
fn what_the_registry_writes_is_read_back() {
    let families = parse(&written(&registry())).unwrap();
    let kinds: Vec<_> = families.iter().map(|family| (family.name.as_str(), family.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("knocks", Kind::Counter),
            ("level", Kind::Gauge),
            ("took_seconds", Kind::Histogram),
            ("build", Kind::Info)
        ]
    );
    let [knocks, level, took, build] = &families[..] else { panic!("{families:?}") };
    assert_eq!(knocks.samples[0].name, "knocks_total");
    assert_eq!(knocks.samples[0].label("door"), Some("a \"b\" \\ c\nd"));
    assert_eq!(knocks.samples[0].value, Number::Whole(9_007_199_254_740_993));
    assert_eq!(level.help, "How \"high\".");
    assert_eq!(level.samples[0].value, Number::Real(-2.5));
    assert_eq!(took.unit, "seconds");
    let buckets: Vec<_> = took.samples.iter().filter_map(|sample| sample.label("le")).collect();
    assert_eq!(buckets, ["0.001", "0.5", "+Inf"]);
    assert_eq!(build.samples[0].label("version"), Some("1.2"));
}

#[test]
fn the_older_language_names_a_family_as_its_samples() {
    let text = classic(&written(&registry()));
    for line in [
        "# HELP knocks_total Knocks.",
        "# TYPE knocks_total counter",
        "# HELP level How \"high\".",
        "# TYPE took_seconds histogram",
        "# TYPE build_info gauge",
        "build_info{version=\"1.2\"} 1",
        "took_seconds_bucket{le=\"+Inf\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in:\n{text}");
    }
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
}

#[test]
fn readers_get_the_language_that_they_ask_for() {
    let registry = registry();
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let (kind, text) = exposition(&registry, Some(accept)).unwrap();
    assert!(kind == OPENMETRICS && text.ends_with("# EOF\n"), "{kind}");
    for accept in [None, Some("*/*"), Some("text/plain")] {
        let (kind, text) = exposition(&registry, accept).unwrap();
        assert!(kind == CLASSIC && !text.contains("# EOF"), "{accept:?}: {kind}");
    }
}

#[test]
fn every_process_says_when_it_started_and_what_it_is() {
    let mut registry = Registry::default();
    register_process(&mut registry, "fleetknock_test", "0.1.0");
    let families = parse(&written(&registry)).unwrap();
    let start = families.iter().find(|family| family.name == "process_start_time_seconds").unwrap();
    assert!(start.samples[0].value.as_f64() > 1e9);
    let build = families.iter().find(|family| family.name == "fleetknock_test_build").unwrap();
    assert_eq!(build.samples[0].label("version"), Some("0.1.0"));
}

#[test]
fn other_texts_are_refused_with_their_line() {
    for (text, line, reason) in [
        ("x 1\n# EOF\n", 1, "a sample without its type"),
        ("# TYPE x gauge\nx one\n# EOF\n", 2, "a value that is no number"),
        ("# TYPE x gauge\nx{a=\"b} 1\n# EOF\n", 2, "a label that does not end"),
        ("# TYPE x summary\n# EOF\n", 1, "an unknown type"),
        ("# TYPE x gauge\nx 1\n", 2, "it ends without # EOF"),
    ] {
        assert_eq!(parse(text), Err(TextError { line, reason }), "{text}");
    }
}

#[test]
fn what_breaks_the_conventions_is_said() {
    let head = "# HELP x_total X.\n";
    for (text, complaint) in [
        ("# HELP x_ms Time of all.\n# TYPE x_ms gauge\nx_ms 1\n", "x_ms: its unit is not a base unit"),
        (
            "# HELP x_seconds Time of all.\n# TYPE x_seconds gauge\nx_seconds 1\n",
            "x_seconds: its name and its unit differ",
        ),
        (
            "# HELP xCount Time of all.\n# TYPE xCount gauge\nxCount 1\n",
            "xCount: its name is not in snake case",
        ),
        (head, "x_total: it needs one sentence of help"),
        (head, "x_total: its name ends in what is added to it"),
        (
            "# HELP x Misses of one.\n# TYPE x counter\nx_total{source=\"203.0.113.5\"} 1\n",
            "x: its label source is an address",
        ),
        (
            "# HELP x Misses of one.\n# TYPE x counter\nx_total{to=\"[2001:db8::1]:22\"} 1\n",
            "x: its label to is an address",
        ),
        ("# HELP x Time of all.\n# TYPE x histogram\nx_count 1\n", "x: a histogram has a unit"),
    ] {
        let families = parse(&format!("{text}# EOF\n")).unwrap();
        let found = complaints(&families);
        assert!(found.iter().any(|found| found == complaint), "{complaint} is not among {found:?}");
    }
    let many: String = (0..65).map(|number| format!("x_total{{kind=\"k{number}\"}} 1\n")).collect();
    let text = format!("# HELP x Misses of one.\n# TYPE x counter\n{many}# EOF\n");
    assert_eq!(complaints(&parse(&text).unwrap()), ["x: it has more than 64 series"]);
    let text = text.replace("kind=", "door=");
    assert_eq!(complaints(&parse(&text).unwrap()), Vec::<String>::new(), "doors are declared one by one");
}
