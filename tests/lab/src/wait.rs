//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; returns how long that took. An error of the condition ends the waiting.
///
/// # Errors
/// When it does not hold within `deadline`: the message says `what` was waited for.
pub fn wait_until(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    within(what, deadline, || Ok(condition()?.then_some(()))).map(|((), took)| took)
}

/// Waits until `find` finds something; returns it and how long that took.
///
/// # Errors
/// When it finds nothing within `deadline`, or itself fails.
pub fn within<T>(
    what: &str,
    deadline: Duration,
    mut find: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        if let Some(found) = find()? {
            return Ok((found, start.elapsed()));
        }
        if start.elapsed() >= deadline {
            bail!("waited {deadline:?} in vain for this: {what}");
        }
        thread::sleep(LOOK_EVERY);
    }
}
