//! Tests of the room above: `filter`.

use std::sync::Arc;

use fleetknock_core::port::{Port, PortRange};
use proptest::prelude::*;

use super::{
    machine::{Metadata, run},
    *,
};
use crate::capture::{
    packet::{
        craft::{self, ICMP, ICMPV6, IPV4, IPV6, SYN, TCP, UDP},
        parse,
        tests::wrappings,
    },
    view::{Interface, LocalSocket},
};

#[test]
fn every_wrapping_of_a_knock_passes_and_other_ports_do_not() {
    let program = spec(&["tcp/7412", "udp/23981"], false).program(RANGES_MAX);
    for (protocol, transport, passes) in [
        (TCP, craft::tcp(1, 7_412, SYN, 1), true),
        (TCP, craft::tcp(1, 7_413, SYN, 1), false),
        (TCP, craft::tcp(7_412, 1, SYN, 1), false),
        (UDP, craft::udp(1, 23_981, b""), true),
        (UDP, craft::udp(1, 7_412, b""), false),
        (47, craft::udp(1, 23_981, b""), false),
    ] {
        for (ethertype, bytes) in wrappings(protocol, protocol, &transport) {
            assert_eq!(pass(&program, ethertype, &bytes), passes, "{protocol} {ethertype:#x} {bytes:?}");
        }
    }
}

#[test]
fn only_packets_for_this_host_pass() {
    let program = spec(&["tcp/7412"], false).program(RANGES_MAX);
    let (ethertype, bytes) = wrappings(TCP, TCP, &craft::tcp(1, 7_412, SYN, 1)).swap_remove(0);
    // PACKET_HOST, BROADCAST, MULTICAST, OTHERHOST, OUTGOING, LOOPBACK
    for packet_type in 0..6 {
        let passed = run(&program, &bytes, Metadata { ethertype, packet_type });
        assert_eq!(passed > 0, packet_type == 0);
    }
    let mut own = spec(&["tcp/7412"], false);
    for (listed, passes) in [("198.51.100.2", true), ("198.51.100.3", false)] {
        own.ipv4.destinations =
            Some(vec![last_word("192.0.2.9".parse().unwrap()), last_word(listed.parse().unwrap())]);
        assert_eq!(pass(&own.program(RANGES_MAX), ethertype, &bytes), passes);
    }
}

#[test]
fn every_flag_but_syn_alone_is_refused() {
    let program = spec(&["tcp/7412"], false).program(RANGES_MAX);
    for flags in 0..=u8::MAX {
        for (ethertype, bytes) in wrappings(TCP, TCP, &craft::tcp(1, 7_412, flags, 1)) {
            assert_eq!(pass(&program, ethertype, &bytes), flags & 0x17 == SYN, "{flags:#x}");
        }
    }
}

#[test]
fn echo_requests_pass_when_asked_for() {
    let (with, without) = (spec(&[], true).program(RANGES_MAX), spec(&[], false).program(RANGES_MAX));
    for kind in [ICMP, ICMPV6] {
        for (ethertype, bytes) in wrappings(ICMP, ICMPV6, &craft::echo(kind, 1, 9)) {
            // The request of one family is something else in the other.
            let v6 = bytes.windows(4).any(|bytes| bytes == [0x20, 0x01, 0x0d, 0xb8]);
            assert_eq!(pass(&with, ethertype, &bytes), v6 == (kind == ICMPV6));
            assert!(!pass(&without, ethertype, &bytes));
        }
    }
    assert!(!pass(&with, IPV4, &wrappings(TCP, TCP, &craft::tcp(1, 2, SYN, 1))[0].1));
}

#[test]
fn fragments_and_wrong_versions_are_refused() {
    let program = spec(&["udp/1-65535"], true).program(RANGES_MAX);
    let all = wrappings(UDP, UDP, &craft::udp(1, 2, b"x"));
    for (fields, passes) in [(0x4000_u16, true), (0x2000, true), (0x2001, false), (0x1fff, false)] {
        let mut bytes = all[0].1.clone();
        bytes[6..8].copy_from_slice(&fields.to_be_bytes());
        assert_eq!(pass(&program, IPV4, &bytes), passes, "{fields:#x}");
    }
    assert!(!pass(&program, IPV6, &all[0].1));
    assert!(!pass(&program, IPV4, &all[3].1));
    assert!(!pass(&program, 0x0806, &all[0].1), "ARP");
}

