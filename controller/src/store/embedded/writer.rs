//! The one thread that writes: it judges what waits, writes it as one disk transaction, shows it, and answers.

use std::mem;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::store::judge::Batch;
use crate::store::mirror::{Commit, Mirror, Picture};
use crate::store::{Change, Revision, StoreError, Transaction};

/// The most transactions that one disk transaction carries, which bounds what one fsync delays.
const BATCH_MAX: usize = 256;
/// The most bytes of keys and values that one carries, give or take one transaction.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Somebody's transaction, and where the verdict goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) transaction: Transaction,
    pub(super) reply: oneshot::Sender<Result<Revision, StoreError>>,
}

/// What is under the writer. A seam, so that its failures can be tested.
pub(super) trait Disk {
    /// Everything that is durable. After a failed write it says what became of it.
    fn read(&mut self) -> Result<Picture, StoreError>;

    /// Makes commits durable, all or none. After an error it is unknown which, until [`Self::read`].
    fn write(&mut self, commits: &[Commit]) -> Result<(), StoreError>;
}

/// Serves requests until every sender is gone. What waits then is still carried out.
pub(super) fn run(mut disk: impl Disk, mirror: &Mirror, mut queue: mpsc::Receiver<Request>, size_max: usize) {
    let mut in_doubt = false;
    while let Some(first) = queue.blocking_recv() {
        let requests = gather(first, &mut queue);
        if in_doubt {
            match disk.read() {
                Ok(found) => settle(mirror, found),
                Err(error) => {
                    refuse(requests, &error);
                    continue;
                }
            }
        }
        in_doubt = carry_out(&mut disk, mirror, requests, size_max).is_err();
    }
}

/// Takes whatever else waits, without waiting for more.
fn gather(first: Request, queue: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let weigh = |request: &Request| request.transaction.changes.iter().map(Change::size).sum::<usize>();
    let mut bytes = weigh(&first);
    let mut requests = vec![first];
    while requests.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(request) = queue.try_recv() else { break };
        bytes += weigh(&request);
        requests.push(request);
    }
    requests
}

/// Judges requests in order, writes what they change, and answers all of them: a verdict that rests on an earlier
/// change of the batch is worth nothing before that change is durable. An error leaves the disk in doubt.
fn carry_out(
    disk: &mut impl Disk,
    mirror: &Mirror,
    mut requests: Vec<Request>,
    size_max: usize,
) -> Result<(), ()> {
    let (verdicts, commits) = mirror.with_picture(|picture| {
        let mut batch = Batch::on(picture);
        let judge = |request: &mut Request| batch.judge(mem::take(&mut request.transaction), size_max);
        let verdicts: Vec<_> = requests.iter_mut().map(judge).collect();
        (verdicts, batch.into_commits())
    });
    if !commits.is_empty() {
        if let Err(error) = disk.write(&commits) {
            error!(%error, commits = commits.len(), "cannot write the store");
            refuse(requests, &error);
            return Err(());
        }
        mirror.apply(commits);
    }
    for (request, verdict) in requests.into_iter().zip(verdicts) {
        // Whoever no longer waits has given up on the answer, not on the commit.
        let _ = request.reply.send(verdict);
    }
    Ok(())
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
