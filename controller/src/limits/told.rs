//! Streams of answers whose reader may stop reading.
//!
//! HTTP/2 lets a client hold up one stream for ever while its connection is well. So whoever fills a stream ends it when
//! nothing is taken for [`TAKE_MAX`], with a status for a reader that comes back; when not even that is taken within
//! [`CUT_AFTER`], the connection is cut, and what was kept for it is free again.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use fleetknock_runtime::tls::Line;
use futures::{FutureExt as _, Stream};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How long a reader may take nothing while something waits for it.
pub const TAKE_MAX: Duration = Duration::from_secs(20);
/// How long it may take to hear that its stream is over.
pub const CUT_AFTER: Duration = Duration::from_secs(10);

/// What is told, and at the end why there is no more.
#[derive(Debug)]
pub struct Told<T> {
    messages: ReceiverStream<Result<T, Status>>,
    end: Option<oneshot::Receiver<Status>>,
    _alive: oneshot::Sender<()>,
}

/// Ends what is told. Dropped, it ends it without a word.
#[derive(Debug)]
pub struct End {
    status: oneshot::Sender<Status>,
    gone: oneshot::Receiver<()>,
}

impl<T> Told<T> {
    /// What comes through this queue, until all its senders are gone; then what [`End`] says.
    pub fn new(messages: mpsc::Receiver<Result<T, Status>>) -> (Self, End) {
        let (status, end) = oneshot::channel();
        let (alive, gone) = oneshot::channel();
        let told = Self { messages: ReceiverStream::new(messages), end: Some(end), _alive: alive };
        (told, End { status, gone })
    }
}

impl<T> Stream for Told<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(message) = ready!(Pin::new(&mut self.messages).poll_next(context)) {
            return Poll::Ready(Some(message));
        }
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let status = ready!(end.poll_unpin(context));
        self.end = None;
        Poll::Ready(status.ok().map(Err))
    }
}

impl End {
    /// Says why it ends, if there is a reason, and sees to it that the reader goes: the queue's senders must be gone.
    /// Returns whether it had to be cut off.
    pub async fn say(self, status: Option<Status>, line: Option<&Line>) -> bool {
        let Self { status: sender, gone } = self;
        let reason = status.as_ref().map_or("the stream is over", Status::message).to_owned();
        match status {
            // Nobody hears it who is gone already.
            Some(status) => drop(sender.send(status)),
            None => drop(sender),
        }
        let taken = timeout(CUT_AFTER, gone).await.is_ok();
        if let (false, Some(line)) = (taken, line) {
            line.cut(format!("{reason}, and its reader does not read"));
        }
        !taken
    }
}

#[cfg(test)]
mod tests;
