//! Tests of the room above: `packet`.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{
    craft::{self, ICMP, ICMPV6, IPV4, IPV6, SYN, TCP, UDP},
    *,
};

#[test]
fn a_syn_is_read() {
    let packet = parse_all(IPV4, &v4(TCP, &craft::tcp(1_234, 7_412, SYN, 99))).unwrap();
    assert_eq!(packet.identity.source, IpAddr::from(A4));
    assert_eq!(packet.identity.destination, IpAddr::from(B4));
    assert_eq!(packet.identity.port.to_string(), "tcp/7412");
    assert_ne!(packet.fingerprint, 0);
    let again = parse_all(IPV4, &v4(TCP, &craft::tcp(1_234, 7_412, SYN, 99))).unwrap();
    assert_eq!(packet, again);
    let other = parse_all(IPV4, &v4(TCP, &craft::tcp(1_235, 7_412, SYN, 99))).unwrap();
    assert_ne!(packet.fingerprint, other.fingerprint);
}

#[test]
fn every_kind_of_knock_is_read_in_every_wrapping() {
    let cases = [
        (TCP, ICMPV6, craft::tcp(1, 7_412, SYN | 0xc0, 5), "tcp/7412"),
        (UDP, UDP, craft::udp(1, 7_412, b"any"), "udp/7412"),
        (UDP, UDP, craft::udp(0, 7_412, b""), "udp/7412"),
    ];
    for (protocol, _, transport, port) in cases {
        for (ethertype, bytes) in wrappings(protocol, protocol, &transport) {
            assert_eq!(
                parse_all(ethertype, &bytes).map(|p| p.identity.port.to_string()).as_deref(),
                Ok(port)
            );
        }
    }
    for length in [0, 1, 731] {
        let port = format!("icmp/{length}");
        let bytes = v4(ICMP, &craft::echo(ICMP, 3, length));
        assert_eq!(parse_all(IPV4, &bytes).unwrap().identity.port.to_string(), port);
        // The payload may reach beyond what is captured.
        assert!(parse(IPV4, &bytes[..bytes.len().min(SNAP_BYTES)], bytes.len()).is_ok());
        let bytes = v6(ICMPV6, &[], &craft::echo(ICMPV6, 3, length));
        assert_eq!(parse_all(IPV6, &bytes).unwrap().identity.port.to_string(), port);
    }
}

#[test]
fn a_ping_is_no_knock_in_the_wrong_family_and_none_when_its_length_is_unknown() {
    assert_eq!(parse_all(IPV4, &v4(ICMPV6, &craft::echo(ICMPV6, 1, 8))), Err(Unusable::Unrelated));
    assert_eq!(parse_all(IPV6, &v6(ICMP, &[], &craft::echo(ICMP, 1, 8))), Err(Unusable::Unrelated));
    let more = [(44, vec![0, 0, 0, 1, 0, 0, 0, 7])];
    assert_eq!(parse_all(IPV6, &v6(ICMPV6, &more, &craft::echo(ICMPV6, 1, 8))), Err(Unusable::Unrelated));
}

#[test]
fn of_tcp_only_a_syn_is_a_knock() {
    for flags in 0..=0x3f_u8 {
        let parsed = parse_all(IPV4, &v4(TCP, &craft::tcp(1, 2, flags, 3)));
        assert_eq!(parsed.is_ok(), flags & 0x17 == SYN, "{flags:#x}: {parsed:?}");
    }
}

#[test]
fn later_fragments_are_no_knocks_and_first_ones_are() {
    for (fields, good) in [(0x4000, true), (0x2000, true), (0x2001, false), (0x0001, false)] {
        let mut bytes = v4(UDP, &craft::udp(1, 2, b"x"));
        bytes[6..8].copy_from_slice(&u16::to_be_bytes(fields));
        craft::seal(&mut bytes);
        assert_eq!(parse_all(IPV4, &bytes).is_ok(), good, "{fields:#x}");
    }
    for (fields, good) in [(1_u16, true), (8, false), (9, false)] {
        let [high, low] = fields.to_be_bytes();
        let bytes = v6(UDP, &[(44, vec![0, 0, high, low, 0, 0, 0, 7])], &craft::udp(1, 2, b"x"));
        assert_eq!(parse_all(IPV6, &bytes).is_ok(), good, "{fields:#x}");
    }
}

