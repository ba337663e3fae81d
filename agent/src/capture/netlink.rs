//! Asks the kernel over netlink about interfaces, addresses and sockets, and reads its answers.
//!
//! Formats: netlink(7), rtnetlink(7), sock_diag(7). The few fields that are needed are read by hand, so that an attribute
//! of a newer kernel can never make an answer unreadable.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use fleetknock_core::port::Protocol;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};

use super::view::{Family, LocalSocket};

pub(super) use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG};

/// What the kernel sends at once in a dump; it uses at most this much.
const ANSWER_BYTES: usize = 64 << 10;

/// Events that may wait: each takes less than 1 KiB. When it is full the kernel says so once (ENOBUFS).
const EVENTS_BYTES: usize = 1 << 20;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_DUMP: u16 = 0x300;

pub(super) const LIST_LINKS: u16 = 18;
pub(super) const LIST_ADDRESSES: u16 = 22;
const SOCKETS_BY_FAMILY: u16 = 20;

/// rtnetlink groups: links, IPv4 and IPv6 addresses.
pub(super) const HOST_GROUPS: [u32; 3] = [1, 5, 9];
/// sock_diag groups: UDP sockets of IPv4 and IPv6 that are destroyed (linux/sock_diag.h).
pub(super) const CLOSED_GROUPS: [u32; 2] = [2, 4];

/// State TCP_LISTEN as a bit.
const LISTENING: u32 = 1 << 10;

