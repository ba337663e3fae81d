//! Rings when a lease ends, so that its keys go without anybody asking for them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

/// Between two rings for the same end, when the first one did not help: the queue to the writer was full.
const RING_AGAIN: Duration = Duration::from_millis(50);

/// Tells the timer when the next lease ends.
pub(in crate::store) type NextEnd = watch::Sender<Option<Instant>>;

/// Says when the next lease ends, if that has changed.
pub(in crate::store) fn set(next_end: &NextEnd, next: Option<Instant>) {
    next_end.send_if_modified(|known| {
        let changed = *known != next;
        *known = next;
        changed
    });
}

/// Rings at every end, until the sender is gone.
pub(in crate::store) async fn run(
    mut next_end: watch::Receiver<Option<Instant>>,
    mut ring: impl FnMut(Instant),
) {
    let mut not_before = Instant::now();
    loop {
        let next = *next_end.borrow_and_update();
        let end = async {
            match next {
                Some(next) => time::sleep_until(next.max(not_before)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = next_end.changed() => if changed.is_err() { return },
            () = end => {
                let now = Instant::now();
                ring(now);
                not_before = now + RING_AGAIN;
            }
        }
    }
}
