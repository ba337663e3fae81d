//! The hand on the kernel: a thread of its own that owns the firewall driver, because a driver's calls block.
//!
//! ```text
//!   driver loop ──Task (bounded)──▶ thread "firewall" ──Outcome (bounded)──▶ driver loop
//! ```
//!
//! Tasks are done in the order in which they are given. When the queue is full the loop stops reading the link until an
//! outcome comes, so that a slow kernel slows the controller down and nothing is lost.

use std::{thread::JoinHandle, time::Instant};

use fleetknock_proto::v1::{self, HostOpeningState};
use tokio::sync::mpsc;

use crate::{
    firewall::{Counts, Desired, Element, Firewall, FirewallError, Repairs},
    picture::{Changes, Opened},
};

/// Tasks that wait: more than a controller sends while iptables places its rules.
const TASKS_MAX: usize = 256;

/// What the firewall shall do.
#[derive(Debug)]
pub enum Task {
    /// What a message of the controller changed; it came at this time.
    Apply(Box<Changes>, Instant),
    /// Make sure that all this is there, and take nothing away: nobody has said yet that this is everything.
    Assert(Box<Desired>),
    /// Say what was dropped and what would have been.
    Count,
    /// Say what stands in the way of openings.
    Inspect,
    /// Make the kernel hold exactly this.
    Reconcile(Box<Desired>),
    /// Remove everything that is ours.
    Remove,
}

/// What became of a task.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Task::Apply`]: what became of each opening, and what else failed. `guarded`: a guard was written.
    Applied {
        /// One for each opening.
        results: Vec<v1::OpeningResult>,
        /// Everything else that failed.
        failures: Vec<String>,
        /// Whether a guard was written.
        guarded: bool,
    },
    /// Of [`Task::Assert`].
    Asserted(Result<(), FirewallError>),
    /// Of [`Task::Count`].
    Counted(Result<Counts, FirewallError>),
    /// Of [`Task::Inspect`].
    Inspected(Result<Vec<String>, FirewallError>),
    /// Of [`Task::Reconcile`].
    Reconciled(Result<Repairs, FirewallError>),
    /// Of [`Task::Remove`].
    Removed(Result<Vec<String>, FirewallError>),
}

/// The loop's end of the thread.
#[derive(Debug)]
pub struct Hand {
    tasks: mpsc::Sender<Task>,
    outcomes: mpsc::Receiver<Outcome>,
    thread: JoinHandle<()>,
}

impl Hand {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has none to give.
    pub fn start(firewall: Box<dyn Firewall>) -> std::io::Result<Self> {
        let (tasks, queue) = mpsc::channel(TASKS_MAX);
        let (sender, outcomes) = mpsc::channel(TASKS_MAX);
        let thread = std::thread::Builder::new()
            .name("firewall".into())
            .spawn(move || work(firewall, queue, &sender))?;
        Ok(Self { tasks, outcomes, thread })
    }

    /// Whether another task can be given.
    pub fn has_room(&self) -> bool {
        self.tasks.capacity() > 0
    }

    /// Gives a task; says whether there was room for it.
    pub fn give(&self, task: Task) -> bool {
        self.tasks.try_send(task).is_ok()
    }

    /// The next outcome; `None` when the thread has ended, which it does only by a panic.
    pub async fn outcome(&mut self) -> Option<Outcome> {
        self.outcomes.recv().await
    }

    /// Gives a task when there is room, and waits for the end of it and of all before it.
    pub async fn finish(&mut self, task: Option<Task>) -> Vec<Outcome> {
        let mut left = Vec::new();
        if let Some(task) = task {
            let mut task = Some(task);
            // Outcomes are taken meanwhile: a thread that cannot hand over its outcome takes no task.
            while let Some(waiting) = task.take() {
                match self.tasks.try_send(waiting) {
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                    Err(mpsc::error::TrySendError::Full(waiting)) => {
                        left.extend(self.outcomes.recv().await);
                        task = Some(waiting);
                    }
                }
            }
        }
        // The thread ends when it has done what was given.
        self.tasks = mpsc::channel(1).0;
        while let Some(outcome) = self.outcomes.recv().await {
            left.push(outcome);
        }
        left
    }

