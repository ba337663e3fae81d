//! The classic BPF program that decides in the kernel which packets are worth waking the agent for.
//!
//! It sees a packet from its network header on, since the socket is of type SOCK_DGRAM, and lets through what could be
//! a knock: for this host, a first fragment, SYN without ACK or UDP to a port of the space, or an echo request. It may let
//! through more than that when lists grow too long for it; what passes is judged again in user space.

mod assembler;

use std::net::IpAddr;

use fleetknock_core::port::Protocol;

pub use self::assembler::Instruction;
use self::assembler::{Assembler, Label, Size};
use super::{
    KnockSpace,
    packet::{EXTENSIONS_MAX, SNAP_BYTES, TAGS_MAX, ethertype},
    ports::PortSet,
    view::{Family, LocalView},
};

/// The kernel takes no longer program (BPF_MAXINSNS in linux/bpf_common.h).
pub const INSTRUCTIONS_MAX: usize = 4_096;

/// Ranges per protocol and family that are tested exactly; longer lists are coarsened. A range costs about four
/// instructions and there are four lists.
pub const RANGES_MAX: usize = 200;

/// Own addresses per family that are tested; with more, every destination passes.
pub const ADDRESSES_MAX: usize = 64;

/// Ancillary data begins here (linux/filter.h), as the kernel reads it: a negative offset.
const ANCILLARY: u32 = (-0x1000_i32).cast_unsigned();
const ANCILLARY_PROTOCOL: u32 = ANCILLARY;
const ANCILLARY_PACKET_TYPE: u32 = ANCILLARY + 4;
/// `PACKET_HOST` of linux/if_packet.h: sent to this host.
const PACKET_HOST: u32 = 0;
/// IANA protocol numbers.
const TCP: u32 = 6;
const UDP: u32 = 17;

/// What shall pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterSpec {
    /// What shall pass of IPv4.
    pub ipv4: FamilySpec,
    /// What shall pass of IPv6.
    pub ipv6: FamilySpec,
    /// Whether echo requests pass.
    pub icmp: bool,
}

/// What shall pass of one address family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilySpec {
    /// Ports to which a SYN passes.
    pub tcp: PortSet,
    /// Ports to which a datagram passes.
    pub udp: PortSet,
    /// The last 32 bits of the addresses to which packets pass; `None` for all.
    pub destinations: Option<Vec<u32>>,
}

impl FilterSpec {
    /// What could be a knock in this space on a host that looks like this.
    pub fn new(space: &KnockSpace, view: &LocalView, loopback: bool) -> Self {
        let family = |family| {
            let ports = |protocol| {
                let mut ports = space.numbers(protocol);
                ports.subtract(&view.ports_in_use(protocol, family));
                ports
            };
            let own = view.addresses.iter().filter(|address| Family::of(**address) == family);
            let mut destinations: Vec<u32> = own.map(|address| last_word(*address)).collect();
            destinations.sort_unstable();
            destinations.dedup();
            // All of 127.0.0.0/8 is local to a loopback interface, not only its address.
            let tested = destinations.len() <= ADDRESSES_MAX && !loopback;
            FamilySpec {
                tcp: ports(Protocol::Tcp),
                udp: ports(Protocol::Udp),
                destinations: tested.then_some(destinations),
            }
        };
        Self {
            ipv4: family(Family::V4),
            ipv6: family(Family::V6),
            icmp: !space.numbers(Protocol::Icmp).is_empty(),
        }
    }

    /// Programs that do this, each shorter and coarser than the one before, for a kernel that has no room for the first:
    /// what it sets aside for options of a socket (net.core.optmem_max) is 20 KiB on older kernels and 128 KiB on newer
    /// ones, and an old and a new program must fit together.
    pub fn programs(&self) -> impl Iterator<Item = Vec<Instruction>> {
        [RANGES_MAX, RANGES_MAX / 4, RANGES_MAX / 16, 1]
            .into_iter()
            .map(|ranges_max| self.program(ranges_max))
    }

    /// The program with at most so many ranges per list: at most [`INSTRUCTIONS_MAX`] instructions when they are no more
    /// than [`RANGES_MAX`].
    pub fn program(&self, ranges_max: usize) -> Vec<Instruction> {
        let mut out = Assembler::default();
        let (ipv4, ipv6, reject) = (out.label(), out.label(), out.label());

        out.load(Size::Word, ANCILLARY_PACKET_TYPE);
        out.unless_equal(PACKET_HOST, reject);
        out.load(Size::Word, ANCILLARY_PROTOCOL);
        out.set_x(0);
        for tag in 0..=TAGS_MAX {
            out.if_equal(ethertype::IPV4.into(), ipv4);
            out.if_equal(ethertype::IPV6.into(), ipv6);
            if tag < TAGS_MAX {
                let tagged = out.label();
                out.if_equal(ethertype::TAG.into(), tagged);
                out.unless_equal(ethertype::SERVICE_TAG.into(), reject);
                out.place(tagged);
                let offset = 4 * u32::try_from(tag).unwrap_or(0);
                out.load(Size::Half, offset + 2);
                out.set_x(offset + 4);
            }
        }
        out.jump(reject);

        // One test of ports serves both families when it can; it stands last because jumps lead forward only.
        let shared = self.ipv4.tcp == self.ipv6.tcp && self.ipv4.udp == self.ipv6.udp;
        let tests4 = PortTests { tcp: out.label(), udp: out.label() };
        let tests6 = if shared { tests4 } else { PortTests { tcp: out.label(), udp: out.label() } };
        out.place(ipv4);
        self.ipv4_header(&mut out, reject);
        self.transport(&mut out, 1, 8, tests4);
        out.place(ipv6);
        self.ipv6_header(&mut out, reject);
        self.transport(&mut out, 58, 128, tests6);
        port_tests(&mut out, &self.ipv4, tests4, ranges_max);
        if !shared {
            port_tests(&mut out, &self.ipv6, tests6, ranges_max);
        }
        // Not earlier: to the kernel's checks whatever follows a return inherits what was stored before it.
        out.place(reject);
        out.give(0);
        out.finish()
    }

