//! What is written: into the fleet as an operator would, and to the API server.
//!
//! No error of the API server is repeated in its own words: they may quote what a resource holds.

use std::sync::Arc;

use fleetknock_core::door::{Door, DoorName};
use fleetknock_proto::v1 as pb;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Client,
    api::{Api, ApiResource, Patch, PatchParams},
    core::DynamicObject,
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{
    CALL_MAX, DEFINITION,
    resource::{Refusal, Resource},
};
use crate::{
    audit,
    config::Scope,
    control_api::doors::{self, Order},
    decide, grant,
    operator::{
        crd::{self, FINALIZER},
        metrics::Metrics,
    },
    peers::Peers,
    record::{Actor, DoorRecord, Key, Owner},
    shared::Shared,
    store::{Revision, Transaction},
};

/// As the API server notes who wrote which field.
const MANAGER: &str = "fleetknock-controller";

/// Why a step failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// That it will fail until somebody changes something.
    pub(super) refusal: Option<Refusal>,
    /// For the log.
    pub(super) text: String,
}

impl Failure {
    /// What the fleet answered.
    pub(super) fn of(status: &Status) -> Self {
        let refused = |reason| Some(Refusal::new(reason, status.message()));
        let refusal = match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition => refused("Refused"),
            Code::ResourceExhausted => refused("FleetFull"),
            _ => None,
        };
        Self { refusal, text: status.message().to_owned() }
    }

    /// In a sentence.
    pub(super) fn said(&self) -> &str {
        self.refusal.as_ref().map_or(&self.text, |refusal| &refusal.message)
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self { refusal: None, text: said(&error) }
    }
}

/// All Doors of the namespaces.
pub(super) fn doors(client: &Client, scope: &Scope) -> Api<DynamicObject> {
    let kind = ApiResource::erase::<crd::Door>(&());
    match scope {
        Scope::All => Api::all_with(client.clone(), &kind),
        Scope::Namespace(one) => Api::namespaced_with(client.clone(), one, &kind),
    }
}

/// Writes.
pub(crate) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) peers: Arc<Peers>,
    pub(super) client: Client,
    pub(super) metrics: Metrics,
}

impl Writer {
    fn api(&self, resource: &Resource) -> Api<DynamicObject> {
        doors(&self.client, &Scope::Namespace(resource.owner.namespace.clone()))
    }

    /// Takes its door into the fleet.
    pub(super) async fn apply(
        &self,
        resource: &Resource,
        door: &Door,
        over: Option<Revision>,
    ) -> Result<(), Failure> {
        let actor = actor(&resource.owner);
        let order = Order {
            door,
            weak: resource.weak,
            hold: None,
            over: Some(over),
            dry_run: false,
            actor: &actor,
            owner: Some(&resource.owner),
        };
        let declared = doors::declare(&self.shared, &self.peers, order).await;
        declared.map(drop).map_err(|status| Failure::of(&status))
    }

    /// Takes its door out of the fleet, with its guard and its openings.
    pub(super) async fn withdraw(&self, resource: &Resource, door: &DoorName) -> Result<(), Failure> {
        let owner = &resource.owner;
        let withdrawn = doors::withdraw(&self.shared, door, Some(owner), &actor(owner), false).await;
        withdrawn.map(drop).map_err(|status| Failure::of(&status))
    }

