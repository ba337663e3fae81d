//! The stream of events.

use std::{pin::Pin, sync::Arc};

use fleetknock_proto::v1 as pb;
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::Status;

use super::{door_name, optional, source};
use crate::shared::{Said, Shared};

type Events = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

pub(super) fn watch(shared: Arc<Shared>, request: pb::WatchEventsRequest) -> Result<Events, Status> {
    let door = optional("door", &request.door, door_name)?.map(|door| door.to_string());
    let from = optional("source", &request.source, source)?.map(|from| from.to_string());
    let chosen = move |event: &pb::Event| {
        door.as_ref().is_none_or(|door| event.door == *door)
            && from.as_ref().is_none_or(|from| event.source == *from)
    };
    let events = BroadcastStream::new(shared.events()).filter_map(move |next| {
        let event = match next {
            Ok(Said { event, .. }) => chosen(&event).then_some(event),
            Err(BroadcastStreamRecvError::Lagged(missed)) => Some(pb::Event {
                kind: pb::EventKind::Lagged.into(),
                time_ms: shared.now().as_millis(),
                message: format!("{missed} events were missed: they came faster than they were read"),
                ..pb::Event::default()
            }),
        };
        std::future::ready(event.map(Ok))
    });
    Ok(Box::pin(events))
}
