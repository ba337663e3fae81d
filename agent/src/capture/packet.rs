//! What the bytes of a captured packet say. Never panics, whatever they are.
//!
//! Beyond what the kernel filter has tested, the IPv4 header checksum and all lengths are checked, because a packet
//! socket sees packets that the host's own stack throws away. TCP and UDP checksums are not: with offloading they are
//! not yet filled in, and a forger can compute them anyway.

use std::net::IpAddr;

use fleetknock_core::port::{Port, Protocol};
use pnet::packet::{
    icmp::{IcmpPacket, IcmpTypes},
    icmpv6::{Icmpv6Packet, Icmpv6Types},
    ip::{IpNextHeaderProtocol, IpNextHeaderProtocols as Next},
    ipv4::{self, Ipv4Flags, Ipv4Packet},
    ipv6::Ipv6Packet,
    tcp::{TcpFlags, TcpPacket},
    udp::UdpPacket,
};

/// How many bytes from the network header on are captured: all headers of a knock fit, its payload need not.
pub const SNAP_BYTES: usize = 256;

/// IEEE 802.1Q and 802.1ad tags that are looked behind, besides the one that the kernel strips.
pub const TAGS_MAX: usize = 2;

/// IPv6 extension headers (RFC 8200 section 4) that are looked behind.
pub const EXTENSIONS_MAX: usize = 8;

/// EtherTypes (IEEE 802 numbers registry).
pub(super) mod ethertype {
    pub(in super::super) const IPV4: u16 = 0x0800;
    pub(in super::super) const IPV6: u16 = 0x86dd;
    pub(in super::super) const TAG: u16 = 0x8100;
    pub(in super::super) const SERVICE_TAG: u16 = 0x88a8;
}

/// A packet that could be a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What tells it from other packets, its addresses among it.
    pub identity: Identity,
    /// Equal for a SYN and its retransmission, never 0 for TCP and always 0 otherwise.
    pub fingerprint: u32,
}

/// What two copies of one packet have in common, and two packets hardly ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Where it says it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// At what; for ICMP the length of the echo payload.
    pub port: Port,
    /// The source port, or for ICMP the echo identifier.
    pub peer: u16,
    /// Of TCP the sequence number; otherwise IP identification or flow label, checksum and length.
    pub marks: [u32; 2],
}

/// Why a packet is none that could be a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// A correct host does not send this, or its headers reach beyond what was captured.
    Malformed,
    /// A correct packet of another kind, such as a SYN with ACK or a later fragment.
    Unrelated,
}

/// What follows the IP headers.
struct Transport<'a> {
    protocol: IpNextHeaderProtocol,
    /// As far as captured.
    bytes: &'a [u8],
    /// By the IP header.
    length: usize,
    /// More fragments follow.
    fragmented: bool,
    /// IPv4 identification, IPv6 flow label.
    mark: u32,
}

/// Reads a packet that begins with what `ethertype` announces. `length` is how long it was before it was cut.
///
/// # Errors
/// When it is malformed or of another kind.
pub fn parse(ethertype: u16, bytes: &[u8], length: usize) -> Result<Packet, Unusable> {
    let length = length.max(bytes.len());
    match parse_untagged(ethertype, bytes, length) {
        Ok(packet) => Ok(packet),
        // A packet socket of Linux 6.18 names the innermost kind although the bytes still begin with a tag; older ones name
        // the tag's.
        Err(error) => behind_tags(ethertype, bytes, length).ok_or(error),
    }
}

fn behind_tags(mut ethertype: u16, mut bytes: &[u8], mut length: usize) -> Option<Packet> {
    for _ in 0..TAGS_MAX {
        let (tag, rest) = bytes.split_first_chunk::<4>()?;
        ethertype = match (ethertype, u16::from_be_bytes([tag[2], tag[3]])) {
            (ethertype::IPV4 | ethertype::TAG | ethertype::SERVICE_TAG, ethertype::IPV4) => ethertype::IPV4,
            (ethertype::IPV6 | ethertype::TAG | ethertype::SERVICE_TAG, ethertype::IPV6) => ethertype::IPV6,
            (outer, ethertype::TAG | ethertype::SERVICE_TAG) => outer,
            _ => return None,
        };
        (bytes, length) = (rest, length - 4);
        if let Ok(packet) = parse_untagged(ethertype, bytes, length) {
            return Some(packet);
        }
    }
    None
}

