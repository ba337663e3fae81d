//! Connections that live on a certificate: each ends when the certificate does, or when what the certificate was
//! trusted for is no longer so.
//!
//! A handshake checks once, and a stream may last for months. So every live certificate is looked at again when the
//! credentials changed, and its end is waited for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

/// The live sessions. Cloning shares them. As many as there are connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    live: BTreeMap<u64, Session>,
}

#[derive(Clone, Debug)]
struct Session {
    chain: Arc<[CertificateDer<'static>]>,
    not_after: SystemTime,
    ended: Ended,
}

/// Tells a connection that it is over, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    pub(super) token: CancellationToken,
    reason: Arc<OnceLock<String>>,
}

/// Held by a connection as long as it lives.
#[derive(Debug)]
pub(super) struct Membership {
    sessions: Sessions,
    number: u64,
}

impl Ended {
    pub(super) fn end(&self, reason: String) {
        // The first reason is the one.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Why, once it is over.
    pub(super) fn reason(&self) -> &str {
        self.reason.get().map_or("the server ended it", String::as_str)
    }
}

impl Sessions {
    pub(super) fn enter(
        &self,
        chain: &[CertificateDer<'static>],
        not_after: SystemTime,
        ended: Ended,
    ) -> Membership {
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        table.live.insert(number, Session { chain: chain.into(), not_after, ended });
        Membership { sessions: self.clone(), number }
    }

    /// Ends those whose certificate is over; how many.
    pub(super) fn end_expired(&self, now: SystemTime) -> u64 {
        let mut table = self.lock();
        let expired = table.live.extract_if(.., |_, session| session.not_after <= now);
        expired.map(|(_, session)| session.ended.end("the client's certificate expired".to_owned())).count()
            as u64
    }

    /// Ends those whose chain is no longer good; how many. Takes a signature's time for each: not for a runtime's thread.
    pub(super) fn end_unless(
        &self,
        verify: impl Fn(&[CertificateDer<'static>]) -> Result<(), String>,
    ) -> u64 {
        // Not under the lock, which every new connection needs.
        let live: Vec<_> = self.lock().live.iter().map(|(number, s)| (*number, s.clone())).collect();
        let mut count = 0;
        for (number, session) in live {
            let Err(reason) = verify(&session.chain) else { continue };
            if self.lock().live.remove(&number).is_some() {
                session.ended.end(format!("the client is no longer trusted: {reason}"));
                count += 1;
            }
        }
        count
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.sessions.lock().live.remove(&self.number);
    }
}
