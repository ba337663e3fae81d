//! Netlink to the kernel's netfilter: one socket, requests, atomic batches and dumps.
//!
//! Message layout: netlink(7), `linux/netfilter/nfnetlink.h`. Nothing here knows what a guard is.

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily, NetfilterSubsystem,
    none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};

use super::FirewallError;

pub(crate) mod attributes;

use attributes::{Attribute, Reader};

/// `NFNL_SUBSYS_*` of `linux/netfilter/nfnetlink.h`.
pub(crate) const CONNTRACK: u8 = 1;
/// See [`CONNTRACK`].
pub(crate) const IPSET: u8 = 6;
/// See [`CONNTRACK`].
pub(crate) const NFTABLES: u8 = 10;

/// `NFPROTO_*` of `linux/netfilter.h`.
pub(crate) const UNSPECIFIED: u8 = 0;
/// See [`UNSPECIFIED`].
pub(crate) const INET: u8 = 1;
/// See [`UNSPECIFIED`].
pub(crate) const IPV4: u8 = 2;
/// See [`UNSPECIFIED`].
pub(crate) const IPV6: u8 = 10;

/// The kernel answers before `send` returns; waiting longer than this means that an answer was lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The largest batch that is sent; the kernel wants it in one buffer.
const SEND_BUFFER_BYTES: usize = 8 << 20;
/// Above the 32 KiB that the kernel puts into one datagram of a dump.
const RECEIVE_BYTES: usize = 128 << 10;
/// How often a request is tried again when an answer was lost or a dump was overtaken by a change.
const TRIES: usize = 8;
/// A netlink message's header, `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// The header behind it, `struct nfgenmsg`.
const NETFILTER_HEADER_BYTES: usize = 4;

/// One request to a netfilter subsystem.
pub(crate) struct Request {
    pub(crate) subsystem: u8,
    pub(crate) kind: u8,
    pub(crate) family: u8,
    /// Beside `NLM_F_REQUEST`.
    pub(crate) flags: u16,
    pub(crate) attributes: Vec<Attribute>,
}

impl Request {
    pub(crate) fn new(subsystem: u8, kind: u8, family: u8, attributes: Vec<Attribute>) -> Self {
        Self { subsystem, kind, family, flags: 0, attributes }
    }

    /// The same, and the thing is created when it is missing.
    pub(crate) fn creating(self) -> Self {
        self.with(NLM_F_CREATE)
    }

    /// The same, with these flags as well.
    pub(crate) fn with(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    fn emit(&self, sequence: u32, flags: u16, bytes: &mut Vec<u8>) {
        let subsystem = NetfilterSubsystem::from(self.subsystem);
        let attributes = self.attributes.iter().map(Attribute::to_nla).collect();
        let inner = NetfilterMessageInner::Other { subsys: subsystem, message_type: self.kind, attributes };
        emit(self.family, 0, inner, sequence, self.flags | flags, bytes);
    }
}

fn emit(
    family: u8,
    resource: u16,
    inner: impl Into<NetfilterMessageInner>,
    sequence: u32,
    flags: u16,
    bytes: &mut Vec<u8>,
) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let netfilter = NetfilterHeader::new(NetfilterProtoFamily::from(family), 0, resource);
    let message = NetfilterMessage::new(netfilter, inner);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len(), 0);
    message.serialize(&mut bytes[start..]);
}

/// A netlink socket in the network namespace of the thread that opened it.
pub(crate) struct Kernel {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
    sent: Vec<u8>,
}

impl Kernel {
    /// # Errors
    /// When there is no netfilter netlink on this host.
    pub(crate) fn open() -> Result<Self, FirewallError> {
        Self::open_socket().map_err(|source| refused("open a netlink socket", source))
    }

