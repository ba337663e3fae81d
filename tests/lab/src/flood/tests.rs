//! The flood's packets are whole, and its bounds hold.

use std::collections::BTreeSet;

use super::*;

#[test]
fn checksum_holds_over_pseudo_header_and_segment() {
    let to = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 10), 7412);
    for number in [0, 1, 77_777, 33_554_431] {
        let packet = syn(source(number), to, number);
        let mut sum: u32 = 6 + 20;
        for pair in packet[12..].chunks_exact(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff);
    }
}

#[test]
fn sources_differ() {
    let sources: BTreeSet<_> = (0..100_000).map(source).collect();
    assert_eq!(sources.len(), 100_000);
    assert!(sources.iter().all(|source| matches!(source.octets()[0], 11 | 12)));
}

#[test]
fn bounds_are_kept() {
    let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
    assert!(flood(to, RATE_MAX + 1, 1).is_err());
    assert!(flood(to, 1, SECONDS_MAX + 1).is_err());
}
