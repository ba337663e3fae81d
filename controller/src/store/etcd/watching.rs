//! Watches: one stream of changes over any number of etcd watches, for as long as the history reaches back.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, WatchOptions, WatchResponse, WatchStream};
use futures::stream;
use tokio::time::{self, Instant};
use tonic::Code;
use tracing::{debug, warn};

use super::codec::Codec;
use super::history::Seen;
use super::members::{Failure, Members};
use super::{DEADLINE, signed, unsigned};
use crate::store::{Change, Changes, Revision, StoreError, Watch};

/// The first pause before a broken watch is made anew; doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LAST: Duration = Duration::from_secs(1);

/// Makes the first etcd watch, so that a store that cannot be reached is said at once. Later ones are made again and
/// again: what a consumer of a watch can do about an etcd that is away is to wait, and that is done here.
pub(super) async fn watch(
    members: Arc<Members>,
    codec: Codec,
    prefix: &str,
    after: Revision,
) -> Result<Watch, StoreError> {
    let (from, end) = codec.range(prefix);
    let generations = members.history().generations();
    let generation = generations.borrow().generation;
    let mut watching = Watching {
        members,
        generations,
        generation,
        codec,
        from,
        end,
        after,
        ready: VecDeque::new(),
        stream: None,
        pause: PAUSE_FIRST,
        ended: false,
    };
    watching.stream = Some(watching.create().await.map_err(Failure::into_store_error)?);
    Ok(Box::pin(stream::unfold(watching, async |mut watching| {
        let next = watching.next().await?;
        Some((next, watching))
    })))
}

/// Nothing is read from etcd before somebody asks for more: a slow reader's backlog stays in etcd, and in the
/// connection's window.
struct Watching {
    members: Arc<Members>,
    /// Tells when etcd's history is no longer the one that is watched.
    generations: tokio::sync::watch::Receiver<Seen>,
    generation: u64,
    codec: Codec,
    from: Vec<u8>,
    end: Vec<u8>,
    /// Everything up to here was delivered, or is in `ready`.
    after: Revision,
    ready: VecDeque<Changes>,
    stream: Option<WatchStream>,
    pause: Duration,
    ended: bool,
}

impl Watching {
    async fn next(&mut self) -> Option<Result<Changes, StoreError>> {
        while !self.ended {
            if let Some(changes) = self.ready.pop_front() {
                return Some(Ok(changes));
            }
            if let Err(error) = self.advance().await {
                self.ended = true;
                return Some(Err(error));
            }
        }
        None
    }

    /// One step: makes a watch, or takes one message of it. An error is one that making a new watch cannot cure.
    async fn advance(&mut self) -> Result<(), StoreError> {
        let seen = *self.generations.borrow_and_update();
        if seen.generation != self.generation {
            return Err(StoreError::Compacted { oldest: unsigned(seen.revision)? });
        }
        let Some(mut stream) = self.stream.take() else {
            return self.create_again().await;
        };
        let message = tokio::select! {
            message = stream.message() => message,
            // Looked at by the next step; the sender lives in the members that this watch holds.
            _ = self.generations.changed() => return Ok(()),
        };
        match message {
            Ok(Some(response)) => {
                if response.created() && !response.canceled() && !self.is_of_this_history(&response).await? {
                    return Ok(());
                }
                if self.take_in(&response)? {
                    self.pause = PAUSE_FIRST;
                    self.stream = Some(stream);
                }
            }
            Ok(None) => debug!("etcd ended a watch"),
            Err(etcd_client::Error::GRpcStatus(status)) if is_too_large(&status) => {
                warn!("a watch is so far behind that etcd's message is too large");
                return Err(StoreError::Compacted { oldest: self.after.saturating_add(1) });
            }
            Err(error) => debug!(%error, "a watch broke"),
        }
        Ok(())
    }