    /// Leaves the protocol in the accumulator and the offset of the transport header in X.
    fn ipv4_header(&self, out: &mut Assembler, reject: Label) {
        out.load_x(Size::Byte, 0);
        out.and(0xf0);
        out.unless_equal(0x40, reject);
        out.load_x(Size::Half, 6);
        out.if_any(0x1fff, reject);
        destinations(out, &self.ipv4, 16, reject);
        out.load_x(Size::Byte, 9);
        out.store();
        out.load_x(Size::Byte, 0);
        out.and(0x0f);
        out.shift_left(2);
        out.unless_at_least(20, reject);
        out.add_x();
        out.copy_to_x();
        out.recall();
    }

    /// Leaves the protocol in the accumulator and the offset of the transport header in X.
    fn ipv6_header(&self, out: &mut Assembler, reject: Label) {
        let done = out.label();
        out.load_x(Size::Byte, 0);
        out.and(0xf0);
        out.unless_equal(0x60, reject);
        destinations(out, &self.ipv6, 36, reject);
        out.load_x(Size::Byte, 6);
        out.store();
        out.copy_from_x();
        out.add(40);
        out.copy_to_x();
        for passed in 0..EXTENSIONS_MAX {
            let [options, authentication, fragment, next] =
                [out.label(), out.label(), out.label(), out.label()];
            out.recall();
            if passed == 0 {
                out.if_equal(0, options);
            }
            out.if_equal(43, options);
            out.if_equal(60, options);
            out.if_equal(44, fragment);
            out.if_equal(51, authentication);
            out.jump(done);

            out.place(fragment);
            out.load_x(Size::Half, 2);
            out.if_any(0xfff8, reject);
            out.load_x(Size::Byte, 0);
            out.store();
            out.copy_from_x();
            out.add(8);
            out.copy_to_x();
            out.jump(next);

            for (label, extra, shift) in [(options, 1, 3), (authentication, 2, 2)] {
                out.place(label);
                out.load_x(Size::Byte, 0);
                out.store();
                out.load_x(Size::Byte, 1);
                out.add(extra);
                out.shift_left(shift);
                out.add_x();
                out.copy_to_x();
                out.jump(next);
            }
            out.place(next);
        }
        out.place(done);
        out.recall();
    }

    /// Takes the protocol in the accumulator and the transport header's offset in X. `icmp` and `echo` are the numbers of
    /// the family's own ICMP and of its echo request.
    fn transport(&self, out: &mut Assembler, icmp: u32, echo: u32, tests: PortTests) {
        let (reject, accept) = (out.label(), out.label());
        out.if_equal(TCP, tests.tcp);
        out.if_equal(UDP, tests.udp);
        if self.icmp {
            out.unless_equal(icmp, reject);
            out.load_x(Size::Byte, 0);
            out.if_equal(echo, accept);
        }
        out.place(reject);
        out.give(0);
        out.place(accept);
        out.give(SNAP);
    }
}

/// `SNAP_BYTES` as the kernel takes it.
#[expect(clippy::cast_possible_truncation, reason = "256 fits")]
const SNAP: u32 = SNAP_BYTES as u32;

#[derive(Clone, Copy)]
struct PortTests {
    tcp: Label,
    udp: Label,
}

/// Takes the transport header's offset in X.
fn port_tests(out: &mut Assembler, family: &FamilySpec, tests: PortTests, ranges_max: usize) {
    let syn = out.label();
    out.place(tests.tcp);
    // Of FIN, SYN, RST and ACK only SYN (RFC 9293 section 3.1).
    out.load_x(Size::Byte, 13);
    out.and(0x17);
    out.if_equal(0x02, syn);
    out.give(0);
    out.place(syn);
    out.load_x(Size::Half, 2);
    out.test_ranges(&family.tcp.covering_ranges(ranges_max), SNAP);
    out.place(tests.udp);
    out.load_x(Size::Half, 2);
    out.test_ranges(&family.udp.covering_ranges(ranges_max), SNAP);
}

fn destinations(out: &mut Assembler, family: &FamilySpec, offset: u32, reject: Label) {
    if let Some(destinations) = &family.destinations {
        let own = out.label();
        out.load_x(Size::Word, offset);
        destinations.iter().for_each(|word| out.if_equal(*word, own));
        out.jump(reject);
        out.place(own);
    }
}

fn last_word(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    }
}

#[cfg(test)]
mod machine;
#[cfg(test)]
mod tests;
