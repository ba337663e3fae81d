//! Packet bytes: parsed, and judged as on a host with two interfaces.
//!
//! The first four bytes say how: which kind is announced, whether the IPv4 checksum is put right (or hardly any mutant would
//! get past it), over which interface it came, and by how much it was cut.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    hash::RandomState,
    sync::Arc,
    time::Duration,
};

use fleetknock_agent::capture::{
    KnockSpace,
    judge::{Judge, Reason, SocketLookup, Use, Verdict},
    packet::{Packet, SNAP_BYTES, parse},
    view::{Interface, LocalView},
};
use fleetknock_core::port::{Port, PortRange, Protocol};

/// Kinds, protocols and addresses of this host.
pub(super) const WORDS: &[&[u8]] = &[
    &[0x08, 0x00],
    &[0x86, 0xdd],
    &[0x81, 0x00, 0, 7],
    &[0x88, 0xa8, 0, 7],
    &[192, 0, 2, 1],
    &[203, 0, 113, 5],
    &[255, 255, 255, 255],
    &[224, 0, 0, 1],
    &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 5],
    &[44, 0, 0, 1],
    &[43, 0],
    &[60, 2],
    &[51, 4],
    &[0x45],
    &[0x4f],
    &[0x60],
    &[0x50, 0x02],
    &[8, 0],
    &[128, 0],
];

/// The port that a door opens on this host.
const GUARDED: u16 = 22;

struct Sockets;

impl SocketLookup for Sockets {
    fn ask(&mut self, packet: &Packet, _: u32, _: Duration) -> Use {
        match packet.identity.port.number() % 4 {
            0 => Use::Used,
            1 => Use::Unknown,
            _ => Use::Free,
        }
    }
}

thread_local! {
    /// One for all packets, as its table of sources is large. Each comes an hour after the one before, when what is
    /// remembered of that one has ended.
    static JUDGE: RefCell<(Judge, Duration)> = RefCell::new((judge(), Duration::ZERO));
}

pub(super) fn packet(input: &[u8]) {
    let Some(([kind, repair, interface, cut], bytes)) = input.split_first_chunk::<4>() else { return };
    let ethertype = match kind % 8 {
        0..=2 => 0x0800,
        3..=5 => 0x86dd,
        6 => 0x8100,
        _ => u16::from(*kind) << 8 | u16::from(*repair),
    };
    let mut bytes = bytes.to_vec();
    bytes.truncate(SNAP_BYTES);
    if repair % 4 != 0 {
        put_checksum_right(&mut bytes);
    }
    let length = bytes.len() + usize::from(*cut) * 8;
    let read = parse(ethertype, &bytes, length);
    // What a part of the packet says is what the whole says; behind a tag there are two ways to read it.
    let tags: [[u8; 2]; 4] = [[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x88, 0xa8]];
    if !bytes.get(2..4).is_some_and(|kind| tags.iter().any(|tag| tag == kind))
        && let Ok(part) = parse(ethertype, &bytes[..bytes.len() * usize::from(*repair) / 256], length)
    {
        assert_eq!(read, Ok(part), "a part says something else than the whole");
    }
    let Ok(packet) = read else { return };
    let identity = packet.identity;
    assert_eq!(identity.source.is_ipv4(), identity.destination.is_ipv4(), "two families in one packet");
    assert_eq!(packet.fingerprint != 0, identity.port.protocol() == Protocol::Tcp, "a fingerprint is of TCP");
    if identity.port.protocol() == Protocol::Icmp {
        assert!(usize::from(identity.port.number()) <= length, "a payload is longer than its packet");
    } else {
        assert_ne!(identity.port.number(), 0);
    }
    JUDGE.with_borrow_mut(|(judge, now)| {
        *now += Duration::from_secs(3_600);
        let interface = u32::from(interface % 4);
        let verdict = judge.judge(&packet, interface, *now, &mut Sockets);
        check(&packet, interface, verdict);
        // What another interface shows of it a moment later is a copy, when it got that far.
        if interface == 1 && matches!(verdict, Verdict::Knock(_) | Verdict::Unsure(_)) {
            let copy = judge.judge(&packet, 2, *now + Duration::from_millis(1), &mut Sockets);
            assert_eq!(copy, Verdict::Not(Reason::Copy));
        }
    });
}

fn check(packet: &Packet, interface: u32, verdict: Verdict) {
    let (Verdict::Knock(source) | Verdict::Unsure(source)) = verdict else { return };
    let view = view();
    let Packet { identity, .. } = packet;
    assert_eq!(source.address(), identity.source.to_canonical());
    assert!(!source.address().is_multicast() && !source.address().is_unspecified());
    assert!(view.owns(identity.destination), "a knock at another host");
    assert!(!view.owns(source.address()), "a knock of this host");
    assert!(matches!(interface, 1 | 2), "a knock over an interface that does not count");
    assert!(!space().guarded.contains(&identity.port), "a knock at a guarded port");
    let ranges = space().ranges;
    assert!(ranges.iter().any(|range| range.contains(identity.port)), "a knock outside the knock space");
}

fn judge() -> Judge {
    Judge::new(BTreeSet::new(), &space(), Arc::new(view()), RandomState::new())
}

fn space() -> KnockSpace {
    let ranges = [(Protocol::Tcp, 1, 40_000), (Protocol::Udp, 1, 65_535), (Protocol::Icmp, 0, 1_000)];
    KnockSpace {
        ranges: ranges
            .into_iter()
            .flat_map(|(protocol, first, last)| PortRange::new(protocol, first, last))
            .collect(),
        guarded: Port::new(Protocol::Tcp, GUARDED).into_iter().collect(),
        icmp: true,
    }
}

fn view() -> LocalView {
    let interface = |name: &str, loopback| Interface { name: name.to_owned(), loopback, enslaved: false };
    LocalView {
        interfaces: BTreeMap::from([
            (0, interface("lo", true)),
            (1, interface("eth0", false)),
            (2, interface("eth1", false)),
        ]),
        addresses: [[192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()].into(),
        ..LocalView::default()
    }
}

/// As RFC 1071 computes it, over as many words as the header says.
fn put_checksum_right(bytes: &mut [u8]) {
    let Some(first) = bytes.first() else { return };
    let header = usize::from(first & 0xf) * 4;
    let Some(header) = bytes.get_mut(..header).filter(|header| header.len() >= 20) else { return };
    header[10..12].fill(0);
    let checksum = crate::corpus::packets::checksum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}
