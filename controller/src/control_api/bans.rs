//! Bans: get, list, ban, unban.

use std::time::Duration;

use fleetknock_core::door::OPEN_FOR_MAX;
use fleetknock_proto::{status as refuse, v1 as pb};
use tonic::Status;

use super::{decided, page::Page, reason, source};
use crate::{audit, decide, record::Key, shared::Shared, trust::Caller, wire};

/// The longest ban: as addresses change hands, a ban is no place for grudges.
const BAN_FOR_MAX: Duration = Duration::from_secs(365 * OPEN_FOR_MAX.as_secs());

pub(super) fn one(shared: &Shared, request: &pb::GetBanRequest) -> Result<pb::Ban, Status> {
    let from = source("source", &request.source)?;
    let state = shared.state();
    let ban =
        state.fleet.ban(from, shared.now()).ok_or_else(|| refuse::not_found("ban", &from.to_string()))?;
    Ok(wire::ban(ban))
}

pub(super) fn list(shared: &Shared, request: &pb::ListBansRequest) -> Result<pb::ListBansResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let at = shared.now();
    let state = shared.state();
    let bans = state.fleet.bans().values().map(|held| &held.record).filter(|ban| ban.expires > at);
    let mut bans: Vec<_> = bans.map(|ban| (ban.source.to_string(), ban)).collect();
    bans.sort_by(|a, b| a.0.cmp(&b.0));
    let (bans, next_page_token) = page.cut(bans.into_iter());
    Ok(pb::ListBansResponse { bans: bans.into_iter().map(wire::ban).collect(), next_page_token })
}

pub(super) async fn ban(
    shared: &Shared,
    caller: &Caller,
    request: pb::BanSourceRequest,
) -> Result<pb::Ban, Status> {
    let from = source("source", &request.source)?;
    let why = reason(&request.reason, "banned by an operator")?;
    let duration = Duration::from_millis(request.for_ms);
    if duration > BAN_FOR_MAX {
        return Err(refuse::invalid("for_ms", "a ban lasts at most 365 days"));
    }
    if shared.is_management(from) {
        let reason = format!("{from} lies in a management network; those are never banned");
        return Err(refuse::precondition("ban", &from.to_string(), reason));
    }
    let duration = if duration.is_zero() { shared.ban_for } else { duration };
    let actor = caller.actor();
    let ban = decide::ban(shared, from, duration, caller.by(), &why, Some(&actor)).await;
    let (ban, revision) = decided(shared, ban)?;
    shared.caught_up(revision).await;
    Ok(wire::ban(&ban))
}

pub(super) async fn unban(
    shared: &Shared,
    caller: &Caller,
    request: &pb::UnbanSourceRequest,
) -> Result<pb::UnbanSourceResponse, Status> {
    let from = source("source", &request.source)?;
    if shared.state().fleet.ban(from, shared.now()).is_none() {
        return Err(refuse::not_found("ban", &from.to_string()));
    }
    let actor = caller.actor();
    let removed = decide::remove(shared, Key::Ban(from), |_, at| {
        let stamp = shared.stamp(at, Some(&actor));
        audit::entry(pb::EventKind::SourceUnbanned, stamp, "no longer banned").about_source(from)
    });
    let revision = decided(shared, removed.await)?;
    shared.caught_up(revision).await;
    Ok(pb::UnbanSourceResponse {})
}