    fn open_socket() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Without this an error carries the whole request back, which may be longer than what is received at once.
        socket.set_cap_ack(true)?;
        let seconds = i64::try_from(ANSWER_WITHIN.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(seconds, 0))?;
        // Needs CAP_NET_ADMIN; without it the first request is refused anyway, so this may fail.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER_BYTES);
        Ok(Self { socket, sequence: 1, received: vec![0; RECEIVE_BYTES], sent: Vec::new() })
    }

    /// One request, answered with success or an error.
    pub(crate) fn request(&mut self, action: &'static str, request: &Request) -> Result<(), FirewallError> {
        self.request_raw(request).map_err(|source| refused(action, source))
    }

    /// As [`request`](Self::request), with the kernel's error as it is.
    pub(crate) fn request_raw(&mut self, request: &Request) -> io::Result<()> {
        self.tried(|kernel| {
            let sequence = kernel.next_sequence(1);
            kernel.sent.clear();
            request.emit(sequence, NLM_F_ACK, &mut kernel.sent);
            kernel.send()?;
            kernel.acknowledged(sequence, sequence)
        })
    }

    /// Requests to nftables that take effect together or not at all. They must be harmless to repeat.
    pub(crate) fn batch(&mut self, action: &'static str, requests: &[Request]) -> Result<(), FirewallError> {
        if requests.is_empty() {
            return Ok(());
        }
        self.batch_raw(requests).map_err(|source| refused(action, source))
    }

    /// As [`batch`](Self::batch), with the kernel's error as it is.
    pub(crate) fn batch_raw(&mut self, requests: &[Request]) -> io::Result<()> {
        self.tried(|kernel| {
            let count =
                u32::try_from(requests.len()).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
            let begin = kernel.next_sequence(count + 2);
            let last = begin + count;
            kernel.sent.clear();
            emit(0, u16::from(NFTABLES), ControlMessage::BatchBegin, begin, 0, &mut kernel.sent);
            for (sequence, request) in (begin + 1..).zip(requests) {
                // Failures are always answered; of the successes only the last, so that answers are few.
                let flags = if sequence == last { NLM_F_ACK } else { 0 };
                request.emit(sequence, flags, &mut kernel.sent);
            }
            emit(0, u16::from(NFTABLES), ControlMessage::BatchEnd, last + 1, 0, &mut kernel.sent);
            kernel.send()?;
            kernel.acknowledged(begin, last)
        })
    }

    /// Everything the kernel lists in answer to this request; `each` gets the family and the attributes.
    /// `None` when the thing to be listed does not exist.
    pub(crate) fn dump<T>(
        &mut self,
        action: &'static str,
        request: &Request,
        mut each: impl FnMut(u8, Reader<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, FirewallError> {
        for _ in 0..TRIES {
            match self.dump_once(request, &mut each) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) if is_lost(&error) => {}
                Err(error) => return Err(refused(action, error)),
            }
        }
        Err(FirewallError::Answer {
            action,
            message: format!("the list changed while it was read, {TRIES} times in a row"),
        })
    }

    fn dump_once<T>(
        &mut self,
        request: &Request,
        each: &mut impl FnMut(u8, Reader<'_>) -> Option<T>,
    ) -> io::Result<Option<Vec<T>>> {
        let sequence = self.next_sequence(1);
        self.sent.clear();
        request.emit(sequence, NLM_F_DUMP, &mut self.sent);
        self.send()?;
        let mut found = Vec::new();
        let mut overtaken = false;
        let mut done = false;
        while !done {
            self.receive(|header, payload| {
                if header.sequence != sequence || done {
                    return Ok(());
                }
                overtaken |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.kind {
                    NLMSG_DONE => {
                        done = true;
                        // Its payload is the dump's own result.
                        code_of(payload).map_or(Ok(()), Err)
                    }
                    NLMSG_ERROR => {
                        done = true;
                        code_of(payload).map_or(Ok(()), Err)
                    }
                    _ => {
                        if let Some((netfilter, attributes)) =
                            payload.split_at_checked(NETFILTER_HEADER_BYTES)
                        {
                            found.extend(each(netfilter[0], Reader::new(attributes)));
                        }
                        Ok(())
                    }
                }
            })?;
        }
        Ok((!overtaken).then_some(found))
    }

    fn tried(&mut self, mut once: impl FnMut(&mut Self) -> io::Result<()>) -> io::Result<()> {
        let mut result = once(self);
        for _ in 1..TRIES {
            match &result {
                Err(error) if is_lost(error) => result = once(self),
                _ => break,
            }
        }
        result
    }

    fn next_sequence(&mut self, count: u32) -> u32 {
        if self.sequence.checked_add(count).is_none() {
            self.sequence = 1;
        }
        let first = self.sequence;
        self.sequence += count;
        first
    }

    fn send(&self) -> io::Result<()> {
        loop {
            match self.socket.send(&self.sent, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads answers until the one to `last`; the first error among those to `first..=last` is the result. An error to
    /// `first` is the last answer when a batch failed as a whole.
    fn acknowledged(&mut self, first: u32, last: u32) -> io::Result<()> {
        let mut result = Ok(());
        let mut done = false;
        while !done {
            self.receive(|header, payload| {
                if (first..=last).contains(&header.sequence) && header.kind == NLMSG_ERROR {
                    let error = code_of(payload);
                    done |= header.sequence == last || (header.sequence == first && error.is_some());
                    if let (Some(error), Ok(())) = (error, &result) {
                        result = Err(error);
                    }
                }
                Ok(())
            })?;
        }
        result
    }

    fn receive(&mut self, mut each: impl FnMut(Header, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let length = loop {
            match self.socket.recv(&mut &mut self.received[..], libc::MSG_TRUNC) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(io::Error::new(ErrorKind::TimedOut, "the kernel did not answer"));
                }
                other => break other?,
            }
        };
        let Some(mut rest) = self.received.get(..length) else {
            return Err(io::Error::new(ErrorKind::InvalidData, "the kernel's answer is too long"));
        };
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest)
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.to_string()))?;
            let header = Header {
                kind: message.message_type(),
                flags: message.flags(),
                sequence: message.sequence_number(),
            };
            let length = message.length() as usize;
            each(header, rest.get(HEADER_BYTES..length).unwrap_or_default())?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// The negative error number with which an `NLMSG_ERROR` or `NLMSG_DONE` begins; `None` is success.
fn code_of(payload: &[u8]) -> Option<io::Error> {
    let code = payload.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    (code < 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

/// Whether an answer was lost, so that nothing is known about the request.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EINTR))
}

/// The driver's error for a refusal by the kernel.
pub(crate) fn refused(action: &'static str, source: io::Error) -> FirewallError {
    match source.kind() {
        ErrorKind::PermissionDenied => FirewallError::Permission,
        ErrorKind::InvalidData => FirewallError::Answer { action, message: source.to_string() },
        _ => FirewallError::Kernel { action, source },
    }
}
