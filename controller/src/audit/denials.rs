//! Who was refused, as events: the first time at once, repetitions once a minute with their count.
//!
//! Being refused costs an attacker nothing, so nothing here grows with how often it happens: a bounded queue (what does not
//! fit is only counted, as every refusal is), a bounded number of those who are told apart, and one event a minute for
//! each of them and for all others together.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use fleetknock_core::{host::HostName, time::Timestamp};
use fleetknock_proto::v1 as pb;
use fleetknock_runtime::tls::network;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::entry;
use crate::{
    record::{Actor, AuditRecord},
    shared::Shared,
};

#[cfg(test)]
mod tests;

/// Refusals that wait to be told.
pub const DENIALS_QUEUE: usize = 1_024;
/// One event in this time for each who is told apart.
const EVERY: Duration = Duration::from_secs(60);
/// Those who are known by name, told apart at the same time; and as many addresses of those who are not, so that the
/// second, whom anybody can swell, never hide the first.
const APART_MAX: usize = 30;
const TICK: Duration = Duration::from_secs(1);

/// Somebody was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Such as `CallDenied`.
    pub kind: pb::EventKind,
    /// Who tried: with its name, if it is known; from where.
    pub actor: Actor,
    /// The host that it is about.
    pub host: Option<HostName>,
    /// What, in one sentence.
    pub message: String,
}

impl Denied {
    /// Somebody of whom nothing but the address is known.
    pub fn unknown(kind: pb::EventKind, by: impl Into<String>, address: String, message: String) -> Self {
        let actor = Actor { who: String::new(), role: None, by: by.into(), address };
        Self { kind, actor, host: None, message }
    }

    /// Who is told apart: a name wherever it comes from, otherwise an address, of IPv6 the network (/64) as its holder has
    /// all of it.
    fn whose(&self) -> Whose {
        let code = super::code(self.kind);
        if !self.actor.who.is_empty() {
            return Whose { is_known: true, code, who: self.actor.who.clone() };
        }
        let address = self.actor.address.parse::<SocketAddr>().ok();
        let who = address.map(|address| network(address.ip()).to_string()).unwrap_or_default();
        Whose { is_known: false, code, who }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Whose {
    is_known: bool,
    code: &'static str,
    who: String,
}

/// Since an event was written.
#[derive(Debug)]
struct Window {
    until: Timestamp,
    /// The last one after that, and how many.
    more: Option<(Denied, u64)>,
}

/// Tells refusals apart. Pure.
#[derive(Debug, Default)]
struct Repeats {
    windows: BTreeMap<Whose, Window>,
    /// Everybody who could not be told apart.
    others: Option<Window>,
}

impl Repeats {
    /// What is to be told at once.
    fn take(&mut self, denied: Denied, at: Timestamp) -> Option<Denied> {
        let whose = denied.whose();
        let apart = self.windows.keys().filter(|known| known.is_known == whose.is_known).count();
        let window = match self.windows.get_mut(&whose) {
            Some(window) => window,
            None if apart < APART_MAX => {
                self.windows.insert(whose, Window { until: at + EVERY, more: None });
                return Some(denied);
            }
            None => self.others.get_or_insert(Window { until: at + EVERY, more: None }),
        };
        let count = window.more.as_ref().map_or(0, |(_, count)| *count);
        window.more = Some((denied, count.saturating_add(1)));
        None
    }

    /// What is to be told because a minute is over.
    fn due(&mut self, at: Timestamp) -> Vec<Denied> {
        let mut due = Vec::new();
        self.windows.retain(|_, window| {
            if window.until > at {
                return true;
            }
            let Some((denied, count)) = window.more.take() else { return false };
            window.until = at + EVERY;
            let message = format!("{} ({count} times more within a minute)", denied.message);
            due.push(Denied { message, ..denied });
            true
        });
        if let Some(window) = self.others.take_if(|window| window.until <= at)
            && let Some((denied, count)) = window.more
        {
            let message = format!(
                "{count} more were refused within a minute, too many to name each; the last: {}",
                denied.message
            );
            due.push(Denied { message, ..denied });
        }
        due
    }
}

/// Tells what comes from the queue until it ends.
pub async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Denied>) {
    let mut repeats = Repeats::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let told = tokio::select! {
            denied = queue.recv() => match denied {
                Some(denied) => repeats.take(denied, shared.now()).into_iter().collect(),
                None => return,
            },
            _ = ticks.tick() => repeats.due(shared.now()),
        };
        for denied in told {
            super::tell(&shared, |at| record(&shared, &denied, at)).await;
        }
    }
}

fn record(shared: &Shared, denied: &Denied, at: Timestamp) -> AuditRecord {
    let event = entry(denied.kind, shared.stamp(at, Some(&denied.actor)), denied.message.clone());
    match &denied.host {
        Some(host) => event.about_host(host),
        None => event,
    }
}