#[test]
fn what_a_stack_would_throw_away_is_malformed() {
    let good = v4(TCP, &craft::tcp(1, 2, SYN, 3));
    let broken = |at: usize, value: u8, seal: bool| {
        let mut bytes = good.clone();
        bytes[at] = value;
        if seal {
            craft::seal(&mut bytes);
        }
        parse_all(IPV4, &bytes)
    };
    assert!(broken(8, 64, false).is_ok(), "unchanged");
    assert_eq!(broken(8, 63, false), Err(Unusable::Malformed), "checksum");
    assert_eq!(broken(0, 0x55, true), Err(Unusable::Malformed), "version");
    assert_eq!(broken(0, 0x44, true), Err(Unusable::Malformed), "header too short");
    assert_eq!(broken(3, 41, true), Err(Unusable::Malformed), "longer than the packet");
    assert_eq!(broken(3, 19, true), Err(Unusable::Malformed), "shorter than its header");
    assert_eq!(broken(3, 39, true), Err(Unusable::Malformed), "transport header cut");
    assert_eq!(broken(32, 0x40, false), Err(Unusable::Malformed), "data offset too short");
    assert_eq!(broken(32, 0x60, false), Err(Unusable::Malformed), "data offset beyond the end");
    assert_eq!(parse_all(IPV4, &v4(TCP, &craft::tcp(1, 0, SYN, 3))), Err(Unusable::Malformed), "port 0");

    let mut lying = craft::udp(1, 2, b"x");
    lying[5] = 10;
    assert_eq!(parse_all(IPV4, &v4(UDP, &lying)), Err(Unusable::Malformed), "UDP length");

    let late = [(60, vec![0; 8]), (0, vec![0; 8])];
    assert_eq!(
        parse_all(IPV6, &v6(UDP, &late, &craft::udp(1, 2, b""))),
        Err(Unusable::Malformed),
        "hop-by-hop late"
    );
    let beyond = [(60, vec![0, 255, 0, 0, 0, 0, 0, 0])];
    assert_eq!(
        parse_all(IPV6, &v6(UDP, &beyond, &craft::udp(1, 2, b""))),
        Err(Unusable::Malformed),
        "too long"
    );
    let many = vec![(60, vec![0; 8]); EXTENSIONS_MAX + 1];
    assert_eq!(
        parse_all(IPV6, &v6(UDP, &many, &craft::udp(1, 2, b""))),
        Err(Unusable::Unrelated),
        "too many"
    );
    assert!(parse_all(IPV6, &v6(UDP, &many[1..], &craft::udp(1, 2, b""))).is_ok());
}

#[test]
fn a_tag_is_looked_behind_when_the_kernel_names_the_innermost_kind() {
    for (ethertype, bytes) in wrappings(TCP, TCP, &craft::tcp(1, 7_412, SYN, 5)).into_iter().take(5) {
        for number in [0, 6, 0x4500, 0x6000] {
            let once = craft::tagged(number, ethertype, &bytes);
            let twice = craft::tagged(number, 0x8100, &once);
            let thrice = craft::tagged(number, 0x8100, &twice);
            assert_eq!(parse_all(ethertype, &once), parse_all(ethertype, &bytes));
            assert_eq!(parse_all(ethertype, &twice), parse_all(ethertype, &bytes));
            assert!(parse_all(ethertype, &thrice).is_err());
            // What is announced and what is inside must agree.
            assert!(parse_all(if ethertype == IPV4 { IPV6 } else { IPV4 }, &once).is_err());
        }
    }
}

