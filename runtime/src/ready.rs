//! Readiness is earned: one latch for each thing that a program needs, and ready when none is left closed.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

/// Whether the program is ready, and what is missing. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    latches: Arc<Mutex<Vec<Needed>>>,
}

#[derive(Debug)]
struct Needed {
    name: String,
    released: Weak<AtomicBool>,
}

/// Held by whoever provides the thing. It counts as missing until [`release`](Self::release), and again when its last
/// holder is gone: a task that died provides nothing.
#[derive(Clone, Debug)]
pub struct Latch {
    released: Arc<AtomicBool>,
}

impl Readiness {
    /// Ready, until the first latch is made.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one more thing needed; `name` says it for people, such as `capture open`.
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        let released = Arc::new(AtomicBool::new(false));
        let mut latches = self.latches.lock().unwrap_or_else(PoisonError::into_inner);
        latches.push(Needed { name: name.into(), released: Arc::downgrade(&released) });
        Latch { released }
    }

    /// Needs what somebody holds a latch for already, under a name of its own.
    pub fn needs(&self, name: impl Into<String>, latch: &Latch) {
        let mut latches = self.latches.lock().unwrap_or_else(PoisonError::into_inner);
        latches.push(Needed { name: name.into(), released: Arc::downgrade(&latch.released) });
    }

    /// The names of what is missing, in the order in which the latches were made.
    pub fn missing(&self) -> Vec<String> {
        let latches = self.latches.lock().unwrap_or_else(PoisonError::into_inner);
        let there = |latch: &Weak<AtomicBool>| latch.upgrade().is_some_and(|l| l.load(Ordering::Acquire));
        latches.iter().filter(|needed| !there(&needed.released)).map(|needed| needed.name.clone()).collect()
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }
}

impl Latch {
    /// The thing is there.
    pub fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// The thing is missing again.
    pub fn engage(&self) {
        self.released.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_latch_is_released_and_held() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let store = readiness.latch("store reachable");
        let capture = readiness.latch("capture open");
        assert_eq!(readiness.missing(), ["store reachable", "capture open"]);
        store.release();
        assert_eq!(readiness.missing(), ["capture open"]);
        capture.release();
        assert!(readiness.is_ready());
        store.engage();
        assert_eq!(readiness.missing(), ["store reachable"]);
        store.release();
        drop(capture);
        assert_eq!(readiness.missing(), ["capture open"]);
    }

    #[test]
    fn two_may_need_the_same() {
        let (whole, up) = (Readiness::new(), Readiness::new());
        let guard = whole.latch("guard written");
        up.needs("remembered guard written", &guard);
        assert_eq!(up.missing(), ["remembered guard written"]);
        guard.release();
        assert!(up.is_ready() && whole.is_ready());
    }
}
