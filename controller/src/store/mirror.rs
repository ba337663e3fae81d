//! What a store of this process holds, in memory: the entries, the latest history, and the watches on it.
//!
//! Reads and watches are served from here and never touch the disk. Whoever writes applies only what is durable, whole
//! commits at a time, so no reader sees half a commit or one that a crash could take back.
//!
//! A watch has no queue of its own. It remembers how far it got and reads on in the shared history, so a slow reader
//! costs nothing; when the history has moved past it, it ends with [`StoreError::Compacted`].

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use futures::stream;
use tokio::sync::watch;

use super::{Change, Changes, Entry, LeaseId, Listing, Revision, StoreError, Watch};

/// The most changes kept for watches that are behind; older ones are forgotten.
pub(super) const HISTORY_CHANGES_MAX: usize = 10_000;
/// The most bytes of keys and values kept for them.
pub(super) const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many commits a watch takes out of the history at a time, which bounds how long it holds the lock.
const READ_AHEAD_MAX: usize = 64;

/// A value and the revision that set it. `Debug` does not print the value, which may be secret.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) value: Bytes,
    pub(super) revision: Revision,
}

/// Every entry at one revision.
#[derive(Debug, Default)]
pub(super) struct Picture {
    entries: BTreeMap<String, Kept>,
    revision: Revision,
    size: usize,
}

impl Picture {
    /// Of entries that were read back.
    pub(super) fn new(entries: BTreeMap<String, Kept>, revision: Revision) -> Self {
        let size = entries.iter().map(|(key, kept)| key.len() + kept.value.len()).sum();
        Self { entries, revision, size }
    }

    /// One entry.
    pub(super) fn kept(&self, key: &str) -> Option<&Kept> {
        self.entries.get(key)
    }

    /// The last commit's.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Bytes of keys and values.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// All entries under a prefix.
    pub(super) fn list(&self, prefix: &str) -> Listing {
        let entries = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let entries = entries.take_while(|(key, _)| key.starts_with(prefix));
        Listing { entries: entries.map(|(key, kept)| entry(key, kept)).collect(), revision: self.revision }
    }

    /// Carries a commit out.
    pub(super) fn apply(&mut self, changes: &Changes) {
        self.revision = changes.revision;
        for change in &changes.changes {
            let (key, kept) = match change {
                Change::Delete { key } => (key, None),
                Change::Put { key, value } => {
                    (key, Some(Kept { value: value.clone(), revision: changes.revision }))
                }
            };
            let before = match kept {
                Some(kept) => {
                    self.size += key.len() + kept.value.len();
                    self.entries.insert(key.clone(), kept)
                }
                None => self.entries.remove(key),
            };
            if let Some(before) = before {
                self.size -= key.len() + before.value.len();
            }
        }
    }
}

/// One commit, with what it weighs in the history.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    changes: Arc<Changes>,
    /// What it puts is bound to this.
    lease: Option<LeaseId>,
    size: usize,
}

impl Commit {
    pub(super) fn new(changes: Changes, lease: Option<LeaseId>) -> Self {
        let size = changes.changes.iter().map(Change::size).sum();
        Self { changes: Arc::new(changes), lease, size }
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    pub(super) fn lease(&self) -> Option<LeaseId> {
        self.lease
    }

    fn under(&self, prefix: &str) -> Option<Changes> {
        let under = |change: &&Change| change.key().starts_with(prefix);
        let changes: Vec<_> = self.changes.changes.iter().filter(under).cloned().collect();
        (!changes.is_empty()).then_some(Changes { revision: self.changes.revision, changes })
    }
}

/// The latest commits, bounded in number and bytes.
#[derive(Debug)]
struct History {
    commits: VecDeque<Commit>,
    changes: usize,
    bytes: usize,
    changes_max: usize,
    /// Everything after this revision is there.
    oldest: Revision,
}

impl History {
    fn push(&mut self, commit: Commit) {
        self.changes += commit.changes.changes.len();
        self.bytes += commit.size;
        self.commits.push_back(commit);
        while self.changes > self.changes_max || self.bytes > HISTORY_BYTES_MAX {
            let Some(forgotten) = self.commits.pop_front() else {
                break;
            };
            self.changes -= forgotten.changes.changes.len();
            self.bytes -= forgotten.size;
            self.oldest = forgotten.changes.revision;
        }
    }

