//! The events of the audit trail, oldest first, and which of them lie in which share.

use std::collections::{BTreeMap, BTreeSet};

use super::Held;
use crate::{
    audit::Share,
    record::{AuditRecord, EventId},
    store::Revision,
};

/// The audit trail as the store holds it.
#[derive(Debug, Default)]
pub struct Trail {
    events: BTreeMap<EventId, Held<AuditRecord>>,
    orders: BTreeSet<EventId>,
    rest: BTreeSet<EventId>,
}

impl Trail {
    /// All events, the oldest first.
    pub fn events(&self) -> &BTreeMap<EventId, Held<AuditRecord>> {
        &self.events
    }

    /// The events of a share, the oldest first.
    pub fn ids(&self, share: Share) -> &BTreeSet<EventId> {
        match share {
            Share::Orders => &self.orders,
            Share::Rest => &self.rest,
        }
    }

    pub(super) fn put(&mut self, id: EventId, record: AuditRecord, revision: Revision) {
        self.remove(&id);
        let share = match record.share() {
            Share::Orders => &mut self.orders,
            Share::Rest => &mut self.rest,
        };
        share.insert(id.clone());
        self.events.insert(id, Held { record, revision });
    }

    pub(super) fn remove(&mut self, id: &EventId) {
        self.events.remove(id);
        self.orders.remove(id);
        self.rest.remove(id);
    }
}
