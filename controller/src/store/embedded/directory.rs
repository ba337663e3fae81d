//! The directory: made if need be, and held against a second controller.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process;

use crate::store::StoreError;

const LOCK_FILE: &str = "lock";
/// A process number has at most seven digits (`/proc/sys/kernel/pid_max`).
const PID_BYTES_MAX: u64 = 16;

/// Ours until it is dropped, or the process dies in whatever way: the kernel lets go of an flock by itself.
#[derive(Debug)]
pub(super) struct Directory {
    _lock: File,
}

impl Directory {
    /// Makes the directory and takes its lock.
    pub(super) fn hold(path: &Path) -> Result<Self, StoreError> {
        let failed = |what: &str, error: &io::Error| {
            StoreError::Unavailable(format!(
                "cannot {what} the store's directory {}: {error}",
                path.display()
            ))
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(|error| failed("make", &error))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(path.join(LOCK_FILE)).map_err(|error| failed("write in", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &error)),
        }
        // Only for the message above; a disk too full for it is no reason to refuse.
        let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", process::id()));
        Ok(Self { _lock: lock })
    }
}

fn taken(path: &Path, lock: &mut File) -> StoreError {
    let mut text = String::new();
    let read = lock.take(PID_BYTES_MAX).read_to_string(&mut text);
    let holder = match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    StoreError::Unavailable(format!(
        "the store's directory {} is in use by {holder}; one controller at a time may have an embedded store: stop the \
         other, give this one a directory of its own, or use etcd for several",
        path.display()
    ))
}

#[cfg(test)]
mod tests;