fn parse_untagged(ethertype: u16, bytes: &[u8], length: usize) -> Result<Packet, Unusable> {
    match ethertype {
        ethertype::IPV4 => parse_ipv4(bytes, length),
        ethertype::IPV6 => parse_ipv6(bytes, length),
        _ => Err(Unusable::Unrelated),
    }
}

fn parse_ipv4(bytes: &[u8], length: usize) -> Result<Packet, Unusable> {
    let header = Ipv4Packet::new(bytes).ok_or(Unusable::Malformed)?;
    let header_length = usize::from(header.get_header_length()) * 4;
    let total_length = usize::from(header.get_total_length());
    if header.get_version() != 4
        || !(20..=bytes.len().min(total_length)).contains(&header_length)
        || total_length > length
    {
        return Err(Unusable::Malformed);
    }
    // In ones' complement both words of ones and of zeros are nought (RFC 1071).
    let (computed, carried) = (ipv4::checksum(&header), header.get_checksum());
    if computed != carried && !(computed == 0 && carried == u16::MAX) {
        return Err(Unusable::Malformed);
    }
    if header.get_fragment_offset() != 0 {
        return Err(Unusable::Unrelated);
    }
    let transport = Transport {
        protocol: header.get_next_level_protocol(),
        bytes: bytes.get(header_length..total_length.min(bytes.len())).ok_or(Unusable::Malformed)?,
        length: total_length - header_length,
        fragmented: header.get_flags() & Ipv4Flags::MoreFragments != 0,
        mark: header.get_identification().into(),
    };
    parse_transport(header.get_source().into(), header.get_destination().into(), &transport)
}

fn parse_ipv6(bytes: &[u8], length: usize) -> Result<Packet, Unusable> {
    let header = Ipv6Packet::new(bytes).ok_or(Unusable::Malformed)?;
    let total_length = usize::from(header.get_payload_length()) + Ipv6Packet::minimum_packet_size();
    if header.get_version() != 6 || total_length > length {
        return Err(Unusable::Malformed);
    }
    let captured = bytes.get(..total_length.min(bytes.len())).ok_or(Unusable::Malformed)?;
    let mut transport = Transport {
        protocol: header.get_next_header(),
        bytes: &captured[Ipv6Packet::minimum_packet_size()..],
        length: usize::from(header.get_payload_length()),
        fragmented: false,
        mark: header.get_flow_label(),
    };
    for passed in 0..EXTENSIONS_MAX {
        if !transport.skip_extension(passed)? {
            break;
        }
    }
    parse_transport(header.get_source().into(), header.get_destination().into(), &transport)
}

impl Transport<'_> {
    /// Steps over one extension header, if the next is one.
    fn skip_extension(&mut self, passed: usize) -> Result<bool, Unusable> {
        let length = match self.protocol {
            // RFC 8200 section 4.1: hop-by-hop options come right after the fixed header or not at all.
            Next::Hopopt if passed > 0 => return Err(Unusable::Malformed),
            Next::Hopopt | Next::Ipv6Route | Next::Ipv6Opts => {
                8 * (1 + usize::from(*self.bytes.get(1).ok_or(Unusable::Malformed)?))
            }
            // RFC 4302 section 2.2.
            Next::Ah => 4 * (2 + usize::from(*self.bytes.get(1).ok_or(Unusable::Malformed)?)),
            Next::Ipv6Frag => {
                let fields = self.bytes.first_chunk::<4>().ok_or(Unusable::Malformed)?;
                let fields = u16::from_be_bytes([fields[2], fields[3]]);
                if fields & 0xfff8 != 0 {
                    return Err(Unusable::Unrelated);
                }
                self.fragmented |= fields & 1 != 0;
                8
            }
            _ => return Ok(false),
        };
        self.protocol = IpNextHeaderProtocol::new(*self.bytes.first().ok_or(Unusable::Malformed)?);
        self.bytes = self.bytes.get(length..).ok_or(Unusable::Malformed)?;
        // What is captured never exceeds what the header says, so this cannot fall below zero.
        self.length = self.length.saturating_sub(length);
        Ok(true)
    }
}

