//! Changes what a program logs for a while: it goes back by itself, so that nobody finds a full disk next month.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Filter, LogError};

/// A filter, and what the program was started with. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Dial {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    filter: Filter,
    started: String,
    /// Counts the turns, so that one that was overtaken turns nothing back.
    turns: Mutex<u64>,
}

impl Dial {
    /// Of a running program, which was started with this filter.
    pub fn new(filter: Filter, started: impl Into<String>) -> Self {
        Self { inner: Arc::new(Inner { filter, started: started.into(), turns: Mutex::default() }) }
    }

    /// Does as an operator orders: logs by this filter for so long, or with an empty one as at the start.
    ///
    /// # Errors
    /// As [`turn`](Self::turn) and [`reset`](Self::reset).
    pub fn order(&self, filter: &str, within: Duration) -> Result<(), LogError> {
        if filter.is_empty() { self.reset() } else { self.turn(filter, within) }
    }

    /// Logs by this filter for so long, then as at the start. The last one counts. Needs a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be parsed, or logging has ended; what is logged stays as it was.
    pub fn turn(&self, filter: &str, within: Duration) -> Result<(), LogError> {
        let turn = self.inner.set(filter)?;
        tracing::info!(filter, ?within, "what is logged was changed for a while");
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(within).await;
            inner.turn_back(turn);
        });
        Ok(())
    }

    /// Logs as at the start.
    ///
    /// # Errors
    /// When logging has ended.
    pub fn reset(&self) -> Result<(), LogError> {
        self.inner.set(&self.inner.started)?;
        tracing::info!(filter = self.inner.started, "what is logged is as it was at the start");
        Ok(())
    }

    /// The filter now in force.
    ///
    /// # Errors
    /// When logging has ended.
    pub fn current(&self) -> Result<String, LogError> {
        self.inner.filter.current()
    }
}

impl Inner {
    /// Which turn this is.
    fn set(&self, filter: &str) -> Result<u64, LogError> {
        let mut turns = self.turns();
        self.filter.set(filter)?;
        *turns += 1;
        Ok(*turns)
    }

    fn turn_back(&self, turn: u64) {
        let turns = self.turns();
        if *turns == turn && self.filter.set(&self.started).is_ok() {
            tracing::info!(filter = self.started, "what is logged is as it was at the start again");
        }
    }

    fn turns(&self) -> MutexGuard<'_, u64> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_back_by_itself_and_the_last_turn_counts() {
        let dial = Dial::new(Filter::detached("info").unwrap(), "info");
        let current = || dial.current().unwrap();
        dial.turn("debug", Duration::from_secs(10)).unwrap();
        assert_eq!(current(), "debug");
        tokio::time::sleep(Duration::from_secs(6)).await;
        dial.turn("trace", Duration::from_secs(10)).unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(current(), "trace", "the first one was overtaken");
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(current(), "info");
        dial.turn("warn", Duration::from_secs(10)).unwrap();
        dial.reset().unwrap();
        assert_eq!(current(), "info");
        assert!(dial.turn("no=such=filter", Duration::from_secs(1)).is_err());
        assert_eq!(current(), "info");
    }
}