    fn after(&self, revision: Revision) -> Result<impl Iterator<Item = &Commit>, StoreError> {
        if revision < self.oldest {
            return Err(StoreError::Compacted { oldest: self.oldest });
        }
        let start = self.commits.partition_point(|commit| commit.changes.revision <= revision);
        Ok(self.commits.range(start..))
    }
}

#[derive(Debug)]
struct State {
    picture: Picture,
    history: History,
    closed: bool,
}

/// The picture and its history, shared by one writer, any number of readers and any number of watches.
#[derive(Debug)]
pub(super) struct Mirror {
    state: RwLock<State>,
    /// Tells watches that there is something new to read.
    changed: watch::Sender<()>,
}

impl Mirror {
    /// Holds a picture, whose past is not known.
    pub(super) fn new(picture: Picture, history_changes_max: usize) -> Arc<Self> {
        let history = History {
            commits: VecDeque::new(),
            changes: 0,
            bytes: 0,
            changes_max: history_changes_max,
            oldest: picture.revision,
        };
        let state = RwLock::new(State { picture, history, closed: false });
        Arc::new(Self { state, changed: watch::Sender::new(()) })
    }

    /// Adds commits that are durable, all at once for every reader.
    pub(super) fn apply(&self, commits: Vec<Commit>) {
        let mut state = self.write();
        for commit in commits {
            state.picture.apply(&commit.changes);
            state.history.push(commit);
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Shows another picture, when the writer found that the disk holds something else than it knew. Watches end.
    pub(super) fn replace(&self, picture: Picture) {
        let mut state = self.write();
        state.history.commits.clear();
        (state.history.changes, state.history.bytes) = (0, 0);
        // Above both revisions: no watch may go on as if it had seen what lies between.
        state.history.oldest = picture.revision.max(state.picture.revision);
        state.picture = picture;
        drop(state);
        self.changed.send_replace(());
    }

    /// Ends all watches.
    pub(super) fn close(&self) {
        self.write().closed = true;
        self.changed.send_replace(());
    }

    /// Calls a function with the picture; writers wait meanwhile.
    pub(super) fn with_picture<T>(&self, function: impl FnOnce(&Picture) -> T) -> T {
        function(&self.read().picture)
    }

    /// One entry.
    pub(super) fn entry(&self, key: &str) -> Option<Entry> {
        self.with_picture(|picture| picture.kept(key).map(|kept| entry(key, kept)))
    }

    /// All entries under a prefix.
    pub(super) fn list(&self, prefix: &str) -> Listing {
        self.with_picture(|picture| picture.list(prefix))
    }

    /// Every change after a revision under a prefix.
    pub(super) fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        // Said at once, rather than by the first read.
        drop(self.read().history.after(after)?);
        let watching = Watching {
            changed: self.changed.subscribe(),
            mirror: Arc::clone(self),
            prefix: prefix.to_owned(),
            after,
            ready: VecDeque::new(),
            ended: false,
        };
        Ok(Box::pin(stream::unfold(watching, async |mut watching| {
            let next = watching.next().await?;
            Some((next, watching))
        })))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // Nothing that holds the lock can stop half-way with the state torn, so a poisoned one is still good.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far one watch got.
struct Watching {
    mirror: Arc<Mirror>,
    changed: watch::Receiver<()>,
    prefix: String,
    after: Revision,
    ready: VecDeque<Changes>,
    ended: bool,
}

impl Watching {
    async fn next(&mut self) -> Option<Result<Changes, StoreError>> {
        while !self.ended {
            if let Some(changes) = self.ready.pop_front() {
                return Some(Ok(changes));
            }
            // Marked before reading: a change that comes in between wakes the wait below at once.
            self.changed.borrow_and_update();
            match self.read_ahead() {
                Ok(true) => {}
                Ok(false) => {
                    // The sender lives in the mirror that this watch holds, so the wait cannot fail.
                    let _ = self.changed.changed().await;
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// Takes the next commits out of the history; whether there were any, of this prefix or not.
    fn read_ahead(&mut self) -> Result<bool, StoreError> {
        let state = self.mirror.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut any = false;
        for commit in state.history.after(self.after)?.take(READ_AHEAD_MAX) {
            any = true;
            self.after = commit.changes.revision;
            self.ready.extend(commit.under(&self.prefix));
        }
        if !any && state.closed {
            return Err(StoreError::Unavailable("it was closed".to_owned()));
        }
        Ok(any)
    }
}

fn entry(key: &str, kept: &Kept) -> Entry {
    Entry { key: key.to_owned(), value: kept.value.clone(), revision: kept.revision }
}

#[cfg(test)]
mod tests;
