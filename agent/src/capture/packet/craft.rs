//! Makes packets for tests, with pnet's mutable packet types.
#![allow(unreachable_pub, reason = "shared with the tests against the kernel, which are another crate")]

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet::packet::{
    icmp::echo_request::MutableEchoRequestPacket,
    icmp::{IcmpType, IcmpTypes},
    icmpv6::Icmpv6Types,
    ip::IpNextHeaderProtocol,
    ipv4::{self, MutableIpv4Packet},
    ipv6::MutableIpv6Packet,
    tcp::MutableTcpPacket,
    udp::MutableUdpPacket,
};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;

pub const SYN: u8 = 0x02;

/// A TCP header without options.
pub fn tcp(source: u16, destination: u16, flags: u8, sequence: u32) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    let mut header = MutableTcpPacket::new(&mut bytes).unwrap();
    header.set_source(source);
    header.set_destination(destination);
    header.set_sequence(sequence);
    header.set_data_offset(5);
    header.set_flags(flags);
    header.set_window(64_240);
    bytes
}

/// A datagram; without checksum, which IPv4 allows.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend(payload);
    let length = u16::try_from(bytes.len()).unwrap();
    let mut header = MutableUdpPacket::new(&mut bytes).unwrap();
    header.set_source(source);
    header.set_destination(destination);
    header.set_length(length);
    bytes
}

/// An echo request with so many bytes of payload.
pub fn echo(protocol: u8, identifier: u16, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; 8 + payload];
    let mut header = MutableEchoRequestPacket::new(&mut bytes).unwrap();
    let kind =
        if protocol == ICMP { IcmpTypes::EchoRequest } else { IcmpType::new(Icmpv6Types::EchoRequest.0) };
    header.set_icmp_type(kind);
    header.set_identifier(identifier);
    bytes
}

/// An IPv4 packet; `options` in multiples of four bytes.
pub fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes.extend(options);
    let header_words = u8::try_from(bytes.len() / 4).unwrap();
    bytes.extend(payload);
    let length = u16::try_from(bytes.len()).unwrap();
    let mut header = MutableIpv4Packet::new(&mut bytes).unwrap();
    header.set_version(4);
    header.set_header_length(header_words);
    header.set_total_length(length);
    header.set_identification(4_711);
    header.set_ttl(64);
    header.set_next_level_protocol(IpNextHeaderProtocol::new(protocol));
    header.set_source(source);
    header.set_destination(destination);
    seal(&mut bytes);
    bytes
}

/// Fills in the IPv4 header checksum.
pub fn seal(bytes: &mut [u8]) {
    let mut header = MutableIpv4Packet::new(bytes).unwrap();
    let checksum = ipv4::checksum(&header.to_immutable());
    header.set_checksum(checksum);
}

/// An IPv6 packet; `extensions` are kinds and whole headers, whose first byte is filled in.
pub fn ipv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    extensions: &[(u8, Vec<u8>)],
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0; 40];
    for (i, (_, extension)) in extensions.iter().enumerate() {
        bytes.push(extensions.get(i + 1).map_or(protocol, |(kind, _)| *kind));
        bytes.extend(&extension[1..]);
    }
    bytes.extend(payload);
    let length = u16::try_from(bytes.len() - 40).unwrap();
    let mut header = MutableIpv6Packet::new(&mut bytes).unwrap();
    header.set_version(6);
    header.set_payload_length(length);
    header.set_next_header(IpNextHeaderProtocol::new(extensions.first().map_or(protocol, |(kind, _)| *kind)));
    header.set_hop_limit(64);
    header.set_source(source);
    header.set_destination(destination);
    bytes
}

/// Hop-by-hop options, routing, destination options, first fragment, authentication: one of each.
pub fn every_extension() -> Vec<(u8, Vec<u8>)> {
    // PadN fills the options (RFC 8200 section 4.2).
    let options = |words: u8| {
        let length = 8 * (usize::from(words) + 1);
        let mut bytes = vec![0; length];
        bytes[1] = words;
        bytes[2] = 1;
        bytes[3] = u8::try_from(length - 4).unwrap();
        bytes
    };
    let mut authentication = vec![0; 24];
    authentication[1] = 4;
    vec![
        (0, options(0)),
        (43, vec![0; 8]),
        (60, options(2)),
        (44, vec![0, 0, 0, 1, 0, 0, 0, 7]),
        (51, authentication),
        (60, options(0)),
    ]
}

/// What follows a tag that was announced elsewhere: its number, then the inner kind and packet.
pub fn tagged(number: u16, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes(), &ethertype.to_be_bytes(), packet].concat()
}
