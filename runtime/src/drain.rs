//! Stopping: a first SIGTERM or SIGINT drains, a second one aborts, and the end of a vital task ends the process.
//!
//! ```text
//!            signal, or a vital task ends
//!   serving ─────────────────────────────▶ draining ── every tracked task done ──▶ Ok, or the task's error
//!                                              │ grace is over ──▶ Err(Grace)
//!                                              │ second signal ──▶ Err(Aborted)
//! ```

use std::{
    future::Future,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The one handle on stopping. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    tracker: TaskTracker,
    failure: Arc<OnceLock<DrainError>>,
}

/// A signal that stops a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// Its number (signal(7)), to which a shell adds 128.
    fn number(self) -> u8 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

/// SIGTERM and SIGINT as they come.
#[derive(Debug)]
pub struct Signals {
    receiver: mpsc::Receiver<Signal>,
}

impl Signals {
    /// Takes over both signals from the system's default for the rest of the process.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn install() -> io::Result<Self> {
        // Two signals matter; more may be lost.
        let (sender, receiver) = mpsc::channel(2);
        for (kind, name) in
            [(SignalKind::interrupt(), Signal::Interrupt), (SignalKind::terminate(), Signal::Terminate)]
        {
            let mut stream = signal(kind)?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    let _ = sender.try_send(name);
                }
            });
        }
        Ok(Self { receiver })
    }

    /// Signals that come from a channel.
    pub fn from_channel(receiver: mpsc::Receiver<Signal>) -> Self {
        Self { receiver }
    }

    /// The next one; for what comes before there is anything to drain. Cancelling this loses nothing.
    pub async fn next(&mut self) -> Signal {
        match self.receiver.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

impl Drain {
    /// Serving.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain.
    pub fn start(&self) {
        self.token.cancel();
    }

    /// Whether the drain has begun.
    pub fn has_started(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Done when the drain has begun.
    pub async fn started(&self) {
        self.token.cancelled().await;
    }

    /// Cancelled when the drain begins.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs a task for which the drain waits.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Runs a task without which the program is pointless: it ends before the drain has begun, fails or panics, and the
    /// program drains and ends with the task's name in its error.
    pub fn spawn_vital(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let handle = tokio::spawn(task);
        let drain = self.clone();
        self.tracker.spawn(async move {
            let failure = match handle.await {
                Ok(Ok(())) if drain.has_started() => return,
                Ok(Ok(())) => DrainError::Ended { name },
                Ok(Err(error)) => DrainError::Failed { name, error },
                Err(error) if error.is_panic() => DrainError::Panicked { name },
                // The runtime is going away.
                Err(_) => return,
            };
            // The first failure is the one that counts; later ones follow from it.
            let _ = drain.failure.set(failure);
            drain.start();
        });
    }

    /// Waits for a signal or the end of a vital task, then for every task, at most `grace` long.
    ///
    /// # Errors
    /// When a vital task ended, grace ran out, or a second signal came.
    pub async fn wait(self, mut signals: Signals, grace: Duration) -> Result<(), DrainError> {
        tokio::select! {
            signal = signals.next() => tracing::info!(?signal, ?grace, "draining; a second signal aborts"),
            () = self.token.cancelled() => {}
        }
        self.start();
        self.tracker.close();
        let ended = tokio::select! {
            biased;
            () = self.tracker.wait() => Ok(()),
            signal = signals.next() => Err(DrainError::Aborted { signal }),
            () = tokio::time::sleep(grace) => Err(DrainError::Grace { grace }),
        };
        let Self { failure, token, tracker } = self;
        drop((token, tracker));
        match Arc::try_unwrap(failure) {
            Ok(failure) => failure.into_inner().map_or(ended, Err),
            // Somebody still holds a clone: the failure stays where it is and is described.
            Err(shared) => shared.get().map_or(ended, |failure| Err(failure.described())),
        }
    }
}

/// Why a process did not stop in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// A second signal came.
    #[error("stopped at once by a second signal")]
    Aborted {
        /// Which.
        signal: Signal,
    },
    /// A vital task was done before it was told to.
    #[error("the task '{name}' ended unexpectedly")]
    Ended {
        /// The task.
        name: &'static str,
    },
    /// A vital task failed.
    #[error("the task '{name}' failed: {error:#}")]
    Failed {
        /// The task.
        name: &'static str,
        /// Why.
        error: anyhow::Error,
    },
    /// Tasks were still running when grace was over.
    #[error("work was still under way after a grace of {grace:?} and was dropped")]
    Grace {
        /// How long was waited.
        grace: Duration,
    },
    /// A vital task panicked.
    #[error("the task '{name}' panicked")]
    Panicked {
        /// The task.
        name: &'static str,
    },
}

impl DrainError {
    /// 130 or 143 for an abort (128 and the signal's number, as shells have it), the code that a failed task's error
    /// carries, and [`SOFTWARE`](crate::exit::SOFTWARE) otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Aborted { signal } => 128 + signal.number(),
            Self::Failed { error, .. } => crate::exit::code_of(error),
            Self::Ended { .. } | Self::Grace { .. } | Self::Panicked { .. } => crate::exit::SOFTWARE,
        }
    }

    /// The same with the task's error as text, keeping its code.
    fn described(&self) -> Self {
        match self {
            Self::Aborted { signal } => Self::Aborted { signal: *signal },
            Self::Ended { name } => Self::Ended { name },
            Self::Failed { name, error } => {
                let error = crate::exit::coded(crate::exit::code_of(error), anyhow::anyhow!("{error:#}"));
                Self::Failed { name, error }
            }
            Self::Grace { grace } => Self::Grace { grace: *grace },
            Self::Panicked { name } => Self::Panicked { name },
        }
    }
}

#[cfg(test)]
mod tests;