#[test]
fn the_longest_program_is_short_enough_and_lets_everything_needed_through() {
    let mut spec = FilterSpec { icmp: true, ..FilterSpec::default() };
    // Lists that differ, so that none is shared, of every second, third, fourth and fifth port.
    for (ports, step) in
        [(&mut spec.ipv4.tcp, 2), (&mut spec.ipv4.udp, 3), (&mut spec.ipv6.tcp, 4), (&mut spec.ipv6.udp, 5)]
    {
        (1..=u16::MAX).step_by(step).for_each(|port| ports.insert(port));
    }
    spec.ipv4.destinations = Some((0..64).collect());
    spec.ipv6.destinations = Some((0..64).collect());
    let program = spec.program(RANGES_MAX);
    assert!(program.len() <= INSTRUCTIONS_MAX, "{}", program.len());
    println!("the longest program has {} instructions", program.len());

    spec.ipv4.destinations = None;
    let mut length = usize::MAX;
    for program in spec.programs() {
        assert!(program.len() < length);
        length = program.len();
        for port in (1..=u16::MAX).step_by(14) {
            let (ethertype, bytes) = wrappings(TCP, TCP, &craft::tcp(1, port, SYN, 1)).swap_remove(0);
            assert!(pass(&program, ethertype, &bytes), "{port}");
        }
    }
    assert!(length < 700, "{length}");
}

