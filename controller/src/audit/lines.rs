//! The audit log: events as JSON lines in a file or on standard output, for whoever collects them.
//!
//! Each line is one object. Names and codes are stable, what is not known is left out:
//!
//! | name         | is                                                                        |
//! |--------------|---------------------------------------------------------------------------|
//! | `time`       | RFC 3339, UTC, milliseconds                                               |
//! | `id`         | of the event in the audit trail; an event that is not kept there has none |
//! | `code`       | the kind of event, such as `DOOR_APPLIED`                                 |
//! | `controller` | who wrote it                                                              |
//! | `actor`, `role`, `by`, `address` | by whose hand: the name, what it may do, how it showed who it is, from where |
//! | `door`, `source`, `host`, `opening` | what it is about                                   |
//! | `message`    | one sentence for people                                                   |
//! | `changes`    | a list of `field`, `before`, `after`; secrets are never spelled out       |
//!
//! A controller logs the events that it wrote and those that only it sees, so that over the fleet each event is logged
//! once. One thread writes; it never holds anything up. Events wait for it in a bounded queue; those that do not fit are
//! counted, and the next line says how many are missing.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use fleetknock_core::time::Timestamp;
use fleetknock_proto::v1 as pb;
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::code;
use crate::{metrics::Metrics, shared::local_now};

#[cfg(test)]
mod tests;

/// Events that wait to be written. When it is full the disk is far behind: further ones are lost, counted and said.
pub const LINES_QUEUE: usize = 4_096;
/// Events written at once.
const BATCH_MAX: usize = 256;
/// How long to wait before it is tried again when the file cannot be written.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When this controller ends: how long streams may take to say that they end, and how long the last lines may take.
const LINGER: Duration = Duration::from_millis(200);
const FINISH_MAX: Duration = Duration::from_secs(2);
/// Owner and group may read it: it tells who did what, but no secret.
const ACCESS: u32 = 0o640;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Appended to a file, which may be renamed or removed: a new one is begun then.
    File(PathBuf),
    /// To standard output.
    StandardOutput,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("name a file, or - for standard output".to_owned()),
            "-" => Ok(Self::StandardOutput),
            path => Ok(Self::File(path.into())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::StandardOutput => f.write_str("-"),
        }
    }
}

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "--audit-log {path} cannot be opened for appending: {error}; name a file in a directory that this user may write to"
)]
pub struct OpenError {
    /// Which file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub error: io::Error,
}

/// Takes events for the log.
#[derive(Clone, Debug)]
pub struct Lines {
    queue: mpsc::Sender<Said>,
    metrics: Metrics,
}

#[derive(Debug)]
enum Said {
    Event(Box<pb::Event>),
    Stop,
}

/// What waits to be written, and where.
#[derive(Debug)]
pub struct Log {
    target: Target,
    file: Option<Open>,
    /// Whole lines, of which so many bytes are written.
    pending: Vec<u8>,
    written: usize,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// By which it is recognised.
    place: (u64, u64),
}

impl Log {
    /// Opens the log; a file is created when there is none.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn open(target: Target) -> Result<Self, OpenError> {
        let mut log = Self { target, file: None, pending: Vec::new(), written: 0 };
        log.reopen()?;
        Ok(log)
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        let Target::File(path) = &self.target else { return Ok(()) };
        let opened = OpenOptions::new().append(true).create(true).mode(ACCESS).open(path).and_then(|file| {
            let metadata = file.metadata()?;
            Ok(Open { place: (metadata.dev(), metadata.ino()), file })
        });
        self.file = Some(opened.map_err(|error| OpenError { path: path.clone(), error })?);
        // A line that was begun in the file before is written whole into this one.
        let whole =
            self.pending[..self.written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.written = whole;
        Ok(())
    }

    /// Whether the file was renamed or removed, as logrotate does.
    fn is_moved(&self) -> bool {
        match (&self.target, &self.file) {
            (Target::StandardOutput, _) => false,
            (Target::File(_), None) => true,
            (Target::File(path), Some(open)) => std::fs::metadata(path)
                .map_or(true, |metadata| (metadata.dev(), metadata.ino()) != open.place),
        }
    }

    fn push(&mut self, event: &pb::Event) {
        self.pending.extend(line(event));
    }

    /// Lines that are not written yet.
    fn waiting(&self) -> usize {
        self.pending[self.written..].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Writes all that waits. What cannot be written still waits afterwards.
    fn write(&mut self) -> Result<(), WriteError> {
        if self.is_moved() {
            self.reopen()?;
        }
        while self.written < self.pending.len() {
            let rest = &self.pending[self.written..];
            let wrote = match &mut self.file {
                Some(open) => open.file.write(rest),
                None => io::stdout().lock().write(rest),
            };
            match wrote {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero.into())),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        if self.file.is_none() {
            io::stdout().lock().flush().map_err(|error| self.failed(error))?;
        }
        self.pending.clear();
        self.written = 0;
        Ok(())
    }

    fn failed(&self, error: io::Error) -> WriteError {
        WriteError::Write { target: self.target.clone(), error }
    }
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("--audit-log {target} cannot be written: {error}; its lines wait, and are lost when too many do")]
    Write { target: Target, error: io::Error },
}

