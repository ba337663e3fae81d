//! Tokens of hosts as they are spent: each is good for one certificate.
//!
//! A token is spent by deleting its record, on condition that it is still as it was when the token was judged. Of two
//! agents that show the same token to two controllers at the same time, the store takes the deletion of one.

use fleetknock_core::host::HostName;

use super::token::{Kind, Presented, TokenError};
use crate::{
    grant,
    record::{Holder, Key, TokenId},
    shared::Shared,
    store::{Change, Revision, StoreError, Transaction},
};

#[cfg(test)]
pub(super) mod tests;

/// A host's token that is good, and not yet spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Whose certificate it is good for.
    pub host: HostName,
    /// Its name.
    pub id: TokenId,
    revision: Revision,
}

impl Ticket {
    /// Spends it; what else shall be written if and only if it is spent is added to this.
    pub fn spend(&self) -> Transaction {
        let key = Key::Token(self.id.clone());
        Transaction {
            expect: vec![grant::expect(&key, Some(self.revision))],
            changes: vec![Change::Delete { key: key.to_string() }],
            lease: None,
        }
    }
}

/// Why a token could not be spent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpendError {
    /// The store could not say.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not good.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Judges the token that a host's agent shows, without spending it.
///
/// # Errors
/// When it is not good, or not a host's.
pub fn judge(shared: &Shared, presented: &str) -> Result<Ticket, TokenError> {
    let presented = Presented::parse(presented.as_bytes())?;
    let now = shared.now();
    let state = shared.state();
    let held = state.fleet.tokens().get(presented.id());
    presented.judge(Kind::Host, held.map(|held| &held.record), now)?;
    match held.map(|held| (&held.record.holder, held.revision)) {
        Some((Holder::Host(host), revision)) => {
            Ok(Ticket { host: host.clone(), id: presented.id().clone(), revision })
        }
        _ => Err(TokenError::Unknown { kind: Kind::Host }),
    }
}

/// Spends the token that a host's agent shows: the host whose certificate it is good for.
///
/// # Errors
/// When it is not good, somebody else spent it first, or the store could not; in the last case it may be spent or not.
pub async fn spend_host_token(shared: &Shared, presented: &str) -> Result<HostName, SpendError> {
    let ticket = judge(shared, presented)?;
    match shared.store.commit(ticket.spend()).await {
        Ok(revision) => {
            shared.caught_up(revision).await;
            Ok(ticket.host)
        }
        // Records of tokens are made and deleted, never changed.
        Err(StoreError::Conflict) => Err(TokenError::Unknown { kind: Kind::Host }.into()),
        Err(error) => Err(error.into()),
    }
}
