//! What is counted of the doors that resources declare. Only a controller that was told to take them shows these.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// The instruments. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    accepted: Gauge,
    refused: Gauge,
    /// Calls of the API server, and steps for a resource, that failed.
    pub errors: Counter,
}

impl Metrics {
    /// Registers every instrument under `fleetknock_controller_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("fleetknock_controller");
        for (name, help, gauge) in [
            ("kubernetes_doors_accepted", "Door resources that the fleet has taken", &self.accepted),
            ("kubernetes_doors_refused", "Door resources that the fleet has not taken", &self.refused),
        ] {
            registry.register(name, help, gauge.clone());
        }
        let help = "Watches, writes and steps for Door resources that failed";
        registry.register("kubernetes_errors", help, self.errors.clone());
    }

    pub(super) fn set(&self, accepted: usize, refused: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.accepted.set(number(accepted));
        self.refused.set(number(refused));
    }

    /// Another controller counts them now.
    pub(super) fn forget(&self) {
        self.set(0, 0);
    }
}
