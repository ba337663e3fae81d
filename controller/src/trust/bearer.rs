//! Bearer tokens (RFC 6750 section 2.1) of users: who makes a call that shows one, and until when.

use std::{future::ready, pin::Pin, sync::Arc, time::Duration};

use fleetknock_core::{identity::Who, time::Timestamp};
use fleetknock_proto::status as refuse;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use tonic::{
    Status,
    codegen::http::{HeaderMap, header::AUTHORIZATION},
};

use super::{
    caller::{Caller, Shown},
    token::{Kind, Presented, TokenError},
};
use crate::{
    record::{Holder, TokenId, TokenRecord},
    shared::Shared,
};

/// A token that ends is noticed at the latest after this, whatever was missed.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Takes what a call shows for itself out of its headers, so that no handler and no log ever sees it; nothing when it
/// shows no token.
///
/// # Errors
/// When it is not one token.
pub fn take(headers: &mut HeaderMap) -> Result<Option<Presented>, TokenError> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let parsed = match (shown.next(), shown.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(TokenError::Malformed),
        (Some(value), None) => match value.as_bytes().split_at_checked(SCHEME.len()) {
            Some((scheme, text)) if scheme.eq_ignore_ascii_case(SCHEME) => Presented::parse(text).map(Some),
            _ => Err(TokenError::Malformed),
        },
    };
    headers.remove(AUTHORIZATION);
    parsed
}

/// Schemes are told apart without regard to case (RFC 9110 section 11.1).
const SCHEME: &[u8] = b"Bearer ";

/// As whom somebody acts who shows this token.
///
/// # Errors
/// When it is not good, or not a user's.
pub fn user(presented: &Presented, record: Option<&TokenRecord>, now: Timestamp) -> Result<Who, TokenError> {
    presented.judge(Kind::User, record, now)?;
    match record.map(|record| &record.holder) {
        Some(Holder::User { name, role }) => Ok(Who::User { name: name.clone(), role: *role }),
        _ => Err(TokenError::Unknown { kind: Kind::User }),
    }
}

/// What is told as long as the token is good that its caller showed: a call that lasts was judged when it began. Who showed
/// none is told all.
pub fn while_good<T: Send + 'static>(told: Told<T>, shared: Arc<Shared>, caller: Caller) -> Told<T> {
    let over = until_over(shared, caller).boxed().shared();
    let why = over.clone();
    let last = stream::once(async move { why.peek().copied() });
    let last = last.filter_map(|why| ready(why.map(|why| Err(refuse::unknown_caller(why.to_string())))));
    Box::pin(told.take_until(over).chain(last))
}

/// A call's answers.
type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Waits until the token that a caller showed is revoked, or at its end; for ever when it showed none.
async fn until_over(shared: Arc<Shared>, caller: Caller) -> TokenError {
    let Shown::Token(id) = caller.shown else { return std::future::pending().await };
    loop {
        let (from, left) = {
            let state = shared.state();
            match time_left(state.fleet.tokens().get(&id).map(|held| &held.record), &id, shared.now()) {
                Ok(left) => (state.fleet.revision(), left),
                Err(over) => return over,
            }
        };
        shared.moved(from, left.min(LOOK_AGAIN)).await;
    }
}

fn time_left(record: Option<&TokenRecord>, id: &TokenId, now: Timestamp) -> Result<Duration, TokenError> {
    let kind = Kind::User;
    let record = record.filter(|record| record.id == *id).ok_or(TokenError::Unknown { kind })?;
    match record.expires.since(now) {
        Duration::ZERO => Err(TokenError::Expired { kind, at: record.expires }),
        left => Ok(left),
    }
}
