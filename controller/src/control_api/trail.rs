//! The audit trail: what operators may ask of it. Each controller answers from its own copy.

use std::collections::HashSet;

use fleetknock_core::{door::DoorName, source::Source, time::Timestamp};
use fleetknock_proto::{status as refuse, v1 as pb};
use tonic::Status;

use super::{door_name, optional, page::Page, source};
use crate::{
    audit,
    record::{AuditRecord, EventId},
    shared::Shared,
    wire,
};

/// More kinds than there are say nothing more.
const KINDS_MAX: usize = 256;

pub(super) fn list(
    shared: &Shared,
    request: &pb::ListEventsRequest,
) -> Result<pb::ListEventsResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let chosen = Chosen::parse(request)?;
    let since = EventId::new(Timestamp::from_millis(request.since_ms), 0);
    let state = shared.state();
    let events = state.fleet.audit().range(since..).map(|(id, held)| (id, &held.record));
    let events = events.filter(|(_, event)| chosen.has(event));
    let (events, next_page_token) = page.cut(events.map(|(id, event)| (id.to_string(), event)));
    Ok(pb::ListEventsResponse { events: events.into_iter().map(wire::audited).collect(), next_page_token })
}

/// Which events.
struct Chosen<'a> {
    door: Option<DoorName>,
    source: Option<Source>,
    /// Their codes; all when it is empty.
    codes: HashSet<&'static str>,
    actor: &'a str,
}

impl<'a> Chosen<'a> {
    fn parse(request: &'a pb::ListEventsRequest) -> Result<Self, Status> {
        if request.kinds.len() > KINDS_MAX {
            return Err(refuse::invalid("kinds", format!("at most {KINDS_MAX}")));
        }
        let code = |kind: &i32| match pb::EventKind::try_from(*kind) {
            Ok(kind) if kind != pb::EventKind::Unspecified => Ok(audit::code(kind)),
            _ => Err(refuse::invalid("kinds", format!("{kind} is no kind of event that this version knows"))),
        };
        Ok(Self {
            door: optional("door", &request.door, door_name)?,
            source: optional("source", &request.source, source)?,
            codes: request.kinds.iter().map(code).collect::<Result<_, _>>()?,
            actor: &request.actor,
        })
    }

    fn has(&self, event: &AuditRecord) -> bool {
        // Many doors that were shown at once are one event without a door: it may be about this one.
        let of_many = event.door.is_none() && event.kind() == pb::EventKind::DoorRevealed;
        self.door.as_ref().is_none_or(|door| event.door.as_ref() == Some(door) || of_many)
            && self.source.is_none_or(|source| event.source == Some(source))
            && (self.codes.is_empty() || self.codes.contains(event.code.as_str()))
            && (self.actor.is_empty() || event.actor.as_ref().is_some_and(|actor| actor.who == self.actor))
    }
}