    /// Whether the thread ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

fn work(mut firewall: Box<dyn Firewall>, mut queue: mpsc::Receiver<Task>, outcomes: &mpsc::Sender<Outcome>) {
    while let Some(task) = queue.blocking_recv() {
        let outcome = match task {
            Task::Apply(changes, since) => apply(&mut *firewall, *changes, since),
            Task::Assert(desired) => Outcome::Asserted(assert(&mut *firewall, &desired)),
            Task::Count => Outcome::Counted(firewall.counts()),
            Task::Inspect => Outcome::Inspected(firewall.warnings()),
            Task::Reconcile(desired) => Outcome::Reconciled(firewall.reconcile(&desired)),
            Task::Remove => Outcome::Removed(firewall.remove()),
        };
        if outcomes.blocking_send(outcome).is_err() {
            return;
        }
    }
}

/// Adds what should be there.
///
/// # Errors
/// The first thing that failed.
pub fn assert(firewall: &mut dyn Firewall, desired: &Desired) -> Result<(), FirewallError> {
    firewall.set_guard(&desired.guard)?;
    let bans: Vec<_> = desired.bans.iter().map(|(source, remaining)| (*source, *remaining)).collect();
    if !bans.is_empty() {
        firewall.ban(&bans)?;
    }
    let openings: Vec<_> =
        desired.openings.iter().map(|(element, remaining)| (*element, *remaining)).collect();
    if !openings.is_empty() {
        firewall.open(&openings)?;
    }
    Ok(())
}

/// Guard, withdrawals, bans, openings: one failing keeps none of the others from being tried.
fn apply(firewall: &mut dyn Firewall, changes: Changes, since: Instant) -> Outcome {
    let mut failures = Vec::new();
    let mut note = |what: &str, result: Result<(), FirewallError>| {
        let fine = result.is_ok();
        failures.extend(result.err().map(|error| format!("cannot {what}: {error}")));
        fine
    };
    let guarded = match &changes.guard {
        Some(guard) => note("write the guard", firewall.set_guard(guard)),
        None => false,
    };
    if !changes.close.is_empty() {
        note("close openings", firewall.close(&changes.close));
    }
    if !changes.cut.is_empty() {
        note("cut connections", firewall.cut(&changes.cut).map(drop));
    }
    if !changes.unban.is_empty() {
        note("lift bans", firewall.unban(&changes.unban));
    }
    if !changes.ban.is_empty() {
        note("ban", firewall.ban(&changes.ban));
    }
    if !changes.shorten.is_empty() {
        note("shorten openings", firewall.open(&changes.shorten));
    }
    let results = open(firewall, &changes.open, since);
    Outcome::Applied { results, failures, guarded }
}

/// All at once; when that fails, one by one, so that each is told its own fate.
fn open(firewall: &mut dyn Firewall, openings: &[Opened], since: Instant) -> Vec<v1::OpeningResult> {
    let all: Vec<(Element, std::time::Duration)> =
        openings.iter().flat_map(|opened| opened.elements.iter().copied()).collect();
    if all.is_empty() || firewall.open(&all).is_ok() {
        return openings.iter().map(|opened| result(opened, None, since)).collect();
    }
    let one_by_one = openings.iter().map(|opened| {
        let failed = if opened.elements.is_empty() { None } else { firewall.open(&opened.elements).err() };
        result(opened, failed.map(|error| error.to_string()), since)
    });
    one_by_one.collect()
}

fn result(opened: &Opened, failed: Option<String>, since: Instant) -> v1::OpeningResult {
    let late = || opened.elements.is_empty().then(|| "its time was over when it arrived".to_owned());
    let reason = failed.or_else(late);
    let state = if reason.is_none() { HostOpeningState::Applied } else { HostOpeningState::Failed };
    v1::OpeningResult {
        id: opened.id.to_string(),
        generation: opened.generation,
        state: state.into(),
        reason: reason.unwrap_or_default(),
        took_us: u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests;
