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
    store::{Change, Revision, Transaction},
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
