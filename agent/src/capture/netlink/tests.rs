//! Tests of the room above: `netlink`.

use proptest::prelude::*;

use super::*;

#[test]
fn a_socket_is_read() {
    let mut body = vec![0; 72];
    body[0] = 10;
    body[4..8].copy_from_slice(&[0, 53, 0x10, 0]);
    body[23] = 1;
    body[24..40].copy_from_slice(&"2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
    body.extend(attribute(11, &[1]));
    let expected = DiagSocket {
        local: ("::1".parse().unwrap(), 53),
        remote: ("2001:db8::9".parse().unwrap(), 4_096),
        only_v6: true,
    };
    assert_eq!(DiagSocket::parse(&body), Some(expected));
    assert_eq!(DiagSocket::parse(&body[..71]), None);
    body[0] = 99;
    assert_eq!(DiagSocket::parse(&body), None);
}

#[test]
fn a_member_of_a_bridge_is_enslaved_and_one_of_a_vrf_is_not() {
    for (kind, master, enslaved) in
        [("bridge", 7_u32, true), ("vrf", 7, false), ("bond", 7, true), ("", 0, false)]
    {
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&3_u32.to_ne_bytes());
        body.extend(attribute(3, b"eth0\0"));
        body.extend(attribute(10, &master.to_ne_bytes()));
        body.extend(attribute(18, &attribute(4, format!("{kind}\0").as_bytes())));
        let expected = Link { index: 3, name: "eth0".into(), loopback: false, enslaved };
        assert_eq!(Link::parse(&body), Some(expected), "{kind}");
    }
}

#[test]
fn the_local_end_of_a_link_is_our_address() {
    let mut body = vec![2, 32, 0, 0, 0, 0, 0, 0];
    body.extend(attribute(1, &[192, 0, 2, 2]));
    assert_eq!(parse_address(&body), Some("192.0.2.2".parse().unwrap()));
    body.extend(attribute(2, &[192, 0, 2, 1]));
    assert_eq!(parse_address(&body), Some("192.0.2.1".parse().unwrap()));
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic_or_run_forever(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(messages(&bytes).count() <= bytes.len() / 16);
        prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
        let _ = (DiagSocket::parse(&bytes), Link::parse(&bytes), parse_address(&bytes));
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