impl Lines {
    /// Begins to write, on a thread of its own.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(log: Log, metrics: Metrics) -> io::Result<(Self, Running)> {
        let (queue, events) = mpsc::channel(LINES_QUEUE);
        let (ended, end) = oneshot::channel();
        let counted = metrics.clone();
        std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || {
            write_all(log, events, &counted);
            let _nobody_waits = ended.send(());
        })?;
        let running = Running { queue: queue.clone(), end };
        Ok((Self { queue, metrics }, running))
    }

    /// Logs an event, unless too many wait already.
    pub fn log(&self, event: pb::Event) {
        if self.queue.try_send(Said::Event(Box::new(event))).is_err() {
            self.metrics.audit_lines_lost.inc();
        }
    }
}

/// The thread that writes.
#[derive(Debug)]
pub struct Running {
    queue: mpsc::Sender<Said>,
    end: oneshot::Receiver<()>,
}

impl Running {
    /// Until the controller ends, and the last lines are written or take too long.
    ///
    /// # Errors
    /// When the thread ended before it was told to.
    pub async fn until(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { queue, mut end } = self;
        tokio::select! {
            () = stop.cancelled() => {}
            _ = &mut end => anyhow::bail!("the thread that writes the audit log ended"),
        }
        sleep(LINGER).await;
        let finish = async {
            let _gone = queue.send(Said::Stop).await;
            let _gone = end.await;
        };
        if timeout(FINISH_MAX, finish).await.is_err() {
            tracing::warn!("the last lines of the audit log could not be written in time");
        }
        Ok(())
    }
}

fn write_all(mut log: Log, mut events: mpsc::Receiver<Said>, metrics: &Metrics) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let (mut lost, mut controller, mut stopped) = (0, String::new(), false);
    while !stopped && events.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        for said in batch.drain(..) {
            match said {
                Said::Event(event) => {
                    controller.clone_from(&event.controller);
                    log.push(&event);
                }
                Said::Stop => stopped = true,
            }
        }
        let now_lost = metrics.audit_lines_lost.get();
        if now_lost > lost {
            let message = format!(
                "{} events are missing here: they came faster than they were written",
                now_lost - lost
            );
            tracing::warn!(target = %log.target, "{message}");
            lost = now_lost;
            let kind = pb::EventKind::Lagged.into();
            let time_ms = local_now().as_millis();
            log.push(&pb::Event {
                kind,
                time_ms,
                message,
                controller: controller.clone(),
                ..Default::default()
            });
        }
        write_patiently(&mut log, &events, metrics, stopped);
    }
}

/// Tries until it is written. Meanwhile the queue fills, and what does not fit is lost.
fn write_patiently(log: &mut Log, events: &mpsc::Receiver<Said>, metrics: &Metrics, stopped: bool) {
    let mut is_said = false;
    loop {
        let waiting = log.waiting();
        let failed = log.write();
        metrics.audit_lines.inc_by((waiting - log.waiting()) as u64);
        let Err(error) = failed else { return };
        if !is_said {
            tracing::error!("{error}");
            is_said = true;
        }
        if stopped || events.is_closed() {
            metrics.audit_lines_lost.inc_by(log.waiting() as u64);
            return;
        }
        std::thread::sleep(RETRY_AFTER);
    }
}

/// One line, with its end.
fn line(event: &pb::Event) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        #[serde(skip_serializing_if = "str::is_empty")]
        id: &'a str,
        code: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        controller: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        actor: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        role: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        by: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        address: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        door: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        source: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        host: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        opening: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        changes: Vec<Change<'a>>,
    }
    #[derive(Serialize)]
    struct Change<'a> {
        field: &'a str,
        before: &'a str,
        after: &'a str,
    }
    let nobody = pb::Actor::default();
    let actor = event.actor.as_ref().unwrap_or(&nobody);
    let changes = event.changes.iter().map(|change| {
        let pb::FieldChange { field, before, after } = change;
        Change { field, before, after }
    });
    let line = Line {
        time: Timestamp::from_millis(event.time_ms).to_string(),
        id: &event.id,
        code: code(event.kind()),
        controller: &event.controller,
        actor: &actor.who,
        role: &actor.role,
        by: &actor.by,
        address: &actor.address,
        door: &event.door,
        source: &event.source,
        host: &event.host,
        opening: &event.opening,
        message: &event.message,
        changes: changes.collect(),
    };
    // Texts have a JSON form always.
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
