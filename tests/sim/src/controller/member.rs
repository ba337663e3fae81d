//! Takes part in the fleet: mirrors `controller::membership` around the real tenure.

use std::time::Duration;

use fleetknock_controller::{
    grant,
    membership::tenure::Step,
    record::{Key, MemberRecord, decode},
    store::{LeaseId, StoreError, Transaction},
};

use super::{Asked, Process, Standing};
use crate::{
    core::{Core, Timer},
    etcd::{Answer, Ask},
    oracle::Origin,
    time::{Micros, SECOND},
};

/// How long the first join waits for somebody's clock (`serve::CLOCK_MAX`).
const CLOCK_MAX: Micros = 2 * SECOND;
const DISMISS_EVERY: Micros = 10 * SECOND;
const REVOKE_MAX: Duration = Duration::from_secs(2);

/// How far taking part has got.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// Since when the store is read; the clock may be waited for.
    pub(super) since: Option<Micros>,
    began: bool,
    asking: Option<(u64, Duration)>,
    wake: Micros,
    dismissed: Option<Micros>,
}

impl Process {
    /// One turn of the loop: notices what is over, says so, and asks for what is due.
    pub(super) fn take_part(&mut self, core: &mut Core) {
        if self.standing == Standing::Leaving {
            return;
        }
        if !self.membership.began {
            let others = self.fleet.members().keys().any(|name| *name != self.name);
            let measured = self.fleet_clock.leader().is_some();
            let since = *self.membership.since.get_or_insert(core.now);
            if others && !measured && core.now < since + CLOCK_MAX {
                return self.wake_member(core, since + CLOCK_MAX);
            }
            self.membership.began = true;
        }
        let now = self.mono(core);
        if self.membership.asking.is_some() {
            match self.tenure.until() {
                // Waiting for the store ends when the lease does.
                Some(until) if now >= until => self.membership.asking = None,
                Some(until) => return self.wake_member(core, core.now + micros(until - now)),
                None => return,
            }
        }
        self.check(core);
        self.publish(core);
        let (step, due) = self.tenure.next();
        if now >= due {
            let id = match step {
                Step::Ask => self.ask(core, Ask::Grant(core.scenario.lease), Asked::Step),
                Step::Renew(lease) => self.ask(core, Ask::KeepAlive(lease), Asked::Step),
                Step::Join(lease) => {
                    let key = Key::Controller(self.name.clone()).to_string();
                    self.ask(core, Ask::Get(key), Asked::JoinGet(lease))
                }
            };
            self.membership.asking = Some((id, now));
        }
        let wake = self.tenure.until().map_or(due, |until| if now >= due { until } else { until.min(due) });
        if wake > now {
            self.wake_member(core, core.now + micros(wake - now));
        }
    }

    fn wake_member(&mut self, core: &mut Core, at: Micros) {
        if self.membership.wake <= core.now || at < self.membership.wake {
            self.membership.wake = at;
            core.wake(self.node(), Duration::from_micros(at - core.now), Timer::Member);
        }
    }

    fn check(&mut self, core: &Core) {
        let now = self.mono(core);
        self.tenure.expire(now);
        let Some(epoch) = self.tenure.epoch(now) else { return };
        let held = self.fleet.members().get(&self.name).map(|held| held.revision);
        if self.fleet.revision() >= epoch && held != Some(epoch) {
            self.tenure.lost(now);
        }
    }