fn parse_transport(
    source: IpAddr,
    destination: IpAddr,
    transport: &Transport<'_>,
) -> Result<Packet, Unusable> {
    let port = |protocol, number| Port::new(protocol, number).map_err(|_| Unusable::Malformed);
    let (port, peer, marks, fingerprint) = match (transport.protocol, source) {
        (Next::Tcp, _) => {
            let header = TcpPacket::new(transport.bytes).ok_or(Unusable::Malformed)?;
            let header_length = usize::from(header.get_data_offset()) * 4;
            if header_length < 20 || header_length > transport.length {
                return Err(Unusable::Malformed);
            }
            let told = header.get_flags() & (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN);
            if told != TcpFlags::SYN {
                return Err(Unusable::Unrelated);
            }
            let (peer, sequence) = (header.get_source(), header.get_sequence());
            let port = port(Protocol::Tcp, header.get_destination())?;
            (port, peer, [sequence, 0], fingerprint(peer, sequence))
        }
        (Next::Udp, _) => {
            let header = UdpPacket::new(transport.bytes).ok_or(Unusable::Malformed)?;
            let length = usize::from(header.get_length());
            if length < 8 || (length > transport.length && !transport.fragmented) {
                return Err(Unusable::Malformed);
            }
            let marks = [transport.mark, pack(header.get_checksum(), header.get_length())];
            (port(Protocol::Udp, header.get_destination())?, header.get_source(), marks, 0)
        }
        (Next::Icmp, IpAddr::V4(_)) => {
            let header = IcmpPacket::new(transport.bytes).ok_or(Unusable::Malformed)?;
            if header.get_icmp_type() != IcmpTypes::EchoRequest {
                return Err(Unusable::Unrelated);
            }
            let (port, peer, marks) = echo(transport, header.get_checksum())?;
            (port, peer, marks, 0)
        }
        (Next::Icmpv6, IpAddr::V6(_)) => {
            let header = Icmpv6Packet::new(transport.bytes).ok_or(Unusable::Malformed)?;
            if header.get_icmpv6_type() != Icmpv6Types::EchoRequest {
                return Err(Unusable::Unrelated);
            }
            let (port, peer, marks) = echo(transport, header.get_checksum())?;
            (port, peer, marks, 0)
        }
        _ => return Err(Unusable::Unrelated),
    };
    Ok(Packet { identity: Identity { source, destination, port, peer, marks }, fingerprint })
}

/// Both ICMPs lay out an echo request alike (RFC 792, RFC 4443 section 4.1).
fn echo(transport: &Transport<'_>, checksum: u16) -> Result<(Port, u16, [u32; 2]), Unusable> {
    let [.., id_high, id_low, sequence_high, sequence_low] =
        transport.bytes.first_chunk::<8>().ok_or(Unusable::Malformed)?;
    // Only the last fragment tells how long the whole payload is.
    if transport.fragmented {
        return Err(Unusable::Unrelated);
    }
    let length = transport.length.checked_sub(8).and_then(|length| u16::try_from(length).ok());
    let port =
        Port::new(Protocol::Icmp, length.ok_or(Unusable::Malformed)?).map_err(|_| Unusable::Malformed)?;
    let sequence = u16::from_be_bytes([*sequence_high, *sequence_low]);
    Ok((port, u16::from_be_bytes([*id_high, *id_low]), [transport.mark, pack(checksum, sequence)]))
}

fn pack(high: u16, low: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

/// Spreads source port and sequence number over 32 bits (the finalizer of MurmurHash3), leaving out 0.
fn fingerprint(port: u16, sequence: u32) -> u32 {
    let mut mixed = sequence ^ u32::from(port).wrapping_mul(0x9e37_79b1);
    mixed = (mixed ^ mixed >> 16).wrapping_mul(0x85eb_ca6b);
    mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    (mixed ^ mixed >> 16).max(1)
}

#[cfg(test)]
pub(super) mod craft;
#[cfg(test)]
pub(super) mod tests;
