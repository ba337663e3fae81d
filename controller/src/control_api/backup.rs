//! Backups: the file goes out and comes in by parts.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use fleetknock_proto::{
    limits::{BACKUP_MAX, BACKUP_PART_MAX},
    status as refuse,
    v1::{self as pb, restore_part::Part},
};
use futures::{Stream, StreamExt as _, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{decided, store_error};
use crate::{
    audit,
    backup::{
        file::{self, FileError, Origin},
        restore::{HEAR_MAX, Restore},
    },
    shared::Shared,
    trust::Caller,
};

/// What is said of a restore and not heard yet; then it waits.
const TOLD_QUEUE: usize = 64;

/// Parts of a file, or how far a restore is.
pub(super) type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A file is held in memory whole: one at a time.
pub(super) struct One(Arc<Semaphore>);

impl Default for One {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl One {
    fn enter(&self) -> Result<OwnedSemaphorePermit, Status> {
        let busy = "another backup or restore is under way at this controller; wait for it, or ask another controller";
        self.0.clone().try_acquire_owned().map_err(|_| Status::resource_exhausted(busy))
    }
}

/// The fleet's records at one revision. That they are taken away is written down first.
pub(super) async fn backup(
    shared: &Shared,
    caller: &Caller,
    one: &One,
) -> Result<Parts<pb::BackupPart>, Status> {
    let permit = one.enter()?;
    let actor = caller.actor();
    let message = "a backup was made";
    let event = |at| audit::entry(pb::EventKind::BackupMade, shared.stamp(at, Some(&actor)), message);
    decided(shared, audit::write(shared, event).await)?;
    let listing = shared.store.list_as_it_lies("").await.map_err(|error| store_error(shared, &error))?;
    let store = shared.state().fleet.identity().unwrap_or_default().to_owned();
    let origin = Origin { fleet: &shared.fleet_name, store: &store, made: shared.now() };
    let file =
        file::write(&listing, origin).map_err(|error| Status::resource_exhausted(error.to_string()))?;
    drop(listing);
    let file = Bytes::from(file);
    let starts = (0..file.len()).step_by(BACKUP_PART_MAX);
    let parts: Vec<_> = starts.map(|at| file.slice(at..file.len().min(at + BACKUP_PART_MAX))).collect();
    Ok(Box::pin(stream::iter(parts).map(move |part| {
        // Until the last part has been taken.
        let _held = &permit;
        Ok(pb::BackupPart { data: part.to_vec() })
    })))
}

/// Takes a file in and restores it; what is said of it comes as it happens.
pub(super) fn restore(
    shared: &Arc<Shared>,
    caller: &Caller,
    one: &One,
    stop: CancellationToken,
    mut parts: Streaming<pb::RestorePart>,
) -> Result<Parts<pb::RestoreProgress>, Status> {
    let permit = one.enter()?;
    let (tell, told) = mpsc::channel(TOLD_QUEUE);
    let (shared, actor) = (shared.clone(), caller.actor());
    tokio::spawn(async move {
        let _permit = permit;
        let restoring = async {
            let (options, file) = receive(&mut parts).await?;
            let restore = Restore { options, actor };
            if restore.options.begin_anew {
                return restore.begin_anew(&shared, &tell).await;
            }
            let backup = tokio::task::spawn_blocking(move || file::read(&file)).await;
            let backup = backup.map_err(|error| Status::internal(error.to_string()))?;
            let backup = backup.map_err(|error: FileError| refuse::invalid("file", error.to_string()))?;
            restore.run(&shared, backup, &tell).await
        };
        let ended = stop.run_until_cancelled(restoring).await;
        let leaving = || Err(refuse::unavailable("this controller is leaving; restore again at another one"));
        if let Err(status) = ended.unwrap_or_else(leaving) {
            let _gone = tell.send_timeout(Err(status), HEAR_MAX).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(told)))
}

async fn receive(parts: &mut Streaming<pb::RestorePart>) -> Result<(pb::RestoreOptions, Vec<u8>), Status> {
    let (mut options, mut file) = (None, Vec::new());
    loop {
        let next = timeout(HEAR_MAX, parts.message()).await;
        let slow = || Status::deadline_exceeded(format!("no part of the file came for {HEAR_MAX:?}"));
        let Some(message) = next.map_err(|_| slow())?? else { break };
        match (message.part, &options) {
            (Some(Part::Options(first)), None) => options = Some(first),
            (Some(Part::Data(data)), Some(_)) if file.len() + data.len() <= BACKUP_MAX => file.extend(data),
            (Some(Part::Data(_)), Some(_)) => {
                return Err(refuse::invalid("file", FileError::Large.to_string()));
            }
            _ => return Err(refuse::invalid("part", "first the options, once, then the file")),
        }
    }
    let options = options.ok_or_else(|| refuse::invalid("options", "is missing"))?;
    Ok((options, file))
}