/// A netlink socket for questions, or for events.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one, and joins groups whose events it is to get. All its calls return at once: the kernel answers while the
    /// question is being sent.
    pub(super) fn open(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        groups.iter().try_for_each(|group| socket.add_membership(*group))?;
        let netlink = Self { socket, sequence: 0, buffer: Vec::with_capacity(ANSWER_BYTES) };
        // Without CAP_NET_ADMIN the default must do.
        let _ = setsockopt(&netlink.as_fd(), sockopt::RcvBufForce, &EVENTS_BYTES);
        Ok(netlink)
    }

    /// Asks for a list, and hands on each entry's body.
    pub(super) fn list(&mut self, kind: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.ask(kind, FLAG_REQUEST | FLAG_DUMP, body)?;
        loop {
            self.receive()?;
            for message in messages(&self.buffer).filter(|message| message.sequence == self.sequence) {
                match message.kind {
                    DONE => return Ok(()),
                    ERROR => return Err(error(message.body)),
                    _ => each(message.body),
                }
            }
        }
    }

    /// Asks whether a socket would take a packet.
    pub(super) fn finds(&mut self, query: &SocketQuery) -> io::Result<bool> {
        self.ask(SOCKETS_BY_FAMILY, FLAG_REQUEST, &query.body())?;
        loop {
            self.receive()?;
            if let Some(message) = messages(&self.buffer).find(|message| message.sequence == self.sequence) {
                if message.kind != ERROR {
                    return Ok(true);
                }
                let error = error(message.body);
                return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
            }
        }
    }

    /// Lists listening TCP or bound UDP sockets.
    pub(super) fn list_sockets(
        &mut self,
        protocol: Protocol,
        family: Family,
        mut each: impl FnMut(LocalSocket),
    ) -> io::Result<()> {
        let any = super::view::unspecified(family);
        let states = if protocol == Protocol::Tcp { LISTENING } else { u32::MAX };
        let query = SocketQuery { protocol, states, local: (any, 0), remote: (any, 0), interface: 0 };
        self.list(SOCKETS_BY_FAMILY, &query.body(), |body| {
            if let Some(socket) = DiagSocket::parse(body)
                && socket.local.1 != 0
            {
                let (address, port) = socket.local;
                each(LocalSocket { protocol, address, port, only_v6: socket.only_v6 });
            }
        })
    }

    /// Takes the events that have come, and hands on each body.
    pub(super) fn events(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            match self.receive() {
                Ok(()) => messages(&self.buffer).for_each(|message| each(message.body)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Events were lost; what follows is good.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let length = u32::try_from(16 + body.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0).map(drop)
    }

    /// Fills the buffer with the next datagram from the kernel; those of other processes are left out.
    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            let (_, sender) = self.socket.recv_from(&mut self.buffer, 0)?;
            if sender.port_number() == 0 {
                return Ok(());
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Which socket is asked about: `struct inet_diag_req_v2` of linux/inet_diag.h.
pub(super) struct SocketQuery {
    pub(super) protocol: Protocol,
    pub(super) states: u32,
    pub(super) local: (IpAddr, u16),
    pub(super) remote: (IpAddr, u16),
    pub(super) interface: u32,
}

impl SocketQuery {
    fn body(&self) -> Vec<u8> {
        let tcp = self.protocol == Protocol::Tcp;
        // "src and dst are swapped for historical reasons", says the kernel's udp_diag.c of questions about one socket.
        // Of lists only the port is looked at, which is 0 here.
        let (from, to) = if tcp { (self.local, self.remote) } else { (self.remote, self.local) };
        let family = if self.local.0.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let mut body = Vec::with_capacity(56);
        body.push(u8::try_from(family).unwrap_or(0));
        body.push(if tcp { 6 } else { 17 });
        body.extend([0, 0]);
        body.extend(self.states.to_ne_bytes());
        body.extend(from.1.to_be_bytes());
        body.extend(to.1.to_be_bytes());
        body.extend(padded(from.0));
        body.extend(padded(to.0));
        body.extend(self.interface.to_ne_bytes());
        // No cookie: any socket will do.
        body.extend([0xff; 8]);
        body
    }
}

fn padded(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A socket as sock_diag tells of it: `struct inet_diag_msg`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DiagSocket {
    pub(super) local: (IpAddr, u16),
    pub(super) remote: (IpAddr, u16),
    pub(super) only_v6: bool,
}

impl DiagSocket {
    /// `None` when the body is too short or of another family.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let fixed = body.first_chunk::<72>()?;
        let family = i32::from(fixed[0]);
        let address = |bytes: &[u8]| -> Option<IpAddr> {
            match family {
                libc::AF_INET => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
                libc::AF_INET6 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
                _ => None,
            }
        };
        let port = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        // INET_DIAG_SKV6ONLY
        let only_v6 = attributes(&body[72..]).any(|(kind, value)| kind == 11 && value.first() == Some(&1));
        Some(Self {
            local: (address(&fixed[8..24])?, port(4)),
            remote: (address(&fixed[24..40])?, port(6)),
            only_v6,
        })
    }
}

/// A link as rtnetlink tells of it: `struct ifinfomsg` and attributes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) loopback: bool,
    /// Whether it has a master other than a VRF.
    pub(super) enslaved: bool,
}

impl Link {
    /// The body of a question for all links: without statistics and virtual functions, which are long.
    pub(super) fn question() -> Vec<u8> {
        let mut body = vec![0; 16];
        // IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS
        body.extend(8_u16.to_ne_bytes());
        body.extend(29_u16.to_ne_bytes());
        body.extend(8_u32.to_ne_bytes());
        body
    }

    /// `None` when the body is too short or has no name.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let fixed = body.first_chunk::<16>()?;
        let index = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let flags = u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
        let (mut name, mut master, mut vrf) = (None, false, false);
        for (kind, value) in attributes(&body[16..]) {
            match kind {
                3 => name = Some(text(value)),
                10 => master = value.iter().any(|byte| *byte != 0),
                // IFLA_LINKINFO holds IFLA_INFO_SLAVE_KIND
                18 => vrf = attributes(value).any(|(kind, value)| kind == 4 && text(value) == "vrf"),
                _ => {}
            }
        }
        let loopback = flags & u32::try_from(libc::IFF_LOOPBACK).unwrap_or(0) != 0;
        Some(Self { index, name: name?, loopback, enslaved: master && !vrf })
    }
}

/// Reads an address of this host: `struct ifaddrmsg` and attributes.
pub(super) fn parse_address(body: &[u8]) -> Option<IpAddr> {
    let fixed = body.first_chunk::<8>()?;
    let (mut address, mut local) = (None, None);
    for (kind, value) in attributes(&body[8..]) {
        let value = match i32::from(fixed[0]) {
            libc::AF_INET => value.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
            libc::AF_INET6 => value.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
            _ => None,
        };
        match kind {
            1 => address = value,
            2 => local = value,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end's.
    local.or(address)
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of a datagram, up to the first that does not fit.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<16>()?;
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = usize::try_from(word(0)).ok()?;
        let body = bytes.get(16..length)?;
        let message = Message { kind: u16::from_ne_bytes([header[4], header[5]]), sequence: word(8), body };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in a body, up to the first that does not fit.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The two highest bits are flags.
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The negative error number that a message of kind [`ERROR`] begins with.
fn error(body: &[u8]) -> io::Error {
    match body.first_chunk::<4>() {
        Some(number) => io::Error::from_raw_os_error(-i32::from_ne_bytes(*number)),
        None => io::ErrorKind::InvalidData.into(),
    }
}

#[cfg(test)]
mod tests;