    /// Notes that a door's resource is gone: the door stays in force, and is the control API's from now on.
    pub(super) async fn lose(&self, door: &DoorName, owner: &Owner) -> Result<(), Status> {
        let actor = actor(owner);
        let lost = decide::contend(&self.shared, |at| {
            let (state, mut transaction) = (self.shared.state(), Transaction::default());
            let held = state.fleet.doors().get(door);
            let Some(held) = held.filter(|held| held.record.owner.as_ref() == Some(owner)) else {
                return Ok(((), transaction));
            };
            let key = Key::Door(door.clone());
            let owner = Some(Owner { lost: true, ..owner.clone() });
            let record = DoorRecord { owner, ..held.record.clone() };
            transaction.expect.push(grant::expect(&key, Some(held.revision)));
            transaction.expect.push(self.shared.fence().ok_or(decide::DecideError::Suspended)?);
            transaction.changes.push(grant::put(&key, &record)?);
            let message = "its resource is gone without having been deleted in order: the door stays in force; delete it \
                           with `fleetknock delete door`, or make the resource again";
            let event =
                audit::entry(pb::EventKind::DoorApplied, self.shared.stamp(at, Some(&actor)), message);
            audit::append(&mut transaction, &state.fleet, [event.about_door(door)])?;
            Ok(((), transaction))
        });
        let ((), revision) = lost.await.map_err(|error| Status::unavailable(error.to_string()))?;
        self.shared.caught_up(revision).await;
        tracing::warn!(%door, resource = %owner, "the door's resource is gone; the door stays in force");
        Ok(())
    }

    /// Whether the definition of doors is there and stays. Who may not ask takes it that it does.
    pub(super) async fn is_defined(&self) -> Result<bool, Failure> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        match self.call(api.get_metadata(DEFINITION)).await {
            Ok(definition) => Ok(definition.metadata.deletion_timestamp.is_none()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds the finalizer.
    pub(super) async fn finalize(&self, resource: &Resource) -> Result<(), Failure> {
        let finalizers = resource.finalizers.iter().map(String::as_str).chain([FINALIZER]);
        self.put_finalizers(resource, finalizers.collect()).await
    }

    /// Removes it.
    pub(super) async fn release(&self, resource: &Resource) -> Result<(), Failure> {
        let others = resource.finalizers.iter().map(String::as_str).filter(|one| *one != FINALIZER);
        self.put_finalizers(resource, others.collect()).await
    }

    async fn put_finalizers(&self, resource: &Resource, finalizers: Vec<&str>) -> Result<(), Failure> {
        // With the version that was seen: somebody else's finalizer is not lost.
        let patch = json!({"metadata": {"resourceVersion": resource.version, "finalizers": finalizers}});
        let (api, params) = (
            self.api(resource),
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() },
        );
        let patched = self.call(api.patch(&resource.owner.name, &params, &Patch::Merge(patch))).await;
        match patched {
            // Gone already.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).map_err(Failure::from),
        }
    }

    /// Says what became of it.
    pub(super) async fn status(&self, resource: &Resource, status: &Value) -> Result<(), Failure> {
        let kind = ApiResource::erase::<crd::Door>(&());
        let body = json!({
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": resource.owner.name},
            "status": status,
        });
        let (api, params) = (self.api(resource), PatchParams::apply(MANAGER).force());
        let patched = self.call(api.patch_status(&resource.owner.name, &params, &Patch::Apply(body))).await;
        match patched {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).map_err(Failure::from),
        }
    }

    async fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        match timeout(CALL_MAX, call).await {
            Ok(answer) => answer,
            Err(_) => {
                self.metrics.errors.inc();
                Err(kube::Error::Service("the API server does not answer".into()))
            }
        }
    }
}

/// As the audit trail names who changes a door for a resource.
fn actor(owner: &Owner) -> Actor {
    Actor {
        who: format!("kubernetes door {owner}"),
        role: None,
        by: "kubernetes".to_owned(),
        address: String::new(),
    }
}

/// What failed, without any word of what a resource or a secret holds.
pub(super) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("the API server answers {} {}", status.code, status.reason),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
            "the API server cannot be reached".to_owned()
        }
        kube::Error::SerdeError(_) => "the API server's answer cannot be read".to_owned(),
        _ => "the API server cannot be asked".to_owned(),
    }
}

/// The same of a watch.
pub(super) fn said_of_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => said(error),
        watcher::Error::WatchError(status) => {
            format!("the API server answers {} {}", status.code, status.reason)
        }
        watcher::Error::NoResourceVersion => "the API server's answer has no version".to_owned(),
    }
}

/// Whether it is refused, and not only away.
pub(super) fn is_forbidden(error: &watcher::Error) -> bool {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code,
        watcher::Error::WatchError(status) => status.code,
        _ => 0,
    };
    code == 403
}