#[test]
fn ports_in_use_everywhere_are_left_out_and_those_in_use_somewhere_are_not() {
    let mut view = LocalView::default();
    view.interfaces.insert(2, Interface { name: "eth0".into(), loopback: false, enslaved: false });
    view.addresses = ["127.0.0.1", "::1", "192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap()).into();
    for (protocol, address, port, only_v6) in [
        (Protocol::Tcp, "0.0.0.0", 22, false),
        (Protocol::Tcp, "::", 80, false),
        (Protocol::Tcp, "::", 81, true),
        (Protocol::Tcp, "127.0.0.1", 8_080, false),
        (Protocol::Udp, "192.0.2.1", 53, false),
        (Protocol::Udp, "192.0.2.1", 54, false),
        (Protocol::Udp, "192.0.2.2", 54, false),
    ] {
        view.services.add(LocalSocket { protocol, address: address.parse().unwrap(), port, only_v6 });
    }
    let spec = FilterSpec::new(&KnockSpace::default(), &view, false);
    let out = |ports: &PortSet| {
        let numbers = [22, 53, 54, 80, 81, 8_080];
        numbers.into_iter().filter(|number| !ports.contains(*number)).collect::<Vec<u16>>()
    };
    assert_eq!(out(&spec.ipv4.tcp), [22, 80]);
    assert_eq!(out(&spec.ipv6.tcp), [80, 81]);
    assert_eq!(out(&spec.ipv4.udp), [54]);
    assert_eq!(out(&spec.ipv6.udp), [] as [u16; 0]);
    assert_eq!(spec.ipv4.destinations.as_ref().map(Vec::len), Some(3));
    assert_eq!(FilterSpec::new(&KnockSpace::default(), &view, true).ipv4.destinations, None);
}

proptest! {
    /// What the parser takes for a knock in the space passes the filter, and what passes a filter with short lists is one.
    #[test]
    fn filter_and_parser_agree(
        ranges in prop::collection::vec((1_u16.., 0_u16..2_000, any::<bool>()), 0..40),
        guarded in prop::collection::btree_set((1_u16.., any::<bool>()), 0..20),
        probes in prop::collection::vec((1_u16.., any::<bool>(), any::<prop::sample::Index>()), 1..40),
    ) {
        let protocol = |tcp| if tcp { Protocol::Tcp } else { Protocol::Udp };
        let space = KnockSpace {
            ranges: ranges
                .iter()
                .map(|(first, more, tcp)| PortRange::new(protocol(*tcp), *first, first.saturating_add(*more)).unwrap())
                .collect(),
            guarded: guarded.iter().map(|(number, tcp)| Port::new(protocol(*tcp), *number).unwrap()).collect(),
            icmp: false,
        };
        let mut spec = FilterSpec::new(&space, &Arc::new(LocalView::default()), false);
        spec.ipv4.destinations = None;
        spec.ipv6.destinations = None;
        let program = spec.program(RANGES_MAX);
        let edges = ranges.iter().flat_map(|(first, more, tcp)| {
            let last = first.saturating_add(*more);
            [first - 1, *first, last, last.saturating_add(1)].map(|number| (number, *tcp))
        });
        let edges = edges.chain(guarded.iter().copied()).filter(|(number, _)| *number > 0);
        for (number, tcp) in edges.chain(probes.iter().map(|(number, tcp, _)| (*number, *tcp))) {
            let transport = if tcp { craft::tcp(1, number, SYN, 1) } else { craft::udp(1, number, b"") };
            let kind = if tcp { TCP } else { UDP };
            let all = wrappings(kind, kind, &transport);
            let (ethertype, bytes) = probes[usize::from(number) % probes.len()].2.get(&all);
            let port = parse(*ethertype, bytes, bytes.len()).unwrap().identity.port;
            let inside = space.ranges.iter().any(|range| range.contains(port)) && !space.guarded.contains(&port);
            prop_assert_eq!(pass(&program, *ethertype, bytes), inside, "{}", port);
        }
    }

    #[test]
    fn no_bytes_lead_the_program_astray(
        ethertype in prop_oneof![Just(IPV4), Just(IPV6), Just(0x8100), Just(0x88a8)],
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let program = spec(&["tcp/1000-2000", "udp/1-65535"], true).program(RANGES_MAX);
        // What the parser takes is inside; the reverse does not hold, since the filter checks fewer lengths.
        let passed = pass(&program, ethertype, &bytes);
        if let Ok(packet) = parse(ethertype, &bytes, bytes.len()) {
            let port = packet.identity.port;
            prop_assert_eq!(passed, port.protocol() != Protocol::Tcp || (1_000..=2_000).contains(&port.number()));
        }
    }
}

/// As `bpf_check_classic` and `check_load_and_stores` do it: jumps stay inside, the last instruction returns, and on no
/// way is anything recalled that was not stored.
#[test]
fn the_kernels_checks_pass() {
    for ranges in [&["tcp/1-10", "tcp/20", "udp/5-6"][..], &[]] {
        let mut spec = spec(ranges, true);
        for shared in [true, false] {
            if !shared {
                spec.ipv6.udp.insert(9);
            }
            let program = spec.program(RANGES_MAX);
            assert_eq!(program.last().unwrap().code, assembler::code::RETURN);
            let (mut stored, mut stored_at) = (false, vec![true; program.len()]);
            for (at, i) in program.iter().enumerate() {
                stored &= stored_at[at];
                let mut jump = |distances: &[usize]| {
                    for distance in distances {
                        stored_at[at + 1 + distance] &= stored;
                    }
                    stored = true;
                };
                match i.code {
                    assembler::code::STORE => stored = true,
                    assembler::code::LOAD_MEMORY => assert!(stored, "instruction {at}"),
                    assembler::code::JUMP => jump(&[usize::try_from(i.operand).unwrap()]),
                    assembler::code::IF_EQUAL | assembler::code::IF_AT_LEAST | assembler::code::IF_ANY => {
                        jump(&[i.when_true.into(), i.when_false.into()]);
                    }
                    _ => {}
                }
            }
        }
    }
}

fn spec(ranges: &[&str], icmp: bool) -> FilterSpec {
    let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
    let mut spec =
        FilterSpec::new(&KnockSpace { ranges, icmp, ..KnockSpace::default() }, &LocalView::default(), false);
    spec.ipv4.destinations = None;
    spec.ipv6.destinations = None;
    spec
}

fn pass(program: &[Instruction], ethertype: u16, bytes: &[u8]) -> bool {
    run(program, bytes, Metadata { ethertype, packet_type: 0 }) > 0
}
