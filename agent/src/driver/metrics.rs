//! What Prometheus sees of an agent. Every instrument is named here, once, but for those of certificates.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::Heard;
use crate::{capture::judge::Reason, firewall::Count};

/// One label of a small fixed set.
type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// The instruments. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    captured: Counter,
    packets: Counter,
    lookups: Counter,
    filter_swaps: Counter,
    ignored: Labelled,
    dropped: Labelled,
    guard_dropped: Counter,
    guard_observed: Counter,
    pub(super) reported: Counter,
    pub(super) reports_resent: Counter,
    pub(super) repairs: Counter,
    pub(super) firewall_failures: Counter,
    pub(super) openings_applied: Counter,
    pub(super) openings_failed: Counter,
    pub(super) openings_withdrawn: Counter,
    pub(super) openings_active: Gauge,
    pub(super) bans_active: Gauge,
    pub(super) guarded_ports: Gauge,
    pub(super) observed_ports: Gauge,
    pub(super) window: Gauge,
    pub(super) warnings: Gauge,
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
            packets: Counter::default(),
            lookups: Counter::default(),
            filter_swaps: Counter::default(),
            ignored: Family::default(),
            dropped: Family::default(),
            guard_dropped: Counter::default(),
            guard_observed: Counter::default(),
            reported: Counter::default(),
            reports_resent: Counter::default(),
            repairs: Counter::default(),
            firewall_failures: Counter::default(),
            openings_applied: Counter::default(),
            openings_failed: Counter::default(),
            openings_withdrawn: Counter::default(),
            openings_active: Gauge::default(),
            bans_active: Gauge::default(),
            guarded_ports: Gauge::default(),
            observed_ports: Gauge::default(),
            window: Gauge::default(),
            warnings: Gauge::default(),
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
        self.register_capture(registry);
        for (name, help, counter) in [
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
            (
                "openings_applied",
                "Openings that the kernel took, those that were refreshed or said again as well",
                &self.openings_applied,
            ),
            ("openings_failed", "Openings that the kernel did not take", &self.openings_failed),
            (
                "openings_withdrawn",
                "Openings that a controller took back before their time",
                &self.openings_withdrawn,
            ),
            ("links", "Streams on which a controller said Welcome", &self.links),
            (
                "controller_changes",
                "Times that another controller said Welcome than the one before",
                &self.controller_changes,
            ),
            ("resends", "Times that a controller asked for the whole window again", &self.resends),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, gauge) in [
            ("openings_active", "Openings held now", &self.openings_active),
            ("bans_active", "Bans held now", &self.bans_active),
            ("guarded_ports", "Ports kept closed", &self.guarded_ports),
            ("observed_ports", "Ports of doors that only observe", &self.observed_ports),
            ("window_observations", "Observations kept for re-sending", &self.window),
            ("warnings", "Things that do not work on this host now, as its log says", &self.warnings),
            ("link_up", "1 while a controller has welcomed this agent", &self.link_up),
        ] {
            registry.register(name, help, gauge.clone());
        }
        let help = "From a controller's order to the kernel's answer";
        registry.register_with_unit("apply", help, Unit::Seconds, self.apply_seconds.clone());
    }

    fn register_capture(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("knocks_captured", "Knocks seen on this host", &self.captured),
            ("packets_read", "Packets that passed the kernel filter and were read", &self.packets),
            (
                "socket_lookups",
                "Times that the kernel was asked which socket a packet belongs to",
                &self.lookups,
            ),
            ("filter_swaps", "Times that the kernel filter was replaced", &self.filter_swaps),
        ] {
            registry.register(name, help, counter.clone());
        }
        let ignored = "Packets that were read and are no knocks, by reason";
        registry.register("packets_ignored", ignored, self.ignored.clone());
        registry.register("drops", "Packets and observations lost, by kind", self.dropped.clone());
    }

    /// Shows what the capture counted, and how many observations went from the window before they were sent.
    pub(super) fn set_capture(&self, heard: &Heard, lost: u64) {
        store(self.captured.inner(), heard.captured);
        store(self.packets.inner(), heard.packets);
        store(self.lookups.inner(), heard.lookups);
        store(self.filter_swaps.inner(), heard.filter_swaps);
        // What one source sent too much is among the drops.
        for reason in Reason::ALL.into_iter().filter(|reason| *reason != Reason::SourceLimit) {
            let total = heard.not_knocks[reason as usize];
            store(self.ignored.get_or_create(&[("reason", reason.name())]).inner(), total);
        }
        for (kind, total) in [
            ("kernel", heard.kernel),
            ("queue", heard.queue),
            ("window", lost),
            ("malformed", heard.malformed),
            ("source_limit", heard.source_limit),
        ] {
            store(self.dropped.get_or_create(&[("kind", kind)]).inner(), total);
        }
    }

    pub(super) fn set_guard_packets(&self, sum: Count) {
        store(self.guard_dropped.inner(), sum.dropped);
        store(self.guard_observed.inner(), sum.observed);
    }
}

/// Totals are counted where things happen and shown here.
fn store(counter: &AtomicU64, total: u64) {
    counter.store(total, Relaxed);
}

#[cfg(test)]
mod tests;
