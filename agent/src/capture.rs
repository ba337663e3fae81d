//! From a packet on any interface to a judged, deduplicated [`Sighting`].
//!
//! ```text
//!   kernel: BPF filter ──▶ packet socket ──▶ thread "capture": parse ─▶ judge ─▶ hold ──▶ bounded queue ──▶ driver
//!                ▲                                │ ▲                    ▲
//!                └── swapped when space or ───────┘ └ "who uses it?"     └ sockets just closed
//!                    view change                       (sock_diag)         (sock_diag multicast)
//!   thread "capture-view": rtnetlink events, sockets once a second ──▶ LocalView ──▶ thread "capture"
//! ```
//!
//! What decides is pure and takes bytes and time as arguments: [`filter`] (what the kernel lets through), [`packet`]
//! (what the bytes say), [`judge`] (whether it is a knock), [`hold`] (what must wait a moment). The shell is `run`
//! (the capture thread), `watch` (the view of this host), `lookup` and `sys` (sockets; the only unsafe code).

pub mod counters;
pub mod filter;
pub mod hold;
pub mod judge;
pub mod limit;
mod lookup;
mod netlink;
pub mod packet;
pub mod ports;
pub mod repeats;
mod run;
mod sys;
pub mod view;
mod watch;

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    net::IpAddr,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool, atomic::Ordering},
    thread::JoinHandle,
};

use fleetknock_core::{
    port::{Port, PortRange, Protocol},
    source::Source,
    time::Timestamp,
};
use tokio::sync::mpsc;

use self::{counters::Counters, ports::PortSet, view::LocalView};

/// At most this many sightings wait for the driver. At 32 to 64 bytes each that is a few MiB, and more than half a
/// second of the fastest flood that one core can parse. When full the newest sighting is dropped and counted: the
/// older ones may complete a sequence sooner.
pub const QUEUE_MAX: usize = 65_536;

/// One knock on this host, not yet numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Who knocked.
    pub source: Source,
    /// Which of this host's addresses was knocked on.
    pub destination: IpAddr,
    /// At what; for ICMP the length of the echo payload.
    pub port: Port,
    /// When the kernel received it, by its CLOCK_REALTIME. Of one source never falling, unless the clock is set back
    /// by more than a second.
    pub time: Timestamp,
    /// Equal for a SYN and its retransmission, of source port and sequence number, never 0. For UDP and ICMP: 0.
    pub fingerprint: u32,
}

/// The ports on which knocks count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnockSpace {
    /// TCP and UDP ports; of ICMP the lengths of the echo payload. Without a range of ICMP every length counts.
    pub ranges: Vec<PortRange>,
    /// Ports that a door opens here, which are no knocks.
    pub guarded: BTreeSet<Port>,
    /// Whether echo requests count at all.
    pub icmp: bool,
}

impl Default for KnockSpace {
    /// Every TCP and UDP port, no ICMP.
    fn default() -> Self {
        let ranges = [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .flat_map(|protocol| PortRange::new(protocol, 1, u16::MAX));
        Self { ranges: ranges.collect(), guarded: BTreeSet::new(), icmp: false }
    }
}

impl KnockSpace {
    /// The numbers of one protocol that count: those of its ranges without the guarded ones.
    pub fn numbers(&self, protocol: Protocol) -> PortSet {
        let mut numbers = PortSet::default();
        let mut any = false;
        for range in self.ranges.iter().filter(|range| range.protocol() == protocol) {
            numbers.insert_range(range.first(), range.last());
            any = true;
        }
        if protocol == Protocol::Icmp {
            if !self.icmp {
                return PortSet::default();
            }
            if !any {
                numbers.insert_range(0, u16::MAX);
            }
        }
        for port in self.guarded.iter().filter(|port| port.protocol() == protocol) {
            numbers.remove(port.number());
        }
        numbers
    }
}

/// How to capture.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Names of the only interfaces that count; one that appears later counts as soon as it exists. Empty: all but
    /// loopback and those that belong to a bridge, bond or the like.
    pub interfaces: BTreeSet<String>,
    /// What counts at first.
    pub space: KnockSpace,
}