    async fn create_again(&mut self) -> Result<(), StoreError> {
        time::sleep(self.pause).await;
        self.pause = PAUSE_LAST.min(self.pause * 2);
        match self.create().await {
            Ok(stream) => self.stream = Some(stream),
            Err(Failure::Final(error)) if !error.is_retryable() => return Err(error),
            Err(failure) => warn!(?failure, "cannot watch etcd; trying on"),
        }
        Ok(())
    }

    /// Starts at the last revision that was delivered, not at the one after it: at the very revision of a compaction
    /// etcd 3.4 no longer tells of deletions, so a watch that begins there could lose one. The repeated revision is
    /// dropped in [`Self::take_in`].
    async fn create(&self) -> Result<WatchStream, Failure> {
        let options = WatchOptions::new()
            .with_range(self.end.clone())
            .with_start_revision(signed(self.after).max(1))
            .with_progress_notify();
        self.members.watch(&self.from, &options, Instant::now() + DEADLINE).await
    }

    /// Whether a watch that was just made can tell what comes next. One from a revision that its member does not know
    /// yet is fine when the member is merely behind, and waits for nothing when the history began anew; a
    /// linearizable read tells. False when there was no answer.
    async fn is_of_this_history(&self, created: &WatchResponse) -> Result<bool, StoreError> {
        let after = signed(self.after);
        let history = self.members.history();
        let behind = created.header().is_some_and(|header| header.revision() < after);
        if !behind && !history.is_doubtful(created.header()) {
            return Ok(true);
        }
        let options = GetOptions::new().with_range(self.end.clone()).with_count_only();
        match self.members.get(&self.from, &options, Instant::now() + DEADLINE).await {
            Ok(answer) => match answer.header() {
                Some(header) if header.revision() < after => {
                    Err(StoreError::Compacted { oldest: unsigned(header.revision())? })
                }
                _ => Ok(history.seen().generation == self.generation),
            },
            Err(failure) => {
                warn!(?failure, "cannot tell whether etcd's history is still the same; trying on");
                Ok(false)
            }
        }
    }

    /// Takes a message in; whether the watch goes on.
    fn take_in(&mut self, response: &WatchResponse) -> Result<bool, StoreError> {
        if response.compact_revision() > 0 {
            return Err(StoreError::Compacted { oldest: unsigned(response.compact_revision())? });
        }
        if response.canceled() {
            debug!(reason = response.cancel_reason(), "etcd cancelled a watch");
            return Ok(false);
        }
        if response.created() {
            return Ok(true);
        }
        if response.events().is_empty() {
            // A progress notice: nothing up to this revision is missing. It keeps a quiet watch ahead of compaction.
            let revision = unsigned(response.header().map_or(0, |header| header.revision()))?;
            self.after = self.after.max(revision);
            return Ok(true);
        }
        self.group(response)
    }

    /// Puts the events of one revision together. etcd sends all of a revision's in one message.
    fn group(&mut self, response: &WatchResponse) -> Result<bool, StoreError> {
        let mut group = Changes { revision: 0, changes: Vec::new() };
        for pair in response.events().iter().filter_map(|event| event.kv()) {
            let revision = unsigned(pair.mod_revision())?;
            if revision <= self.after {
                continue;
            }
            if revision != group.revision && !group.changes.is_empty() {
                self.ready.push_back(mem::replace(&mut group, Changes { revision, changes: Vec::new() }));
            }
            group.revision = revision;
            let key = self.codec.decode_key(pair.key())?.to_owned();
            // Only what was removed has no version.
            group.changes.push(if pair.version() == 0 {
                Change::Delete { key }
            } else {
                let value = self.codec.decode_value(&key, pair.value())?;
                Change::Put { key, value }
            });
        }
        if !group.changes.is_empty() {
            self.after = group.revision;
            self.ready.push_back(group);
        }
        Ok(true)
    }
}

fn is_too_large(status: &tonic::Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("message length too large")
}
