//! Set elements are read back as written.

use super::*;

#[test]
fn keys_are_read_as_they_are_written() {
    for (source, port) in [("192.0.2.1", "tcp/22"), ("2001:db8::1", "udp/65535")] {
        let element = Element { source: source.parse().unwrap(), port: port.parse().unwrap() };
        assert_eq!(read_opening(&opening_key(element).unwrap()), Some(element));
        assert_eq!(read_source(&source_key(element.source)), Some(element.source));
    }
}

#[test]
fn keys_that_we_never_write_are_not_read() {
    let mapped = "::ffff:192.0.2.1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    assert_eq!(read_source(&mapped), None);
    for key in [
        &[][..],
        &[1, 2, 3],
        &[0; 12],
        &[192, 0, 2, 1, 1, 0, 0, 0, 0, 22, 0, 0],
        &[192, 0, 2, 1, 6, 1, 0, 0, 0, 22, 0, 0],
    ] {
        assert_eq!(read_opening(key), None, "{key:?}");
    }
}

#[test]
fn touching_networks_become_one_interval() {
    let networks: Vec<IpNet> = ["10.0.0.0/8", "11.0.0.0/16", "10.1.0.0/16", "192.0.2.0/24"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    let (four, six) = intervals(networks.iter());
    let written: Vec<(Vec<u8>, bool)> = four.into_iter().map(|entry| (entry.key, entry.end)).collect();
    assert_eq!(
        written,
        [
            (vec![10, 0, 0, 0], false),
            (vec![11, 1, 0, 0], true),
            (vec![192, 0, 2, 0], false),
            (vec![192, 0, 3, 0], true)
        ]
    );
    assert!(six.is_empty());
}

#[test]
fn everything_has_no_end() {
    let networks: Vec<IpNet> = ["0.0.0.0/0", "::/0"].iter().map(|text| text.parse().unwrap()).collect();
    let (four, six) = intervals(networks.iter());
    assert_eq!((four.len(), six.len()), (1, 1));
}