/// Opens the sockets in the calling thread (and thus in its network namespace) and starts capturing.
///
/// # Errors
/// When the process lacks CAP_NET_RAW or the kernel refuses a socket.
pub fn start(settings: Settings) -> Result<(CaptureHandle, mpsc::Receiver<Sighting>), CaptureError> {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let counters = Arc::new(Counters::default());
    let (capture_wake, capture_woken) = pair()?;
    let (watch_wake, watch_woken) = pair()?;
    let shared = Arc::new(Shared {
        known: Mutex::new((Arc::default(), settings.space.clone())),
        space: Mutex::new(Some(settings.space)),
        view: Mutex::new(None),
        stop: AtomicBool::new(false),
        capture_wake,
        watch_wake,
    });

    let mut watch = watch::Watch::open(Arc::clone(&shared), watch_woken)?;
    shared.set_view(watch.refresh()?);
    let capture = run::Run::open(
        Arc::clone(&shared),
        Arc::clone(&counters),
        capture_woken,
        settings.interfaces,
        sender,
    )?;

    let spawn_error = |source| CaptureError::Kernel { action: "start the capture threads", source };
    let mut handle = CaptureHandle { shared, counters, threads: Vec::with_capacity(2) };
    let ending = Ending(Arc::clone(&handle.shared));
    let watching = move || {
        let _ending = ending;
        watch.run()
    };
    handle
        .threads
        .push(std::thread::Builder::new().name("capture-view".into()).spawn(watching).map_err(spawn_error)?);
    let ending = Ending(Arc::clone(&handle.shared));
    let capturing = move || {
        let _ending = ending;
        capture.run()
    };
    handle
        .threads
        .push(std::thread::Builder::new().name("capture".into()).spawn(capturing).map_err(spawn_error)?);
    Ok((handle, receiver))
}

fn pair() -> Result<(UnixStream, UnixStream), CaptureError> {
    let made = UnixStream::pair().and_then(|(ours, theirs)| {
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        Ok((ours, theirs))
    });
    made.map_err(|source| CaptureError::Kernel { action: "make a socket pair", source })
}

/// Steers a running capture. Dropping it stops the capture.
#[derive(Debug)]
pub struct CaptureHandle {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<Result<(), CaptureError>>>,
}

impl CaptureHandle {
    /// Makes other ports count. The kernel filter is replaced in one step within a millisecond; packets that the old
    /// one let through are judged by the new space.
    pub fn set_space(&self, space: KnockSpace) {
        self.shared.known().1 = space.clone();
        *self.shared.space.lock().unwrap_or_else(PoisonError::into_inner) = Some(space);
        wake(&self.shared.capture_wake);
    }

    /// Ports of the space at which nothing is a knock, because this host's services have them; at most `limit` ranges.
    pub fn in_use(&self, limit: usize) -> Vec<PortRange> {
        let (view, space) = self.shared.known().clone();
        view::in_use(&view, &space, limit)
    }

    /// What has been seen, dropped and ignored so far.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Stops both threads and waits for them, some milliseconds. The queue's receiver ends after what is in it.
    ///
    /// # Errors
    /// Why a thread had already ended by itself, which also ends the queue.
    pub fn stop(mut self) -> Result<(), CaptureError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), CaptureError> {
        self.shared.stop();
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            result = result.and(thread.join().unwrap_or(Err(CaptureError::Panicked)));
        }
        result
    }
}

impl Drop for CaptureHandle {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::error!(error = &error as &dyn std::error::Error, "capture had ended");
        }
    }
}

/// Neither thread is of use without the other: when one ends, for whatever reason, so does the other, and with it the queue.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What the handle and the two threads share.
#[derive(Debug)]
struct Shared {
    /// The latest view and space, for whoever asks.
    known: Mutex<(Arc<LocalView>, KnockSpace)>,
    /// A space that the capture thread has not taken yet.
    space: Mutex<Option<KnockSpace>>,
    /// A view that the capture thread has not taken yet.
    view: Mutex<Option<Arc<LocalView>>>,
    stop: AtomicBool,
    capture_wake: UnixStream,
    watch_wake: UnixStream,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, (Arc<LocalView>, KnockSpace)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_view(&self, view: LocalView) {
        let view = Arc::new(view);
        self.known().0 = Arc::clone(&view);
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Some(view);
        wake(&self.capture_wake);
    }

    fn take_view(&self) -> Option<Arc<LocalView>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn take_space(&self) -> Option<KnockSpace> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        wake(&self.capture_wake);
        wake(&self.watch_wake);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// A full pipe is awake already, and a closed one belongs to a thread that has ended.
fn wake(mut pipe: &UnixStream) {
    let _ = pipe.write(&[1]);
}

/// Why capturing could not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The process lacks CAP_NET_RAW.
    #[error("not allowed to capture packets; run the agent as root or with the capability CAP_NET_RAW")]
    Permission,
    /// The kernel refused something else.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was tried, such as `bind the packet socket`.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// A defect: a capture thread panicked.
    #[error("a capture thread panicked; the log above says where")]
    Panicked,
}

impl CaptureError {
    fn kernel(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel { action, source }
    }
}
