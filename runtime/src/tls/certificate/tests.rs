//! Certificates come from strangers.

use super::*;
use crate::tls::tests::lab::Lab;

#[test]
fn no_bytes_of_a_stranger_bring_the_reader_down() {
    let lab = Lab::new();
    let own = lab.leaf_at(
        "a",
        "x://blue/host/a",
        |order| {
            order.dns_names = vec!["a.example".to_owned()];
            order.addresses = vec!["2001:db8::1".parse().unwrap()];
        },
        lab.now,
    );
    let der = ders(&std::fs::read(own.certificate).unwrap()).unwrap().remove(0).to_vec();
    let good = Certificate::from_der(&der).unwrap();
    assert_eq!(good.uris, ["x://blue/host/a"]);
    let mut read = 0;
    for at in 0..der.len() {
        assert!(Certificate::from_der(&der[..at]).is_err(), "cut at {at}");
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = der.clone();
            bytes[at] ^= flip;
            read += usize::from(Certificate::from_der(&bytes).is_ok());
        }
    }
    // The signature and the key alone are a third of it, and are only bytes to a reader.
    assert!(read > der.len(), "{read}");
    assert!(Certificate::from_der(&[&der[..], b"x"].concat()).is_err());
    assert!(Certificate::from_der(&[]).is_err());
    assert!(Certificate::from_pem(b"").is_err());
}

#[test]
fn times_are_written_to_the_second() {
    assert_eq!(time_text(SystemTime::UNIX_EPOCH), "1970-01-01 00:00:00 UTC");
    let late = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_380_869_900);
    assert_eq!(time_text(late), "2026-11-22 20:54:29 UTC");
}
