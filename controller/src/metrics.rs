//! What the controller counts. Each instrument is named, described and registered here, once.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What became of a knock; a small fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabels {
    /// `advanced`, `completed`, `repeat`, `waiting`, `miss`, `ignored`, `banned`.
    pub verdict: &'static str,
}

/// The controller's instruments. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Knocks judged, by verdict.
    pub knocks: Family<VerdictLabels, Counter>,
    /// Openings granted or refreshed.
    pub openings: Counter,
    /// Decisions that could not be carried out.
    pub refused: Counter,
    /// Openings active now.
    pub openings_active: Gauge,
    /// Bans written.
    pub bans: Counter,
    /// Agents connected now.
    pub agents: Gauge,
    /// Sources that the matcher follows now.
    pub sources: Gauge,
    /// Times the whole store was read anew.
    pub resyncs: Counter,
    /// Transactions that lost a race and were decided again.
    pub conflicts: Counter,
}

impl Metrics {
    /// Registers every instrument under `fleetknock_controller_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("fleetknock_controller");
        registry.register("knocks", "Knocks judged, by verdict", self.knocks.clone());
        registry.register("openings", "Openings granted or refreshed", self.openings.clone());
        registry.register("refused", "Decisions that could not be carried out", self.refused.clone());
        registry.register("openings_active", "Openings active now", self.openings_active.clone());
        registry.register("bans", "Bans written", self.bans.clone());
        registry.register("agents_connected", "Agents connected now", self.agents.clone());
        registry.register("sources_in_flight", "Sources that the matcher follows now", self.sources.clone());
        registry.register("store_resyncs", "Times the whole store was read anew", self.resyncs.clone());
        registry.register("store_conflicts", "Transactions that lost a race", self.conflicts.clone());
    }
}
