//! The capture path against the real kernel. Each test makes a network namespace of its own with a veth pair: `host0`
//! is this host's interface, and on `wire0` the test puts frames on the wire. Needs root, and fails without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helpers fail as its test does"
)]

#[path = "../src/capture/packet/craft.rs"]
#[allow(dead_code, reason = "shared with the unit tests, which use all of it")]
mod craft;
#[path = "capture_kernel/lab.rs"]
mod lab;

use std::{
    collections::BTreeSet,
    net::{IpAddr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use craft::{ICMP, ICMPV6, IPV4, IPV6, SYN, TCP, UDP};
use fleetknock_agent::capture::{CaptureError, KnockSpace, Settings, judge::Reason, start};
use lab::{HOST4, HOST6, Lab, PEER4, PEER6, in_namespace, ip};

#[test]
fn a_knock_is_seen_in_every_wrapping() {
    in_namespace(|| {
        let mut lab = Lab::start(Settings {
            space: KnockSpace { icmp: true, ..KnockSpace::default() },
            ..Settings::default()
        });
        let syn = |port| craft::tcp(999, port, SYN, port.into());
        let plain = |port| craft::ipv4(PEER4, HOST4, TCP, &[], &syn(port));
        lab.send(IPV4, &plain(101));
        lab.send(IPV4, &craft::ipv4(PEER4, HOST4, TCP, &[1; 40], &syn(102)));
        lab.send(IPV4, &craft::ipv4(PEER4, HOST4, UDP, &[], &craft::udp(9, 103, b"x")));
        lab.send(IPV4, &craft::ipv4(PEER4, HOST4, ICMP, &[], &craft::echo(ICMP, 1, 731)));
        lab.send(IPV6, &craft::ipv6(PEER6, HOST6, TCP, &[], &syn(105)));
        lab.send(IPV6, &craft::ipv6(PEER6, HOST6, TCP, &craft::every_extension(), &syn(106)));
        lab.send(IPV6, &craft::ipv6(PEER6, HOST6, ICMPV6, &[], &craft::echo(ICMPV6, 1, 5)));
        lab.send(0x8100, &craft::tagged(5, IPV4, &plain(108)));
        lab.send(0x88a8, &craft::tagged(100, 0x8100, &craft::tagged(5, IPV4, &plain(109))));
        let inner = craft::tagged(5, IPV6, &craft::ipv6(PEER6, HOST6, UDP, &[], &craft::udp(9, 110, b"")));
        lab.send(0x88a8, &craft::tagged(100, 0x8100, &craft::tagged(6, 0x8100, &inner)));
        // A ECN-setup SYN (RFC 3168 section 6.1.1) is a SYN.
        lab.send(IPV4, &craft::ipv4(PEER4, HOST4, TCP, &[], &craft::tcp(999, 111, SYN | 0xc0, 1)));
        lab.expect(&[
            "tcp/101", "tcp/102", "udp/103", "icmp/731", "tcp/105", "tcp/106", "icmp/5", "tcp/108",
            "tcp/109", "udp/110", "tcp/111",
        ]);
        assert_eq!(lab.counters.packets.value(), 11);
    });
}

#[test]
fn a_sighting_says_who_where_and_when() {
    in_namespace(|| {
        let mut lab = Lab::start(Settings::default());
        let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        for (sequence, port) in [(7, 200), (7, 200), (8, 200)] {
            lab.send(IPV4, &craft::ipv4(PEER4, HOST4, TCP, &[], &craft::tcp(999, port, SYN, sequence)));
        }
        let seen = lab.take(3);
        assert!(seen.iter().all(|s| s.source.address() == IpAddr::from(PEER4)));
        assert!(seen.iter().all(|s| s.destination == IpAddr::from(HOST4)));
        assert!(seen[0].fingerprint != 0 && seen[0].fingerprint == seen[1].fingerprint);
        assert_ne!(seen[0].fingerprint, seen[2].fingerprint);
        assert!(seen.windows(2).all(|pair| pair[0].time <= pair[1].time));
        let age = i128::from(seen[0].time.as_micros()) - i128::try_from(before).unwrap();
        assert!((-1_000..1_000_000).contains(&age), "{age} us");
    });
}

#[test]
fn what_is_no_knock_is_not_even_seen() {
    in_namespace(|| {
        let mut lab = Lab::start(Settings::default());
        // SYN with ACK, ACK, RST, FIN, SYN with FIN, SYN with RST, nothing, everything.
        for flags in [0x12, 0x10, 0x04, 0x01, 0x03, 0x06, 0x00, 0x3f] {
            lab.send(IPV4, &craft::ipv4(PEER4, HOST4, TCP, &[], &craft::tcp(999, 100, flags, 1)));
            lab.send(IPV6, &craft::ipv6(PEER6, HOST6, TCP, &[], &craft::tcp(999, 100, flags, 1)));
        }
        lab.send(IPV4, &craft::ipv4(PEER4, HOST4, ICMP, &[], &craft::echo(ICMP, 1, 5)));
        lab.send(IPV4, &craft::ipv4(PEER4, [10, 0, 0, 77].into(), TCP, &[], &craft::tcp(999, 100, SYN, 1)));
        let mut fragment = craft::ipv4(PEER4, HOST4, UDP, &[], &craft::udp(9, 100, b"x"));
        fragment[7] = 1;
        craft::seal(&mut fragment);
        lab.send(IPV4, &fragment);
        lab.send_to([0xff; 6], IPV4, &craft::ipv4(PEER4, HOST4, TCP, &[], &craft::tcp(999, 100, SYN, 1)));
        lab.knock(101);
        lab.expect(&["tcp/101"]);
        assert_eq!(lab.counters.packets.value(), 1);
    });
}

#[test]
fn a_packet_with_a_broken_checksum_is_ignored() {
    in_namespace(|| {
        let mut lab = Lab::start(Settings::default());
        let mut bytes = craft::ipv4(PEER4, HOST4, TCP, &[], &craft::tcp(999, 100, SYN, 1));
        bytes[10] ^= 1;
        lab.send(IPV4, &bytes);
        lab.knock(101);
        lab.expect(&["tcp/101"]);
        assert_eq!(lab.counters.malformed.value(), 1);
    });
}

#[test]
fn an_interface_and_its_address_count_as_soon_as_they_exist() {
    in_namespace(|| {
        let lab = Lab::start(Settings::default());
        let (mut late, stop) = lab.drop_wire();
        ip("link add late0 type veth peer name late1");
        ip("link set late1 up");
        ip("link set late0 up");
        ip("addr add 10.9.0.1/24 dev late0");
        let (began, mut wire) = (Instant::now(), lab::Wire::open("late1", "late0"));
        let mut port = 100;
        let elapsed = loop {
            wire.send(
                IPV4,
                &craft::ipv4(PEER4, [10, 9, 0, 1].into(), TCP, &[], &craft::tcp(9, port, SYN, 1)),
            );
            std::thread::sleep(Duration::from_millis(1));
            if late.try_recv().is_ok() {
                break began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(5), "a new interface never counted");
            port += 1;
        };
        println!("a new address counted after {elapsed:?}");
        assert!(elapsed < Duration::from_millis(500));
        stop.stop().unwrap();
    });
}

#[test]
fn only_named_interfaces_count_when_any_are_named() {
    in_namespace(|| {
        let interfaces = BTreeSet::from(["late0".to_owned()]);
        let mut lab = Lab::start(Settings { interfaces, ..Settings::default() });
        lab.knock(100);
        lab.settle(1);
        assert_eq!(lab.counters.not_knocks(Reason::Interface).value(), 1);
        ip("link set host0 down");
        ip("link set host0 name late0");
        ip("link set late0 up");
        lab::wait_up("late0");
        lab::wait_up("wire0");
        lab.knock(101);
        lab.expect(&["tcp/101"]);
    });
}

#[test]
fn loopback_counts_only_when_it_is_named() {
    in_namespace(|| {
        for named in [false, true] {
            let interfaces = if named { BTreeSet::from(["lo".to_owned()]) } else { BTreeSet::new() };
            let mut lab = Lab::start(Settings { interfaces, ..Settings::default() });
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"x", "127.0.0.1:100").unwrap();
            if named {
                lab.expect(&["udp/100"]);
            } else {
                lab.settle(0);
                assert_eq!(lab.counters.captured.value(), 0);
            }
        }
    });
}

#[test]
fn a_knock_through_a_bridge_or_a_macvlan_counts_once() {
    in_namespace(|| {
        ip("addr flush dev host0");
        ip("link add br0 type bridge");
        ip("link set host0 master br0");
        ip("link set br0 up");
        ip("addr add 10.0.0.1/24 dev br0");
        let mut lab = Lab::start(Settings::default());
        lab::wait_up("br0");
        lab.knock(100);
        lab.expect(&["tcp/100"]);
        assert_eq!(lab.counters.not_knocks(Reason::Interface).value(), 1, "seen on its port as well");
    });
    in_namespace(|| {
        ip("link add link host0 name mac0 type macvlan mode bridge");
        ip("link set mac0 up");
        lab::wait_up("mac0");
        ip("addr add 10.6.0.1/24 dev mac0");
        let mut lab = Lab::start(Settings::default());
        let packet = craft::ipv4(PEER4, [10, 6, 0, 1].into(), TCP, &[], &craft::tcp(9, 101, SYN, 1));
        lab.send_to(lab::mac("mac0"), IPV4, &packet);
        lab.expect(&["tcp/101"]);
    });
    // Whoever names both a bridge and its port gets each knock once, too.
    in_namespace(|| {
        ip("link add br0 type bridge");
        ip("link set host0 master br0");
        ip("link set br0 up");
        let interfaces = BTreeSet::from(["br0".to_owned(), "host0".to_owned()]);
        let mut lab = Lab::start(Settings { interfaces, ..Settings::default() });
        lab::wait_up("br0");
        lab.knock(100);
        lab.expect(&["tcp/100"]);
        assert_eq!(lab.counters.not_knocks(Reason::Copy).value(), 1);
    });
}

#[test]
fn what_this_host_sends_is_no_knock() {
    in_namespace(|| {
        ip(&format!("neigh add {PEER4} lladdr 02:00:00:00:00:99 dev host0"));
        let mut lab = Lab::start(Settings::default());
        let client = UdpSocket::bind((HOST4, 0)).unwrap();
        for port in 100..200 {
            client.send_to(b"x", (PEER4, port)).unwrap();
        }
        lab.knock(101);
        lab.expect(&["tcp/101"]);
        assert_eq!(lab.counters.packets.value(), 1);
    });
}

#[test]
fn a_services_port_is_no_knock_until_the_service_stops() {
    in_namespace(|| {
        let early = TcpListener::bind(("0.0.0.0", 100)).unwrap();
        let datagrams = UdpSocket::bind(("::", 100)).unwrap();
        let elsewhere = TcpListener::bind(("127.0.0.1", 102)).unwrap();
        let mut lab = Lab::start(Settings::default());
        let late = TcpListener::bind((HOST4, 101)).unwrap();
        lab.knock(100);
        lab.send(IPV4, &craft::ipv4(PEER4, HOST4, UDP, &[], &craft::udp(9, 100, b"x")));
        lab.knock(101);
        lab.knock(102);
        lab.expect(&["tcp/102"]);
        assert_eq!(lab.counters.packets.value(), 2, "ports that were in use at start do not pass the filter");
        assert_eq!(
            lab.counters.not_knocks(Reason::Service).value(),
            1,
            "one in use since is found out at once"
        );

        drop((early, datagrams, late, elsewhere));
        std::thread::sleep(Duration::from_millis(1_500));
        lab.knock(100);
        lab.send(IPV4, &craft::ipv4(PEER4, HOST4, UDP, &[], &craft::udp(9, 100, b"x")));
        lab.knock(101);
        lab.expect(&["tcp/100", "udp/100", "tcp/101"]);
    });
}

#[test]
fn an_answer_to_a_local_client_is_no_knock_even_when_the_client_has_gone() {
    const ROUNDS: u32 = 300;
    in_namespace(|| {
        ip(&format!("neigh add {PEER4} lladdr 02:00:00:00:00:99 dev host0"));
        let mut lab = Lab::start(Settings::default());
        for round in 0..ROUNDS {
            let client = UdpSocket::bind((if round % 2 == 0 { HOST4 } else { [0; 4].into() }, 0)).unwrap();
            let port = client.local_addr().unwrap().port();
            client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            if round % 4 < 2 {
                client.connect((PEER4, 53)).unwrap();
                client.send(b"question").unwrap();
            } else {
                client.send_to(b"question", (PEER4, 53)).unwrap();
            }
            lab.send(IPV4, &craft::ipv4(PEER4, HOST4, UDP, &[], &craft::udp(53, port, b"answer")));
            client.recv(&mut [0; 64]).unwrap();
            drop(client);
        }
        lab.settle(ROUNDS.into());
        // On a busy machine the kernel's word about some can come too late, until the agent waits longer. Without it, all
        // would be taken for knocks.
        let taken = lab.counters.captured.value();
        assert!(taken <= u64::from(ROUNDS / 3), "{:?}", lab.counters);
        assert_eq!(
            lab.counters.not_knocks(Reason::Service).value() + taken,
            u64::from(ROUNDS),
            "{:?}",
            lab.counters
        );
        while lab.receiver.try_recv().is_ok() {}
        // Nobody's port, and what its source sends right after it: both count, in order.
        lab.send(IPV4, &craft::ipv4(PEER4, HOST4, UDP, &[], &craft::udp(9, 32_771, b"x")));
        lab.knock(101);
        lab.expect(&["udp/32771", "tcp/101"]);
    });
}

#[test]
fn a_connected_clients_port_counts_as_used_by_its_peer() {
    in_namespace(|| {
        ip("addr add 10.0.0.9/24 dev host0");
        ip(&format!("neigh add {PEER4} lladdr 02:00:00:00:00:99 dev host0"));
        let client = UdpSocket::bind((HOST4, 20_000)).unwrap();
        client.connect((PEER4, 53)).unwrap();
        let mut lab = Lab::start(Settings::default());
        lab.send(IPV4, &craft::ipv4(PEER4, HOST4, UDP, &[], &craft::udp(53, 20_000, b"answer")));
        lab.send(
            IPV4,
            &craft::ipv4([10, 0, 0, 3].into(), HOST4, UDP, &[], &craft::udp(53, 20_000, b"other")),
        );
        lab.expect(&["udp/20000"]);
        assert_eq!(lab.counters.not_knocks(Reason::Service).value(), 1);
    });
}

#[test]
fn another_space_replaces_the_filter() {
    for old in [false, true] {
        in_namespace(move || {
            let space = |ranges: &[&str], guarded: &[&str]| KnockSpace {
                ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
                guarded: guarded.iter().map(|text| text.parse().unwrap()).collect(),
                icmp: false,
            };
            let mut lab = Lab::start(Settings { space: space(&["tcp/100"], &[]), ..Settings::default() });
            lab.knock(200);
            lab.knock(100);
            lab.expect(&["tcp/100"]);
            lab.handle.set_space(space(&["tcp/100-300"], &["tcp/100"]));
            lab.wait_for_swaps(1);
            lab.knock(100);
            lab.knock(200);
            lab.expect(&["tcp/200"]);
            assert_eq!(lab.counters.packets.value(), 2);

            // The longest program is taken by the kernel too, and lets every port of the space through. With the room that
            // older kernels have, a coarser one is.
            lab::set_option_memory(if old { 20_480 } else { 131_072 });
            let odd: Vec<String> = (1..=65_535).step_by(2).map(|port| format!("tcp/{port}")).collect();
            let even: Vec<String> = (2..=65_535).step_by(2).map(|port| format!("udp/{port}")).collect();
            let all: Vec<&str> = odd.iter().chain(&even).map(String::as_str).collect();
            lab.handle.set_space(space(&all, &[]));
            lab.wait_for_swaps(2);
            lab.knock(201);
            lab.knock(202);
            lab.knock(65_535);
            lab.expect(&["tcp/201", "tcp/65535"]);
            assert_eq!(
                lab.counters.not_knocks(Reason::Outside).value(),
                1,
                "coarser than the space, judged exactly"
            );
        });
    }
}

#[test]
fn a_flood_of_knocks_is_captured_or_counted() {
    const RATE: u32 = 50_000;
    const SENT: u32 = RATE * 2;
    in_namespace(|| {
        let mut lab = Lab::start(Settings::default());
        let mut received = 0_u64;
        let began = Instant::now();
        for i in 0..SENT {
            // Forged sources, some ports.
            let source = std::net::Ipv4Addr::from_bits(0x0b00_0000 + i);
            let port = u16::try_from(1_000 + i % 50).unwrap();
            lab.send(IPV4, &craft::ipv4(source, HOST4, TCP, &[], &craft::tcp(9, port, SYN, i)));
            while i % 256 == 0 && lab.receiver.try_recv().is_ok() {
                received += 1;
            }
            let due = Duration::from_secs_f64(f64::from(i) / f64::from(RATE));
            if let Some(early) = due.checked_sub(began.elapsed()) {
                std::thread::sleep(early);
            }
        }
        let took = began.elapsed();
        std::thread::sleep(Duration::from_millis(300));
        let Lab { handle, mut receiver, counters, .. } = lab;
        handle.stop().unwrap();
        while receiver.try_recv().is_ok() {
            received += 1;
        }
        let (packets, captured) = (counters.packets.value(), counters.captured.value());
        let (kernel, queue) = (counters.kernel_drops.value(), counters.queue_drops.value());
        println!(
            "{SENT} SYN in {took:?}: {captured} captured, {kernel} dropped by the kernel, {queue} by the queue, \
             {} questions about sockets",
            counters.lookups.value()
        );
        assert_eq!(packets + kernel, u64::from(SENT));
        assert_eq!(captured + queue + counters.malformed.value() + counters.not_knocks_total(), packets);
        assert_eq!(received, captured);
        assert!(captured > u64::from(SENT) / 2);
    });
}

#[test]
fn a_single_knock_is_handed_on_at_once_and_unrelated_packets_cost_nothing() {
    in_namespace(|| {
        let mut lab = Lab::start(Settings::default());
        let micros =
            || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        let mut latencies: Vec<u128> = (0..300_u16)
            .map(|i| {
                std::thread::sleep(Duration::from_millis(2));
                lab.send(
                    IPV4,
                    &craft::ipv4(
                        [10, 0, 1, (i % 200) as u8].into(),
                        HOST4,
                        TCP,
                        &[],
                        &craft::tcp(9, 500 + i, SYN, 1),
                    ),
                );
                let seen = lab.next(Duration::from_secs(2)).unwrap();
                micros().saturating_sub(u128::from(seen.time.as_micros()))
            })
            .collect();
        latencies.sort_unstable();
        println!("kernel to sighting: median {} us, 99th percentile {} us", latencies[150], latencies[297]);
        assert!(latencies[150] < 2_000, "far from what was measured: 30 to 60 us");

        let before = lab.thread_nanos();
        let unrelated = craft::ipv4(PEER4, HOST4, TCP, &[], &craft::tcp(9, 100, 0x10, 1));
        let began = Instant::now();
        for _ in 0..200_000 {
            lab.send(IPV4, &unrelated);
        }
        let (took, spent) = (began.elapsed(), lab.thread_nanos() - before);
        println!("200000 unrelated packets in {took:?}: {} ns of the capture thread each", spent / 200_000);
        assert!(spent / 200_000 < 200);

        let before = lab.thread_nanos();
        for i in 0..50_000 {
            let source = std::net::Ipv4Addr::from_bits(0x0b00_0000 + i);
            lab.send(IPV4, &craft::ipv4(source, HOST4, TCP, &[], &craft::tcp(9, 700, SYN, i)));
        }
        lab.settle(50_300);
        println!(
            "a knock takes {} ns of the capture thread in a flood",
            (lab.thread_nanos() - before) / 50_000
        );
    });
}

#[test]
fn without_the_capability_it_says_what_is_missing() {
    in_namespace(|| {
        caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_RAW).unwrap();
        let error = start(Settings::default()).map(drop).unwrap_err();
        assert!(matches!(error, CaptureError::Permission));
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    });
}

#[test]
fn stopping_ends_the_queue_and_dropping_the_receiver_ends_the_capture() {
    in_namespace(|| {
        let (handle, mut receiver) = start(Settings::default()).unwrap();
        handle.stop().unwrap();
        assert!(receiver.blocking_recv().is_none());
        let mut lab = Lab::start(Settings::default());
        lab.receiver.close();
        lab.knock(100);
        lab.settle(1);
        let began = Instant::now();
        lab.handle.stop().unwrap();
        assert!(began.elapsed() < Duration::from_secs(1));
    });
}
