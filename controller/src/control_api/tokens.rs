//! Tokens: make, list, revoke.

use std::time::Duration;

use fleetknock_core::identity::Role;
use fleetknock_proto::{
    convert, status as refuse,
    v1::{self as pb, create_token_request::Holder as Asked},
};
use tonic::Status;

use super::{decided, page::Page};
use crate::{
    audit,
    decide::{self, DecideError},
    grant,
    record::{AuditRecord, Holder, Key, TokenId, TokenRecord},
    shared::Shared,
    store::Transaction,
    trust::{
        Caller,
        token::{Kind, Secret},
    },
    wire,
};

/// Tokens of a fleet: each is about 300 bytes in every controller.
pub(crate) const TOKENS_MAX: usize = 1_024;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long a token is good: unless said otherwise, and at most.
fn validity(kind: Kind) -> (Duration, Duration) {
    match kind {
        Kind::Host => (60 * MINUTE, 7 * DAY),
        Kind::User => (30 * DAY, 365 * DAY),
    }
}

pub(super) async fn create(
    shared: &Shared,
    caller: &Caller,
    request: &pb::CreateTokenRequest,
) -> Result<pb::CreateTokenResponse, Status> {
    let holder = holder(caller, request)?;
    let kind = Kind::of(&holder);
    let valid_for = valid_for(kind, request.valid_for_ms)?;
    let id = TokenId::new(rand::random());
    let (secret, hash) = Secret::mint(kind, &id, &rand::random());
    let actor = caller.actor();
    let made = decide::contend(shared, |at| {
        let state = shared.state();
        if state.fleet.tokens().len() >= TOKENS_MAX {
            return Err(DecideError::Full { what: "tokens", limit: TOKENS_MAX });
        }
        let record = TokenRecord {
            id: id.clone(),
            holder: holder.clone(),
            hash: hash.clone(),
            created: at,
            expires: at + valid_for,
            created_by: actor.who.clone(),
        };
        let key = Key::Token(id.clone());
        let changes = vec![grant::put(&key, &record)?];
        let mut transaction = Transaction { expect: vec![grant::expect(&key, None)], changes, lease: None };
        let message = format!("token {id} for {} until {} was made", of(&holder), record.expires);
        let event = audit::entry(pb::EventKind::TokenCreated, shared.stamp(at, Some(&actor)), message);
        audit::append(&mut transaction, &state.fleet, [about(event, &holder)])?;
        Ok((record, transaction))
    });
    let (record, revision) = decided(shared, made.await)?;
    shared.caught_up(revision).await;
    Ok(pb::CreateTokenResponse { token: Some(wire::token(&record)), secret: secret.reveal().to_owned() })
}

pub(super) fn list(
    shared: &Shared,
    request: &pb::ListTokensRequest,
) -> Result<pb::ListTokensResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let at = shared.now();
    let state = shared.state();
    let tokens = state.fleet.tokens().values().map(|held| &held.record).filter(|token| token.expires > at);
    let (tokens, next_page_token) = page.cut(tokens.map(|token| (token.id.to_string(), token)));
    Ok(pb::ListTokensResponse { tokens: tokens.into_iter().map(wire::token).collect(), next_page_token })
}

pub(super) async fn revoke(
    shared: &Shared,
    caller: &Caller,
    request: &pb::RevokeTokenRequest,
) -> Result<pb::RevokeTokenResponse, Status> {
    let gone = || refuse::not_found("token", &request.id);
    // Whoever gives the token itself in place of its name must not see it in an error.
    let id: TokenId = request
        .id
        .parse()
        .map_err(|error: crate::record::token::TokenIdError| refuse::invalid("id", error.to_string()))?;
    let held = shared.state().fleet.tokens().get(&id).map(|held| held.record.clone());
    let record = held.ok_or_else(gone)?;
    let actor = caller.actor();
    let removed = decide::remove(shared, Key::Token(id.clone()), |_, at| {
        let message = format!("token {id} for {} was revoked", of(&record.holder));
        let event = audit::entry(pb::EventKind::TokenRevoked, shared.stamp(at, Some(&actor)), message);
        about(event, &record.holder)
    });
    let revision = decided(shared, removed.await)?;
    shared.caught_up(revision).await;
    Ok(pb::RevokeTokenResponse {})
}

/// Nobody gives another one more than itself may.
fn holder(caller: &Caller, request: &pb::CreateTokenRequest) -> Result<Holder, Status> {
    match request.holder.as_ref().ok_or_else(|| refuse::invalid("holder", "give a user or a host"))? {
        Asked::Host(name) => Ok(Holder::Host(convert::parsed(name, "host")?)),
        Asked::User(user) => {
            let name = convert::parsed(&user.name, "user.name")?;
            let role: Role = convert::role(user.role, "user.role")?;
            caller.check_role(role, &format!("making a token with the role {role}"))?;
            Ok(Holder::User { name, role })
        }
    }
}

fn valid_for(kind: Kind, ms: u64) -> Result<Duration, Status> {
    let (default, most) = validity(kind);
    match Duration::from_millis(ms) {
        Duration::ZERO => Ok(default),
        time if (MINUTE..=most).contains(&time) => Ok(time),
        _ => {
            let most = most.as_secs() / DAY.as_secs();
            let whose = if kind == Kind::Host { "a host" } else { "a user" };
            let reason = format!("a token of {whose} is good for 1 minute to {most} days");
            Err(refuse::invalid("valid_for_ms", reason))
        }
    }
}

/// Such as `user alice (viewer)`.
fn of(holder: &Holder) -> String {
    match holder {
        Holder::Host(name) => format!("host {name}"),
        Holder::User { name, role } => format!("user {name} ({role})"),
    }
}

fn about(event: AuditRecord, holder: &Holder) -> AuditRecord {
    match holder {
        Holder::Host(name) => event.about_host(name),
        Holder::User { .. } => event,
    }
}
