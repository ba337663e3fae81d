//! Takes part in the fleet: holds a lease and a key in the store, and says whether this controller may decide.
//!
//! One task. What it does next is said by [`tenure`]; this shell asks the store and tells the others in the process.

use std::{sync::Arc, time::Duration};

use fleetknock_proto::v1 as pb;
use fleetknock_runtime::ready::Latch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::tenure::{Step, Tenure};
use crate::{
    grant, keeper,
    record::{Key, MemberRecord, decode},
    shared::{Shared, Standing},
    store::{LeaseId, Revision, StoreError, Transaction},
    wire,
};

pub mod tenure;

/// The shortest lease that may be asked for: etcd gives none below 1.5 election timeouts.
pub const LEASE_MIN: Duration = Duration::from_secs(2);
/// The longest: so long nobody takes over from a controller whose machine died.
pub const LEASE_MAX: Duration = Duration::from_secs(60);
/// A controller without its lease lets its agents look for a better one this often.
const DISMISS_EVERY: Duration = Duration::from_secs(10);
/// How long leaving may wait for the store.
const REVOKE_MAX: Duration = Duration::from_secs(2);
/// Members that wait under the same name are told of each other this often.
const NAMESAKE_EVERY: Duration = Duration::from_secs(10);

/// Takes part until told to leave, then gives up the lease. `joined` is released while it may decide.
pub async fn run(shared: Arc<Shared>, ttl: Duration, joined: Latch, leaving: CancellationToken) {
    let mut member = Member {
        shared,
        ttl,
        tenure: Tenure::new(),
        start: Instant::now(),
        joined,
        dismissed: None,
        namesake: None,
        failed: false,
    };
    let _left = leaving.run_until_cancelled(member.take_part()).await;
    member.leave().await;
}

struct Member {
    shared: Arc<Shared>,
    ttl: Duration,
    tenure: Tenure,
    start: Instant,
    joined: Latch,
    /// When the agents were last let go for want of a lease.
    dismissed: Option<Instant>,
    /// When it was last said that another controller has this name.
    namesake: Option<Instant>,
    failed: bool,
}