#[test]
fn padding_behind_the_packet_is_left_out() {
    let mut bytes = v4(ICMP, &craft::echo(ICMP, 1, 3));
    bytes.extend([0; 15]);
    assert_eq!(parse_all(IPV4, &bytes).unwrap().identity.port.to_string(), "icmp/3");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        ethertype in prop_oneof![Just(IPV4), Just(IPV6), Just(0x8100), Just(0x88a8), any::<u16>()],
        bytes in prop::collection::vec(any::<u8>(), 0..300), length in 0_usize..70_000,
    ) {
        let _ = parse(ethertype, &bytes, length);
    }

    #[test]
    fn no_mutation_makes_it_panic_or_read_a_port_that_is_not_there(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(), longer in 0_usize..3, seal in any::<bool>(),
    ) {
        let all = all_packets();
        let (ethertype, mut bytes) = which.get(&all).clone();
        for (at, value) in changes {
            *at.get_mut(&mut bytes) = value;
        }
        if seal && ethertype == IPV4 {
            craft::seal(&mut bytes);
        }
        let whole = bytes.len() + longer;
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(packet) = parse(ethertype, &bytes, whole) {
            let number = packet.identity.port.number();
            let there = bytes.windows(2).any(|pair| pair == number.to_be_bytes());
            prop_assert!(there || packet.identity.port.protocol() == Protocol::Icmp);
            prop_assert_eq!(packet.fingerprint != 0, packet.identity.port.protocol() == Protocol::Tcp);
        }
    }

    #[test]
    fn every_cut_of_a_packet_is_read_without_panic(which in any::<prop::sample::Index>()) {
        let all = all_packets();
        let (ethertype, bytes) = which.get(&all);
        for end in 0..=bytes.len() {
            let _ = parse(*ethertype, &bytes[..end], bytes.len());
            let _ = parse(*ethertype, &bytes[..end], end);
        }
        prop_assert!(parse_all(*ethertype, bytes).is_ok());
    }
}

fn all_packets() -> Vec<(u16, Vec<u8>)> {
    let mut all = wrappings(TCP, TCP, &craft::tcp(1_234, 7_412, SYN, 99));
    all.extend(wrappings(UDP, UDP, &craft::udp(1_234, 7_412, b"payload")));
    all.push((IPV4, v4(ICMP, &craft::echo(ICMP, 1, 40))));
    all.push((IPV6, v6(ICMPV6, &[], &craft::echo(ICMPV6, 1, 40))));
    all
}

/// Plain, with IPv4 options, with IPv6 extension headers, behind one and two tags.
pub(in crate::capture) fn wrappings(protocol4: u8, protocol6: u8, transport: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut all = vec![
        (IPV4, v4(protocol4, transport)),
        (IPV4, craft::ipv4(A4, B4, protocol4, &[1; 8], transport)),
        (IPV4, craft::ipv4(A4, B4, protocol4, &[1; 40], transport)),
        (IPV6, v6(protocol6, &[], transport)),
        (IPV6, v6(protocol6, &craft::every_extension(), transport)),
    ];
    for (ethertype, bytes) in all.clone() {
        let once = craft::tagged(7, ethertype, &bytes);
        all.push((0x8100, once.clone()));
        all.push((0x88a8, once.clone()));
        all.push((0x88a8, craft::tagged(100, 0x8100, &once)));
    }
    all
}

const A4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const B4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

fn v4(protocol: u8, transport: &[u8]) -> Vec<u8> {
    craft::ipv4(A4, B4, protocol, &[], transport)
}

fn v6(protocol: u8, extensions: &[(u8, Vec<u8>)], transport: &[u8]) -> Vec<u8> {
    craft::ipv6(A6, B6, protocol, extensions, transport)
}

fn parse_all(ethertype: u16, bytes: &[u8]) -> Result<Packet, Unusable> {
    parse(ethertype, bytes, bytes.len())
}
