//! Keeps the copy true: mirrors `controller::keeper` around the real fleet and sessions.

use std::time::Duration;

use fleetknock_controller::{
    fleet::{Effect, Fleet},
    grant,
    record::Key,
    store::{CHANGES_MAX, Changes, Transaction},
};

use super::{Asked, Process};
use crate::{
    Sabotage,
    core::{Core, Timer},
    etcd::{self, Answer, Ask},
    network::StreamId,
    oracle::Origin,
};

const CLEAR_MAX: usize = CHANGES_MAX / 2;

impl Process {
    /// One commit, or the end of the watch.
    pub(super) fn watched(&mut self, core: &mut Core, changes: Option<Changes>) {
        let Some(changes) = changes else {
            core.say(|| format!("{} lost its watch", self.name));
            self.ask(core, Ask::List, Asked::List);
            return;
        };
        let now = self.now(core);
        let effects = self.fleet.apply(changes);
        if !Self::is_sabotaged(core, Sabotage::ForgetToPush) || core.chance(0.9) {
            self.sessions.push(&effects, &self.fleet, &self.wide, now);
        }
        for effect in &effects {
            match effect {
                Effect::OpeningForgotten(opening) => self.statuses.forget(&opening.id),
                Effect::Opening { before: Some(before), after } if before.id != after.id => {
                    self.statuses.forget(&before.id);
                }
                Effect::Broken(error) => core.fail(format!("the store holds what cannot be read: {error}")),
                _ => {}
            }
        }
        let members =
            effects.iter().any(|effect| matches!(effect, Effect::MemberJoined(_) | Effect::MemberLeft(_)));
        let rules = effects.iter().any(|effect| {
            use Effect::{Audited, MemberJoined, MemberLeft, Opening, OpeningForgotten};
            !matches!(
                effect,
                Audited(_) | Opening { .. } | OpeningForgotten(_) | MemberJoined(_) | MemberLeft(_)
            )
        });
        if rules {
            self.read_rules(self.now(core));
        }
        if members {
            self.follow_members(core);
        }
        self.moved_on(core);
    }

    /// The whole store was read, at the start or because the watch ended.
    pub(super) fn listed(&mut self, core: &mut Core, answer: Answer) {
        let Answer::Listed(listing) = answer else {
            // Backoff::new(50 ms, 2 s, 0.5), as `keeper::retry_delay`.
            self.failures = (self.failures + 1).min(6);
            let most = (50 << (self.failures - 1)).min(2_000);
            let delay = Duration::from_millis(core.between(most / 2, most + 1));
            return core.wake(self.node(), delay, Timer::Resync);
        };
        self.failures = 0;
        // As `read_identified`; whoever is second finds what the first wrote.
        let key = Key::Identity.to_string();
        if !self.loaded && !listing.entries.iter().any(|entry| entry.key == key) {
            let expect = vec![grant::expect(&Key::Identity, None)];
            let changes = etcd::identity(true).into_iter().collect();
            let transaction = Transaction { expect, changes, lease: None };
            self.ask(core, Ask::Commit(transaction, Origin::Other), Asked::Identify);
            return;
        }
        let revision = listing.revision;
        if self.loaded {
            self.fleet.replace(listing);
            let now = self.now(core);
            self.sessions.reassert_all(&self.fleet, &self.wide, now);
        } else {
            self.fleet = Fleet::load(listing).0;
            self.loaded = true;
            core.wake(self.node(), Duration::from_secs(1), Timer::Keeper);
        }
        self.watch = core.watch(self.number, revision);
        self.read_rules(self.now(core));
        self.follow_members(core);
        self.moved_on(core);
        for input in std::mem::take(&mut self.early) {
            self.take(core, input);
        }
    }

    /// Whoever waited for the copy looks at it.
    fn moved_on(&mut self, core: &mut Core) {
        self.contend_moved(core);
        let calls: Vec<StreamId> = self.calls.keys().copied().collect();
        for stream in calls {
            self.read_call(core, stream);
        }
        self.admit_waiting(core);
    }

    /// As `keeper::clear_away`: by the longest-serving member.
    pub(super) fn clear_away(&mut self, core: &mut Core) {
        if self.fleet.eldest() != Some(&self.name) {
            return;
        }
        if let Some(transaction) = grant::clear(&self.fleet, self.now(core), CLEAR_MAX) {
            self.ask(core, Ask::Commit(transaction, Origin::Other), Asked::Clear);
        }
    }
}
