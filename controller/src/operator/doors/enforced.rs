//! On how many of its hosts the agents hold a door, as they say themselves.
//!
//! An agent tells the revision of the picture that it holds. It holds a door when that is not older than the door's last
//! change that concerns guard, nor than its host's last change of labels.

use std::collections::{BTreeMap, BTreeSet};

use fleetknock_core::{
    door::{Door, DoorName, Mode},
    host::{HostName, HostSelector},
    port::Port,
};
use fleetknock_proto::limits;

use super::{
    resource::{Refusal, Resource},
    status::Seen,
};
use crate::{
    config::Scope,
    control_api::{doors::bits, hosts::Told},
    fleet::{Fleet, Held},
    peers::Peers,
    record::DoorRecord,
    shared::Shared,
    store::Revision,
};

/// What the connected agents hold, by host.
#[derive(Debug, Default)]
pub(crate) struct Holding(BTreeMap<HostName, Revision>);

/// From which revision on a picture has a door's guard as it is now.
#[derive(Debug, Default)]
pub(crate) struct Needs(Option<(Guard, Revision)>);

type Guard = (HostSelector, BTreeSet<Port>, Mode);

impl Needs {
    /// Of the door as it is held. One that is seen for the first time may have changed with its last change.
    fn of(&mut self, held: &Held<DoorRecord>) -> Revision {
        let door: &Door = &held.record.door;
        let guard = (door.opens().hosts.clone(), door.opens().ports.clone(), door.mode());
        match &self.0 {
            Some((before, revision)) if *before == guard => *revision,
            _ => {
                self.0 = Some((guard, held.revision));
                held.revision
            }
        }
    }
}

impl Holding {
    /// Asks the agents of all hosts that doors of these namespaces open, wherever they are connected.
    pub(super) async fn of(shared: &Shared, peers: &Peers, scope: &Scope) -> Self {
        let hosts: BTreeSet<HostName> = {
            let state = shared.state();
            let owned = state.fleet.doors().values().map(|held| &held.record);
            let owned = owned
                .filter(|record| record.owner.as_ref().is_some_and(|owner| scope.covers(&owner.namespace)));
            owned.flat_map(|record| state.fleet.hosts_of(&record.door)).collect()
        };
        let hosts: Vec<_> = hosts.into_iter().collect();
        let mut holding = BTreeMap::new();
        for page in hosts.chunks(limits::PAGE_MAX) {
            let told = Told::of(shared, peers, page).await;
            let connected = told.hosts.into_values().filter(|host| host.connected);
            holding.extend(connected.filter_map(|host| Some((host.name.parse().ok()?, host.revision))));
        }
        Self(holding)
    }

    fn count(&self, fleet: &Fleet, held: &Held<DoorRecord>, needs: &mut Needs) -> (usize, usize) {
        let needed = needs.of(held);
        let hosts = fleet.hosts_of(&held.record.door);
        let holds = |host: &&HostName| {
            let labelled = fleet.hosts().get(*host).map_or(0, |held| held.revision);
            self.0.get(*host).is_some_and(|revision| *revision >= needed.max(labelled))
        };
        (hosts.iter().filter(holds).count(), hosts.len())
    }

    /// What a resource's status is about.
    pub(super) fn seen<'a>(
        &self,
        shared: &Shared,
        resource: &Resource,
        door: Option<&'a DoorName>,
        accepted: &'a Result<(), Refusal>,
        needs: &mut Needs,
    ) -> Seen<'a> {
        let state = shared.state();
        let held = door.and_then(|door| state.fleet.doors().get(door));
        let own = held.filter(|held| held.record.owner.as_ref() == Some(&resource.owner));
        Seen {
            door,
            accepted,
            enforced: own.map(|held| self.count(&state.fleet, held, needs)),
            bits: own.map(|held| bits(shared, &state.fleet, &held.record.door)),
            at: shared.now(),
        }
    }
}
