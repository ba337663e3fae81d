//! Tests of the room above: `view`.

use super::*;

#[test]
fn a_service_uses_its_port_only_where_it_is_bound() {
    let mut services = Services::default();
    for (address, port, only_v6) in [
        ("127.0.0.1", 1, false),
        ("0.0.0.0", 2, false),
        ("::", 3, false),
        ("::", 4, true),
        ("::ffff:192.0.2.1", 5, false),
    ] {
        services.add(LocalSocket {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            port,
            only_v6,
        });
    }
    let used = |address: &str| {
        let address = address.parse().unwrap();
        (1..=5).filter(|port| services.uses(Protocol::Tcp, address, *port)).collect::<Vec<_>>()
    };
    assert_eq!(used("127.0.0.1"), [1, 2, 3]);
    assert_eq!(used("192.0.2.1"), [2, 3, 5]);
    assert_eq!(used("2001:db8::1"), [3, 4]);
    assert!(!services.uses(Protocol::Udp, "192.0.2.1".parse().unwrap(), 2));
}

#[test]
fn sockets_on_one_address_are_bounded() {
    let mut services = Services::default();
    for i in 0..100_000_u32 {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + i).into();
        services.add(LocalSocket { protocol: Protocol::Udp, address, port: 9, only_v6: false });
    }
    assert_eq!(services.specific.len(), SPECIFIC_MAX);
}

#[test]
fn a_host_owns_its_addresses_and_all_loopback_ones() {
    let view = LocalView { addresses: ["192.0.2.1".parse().unwrap()].into(), ..LocalView::default() };
    for (address, own) in [("192.0.2.1", true), ("192.0.2.2", false), ("127.3.2.1", true), ("::1", true)] {
        assert_eq!(view.owns(address.parse().unwrap()), own, "{address}");
    }
}

#[test]
fn ports_in_use_are_those_of_the_knock_space_where_a_service_waits() {
    let mut view = LocalView { addresses: ["192.0.2.1".parse().unwrap()].into(), ..LocalView::default() };
    for (protocol, address, port) in [
        (Protocol::Tcp, "127.0.0.1", 81),
        (Protocol::Tcp, "0.0.0.0", 80),
        (Protocol::Tcp, "192.0.2.1", 79),
        (Protocol::Tcp, "0.0.0.0", 22),
        (Protocol::Tcp, "0.0.0.0", 40_000),
        (Protocol::Udp, "::", 53),
        (Protocol::Udp, "0.0.0.0", 40_000),
        (Protocol::Udp, "0.0.0.0", 50),
    ] {
        view.services.add(LocalSocket { protocol, address: address.parse().unwrap(), port, only_v6: false });
    }
    let guarded = ["tcp/22".parse().unwrap()].into();
    let space = KnockSpace { guarded, ..KnockSpace::default() };
    let texts = |limit| in_use(&view, &space, limit).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(10), ["tcp/79-80", "tcp/40000", "udp/50", "udp/53"]);
    assert_eq!(texts(1), ["tcp/79-80"]);
}
