//! Tests of the room above: `judge`.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::capture::{
    limit::KNOCKS_MAX,
    packet::Identity,
    view::{Interface, LocalSocket},
};

#[test]
fn a_knock_is_one_and_every_reason_has_its_case() {
    let mut judge = judge(&[]);
    for (what, packet, interface, answer, verdict) in [
        ("a knock", packet("192.0.2.9", "192.0.2.1", "tcp/7412"), ETH, Use::Free, None),
        ("over IPv6", packet("2001:db8::9", "2001:db8::1", "udp/7412"), ETH, Use::Free, None),
        ("a bridge", packet("192.0.2.9", "192.0.2.1", "tcp/7413"), BRIDGE, Use::Free, None),
        ("enslaved", packet("192.0.2.9", "192.0.2.1", "tcp/7412"), PORT, Use::Free, Some(Reason::Interface)),
        ("loopback", packet("127.0.0.1", "127.0.0.1", "tcp/7412"), LO, Use::Free, Some(Reason::Interface)),
        ("unknown", packet("192.0.2.9", "192.0.2.1", "tcp/7412"), 99, Use::Free, Some(Reason::Interface)),
        (
            "forwarded",
            packet("192.0.2.9", "192.0.2.7", "tcp/7412"),
            ETH,
            Use::Free,
            Some(Reason::Destination),
        ),
        ("own source", packet("192.0.2.1", "192.0.2.1", "tcp/7412"), ETH, Use::Free, Some(Reason::Source)),
        (
            "loopback source",
            packet("127.0.0.9", "192.0.2.1", "tcp/7412"),
            ETH,
            Use::Free,
            Some(Reason::Source),
        ),
        (
            "multicast source",
            packet("224.0.0.1", "192.0.2.1", "tcp/7412"),
            ETH,
            Use::Free,
            Some(Reason::Source),
        ),
        ("no source", packet("0.0.0.0", "192.0.2.1", "tcp/7412"), ETH, Use::Free, Some(Reason::Source)),
        ("guarded", packet("192.0.2.9", "192.0.2.1", "tcp/22"), ETH, Use::Free, Some(Reason::Guarded)),
        ("not guarded for UDP", packet("192.0.2.9", "192.0.2.1", "udp/22"), ETH, Use::Free, None),
        ("outside", packet("192.0.2.9", "192.0.2.1", "icmp/5"), ETH, Use::Free, Some(Reason::Outside)),
        ("a service", packet("192.0.2.9", "192.0.2.1", "tcp/443"), ETH, Use::Used, Some(Reason::Service)),
        ("by the list", packet("192.0.2.9", "192.0.2.1", "tcp/80"), ETH, Use::Unknown, Some(Reason::Service)),
        ("not in the list", packet("192.0.2.9", "192.0.2.1", "tcp/82"), ETH, Use::Unknown, None),
        (
            "overloaded",
            packet("192.0.2.9", "192.0.2.1", "udp/40000"),
            ETH,
            Use::Unknown,
            Some(Reason::Unverified),
        ),
    ] {
        let given = judge.judge(&packet, interface, Duration::ZERO, &mut Fixed(answer));
        match verdict {
            Some(reason) => assert_eq!(given, Verdict::Not(reason), "{what}"),
            None => assert_eq!(given, Verdict::Knock(Source::new(packet.identity.source).unwrap()), "{what}"),
        }
    }
}

#[test]
fn a_datagram_to_a_clients_port_is_unsure_and_a_syn_is_not() {
    let mut judge = judge(&[]);
    let mut ask = |port| {
        let packet = packet("192.0.2.9", "192.0.2.1", port);
        judge.judge(&packet, ETH, Duration::ZERO, &mut Fixed(Use::Free))
    };
    assert!(matches!(ask("udp/32768"), Verdict::Unsure(_)));
    assert!(matches!(ask("udp/32767"), Verdict::Knock(_)));
    assert!(matches!(ask("tcp/40000"), Verdict::Knock(_)));
}

#[test]
fn a_copy_is_counted_once_and_a_retransmission_twice() {
    let mut judge = judge(&[]);
    let packet = packet("192.0.2.9", "192.0.2.1", "tcp/7412");
    let mut ask = |interface| judge.judge(&packet, interface, Duration::ZERO, &mut Fixed(Use::Free));
    assert!(matches!(ask(ETH), Verdict::Knock(_)));
    assert_eq!(ask(BRIDGE), Verdict::Not(Reason::Copy));
    assert!(matches!(ask(ETH), Verdict::Knock(_)));
}

#[test]
fn named_interfaces_count_alone_even_loopback_and_appear_later() {
    let mut judge = judge(&["lo", "late0"]);
    assert!(judge.counts_loopback());
    let ask = |judge: &mut Judge, source, interface| {
        let packet = packet(source, "127.0.0.1", "tcp/7412");
        judge.judge(&packet, interface, Duration::ZERO, &mut Fixed(Use::Free))
    };
    assert!(matches!(ask(&mut judge, "127.0.0.1", LO), Verdict::Knock(_)));
    assert_eq!(ask(&mut judge, "192.0.2.9", ETH), Verdict::Not(Reason::Interface));
    assert_eq!(ask(&mut judge, "192.0.2.9", 50), Verdict::Not(Reason::Interface));
    let mut later = view();
    later.interfaces.insert(50, Interface { name: "late0".into(), loopback: false, enslaved: false });
    judge.set_view(Arc::new(later));
    assert!(matches!(ask(&mut judge, "192.0.2.9", 50), Verdict::Knock(_)));
}

