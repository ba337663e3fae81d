//! The capture thread: waits, reads a batch, judges each packet, hands sightings on.
//!
//! ```text
//!   wait for: packets | a new space or view, stop | the next held sighting | the next second (statistics)
//! ```

use std::{
    collections::BTreeSet,
    hash::RandomState,
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};

use fleetknock_core::{source::Source, time::Timestamp};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::{
    CaptureError, KnockSpace, Shared, Sighting,
    counters::Counters,
    filter::FilterSpec,
    hold::{ClosedPorts, Fate, Hold},
    judge::{Judge, Reason, Verdict},
    lookup::Lookup,
    netlink::{CLOSED_GROUPS, DiagSocket, NETLINK_SOCK_DIAG, Netlink},
    packet::{self, Packet, Unusable},
    sys::{Batch, Frame, PacketSocket},
    view::LocalView,
};

/// Batches read before stop, space and held sightings are looked at again: below a millisecond of the fastest flood.
const BATCHES_MAX: usize = 8;

/// How often drops are read from the kernel.
const STATISTICS_EVERY: Duration = Duration::from_secs(1);

/// The kernel stamps packets on several processors at once, so stamps fall a little; a clock that is set back falls by
/// more than this.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// The capture thread, before it runs.
pub(super) struct Run {
    socket: PacketSocket,
    woken: UnixStream,
    state: State,
    space: KnockSpace,
    view: Arc<LocalView>,
    filter: FilterSpec,
    shared: Arc<Shared>,
}

/// What judging a packet changes.
struct State {
    judge: Judge,
    lookup: Lookup,
    hold: Hold,
    closed: ClosedPorts,
    closings: Option<Netlink>,
    last: Timestamp,
    start: Instant,
    counters: Arc<Counters>,
    sender: Sender<Sighting>,
    /// The driver has gone.
    unheard: bool,
}

impl Run {
    pub(super) fn open(
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        woken: UnixStream,
        interfaces: BTreeSet<String>,
        sender: Sender<Sighting>,
    ) -> Result<Self, CaptureError> {
        let kernel = CaptureError::kernel;
        let (space, view) = (shared.take_space().unwrap_or_default(), shared.take_view().unwrap_or_default());
        let judge = Judge::new(interfaces, &space, Arc::clone(&view), RandomState::new());
        let filter = FilterSpec::new(&space, &view, judge.counts_loopback());
        let netlink =
            Netlink::open(NETLINK_SOCK_DIAG, &[]).map_err(kernel("open a netlink socket for sockets"))?;
        let closings = Netlink::open(NETLINK_SOCK_DIAG, &CLOSED_GROUPS)
            .inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "cannot follow closed sockets; late answers to local clients may look like knocks"
                );
            })
            .ok();
        let state = State {
            judge,
            lookup: Lookup::new(netlink, Arc::clone(&counters)),
            hold: Hold::default(),
            closed: ClosedPorts::default(),
            closings,
            last: Timestamp::ZERO,
            start: Instant::now(),
            counters,
            sender,
            unheard: false,
        };
        let socket = PacketSocket::open(&filter)?;
        Ok(Self { socket, woken, state, space, view, filter, shared })
    }

    /// Runs until told to stop or the queue's receiver is dropped.
    pub(super) fn run(mut self) -> Result<(), CaptureError> {
        let kernel = CaptureError::kernel;
        let mut batch = Batch::new();
        let mut statistics_at = Duration::ZERO;
        while !self.shared.stopping() && !self.state.unheard {
            self.wait(statistics_at).map_err(kernel("wait for packets"))?;
            self.reconfigure().map_err(kernel("replace the packet filter"))?;
            for _ in 0..BATCHES_MAX {
                let state = &mut self.state;
                match self.socket.read(&mut batch, |frame| state.take(&frame)) {
                    Ok(super::sys::BATCH_MAX) => {}
                    Ok(_) => break,
                    Err(error) if passes(&error) => break,
                    Err(error) => return Err(kernel("read packets")(error)),
                }
            }
            self.state.release();
            let now = self.state.start.elapsed();
            if now >= statistics_at {
                self.count_drops().map_err(kernel("read the packet socket's statistics"))?;
                self.state.note_closings();
                self.state.closed.forget(now);
                statistics_at = now + STATISTICS_EVERY;
            }
        }
        self.count_drops().map_err(kernel("read the packet socket's statistics"))
    }

    fn wait(&self, statistics_at: Duration) -> io::Result<()> {
        let until = self.state.hold.deadline().map_or(statistics_at, |deadline| deadline.min(statistics_at));
        let micros = until.saturating_sub(self.state.start.elapsed()).as_micros();
        let millis = u16::try_from(micros.div_ceil(1_000)).unwrap_or(u16::MAX);
        let mut fds = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if fds[1].any().unwrap_or(false) {
            let _ = (&self.woken).read(&mut [0; 64]);
        }
        Ok(())
    }

    /// Takes a new space or view, and replaces the filter when that makes it another.
    fn reconfigure(&mut self) -> io::Result<()> {
        let (space, view) = (self.shared.take_space(), self.shared.take_view());
        if space.is_none() && view.is_none() {
            return Ok(());
        }
        if let Some(space) = space {
            self.state.judge.set_space(&space);
            self.space = space;
        }
        if let Some(view) = view {
            self.state.judge.set_view(Arc::clone(&view));
            self.view = view;
        }
        let filter = FilterSpec::new(&self.space, &self.view, self.state.judge.counts_loopback());
        if filter != self.filter {
            self.socket.attach(&filter)?;
            self.state.counters.filter_swaps.increment();
            self.filter = filter;
        }
        Ok(())
    }

    fn count_drops(&self) -> io::Result<()> {
        let (_, drops) = self.socket.statistics()?;
        self.state.counters.kernel_drops.add(drops);
        Ok(())
    }
}

