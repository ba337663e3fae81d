//! Attempts in flight, of all controllers.

use std::collections::BTreeMap;

use fleetknock_proto::v1 as pb;
use tonic::Status;

use super::page::Page;
use crate::{
    matching,
    peers::{Peers, known},
    shared::Shared,
};

/// Each controller gives its own part of the page that is asked for. The first of all of them together are the page: what
/// a controller left out comes after all that it gave.
pub(super) async fn list(
    shared: &Shared,
    matching: &matching::Handle,
    peers: &Peers,
    request: pb::ListAttemptsRequest,
) -> Result<pb::ListAttemptsResponse, Status> {
    let own = known::attempts(shared, matching, peers, &request).await?;
    let others = peers.ask(|mut client| {
        let request = request.clone();
        async move { client.own_attempts(request).await }
    });
    let others = others.await;
    let unanswered = others.unanswered();
    let page = Page::parse(request.page_size, &request.page_token)?;
    let parts = std::iter::once(own).chain(others.answers.into_values());
    Ok(pb::ListAttemptsResponse { unanswered, ..merge(&page, parts) })
}

fn merge(page: &Page<'_>, parts: impl Iterator<Item = pb::ListAttemptsResponse>) -> pb::ListAttemptsResponse {
    let (mut sources_in_flight, mut sources_limit) = (0_u64, 0_u64);
    let mut more = false;
    let mut all: BTreeMap<String, pb::Attempt> = BTreeMap::new();
    for part in parts {
        sources_in_flight = sources_in_flight.saturating_add(part.sources_in_flight);
        sources_limit = sources_limit.saturating_add(part.sources_limit);
        more |= !part.next_page_token.is_empty();
        for attempt in part.attempts {
            let key = format!("{}/{}", attempt.door, attempt.source);
            // While controllers disagree about who is alive, two may follow one source: the one further on counts.
            match all.get(&key) {
                Some(held) if held.steps_done >= attempt.steps_done => {}
                _ => {
                    all.insert(key, attempt);
                }
            }
        }
    }
    let (attempts, next_page_token) = page.cut_of_more(all.into_iter(), more);
    pb::ListAttemptsResponse {
        attempts,
        next_page_token,
        sources_in_flight,
        sources_limit,
        unanswered: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
