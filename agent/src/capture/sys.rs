//! The packet socket: what neither std, socket2 nor nix offer as safe calls. packet(7) is the reference.
#![allow(
    unsafe_code,
    reason = "binding, batch reading and statistics of packet sockets have no safe wrapper"
)]

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr,
    time::{SystemTime, UNIX_EPOCH},
};

use fleetknock_core::time::Timestamp;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockFilter, Socket, Type};

use super::{CaptureError, filter::FilterSpec, packet::SNAP_BYTES};

/// What the kernel may queue for this socket, as asked for; it doubles the number to cover its own bookkeeping. With
/// 768 to 2,304 bytes of memory for a SYN that is 7,000 to 21,000 packets.
pub(super) const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// Packets read with one system call.
pub(super) const BATCH_MAX: usize = 64;

/// Room for a timestamp and the auxiliary data, in words so that it is aligned.
const CONTROL_WORDS: usize = 16;

/// A socket that gets every IP packet of every interface, as far as its filter lets it through.
pub(super) struct PacketSocket {
    socket: Socket,
}

/// One packet as read.
pub(super) struct Frame<'a> {
    /// From the network header on, at most [`SNAP_BYTES`].
    pub(super) bytes: &'a [u8],
    /// How long it was before it was cut.
    pub(super) length: usize,
    /// What the bytes begin with.
    pub(super) ethertype: u16,
    /// Where it was received.
    pub(super) interface: u32,
    /// When.
    pub(super) time: Timestamp,
}

impl PacketSocket {
    /// Opens the socket with the filter in place before the first packet can arrive.
    pub(super) fn open(filter: &FilterSpec) -> Result<Self, CaptureError> {
        // Protocol 0 receives nothing until it is bound. socket2 sets CLOEXEC.
        let socket =
            Socket::new(Domain::PACKET, Type::DGRAM, None).map_err(|source| match source.kind() {
                io::ErrorKind::PermissionDenied => CaptureError::Permission,
                _ => CaptureError::Kernel { action: "open a packet socket", source },
            })?;
        let socket = Self { socket };
        let kernel = CaptureError::kernel;
        socket.socket.set_nonblocking(true).map_err(kernel("make the packet socket non-blocking"))?;
        socket.attach(filter).map_err(kernel("attach the packet filter"))?;
        // Without CAP_NET_ADMIN the system's own limit (net.core.rmem_max) applies.
        if setsockopt(&socket.socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            setsockopt(&socket.socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)
                .map_err(|errno| kernel("size the packet socket's buffer")(errno.into()))?;
        }
        setsockopt(&socket.socket, sockopt::ReceiveTimestampns, &true)
            .map_err(|errno| kernel("ask for packet timestamps")(errno.into()))?;
        socket.set(libc::PACKET_AUXDATA).map_err(kernel("ask for packet lengths"))?;
        // Spares a copy of every packet that this host sends; before Linux 4.20 the filter does it.
        let _ = socket.set(libc::PACKET_IGNORE_OUTGOING);
        socket.bind().map_err(kernel("bind the packet socket"))?;
        Ok(socket)
    }

    /// Replaces the filter in one step, with the most exact program that the kernel has room for.
    pub(super) fn attach(&self, filter: &FilterSpec) -> io::Result<()> {
        let mut result = Ok(());
        for program in filter.programs() {
            let program: Vec<SockFilter> = program
                .iter()
                .map(|i| SockFilter::new(i.code, i.when_true, i.when_false, i.operand))
                .collect();
            result = self.socket.attach_filter(&program);
            if !result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::OutOfMemory) {
                break;
            }
        }
        result
    }

    /// Reads what is there, at most [`BATCH_MAX`] packets, and says how many it was.
    pub(super) fn read(&self, batch: &mut Batch, mut each: impl FnMut(Frame<'_>)) -> io::Result<usize> {
        let count = batch.receive(&self.socket)?;
        (0..count).for_each(|index| each(batch.frame(index)));
        Ok(count)
    }

    /// How many packets passed the filter, and how many of those found the buffer full, since the last call.
    pub(super) fn statistics(&self) -> io::Result<(u64, u64)> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = socklen::<libc::tpacket_stats>();
        // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes into a struct of that size.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((statistics.tp_packets.into(), statistics.tp_drops.into()))
    }

    fn set(&self, option: libc::c_int) -> io::Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open, and the kernel reads one int from a valid pointer.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const on).cast(),
                socklen::<libc::c_int>(),
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn bind(&self) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
            sll_protocol: u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be(),
            ..zeroed_address()
        };
        // SAFETY: the descriptor is open, and the pointer is to a whole sockaddr_ll whose size is given.
        let result = unsafe {
            libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), socklen::<libc::sockaddr_ll>())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Memory for one batch.
