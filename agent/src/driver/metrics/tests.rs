//! What is scraped of an agent keeps the conventions, and adds up.

use fleetknock_runtime::metrics::{
    lint::complaints,
    register_process,
    text::{Family, parse},
};
use prometheus_client::{encoding::text::encode, registry::Registry};

use super::{Heard, Metrics};
use crate::{capture::judge::Reason, firewall::Count};

#[test]
fn every_instrument_keeps_the_conventions() {
    let (_, families) = shown();
    assert_eq!(complaints(&families), Vec::<String>::new());
    assert!(families.len() > 25, "{}", families.len());
}

#[test]
fn every_packet_that_was_read_is_a_knock_or_ignored_or_lost() {
    let (metrics, _) = shown();
    let families = read(&metrics);
    let value = |name: &str, label: &str| {
        let samples = families.iter().flat_map(|family| &family.samples);
        let named = samples.filter(|sample| sample.name == format!("fleetknock_agent_{name}"));
        let wanted =
            named.filter(|sample| label.is_empty() || sample.labels.iter().any(|(_, value)| value == label));
        wanted.map(|sample| sample.value.as_f64()).sum::<f64>()
    };
    assert_eq!(value("knocks_captured_total", ""), 5.0);
    assert_eq!(value("packets_ignored_total", "service"), 7.0);
    assert_eq!(value("packets_ignored_total", "source_limit"), 0.0, "it is among the drops");
    assert_eq!(value("drops_total", "source_limit"), 3.0);
    assert_eq!(value("drops_total", "window"), 2.0);
    let ended = ["queue", "malformed", "source_limit"].map(|kind| value("drops_total", kind));
    let all = value("knocks_captured_total", "") + value("packets_ignored_total", "");
    assert_eq!(all + ended.iter().sum::<f64>(), value("packets_read_total", ""));
}

/// Instruments that all have shown something.
fn shown() -> (Metrics, Vec<Family>) {
    let metrics = Metrics::default();
    let mut not_knocks = [0; Reason::ALL.len()];
    not_knocks[Reason::Service as usize] = 7;
    not_knocks[Reason::SourceLimit as usize] = 3;
    let heard = Heard {
        captured: 5,
        kernel: 9,
        queue: 1,
        malformed: 1,
        source_limit: 3,
        packets: 17,
        lookups: 4,
        filter_swaps: 1,
        not_knocks,
    };
    metrics.set_capture(&heard, 2);
    metrics.set_guard_packets(Count { dropped: 4, observed: 1 });
    metrics.apply_seconds.observe(20e-6);
    let families = read(&metrics);
    (metrics, families)
}

fn read(metrics: &Metrics) -> Vec<Family> {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    register_process(&mut registry, "fleetknock_agent", "test");
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    parse(&text).unwrap()
}