impl Member {
    async fn take_part(&mut self) {
        let mut members = self.shared.members();
        loop {
            members.borrow_and_update();
            self.check();
            self.publish();
            let (step, due) = self.tenure.next();
            let wake = self.tenure.until().map_or(due, |until| until.min(due));
            tokio::select! {
                _ = members.changed() => continue,
                () = sleep_until(self.start + wake) => {}
            }
            if self.start.elapsed() < due {
                continue;
            }
            // Waiting for the store ends when the lease does: then there are others to be told first.
            let until = self.tenure.until().map(|until| self.start + until);
            let shared = self.shared.clone();
            let outcome = match until {
                Some(until) => tokio::time::timeout_at(until, ask(&shared, step, self.ttl)).await,
                None => Ok(ask(&shared, step, self.ttl).await),
            };
            if let Ok((asked, outcome)) = outcome {
                self.take_in(asked.duration_since(self.start), outcome);
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Notices that the lease is over, or the key gone.
    fn check(&mut self) {
        let now = self.now();
        self.tenure.expire(now);
        let Some(epoch) = self.tenure.epoch(now) else {
            return;
        };
        let state = self.shared.state();
        let held = state.fleet.members().get(&self.shared.name).map(|held| held.revision);
        if state.fleet.revision() >= epoch && held != Some(epoch) {
            tracing::warn!(epoch, "this controller's key is gone from the store");
            drop(state);
            self.tenure.lost(now);
        }
    }

    fn take_in(&mut self, asked: Duration, outcome: Result<Answer, StoreError>) {
        let now = self.now();
        match outcome {
            Ok(Answer::Leased(lease, ttl)) => self.tenure.leased(lease, ttl, asked),
            Ok(Answer::Joined(epoch)) => self.tenure.joined(epoch, now),
            Ok(Answer::Renewed(ttl)) => {
                self.shared.metrics.lease_renewals.inc();
                self.tenure.renewed(ttl, asked);
            }
            Ok(Answer::Gone) => self.tenure.lost(now),
            Ok(Answer::Namesake(address)) => {
                if self.namesake.is_none_or(|said| said.elapsed() > NAMESAKE_EVERY) {
                    tracing::warn!(
                        name = %self.shared.name,
                        address,
                        "waiting for another controller of this name to leave; give each its own with --name"
                    );
                    self.namesake = Some(Instant::now());
                }
                self.tenure.failed(now);
            }
            Err(error) => {
                if !self.failed {
                    tracing::warn!(%error, "the store does not answer about this controller's lease; trying on");
                }
                self.failed = true;
                self.tenure.failed(now);
                return;
            }
        }
        self.failed = false;
    }

    /// Tells the others in the process, and the agents. A membership that the own copy of the fleet does not hold yet is
    /// not begun: the others send this controller the knocks of its sources, and by its own copy they would be somebody
    /// else's.
    fn publish(&mut self) {
        let before = self.shared.standing();
        let seen = {
            let state = self.shared.state();
            state.fleet.members().get(&self.shared.name).map(|held| held.revision)
        };
        let epoch = self.tenure.epoch(self.now()).filter(|epoch| seen == Some(*epoch));
        let standing = match (epoch, self.tenure.until()) {
            (Some(epoch), Some(until)) => Standing::Serving { epoch, until: self.start + until },
            _ if before == Standing::Joining => Standing::Joining,
            _ => Standing::Suspended,
        };
        self.shared.set_standing(standing);
        match (before, standing) {
            (Standing::Joining, Standing::Serving { epoch, .. }) => {
                tracing::info!(epoch, name = %self.shared.name, "this controller has joined");
                self.joined.release();
            }
            (Standing::Suspended, Standing::Serving { epoch, .. }) => {
                tracing::info!(epoch, "the lease is held again: this controller decides again");
                self.say(pb::EventKind::LeaseHeld, "the lease is held again: this controller decides again");
                self.joined.release();
                self.dismissed = None;
            }
            (Standing::Serving { .. }, Standing::Suspended) => {
                tracing::warn!("the lease could not be renewed: this controller decides nothing until it is");
                self.joined.engage();
                let message = "the lease could not be renewed: this controller decides nothing until it is";
                self.say(pb::EventKind::LeaseLost, message);
            }
            _ => {}
        }
        if standing == Standing::Suspended && self.dismissed.is_none_or(|at| at.elapsed() > DISMISS_EVERY) {
            self.dismissed = Some(Instant::now());
            self.shared.state().sessions.dismiss("this controller cannot reach its store");
        }
    }

    fn say(&self, kind: pb::EventKind, message: &str) {
        self.shared.say(wire::event(kind, self.shared.now(), message.to_owned()));
    }

    /// The sources move to the others at once, rather than when the lease ends.
    async fn leave(self) {
        self.shared.set_standing(Standing::Leaving);
        let Some(lease) = self.tenure.lease() else {
            return;
        };
        match timeout(REVOKE_MAX, self.shared.store.revoke(lease)).await {
            Ok(Ok(())) => tracing::info!("this controller has left; its sources are the others'"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be given up; it ends by itself"),
            Err(_) => tracing::warn!("the lease could not be given up in time; it ends by itself"),
        }
    }
}

/// What the store said.
enum Answer {
    Gone,
    Joined(Revision),
    Leased(LeaseId, Duration),
    /// Another controller has this name, at that address.
    Namesake(String),
    Renewed(Duration),
}

/// Does one step, and says when it was begun.
async fn ask(shared: &Shared, step: Step, ttl: Duration) -> (Instant, Result<Answer, StoreError>) {
    let asked = Instant::now();
    let answer = match step {
        Step::Ask => shared.store.lease(ttl).await.map(|lease| Answer::Leased(lease.id, lease.ttl)),
        Step::Join(lease) => join(shared, lease).await,
        Step::Renew(lease) => {
            let kept = shared.store.keep_alive(lease).await;
            kept.map(|ttl| ttl.map_or(Answer::Gone, Answer::Renewed))
        }
    };
    (asked, answer)
}

/// Writes the own key, in the place of a former self's.
async fn join(shared: &Shared, lease: LeaseId) -> Result<Answer, StoreError> {
    keeper::check_identity(shared).await?;
    let key = Key::Controller(shared.name.clone());
    let held = shared.store.get(&key.to_string()).await?;
    if let Some(entry) = &held {
        // One that cannot be read is of another version at least: it is not taken over either.
        let address = match decode::<MemberRecord>(&key, &entry.value) {
            Ok(record) => record.address,
            Err(error) => error.to_string(),
        };
        if address != shared.address {
            return Ok(Answer::Namesake(address));
        }
    }
    let record = MemberRecord {
        name: shared.name.clone(),
        address: shared.address.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: shared.started,
    };
    let change = grant::put(&key, &record).map_err(|refusal| StoreError::Invalid(refusal.to_string()))?;
    let transaction = Transaction {
        expect: vec![grant::expect(&key, held.map(|entry| entry.revision))],
        changes: vec![change],
        lease: Some(lease),
    };
    match shared.store.commit(transaction).await {
        Ok(epoch) => Ok(Answer::Joined(epoch)),
        Err(StoreError::LeaseEnded) => Ok(Answer::Gone),
        Err(error) => Err(error),
    }
}