pub(super) struct Batch {
    bytes: Vec<[u8; SNAP_BYTES]>,
    addresses: Vec<libc::sockaddr_ll>,
    controls: Vec<[u64; CONTROL_WORDS]>,
    /// How many bytes of packet and of control the last read left in each place.
    lengths: Vec<(usize, usize)>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![[0; SNAP_BYTES]; BATCH_MAX],
            addresses: vec![zeroed_address(); BATCH_MAX],
            controls: vec![[0; CONTROL_WORDS]; BATCH_MAX],
            lengths: vec![(0, 0); BATCH_MAX],
        }
    }

    fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: SNAP_BYTES }; BATCH_MAX];
        // SAFETY: all zeros is a valid mmsghdr: null pointers with zero lengths.
        let mut headers: [libc::mmsghdr; BATCH_MAX] = unsafe { mem::zeroed() };
        for (index, header) in headers.iter_mut().enumerate() {
            parts[index].iov_base = self.bytes[index].as_mut_ptr().cast();
            header.msg_hdr.msg_name = (&raw mut self.addresses[index]).cast();
            header.msg_hdr.msg_namelen = socklen::<libc::sockaddr_ll>();
            header.msg_hdr.msg_iov = &raw mut parts[index];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = self.controls[index].as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = mem::size_of_val(&self.controls[index]) as _;
        }
        // SAFETY: each header points to its own name, part and control memory, all of which live in `self` or on this
        // stack until the call returns, with their true sizes; u8 arrays and plain C structs may hold any bytes.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH_MAX as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        for (header, lengths) in headers.iter().zip(&mut self.lengths).take(count) {
            let packet = usize::try_from(header.msg_len).unwrap_or(0).min(SNAP_BYTES);
            #[allow(clippy::unnecessary_cast, reason = "the type differs between C libraries")]
            let control = header.msg_hdr.msg_controllen as usize;
            *lengths = (packet, control.min(CONTROL_WORDS * 8));
        }
        Ok(count)
    }

    fn frame(&self, index: usize) -> Frame<'_> {
        let (length, control_length) = self.lengths[index];
        let (mut time, mut whole) = (None, length);
        // SAFETY: all zeros is a valid msghdr; only its control pointer and length are used below.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_control = self.controls[index].as_ptr().cast_mut().cast();
        header.msg_controllen = control_length as _;
        // SAFETY: the control memory is aligned for cmsghdr, was written by the kernel up to `control_length`, and the
        // CMSG functions stay within that length. Each payload is read unaligned after its kind told what it is and its
        // length that it is whole.
        unsafe {
            let mut control = libc::CMSG_FIRSTHDR(&raw const header);
            while !control.is_null() {
                let kind = ((*control).cmsg_level, (*control).cmsg_type);
                let room = (*control).cmsg_len as usize;
                let data = libc::CMSG_DATA(control);
                if kind == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)
                    && room >= libc::CMSG_LEN(socklen::<libc::timespec>()) as usize
                {
                    time = Some(ptr::read_unaligned(data.cast::<libc::timespec>()));
                } else if kind == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
                    && room >= libc::CMSG_LEN(socklen::<libc::tpacket_auxdata>()) as usize
                {
                    let told = ptr::read_unaligned(data.cast::<libc::tpacket_auxdata>());
                    whole = usize::try_from(told.tp_len).unwrap_or(length);
                }
                control = libc::CMSG_NXTHDR(&raw const header, control);
            }
        }
        Frame {
            bytes: &self.bytes[index][..length],
            length: whole,
            ethertype: u16::from_be(self.addresses[index].sll_protocol),
            interface: u32::try_from(self.addresses[index].sll_ifindex).unwrap_or(0),
            time: time.map_or_else(clock, timestamp),
        }
    }
}

fn zeroed_address() -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: 0,
        sll_protocol: 0,
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn timestamp(time: libc::timespec) -> Timestamp {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000;
    Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// For a packet that the kernel did not stamp.
fn clock() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Timestamp::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[expect(clippy::cast_possible_truncation, reason = "these structs have some dozen bytes")]
const fn socklen<T>() -> libc::socklen_t {
    mem::size_of::<T>() as libc::socklen_t
}