    fn publish(&mut self, core: &mut Core) {
        let before = self.standing;
        let now = self.mono(core);
        let seen = self.fleet.members().get(&self.name).map(|held| held.revision);
        let epoch = self.tenure.epoch(now).filter(|epoch| seen == Some(*epoch));
        let begins = epoch.is_some() && epoch != self.epoch;
        self.standing = match (epoch, self.tenure.until()) {
            (Some(epoch), Some(until)) => {
                self.epoch = Some(epoch);
                Standing::Serving { epoch, until }
            }
            _ if before == Standing::Joining => Standing::Joining,
            _ => Standing::Suspended,
        };
        if std::mem::discriminant(&before) != std::mem::discriminant(&self.standing) {
            core.say(|| format!("{} is {:?}", self.name, self.standing));
        }
        if matches!(self.standing, Standing::Serving { .. }) {
            self.membership.dismissed = None;
            core.oracle.serving.insert(self.number);
        } else {
            core.oracle.serving.remove(&self.number);
        }
        if begins {
            // Peers that meant this life waited for it.
            let calls: Vec<_> = self.calls.keys().copied().collect();
            calls.into_iter().for_each(|stream| self.read_call(core, stream));
        }
        let due = self.membership.dismissed.is_none_or(|at| core.now > at + DISMISS_EVERY);
        if self.standing == Standing::Suspended && due {
            self.membership.dismissed = Some(core.now);
            if !Self::is_sabotaged(core, crate::Sabotage::KeepAgents) {
                self.sessions.dismiss("this controller cannot reach its store");
            }
        }
    }

    pub(super) fn step_answered(&mut self, core: &mut Core, id: u64, asked: &Asked, answer: Answer) {
        let Some((_, begun)) = self.membership.asking.filter(|(asking, _)| *asking == id) else { return };
        let now = self.mono(core);
        self.membership.asking = None;
        match (asked, answer) {
            (Asked::JoinGet(lease), Answer::Entry(held)) => {
                let key = Key::Controller(self.name.clone());
                let address = held.as_ref().map(|entry| decode::<MemberRecord>(&key, &entry.value));
                if address
                    .is_some_and(|record| record.map(|r| r.address).ok().as_ref() != Some(&self.address))
                {
                    return self.tenure.failed(now);
                }
                let revision = held.map(|entry| entry.revision);
                if let Some(transaction) = self.joining(core, &key, revision, *lease) {
                    let id = self.ask(core, Ask::Commit(transaction, Origin::Other), Asked::Join);
                    self.membership.asking = Some((id, begun));
                }
            }
            (_, Answer::Leased(Ok(lease))) => self.tenure.leased(lease.id, lease.ttl, begun),
            (_, Answer::Kept(Some(ttl))) => self.tenure.renewed(ttl, begun),
            (_, Answer::Kept(None) | Answer::Committed(Err(StoreError::LeaseEnded))) => self.tenure.lost(now),
            (_, Answer::Committed(Ok(epoch))) => self.tenure.joined(epoch, now),
            _ => self.tenure.failed(now),
        }
    }

    fn joining(&self, core: &Core, key: &Key, held: Option<u64>, lease: LeaseId) -> Option<Transaction> {
        let record = MemberRecord {
            name: self.name.clone(),
            address: self.address.clone(),
            version: "simulated".to_owned(),
            started: self.local_now(core),
        };
        let change = grant::put(key, &record).ok()?;
        Some(Transaction {
            expect: vec![grant::expect(key, held)],
            changes: vec![change],
            lease: Some(lease),
        })
    }

    /// SIGTERM: gives up the lease first, so that the others know whose the sources are before the agents come.
    pub(super) fn leave(&mut self, core: &mut Core) {
        core.say(|| format!("{} leaves", self.name));
        self.standing = Standing::Leaving;
        match self.tenure.lease() {
            Some(lease) => {
                self.ask(core, Ask::Revoke(lease), Asked::Revoke);
                core.wake(self.node(), REVOKE_MAX, Timer::Exit);
            }
            None => core.wake(self.node(), Duration::ZERO, Timer::Exit),
        }
    }

    /// The lease is given up, or that takes too long: first the agents go, then the process ends.
    pub(super) fn exit(&mut self, core: &mut Core) -> bool {
        if self.dismissed {
            return true;
        }
        self.dismissed = true;
        self.sessions.dismiss("this controller is leaving");
        self.flush(core);
        for stream in self.calls.keys().chain(self.agents.keys()) {
            core.close(*stream, self.node());
        }
        self.calls.clear();
        self.agents.clear();
        core.wake(self.node(), Duration::from_millis(50), Timer::Exit);
        false
    }
}

fn micros(duration: Duration) -> Micros {
    // A little later, so that a clock that is behind has got there too.
    crate::time::micros(duration) + crate::time::micros(duration) / 5_000 + 1
}