#[test]
fn one_noisy_source_is_limited() {
    let mut judge = judge(&[]);
    let mut ask = |mark| {
        let mut packet = packet("192.0.2.9", "192.0.2.1", "tcp/7412");
        packet.identity.marks = [mark, 0];
        judge.judge(&packet, ETH, Duration::ZERO, &mut Fixed(Use::Free))
    };
    assert!((0..KNOCKS_MAX).all(|mark| matches!(ask(mark), Verdict::Knock(_))));
    assert_eq!(ask(KNOCKS_MAX), Verdict::Not(Reason::SourceLimit));
}

#[test]
fn answers_to_clients_do_not_count_against_their_source() {
    let mut judge = judge(&[]);
    let answer = packet("192.0.2.9", "192.0.2.1", "udp/40000");
    for _ in 0..1_000 {
        let verdict = judge.judge(&answer, ETH, Duration::ZERO, &mut Fixed(Use::Free));
        assert!(matches!(verdict, Verdict::Unsure(_)));
    }
    let source = Source::new(answer.identity.source).unwrap();
    assert_eq!((0..1_000).filter(|_| judge.admits(source, Duration::ZERO)).count(), KNOCKS_MAX as usize);
}

#[test]
fn icmp_counts_by_length_when_it_is_part_of_the_space() {
    let space =
        KnockSpace { ranges: vec!["icmp/700-800".parse().unwrap()], guarded: BTreeSet::new(), icmp: true };
    let mut judge = Judge::new(BTreeSet::new(), &space, Arc::new(view()), RandomState::new());
    let mut ask = |port| {
        judge.judge(&packet("192.0.2.9", "192.0.2.1", port), ETH, Duration::ZERO, &mut Fixed(Use::Used))
    };
    assert!(matches!(ask("icmp/731"), Verdict::Knock(_)));
    assert_eq!(ask("icmp/56"), Verdict::Not(Reason::Outside));
    judge.set_space(&KnockSpace { ranges: Vec::new(), ..space });
    let packet = packet("192.0.2.9", "192.0.2.1", "icmp/0");
    assert!(matches!(judge.judge(&packet, ETH, Duration::ZERO, &mut Fixed(Use::Free)), Verdict::Knock(_)));
}

#[test]
fn reasons_are_numbered_as_they_are_listed() {
    for (number, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, number);
    }
}

proptest! {
    /// Whatever comes: a knock is for an own address, from a foreign one, on a port that is neither guarded nor used.
    #[test]
    fn what_is_called_a_knock_is_one(
        packets in prop::collection::vec((0_u8..4, 0_u8..4, 1_u16..100, 0_u32..7, 0_u8..3, any::<bool>()), 1..200),
    ) {
        let mut judge = judge(&[]);
        for (i, (source, destination, port, interface, answer, tcp)) in packets.into_iter().enumerate() {
            let answer = [Use::Used, Use::Free, Use::Unknown][usize::from(answer)];
            let port = format!("{}/{port}", if tcp { "tcp" } else { "udp" });
            let packet = packet(&format!("192.0.2.{source}"), &format!("192.0.2.{destination}"), &port);
            let now = Duration::from_millis(i as u64);
            if let Verdict::Knock(source) | Verdict::Unsure(source) =
                judge.judge(&packet, interface, now, &mut Fixed(answer))
            {
                prop_assert!(destination == 1 && source.address() != IpAddr::from([192, 0, 2, 1]));
                prop_assert!([ETH, BRIDGE].contains(&interface) && answer != Use::Used && port != "tcp/22");
                prop_assert!(answer == Use::Free || port != "tcp/80");
            }
        }
    }
}

const LO: u32 = 1;
const ETH: u32 = 2;
const BRIDGE: u32 = 3;
const PORT: u32 = 4;

struct Fixed(Use);

impl SocketLookup for Fixed {
    fn ask(&mut self, _: &Packet, _: u32, _: Duration) -> Use {
        self.0
    }
}

fn view() -> LocalView {
    let interface = |name: &str, loopback, enslaved| Interface { name: name.into(), loopback, enslaved };
    let mut view = LocalView {
        interfaces: [
            (LO, interface("lo", true, false)),
            (ETH, interface("eth0", false, false)),
            (BRIDGE, interface("br0", false, false)),
            (PORT, interface("eth1", false, true)),
        ]
        .into(),
        addresses: ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).into(),
        ..LocalView::default()
    };
    let address = "0.0.0.0".parse().unwrap();
    view.services.add(LocalSocket { protocol: Protocol::Tcp, address, port: 80, only_v6: false });
    view
}

fn judge(interfaces: &[&str]) -> Judge {
    let space = KnockSpace { guarded: ["tcp/22".parse().unwrap()].into(), ..KnockSpace::default() };
    let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
    Judge::new(interfaces, &space, Arc::new(view()), RandomState::new())
}

fn packet(source: &str, destination: &str, port: &str) -> Packet {
    let identity = Identity {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        port: port.parse().unwrap(),
        peer: 1,
        marks: [0, 0],
    };
    Packet { identity, fingerprint: 0 }
}
