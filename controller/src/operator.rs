//! What a controller does in Kubernetes beside its own work: doors that are custom resources become doors of the fleet,
//! hosts that enrol show the word of their cluster instead of a token, and certificates are kept as secrets.
//!
//! Nothing else in the controller knows of Kubernetes. This room reads its API and then does what an operator's command
//! would do, through the same functions; behind the feature `operator`, since a fleet without Kubernetes needs none of it.

pub mod client;
pub mod command;
pub mod crd;
pub mod doors;
pub mod enroll;
pub mod labels;
pub mod metrics;
pub mod pki;

use std::sync::Arc;

use anyhow::Context as _;
use fleetknock_runtime::exit;
use prometheus_client::registry::Registry;

use crate::{
    config::{Scope, Settings},
    peers::Peers,
    shared::Shared,
};

/// Where doors are to be taken from.
pub struct OfDoors {
    client: kube::Client,
    scope: Scope,
    metrics: metrics::Metrics,
}

/// Where doors are to be taken from, when they are. That the API server answers is not waited for: it may come later.
///
/// # Errors
/// When nothing tells where the API server is.
pub async fn of_doors(settings: &Settings, registry: &mut Registry) -> anyhow::Result<Option<OfDoors>> {
    let Some(scope) = settings.kubernetes_doors.clone() else { return Ok(None) };
    let context = || format!("--kubernetes-doors {scope}");
    let config = client::config().await.map_err(|error| exit::coded(exit::UNAVAILABLE, error));
    let client = doors::client(config.with_context(context)?);
    let client = client.map_err(|error| exit::coded(exit::UNAVAILABLE, error)).with_context(context)?;
    let metrics = metrics::Metrics::default();
    metrics.register(registry);
    Ok(Some(OfDoors { client, scope, metrics }))
}

impl OfDoors {
    /// For a controller that runs.
    pub fn sync(self, shared: Arc<Shared>, peers: Arc<Peers>) -> doors::Sync {
        let Self { client, scope, metrics } = self;
        doors::Sync { shared, peers, client, scope, metrics }
    }
}