/// Errors of one moment: nothing there, a signal, an interface that went down.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NetworkDown
    ) || error.raw_os_error() == Some(libc::ENOBUFS)
}

impl State {
    fn take(&mut self, frame: &Frame<'_>) {
        let counters = &self.counters;
        counters.packets.increment();
        match packet::parse(frame.ethertype, frame.bytes, frame.length) {
            Ok(packet) => self.consider(&packet, frame),
            Err(Unusable::Malformed) => counters.malformed.increment(),
            Err(Unusable::Unrelated) => counters.not_knocks(Reason::Unrelated).increment(),
        }
    }

    fn consider(&mut self, packet: &Packet, frame: &Frame<'_>) {
        let now = self.start.elapsed();
        let time = self.non_falling(frame.time);
        let sighting = |source: Source| Sighting {
            source,
            destination: packet.identity.destination,
            port: packet.identity.port,
            time,
            fingerprint: packet.fingerprint,
        };
        match self.judge.judge(packet, frame.interface, now, &mut self.lookup) {
            Verdict::Not(reason) => self.counters.not_knocks(reason).increment(),
            Verdict::Knock(source) => {
                if !(self.hold.must_wait(source) && self.hold.keep(sighting(source), false, now)) {
                    self.send(sighting(source));
                }
            }
            Verdict::Unsure(source) => {
                if !self.hold.keep(sighting(source), true, now) {
                    self.counters.not_knocks(Reason::Unverified).increment();
                }
            }
        }
    }

    fn non_falling(&mut self, time: Timestamp) -> Timestamp {
        if time >= self.last || self.last.since(time) > CLOCK_STEP {
            self.last = time;
        }
        self.last
    }

    /// Sends on what has waited long enough.
    fn release(&mut self) {
        let now = self.start.elapsed();
        if self.hold.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        self.note_closings();
        while let Some((sighting, fate)) = self.hold.release(now, &self.closed) {
            let reason = match fate {
                Fate::Answer => Reason::Service,
                Fate::Knock if !self.judge.admits(sighting.source, now) => Reason::SourceLimit,
                Fate::Knock | Fate::Waited => {
                    self.send(sighting);
                    continue;
                }
            };
            self.counters.not_knocks(reason).increment();
        }
    }

    fn note_closings(&mut self) {
        let now = self.start.elapsed();
        let Some(closings) = &mut self.closings else { return };
        let result = closings.events(|body| {
            if let Some(socket) = DiagSocket::parse(body) {
                let ((_, port), (peer, _)) = (socket.local, socket.remote);
                let peer = (!peer.is_unspecified()).then_some(peer);
                self.closed.note(port, peer, now);
                self.hold.learn(port, peer, now);
            }
        });
        if let Err(error) = result {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "cannot follow closed sockets; late answers to local clients may look like knocks"
            );
            self.closings = None;
        }
    }

    fn send(&mut self, sighting: Sighting) {
        match self.sender.try_send(sighting) {
            Ok(()) => self.counters.captured.increment(),
            Err(TrySendError::Full(_)) => self.counters.queue_drops.increment(),
            Err(TrySendError::Closed(_)) => self.unheard = true,
        }
    }
}
