//! What Prometheus sees of an agent. Every instrument is named here, once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::firewall::Count;

/// The instruments. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    captured: Counter,
    dropped: Family<[(&'static str, &'static str); 1], Counter>,
    guard_dropped: Counter,
    guard_observed: Counter,
    pub(super) reported: Counter,
    pub(super) reports_resent: Counter,
    pub(super) repairs: Counter,
    pub(super) firewall_failures: Counter,
    pub(super) openings_active: Gauge,
    pub(super) bans_active: Gauge,
    pub(super) guarded_ports: Gauge,
    pub(super) observed_ports: Gauge,
    pub(super) window: Gauge,
    pub(super) link_up: Gauge,
    pub(super) links: Counter,
    pub(super) controller_changes: Counter,
    pub(super) resends: Counter,
    pub(super) apply_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a netlink message (10 us) to iptables placing rules (100 ms).
        let buckets = [10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 5e-3, 25e-3, 100e-3, 1.0];
        Self {
            captured: Counter::default(),
            dropped: Family::default(),
            guard_dropped: Counter::default(),
            guard_observed: Counter::default(),
            reported: Counter::default(),
            reports_resent: Counter::default(),
            repairs: Counter::default(),
            firewall_failures: Counter::default(),
            openings_active: Gauge::default(),
            bans_active: Gauge::default(),
            guarded_ports: Gauge::default(),
            observed_ports: Gauge::default(),
            window: Gauge::default(),
            link_up: Gauge::default(),
            links: Counter::default(),
            controller_changes: Counter::default(),
            resends: Counter::default(),
            apply_seconds: Histogram::new(buckets),
        }
    }
}

impl Metrics {
    /// Makes them scrapeable, as `fleetknock_agent_...`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("fleetknock_agent");
        let mut counters = vec![
            ("knocks_captured", "Knocks seen on this host", &self.captured),
            (
                "observations_reported",
                "Observations sent to a controller, re-sent ones included",
                &self.reported,
            ),
            (
                "observations_resent",
                "Observations sent again, to a new controller or because one asked",
                &self.reports_resent,
            ),
            (
                "guard_dropped_packets",
                "Packets that guard dropped, of all ports together",
                &self.guard_dropped,
            ),
            (
                "guard_observed_packets",
                "Packets that guard would have dropped if doors that only observe were enforced",
                &self.guard_observed,
            ),
            ("repairs", "Times that the kernel was found to differ from the picture", &self.repairs),
            ("firewall_failures", "Orders that the firewall could not carry out", &self.firewall_failures),
            ("links", "Streams on which a controller said Welcome", &self.links),
            (
                "controller_changes",
                "Times that another controller said Welcome than the one before",
                &self.controller_changes,
            ),
            ("resends", "Times that a controller asked for the whole window again", &self.resends),
        ];
        for (name, help, counter) in counters.drain(..) {
            registry.register(name, help, counter.clone());
        }
        registry.register("drops", "Packets and observations lost, by kind", self.dropped.clone());
        for (name, help, gauge) in [
            ("openings_active", "Openings held now", &self.openings_active),
            ("bans_active", "Bans held now", &self.bans_active),
            ("guarded_ports", "Ports kept closed", &self.guarded_ports),
            ("observed_ports", "Ports of doors that only observe", &self.observed_ports),
            ("window_observations", "Observations kept for re-sending", &self.window),
            ("link_up", "1 while a controller has welcomed this agent", &self.link_up),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "apply_seconds",
            "From a controller's order to the kernel's answer",
            self.apply_seconds.clone(),
        );
    }

    pub(super) fn set_captured(&self, total: u64) {
        store(self.captured.inner(), total);
    }

    pub(super) fn set_guard_packets(&self, sum: Count) {
        store(self.guard_dropped.inner(), sum.dropped);
        store(self.guard_observed.inner(), sum.observed);
    }

    pub(super) fn set_dropped(&self, kind: &'static str, total: u64) {
        store(self.dropped.get_or_create(&[("kind", kind)]).inner(), total);
    }
}

/// Totals are counted where things happen and shown here.
fn store(counter: &AtomicU64, total: u64) {
    counter.store(total, Relaxed);
}
