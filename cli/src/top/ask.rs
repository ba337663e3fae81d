//! Asks the controllers what the screen shows, and for what a person orders.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use fleetknock_proto::{limits, v1};
use fleetknock_runtime::backoff::Backoff;
use futures::{Stream, stream};

use super::model::{EVENTS_MAX, Order, Pane, Seen, Update};
use crate::controllers::Controllers;

/// Waits between attempts to hear of events again.
const AGAIN_LEAST: Duration = Duration::from_millis(500);
const AGAIN_MOST: Duration = Duration::from_secs(10);
/// How far back the first events lie.
const PAST_MS: u64 = 15 * 60 * 1_000;
/// What a person at this screen gives as the reason.
const REASON: &str = "fleetknock top";

/// How the fleet is now. Of each list one page: a screen shows no more.
pub(super) async fn seen(controllers: &Controllers) -> anyhow::Result<Seen> {
    let page_size = limits::PAGE_MAX as u32;
    // The first answer decides which controller answers the rest.
    let overview = v1::OverviewRequest { seconds: super::SECONDS };
    let overview = controllers.read(async |mut client| client.overview(overview).await).await?;
    let hosts = v1::ListHostsRequest { page_size, ..v1::ListHostsRequest::default() };
    let attempts = v1::ListAttemptsRequest { page_size, ..v1::ListAttemptsRequest::default() };
    let openings = v1::ListOpeningsRequest { page_size, ..v1::ListOpeningsRequest::default() };
    let bans = v1::ListBansRequest { page_size, ..v1::ListBansRequest::default() };
    let (hosts, attempts, openings, bans) = futures::try_join!(
        controllers.read(async |mut client| client.list_hosts(hosts.clone()).await),
        controllers.read(async |mut client| client.list_attempts(attempts.clone()).await),
        controllers.read(async |mut client| client.list_openings(openings.clone()).await),
        controllers.read(async |mut client| client.list_bans(bans.clone()).await),
    )?;
    let pages = [
        (Pane::Hosts, hosts.next_page_token),
        (Pane::Attempts, attempts.next_page_token),
        (Pane::Openings, openings.next_page_token),
        (Pane::Bans, bans.next_page_token),
    ];
    let longer = pages.into_iter().filter(|(_, next)| !next.is_empty()).map(|(pane, _)| pane).collect();
    let unanswered = [&overview.unanswered, &hosts.unanswered, &attempts.unanswered, &openings.unanswered];
    Ok(Seen {
        unanswered: unanswered.into_iter().flatten().cloned().collect(),
        overview,
        hosts: hosts.hosts,
        attempts: attempts.attempts,
        openings: openings.openings,
        bans: bans.bans,
        longer,
    })
}

/// The latest kept events before now, by the fleet's time.
pub(super) async fn past(controllers: &Controllers, now_ms: u64) -> anyhow::Result<Update> {
    let request = v1::ListEventsRequest {
        page_size: limits::PAGE_MAX as u32,
        since_ms: now_ms.saturating_sub(PAST_MS),
        ..v1::ListEventsRequest::default()
    };
    let mut events =
        controllers.read(async |mut client| client.list_events(request.clone()).await).await?.events;
    events.drain(..events.len().saturating_sub(EVENTS_MAX));
    Ok(Update::Past(events))
}

/// Looks again and again, so long after each answer. Never ends.
pub(super) fn looking(controllers: &Controllers, every: Duration) -> impl Stream<Item = Update> + '_ {
    stream::unfold(Look::First, move |look| async move {
        match look {
            Look::First => {}
            Look::Past(now_ms) => {
                // Lists are the screen; that older events are missing takes nothing from it.
                let past = past(controllers, now_ms).await.unwrap_or_else(|_| Update::Past(Vec::new()));
                return Some((past, Look::Again));
            }
            Look::Again => tokio::time::sleep(every).await,
        }
        let again = matches!(look, Look::Again);
        Some(match seen(controllers).await {
            Ok(seen) if again => (Update::Seen(Box::new(seen)), Look::Again),
            Ok(seen) => {
                let now_ms = seen.overview.now_ms;
                (Update::Seen(Box::new(seen)), Look::Past(now_ms))
            }
            Err(error) => {
                // It may be that only this one is cut off.
                controllers.move_on();
                (Update::Away(format!("{error:#}")), Look::Again)
            }
        })
    })
}

#[derive(Clone, Copy)]
enum Look {
    First,
    Past(u64),
    Again,
}

/// Events as they happen, over as many streams as it takes. Never ends.
///
/// # Errors
/// When the waits in between are no times.
pub(super) fn events(controllers: &Controllers) -> anyhow::Result<impl Stream<Item = Update> + '_> {
    let backoff = Backoff::new(AGAIN_LEAST, AGAIN_MOST, 0.3).context("the waits between reconnects")?;
    Ok(stream::unfold((None, 0_u32), move |(mut heard, mut failures)| {
        async move {
            loop {
                let mut stream: tonic::Streaming<v1::Event> = match heard.take() {
                    Some(stream) => stream,
                    None => {
                        if failures > 0 {
                            tokio::time::sleep(backoff.random_delay(failures)).await;
                        }
                        failures = failures.saturating_add(1);
                        let all = v1::WatchEventsRequest::default();
                        match controllers
                            .read(async |mut client| client.watch_events(all.clone()).await)
                            .await
                        {
                            Ok(stream) => stream,
                            // The lists say that nobody answers.
                            Err(_) => continue,
                        }
                    }
                };
                if let Ok(Some(event)) = stream.message().await {
                    return Some((Update::Event(Box::new(event)), (Some(stream), failures)));
                }
            }
        }
    }))
}

/// Does what a person ordered.
pub(super) async fn carry_out(controllers: &Controllers, order: Order) -> Update {
    let done = match &order {
        Order::Close { id, what } => {
            close(controllers, id).await.map(|()| Update::Said(format!("closed {what}")))
        }
        Order::Unban { source } => {
            let request = v1::UnbanSourceRequest { source: source.clone() };
            let done = controllers.write(async |mut client| client.unban_source(request.clone()).await).await;
            done.map(|_| Update::Said(format!("the ban of {source} is lifted")))
        }
        Order::Explain { source } => {
            let request = v1::ExplainRequest { source: source.clone(), ..v1::ExplainRequest::default() };
            let done = controllers.read(async |mut client| client.explain(request.clone()).await).await;
            done.map(|answer| Update::Explained(Box::new(answer)))
        }
    };
    done.unwrap_or_else(|error| Update::Said(format!("{error:#}")))
}

async fn close(controllers: &Controllers, id: &str) -> anyhow::Result<()> {
    let request =
        v1::CloseRequest { id: id.to_owned(), reason: REASON.to_owned(), ..v1::CloseRequest::default() };
    let answer = controllers.write(async |mut client| client.close(request.clone()).await).await?;
    if answer.closed.is_empty() { Err(anyhow!("it was closed already")) } else { Ok(()) }
}
