//! Keeps the [`LocalView`] fresh: links and addresses as rtnetlink tells of changes, sockets once a second.

use std::{
    io::{self, Read as _},
    ops::RangeInclusive,
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};

use fleetknock_core::port::Protocol;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    CaptureError, Shared,
    netlink::{
        HOST_GROUPS, LIST_ADDRESSES, LIST_LINKS, Link, NETLINK_ROUTE, NETLINK_SOCK_DIAG, Netlink,
        parse_address,
    },
    view::{EPHEMERAL_DEFAULT, Family, Interface, LocalView, Services},
};

/// How old the list of sockets may get.
const SOCKETS_EVERY: Duration = Duration::from_secs(1);

/// Links and addresses are listed at most this often, however many events come.
const EVENTS_EVERY: Duration = Duration::from_millis(20);

const EPHEMERAL_SETTING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The thread that keeps the view.
pub(super) struct Watch {
    shared: Arc<Shared>,
    woken: UnixStream,
    events: Netlink,
    route: Netlink,
    sockets: Netlink,
    view: LocalView,
}

impl Watch {
    pub(super) fn open(shared: Arc<Shared>, woken: UnixStream) -> Result<Self, CaptureError> {
        let kernel = CaptureError::kernel;
        Ok(Self {
            shared,
            woken,
            events: Netlink::open(NETLINK_ROUTE, &HOST_GROUPS)
                .map_err(kernel("follow interfaces and addresses"))?,
            route: Netlink::open(NETLINK_ROUTE, &[])
                .map_err(kernel("open a netlink socket for interfaces"))?,
            sockets: Netlink::open(NETLINK_SOCK_DIAG, &[])
                .map_err(kernel("open a netlink socket for sockets"))?,
            view: LocalView::default(),
        })
    }

    /// Looks at everything.
    pub(super) fn refresh(&mut self) -> Result<LocalView, CaptureError> {
        let kernel = CaptureError::kernel;
        self.refresh_host().map_err(kernel("list interfaces and addresses"))?;
        self.refresh_sockets()
            .map_err(kernel("list sockets (needs the kernel modules inet_diag, tcp_diag and udp_diag)"))?;
        Ok(self.view.clone())
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self) -> Result<(), CaptureError> {
        let mut sockets_at = Instant::now() + SOCKETS_EVERY;
        while !self.shared.stopping() {
            let wait = sockets_at.saturating_duration_since(Instant::now());
            if self.wait(wait).map_err(CaptureError::kernel("wait for changes of interfaces"))? {
                self.update("list interfaces and addresses", Self::refresh_host);
                std::thread::sleep(EVENTS_EVERY);
            }
            if Instant::now() >= sockets_at {
                let begun = Instant::now();
                self.update("list sockets", Self::refresh_sockets);
                // A host with very many sockets is not asked all the time.
                sockets_at = Instant::now() + SOCKETS_EVERY.max(begun.elapsed() * 20);
            }
        }
        Ok(())
    }

    /// A list that fails once keeps the old view, and is tried again.
    fn update(&mut self, action: &'static str, refresh: fn(&mut Self) -> io::Result<()>) {
        let old = self.view.clone();
        match refresh(self) {
            Ok(()) if self.view != old => self.shared.set_view(self.view.clone()),
            Ok(()) => {}
            Err(error) => {
                self.view = old;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot {action}; using the older list"
                );
            }
        }
    }

    /// Whether links or addresses have changed.
    fn wait(&mut self, at_most: Duration) -> io::Result<bool> {
        let mut fds = [
            PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        let millis = u16::try_from(at_most.as_millis()).unwrap_or(u16::MAX).saturating_add(1);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let changed = fds[0].any().unwrap_or(false);
        if fds[1].any().unwrap_or(false) {
            let _ = (&self.woken).read(&mut [0; 64]);
        }
        self.events.events(|_| {})?;
        Ok(changed)
    }

    fn refresh_host(&mut self) -> io::Result<()> {
        let (interfaces, addresses) = (&mut self.view.interfaces, &mut self.view.addresses);
        interfaces.clear();
        addresses.clear();
        self.route.list(LIST_LINKS, &Link::question(), |body| {
            if let Some(link) = Link::parse(body) {
                let Link { index, name, loopback, enslaved } = link;
                interfaces.insert(index, Interface { name, loopback, enslaved });
            }
        })?;
        self.route.list(LIST_ADDRESSES, &[0; 8], |body| addresses.extend(parse_address(body)))
    }

    fn refresh_sockets(&mut self) -> io::Result<()> {
        let mut services = Services::default();
        for family in [Family::V4, Family::V6] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                self.sockets.list_sockets(protocol, family, |socket| services.add(socket))?;
            }
        }
        self.view.services = services;
        // A locked-down agent cannot read files any more and keeps what it read first.
        if let Ok(text) = std::fs::read_to_string(EPHEMERAL_SETTING) {
            self.view.ephemeral = parse_ephemeral(&text).unwrap_or(EPHEMERAL_DEFAULT);
        }
        Ok(())
    }
}

/// Two numbers with a tab between.
fn parse_ephemeral(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    }
}
