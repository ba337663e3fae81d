//! The one thread that writes: it judges what waits, writes it as one disk transaction, shows it, and answers.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::store::judge::Batch;
use crate::store::leases::Leases;
use crate::store::leases::timer::{self, NextEnd};
use crate::store::mirror::{Commit, Mirror, Picture};
use crate::store::{Change, Lease, LeaseId, Revision, StoreError, Transaction};

/// The most transactions that one disk transaction carries, which bounds what one fsync delays.
const BATCH_MAX: usize = 256;
/// The most bytes of keys and values that one carries, give or take one transaction.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What somebody wants, since when, and where the verdict goes.
#[derive(Debug)]
pub(super) struct Request {
    demand: Demand,
    at: Instant,
    reply: oneshot::Sender<Verdict>,
}

/// What somebody wants.
#[derive(Debug, Default)]
pub(super) enum Demand {
    /// Only that what has ended by now is ended.
    #[default]
    Nothing,
    /// A transaction.
    Commit(Transaction),
    /// A lease of so long.
    Lease(Duration),
    /// That it begins anew.
    KeepAlive(LeaseId),
    /// That it ends.
    Revoke(LeaseId),
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// A commit's; for what changes nothing, the store's.
    pub(super) revision: Revision,
    /// The one that was given or kept alive.
    pub(super) lease: Option<Lease>,
}

/// The outcome, or why there is none.
pub(super) type Verdict = Result<Outcome, StoreError>;

impl Request {
    /// One that is made now, and what waits for its verdict.
    pub(super) fn new(demand: Demand, now: Instant) -> (Self, oneshot::Receiver<Verdict>) {
        let (reply, verdict) = oneshot::channel();
        (Self { demand, at: now, reply }, verdict)
    }

    fn size(&self) -> usize {
        match &self.demand {
            Demand::Commit(transaction) => transaction.changes.iter().map(Change::size).sum(),
            _ => 0,
        }
    }

    fn judge(&mut self, batch: &mut Batch<'_>, size_max: usize) -> Verdict {
        batch.expire(self.at);
        let lease = match mem::take(&mut self.demand) {
            Demand::Nothing => None,
            Demand::Commit(transaction) => {
                let revision = batch.judge(transaction, size_max)?;
                return Ok(Outcome { revision, lease: None });
            }
            Demand::Lease(ttl) => Some(batch.grant(ttl, self.at)?),
            Demand::KeepAlive(lease) => batch.keep_alive(lease, self.at),
            Demand::Revoke(lease) => {
                batch.revoke(lease);
                None
            }
        };
        Ok(Outcome { revision: batch.revision(), lease })
    }
}

/// What is under the writer. A seam, so that its failures can be tested.
pub(super) trait Disk {
    /// Everything that is durable. After a failed write it says what became of it.
    fn read(&mut self) -> Result<Found, StoreError>;

    /// Makes commits durable, all or none. After an error it is unknown which, until [`Self::read`].
    fn write(&mut self, commits: &[Commit]) -> Result<(), StoreError>;
}

/// What is on a disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) picture: Picture,
    /// The lease of each key that is bound to one.
    pub(super) bound: BTreeMap<String, LeaseId>,
}

/// Writes to one disk what one mirror shows.
pub(super) struct Writer<'a, D> {
    disk: D,
    mirror: &'a Mirror,
    leases: Leases,
    next_end: NextEnd,
    size_max: usize,
    /// Whether a failed write left something on disk that the mirror does not show.
    in_doubt: bool,
}

impl<'a, D: Disk> Writer<'a, D> {
    /// One that holds no lease yet.
    pub(super) fn new(disk: D, mirror: &'a Mirror, next_end: NextEnd, size_max: usize) -> Self {
        Self { disk, mirror, leases: Leases::default(), next_end, size_max, in_doubt: false }
    }

    /// Serves requests until every sender is gone. What waits then is still carried out.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.blocking_recv() {
            let requests = gather(first, &mut queue);
            self.serve(requests);
            timer::set(&self.next_end, self.leases.next_end());
        }
    }

    fn serve(&mut self, requests: Vec<Request>) {
        if self.in_doubt {
            match self.disk.read() {
                Ok(found) => {
                    settle(self.mirror, found.picture);
                    self.leases.rebind(found.bound);
                }
                Err(error) => return refuse(requests, &error),
            }
        }
        self.in_doubt = self.carry_out(requests).is_err();
    }

    /// Judges requests in order, writes what they change, and answers all of them: a verdict that rests on an earlier
    /// change of the batch is worth nothing before that change is durable. An error leaves the disk in doubt.
    fn carry_out(&mut self, mut requests: Vec<Request>) -> Result<(), ()> {
        let (verdicts, commits) = self.mirror.with_picture(|picture| {
            let mut batch = Batch::on(picture, &mut self.leases);
            // A lease may have ended in a batch that could not be written.
            batch.delete_orphans();
            let judge = |request: &mut Request| request.judge(&mut batch, self.size_max);
            let verdicts: Vec<_> = requests.iter_mut().map(judge).collect();
            (verdicts, batch.into_commits())
        });
        if !commits.is_empty() {
            if let Err(error) = self.disk.write(&commits) {
                error!(%error, commits = commits.len(), "cannot write the store");
                refuse(requests, &error);
                return Err(());
            }
            self.mirror.apply(commits);
        }
        for (request, verdict) in requests.into_iter().zip(verdicts) {
            // Whoever no longer waits has given up on the answer, not on the commit.
            let _ = request.reply.send(verdict);
        }
        Ok(())
    }
}

/// Takes whatever else waits, without waiting for more.
fn gather(first: Request, queue: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let mut bytes = first.size();
    let mut requests = vec![first];
    while requests.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(request) = queue.try_recv() else { break };
        bytes += request.size();
        requests.push(request);
    }
    requests
}

/// Compares what a failed write left on disk with what is shown, and shows what is on disk.
fn settle(mirror: &Mirror, found: Picture) {
    let shown = mirror.with_picture(Picture::revision);
    if found.revision() == shown {
        info!(revision = shown, "the store answers again; what could not be written is not there");
    } else {
        warn!(
            shown,
            found = found.revision(),
            "the store answers again; what could not be confirmed is there"
        );
        mirror.replace(found);
    }
}

fn refuse(requests: Vec<Request>, error: &StoreError) {
    for request in requests {
        let again = match error {
            StoreError::Broken(why) => StoreError::Broken(why.clone()),
            StoreError::Unavailable(why) => StoreError::Unavailable(why.clone()),
            other => StoreError::Unavailable(other.to_string()),
        };
        let _ = request.reply.send(Err(again));
    }
}

#[cfg(test)]
mod tests;
