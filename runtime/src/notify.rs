//! Tells the service manager how it stands: ready, what is missing, alive, stopping (sd_notify(3)).
//!
//! ```text
//!   Readiness ──▶ ┌──────────┐ ──READY=1, STATUS=…──────────────▶ NOTIFY_SOCKET
//!   Pulse ◀─beat─ │ follow() │ ──WATCHDOG=1 while every pulse beats─▶
//!   loops ──────▶ └──────────┘ ──STOPPING=1 when the drain begins──▶
//! ```
//!
//! Nothing here pings for somebody else: a [`Pulse`] is beaten by the loop that does the work, and one that stands still
//! silences the pings, after which the service manager starts the program again. Without `NOTIFY_SOCKET` nothing happens.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::ready::Readiness;

/// What names the socket (sd_notify(3)).
const SOCKET: &str = "NOTIFY_SOCKET";
/// How often is looked, until the program is ready and after.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY_READY: Duration = Duration::from_secs(1);
/// Below this a service manager would be asking for nothing else.
const PING_SHORTEST: Duration = Duration::from_millis(10);

/// Beaten by a loop at each turn. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    beats: Arc<AtomicU64>,
}

impl Pulse {
    /// One that has not beaten yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The loop goes on.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has beaten.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}

/// The way to the service manager. Its socket is opened once: a program that gave up its rights could not open it later.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    trouble: Option<String>,
}

impl Notifier {
    /// To the service manager that started this process, if it wants to be told. To be called before the environment is
    /// cleaned and before rights are given up. What is wrong with the socket is said by [`follow`](Self::follow), when
    /// there is a log.
    pub fn from_environment() -> Self {
        let Some(name) = env::var_os(SOCKET).filter(|name| !name.is_empty()) else { return Self::default() };
        match Self::to(&name, sd_notify::watchdog_enabled()) {
            Ok(notifier) => notifier,
            Err(error) => {
                let trouble = format!("{SOCKET} '{}': {error}", name.display());
                Self { trouble: Some(trouble), ..Self::default() }
            }
        }
    }

    /// To the socket of this name: a path, or `@` and the name of an abstract one (unix(7)). `watchdog` is how long the
    /// service manager waits for a sign of life.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn to(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("it is neither a path nor an abstract socket (@NAME)")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A service manager that is slow must not hold anything up: it is told again.
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some(socket), watchdog: watchdog.filter(|time| !time.is_zero()), trouble: None })
    }

    /// Whether anybody is told.
    pub fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// Says that the program is ready, and how it stands.
    ///
    /// # Errors
    /// When the socket does not take it.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)])
    }

    fn tell(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        socket.send(text.as_bytes()).map(drop)
    }

    /// Says what changes until the drain begins, and that it begins. The program is `up` when what others wait for is
    /// there; `whole` says what is missing of all of it. A ping is sent at half of the watchdog's time, when each of the
    /// pulses has beaten since the last one.
    pub async fn follow(self, up: Readiness, whole: Readiness, pulses: Vec<Pulse>, stop: CancellationToken) {
        if let Some(trouble) = &self.trouble {
            tracing::warn!("the service manager cannot be told how this program stands: {trouble}");
        }
        if !self.is_heard() {
            return;
        }
        let mut pings = self.watchdog.map(|within| Pings::new(within, &pulses, Instant::now()));
        let mut told = Told::default();
        loop {
            let every = if told.ready { LOOK_EVERY_READY } else { LOOK_EVERY };
            let every = pings.as_ref().map_or(every, |pings| every.min(pings.every));
            let mut look = tokio::time::interval(every);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let was_ready = told.ready;
            while told.ready == was_ready {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {
                        let said = self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
                        self.note(said);
                        return;
                    }
                    _ = look.tick() => {}
                }
                self.say(&up, &whole, &mut told);
                if let Some(pings) = &mut pings
                    && pings.is_due(Instant::now(), &pulses)
                {
                    self.note(self.tell(&[NotifyState::Watchdog]));
                }
            }
        }
    }

    /// What was not taken is said again at the next look.
    fn say(&self, up: &Readiness, whole: &Readiness, told: &mut Told) {
        let status = status(&whole.missing());
        if !told.ready && up.is_ready() {
            if self.note(self.ready(&status)) {
                *told = Told { ready: true, status };
            }
        } else if told.status != status && self.note(self.tell(&[NotifyState::Status(&status)])) {
            told.status = status;
        }
    }

    fn note(&self, said: io::Result<()>) -> bool {
        if let Err(error) = &said {
            tracing::debug!(%error, "the service manager did not take what was said; it is said again");
        }
        said.is_ok()
    }
}

#[derive(Debug, Default)]
struct Told {
    ready: bool,
    status: String,
}

fn status(missing: &[String]) -> String {
    if missing.is_empty() { "ready".to_owned() } else { format!("missing: {}", missing.join(", ")) }
}

/// When to send a sign of life.
#[derive(Debug)]
struct Pings {
    every: Duration,
    last: Instant,
    seen: Vec<u64>,
}

impl Pings {
    /// Twice within the time that the service manager waits (sd_watchdog_enabled(3)).
    fn new(within: Duration, pulses: &[Pulse], now: Instant) -> Self {
        Self { every: (within / 2).max(PING_SHORTEST), last: now, seen: beats(pulses) }
    }

    /// Whether it is time and every pulse has beaten since the last one.
    fn is_due(&mut self, now: Instant, pulses: &[Pulse]) -> bool {
        let beats = beats(pulses);
        let alive = beats.iter().zip(&self.seen).all(|(now, before)| now != before);
        let due = alive && now.saturating_duration_since(self.last) >= self.every;
        if due {
            (self.last, self.seen) = (now, beats);
        }
        due
    }
}

fn beats(pulses: &[Pulse]) -> Vec<u64> {
    pulses.iter().map(Pulse::beats).collect()
}

#[cfg(test)]
mod tests;
