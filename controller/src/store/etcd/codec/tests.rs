//! There and back, and what is not ours.

use super::*;

#[test]
fn keys_and_values_come_back_as_they_were() {
    let codec = Codec::new("/fleetknock/", "a");
    assert_eq!(codec.encode_key("doors/x"), b"/fleetknock/a/doors/x");
    assert_eq!(codec.decode_key(b"/fleetknock/a/doors/x").unwrap(), "doors/x");
    let tag = Tags::new().next();
    for value in [b"".as_slice(), b"\0\xff"] {
        let stored = codec.encode_value(tag, value);
        assert_eq!(codec.decode_value("doors/x", &stored).unwrap(), value);
        assert!(codec.is_tagged(&stored, tag));
    }
}

#[test]
fn no_two_commits_share_a_tag() {
    let (one, other) = (Tags::new(), Tags::new());
    let tags = [one.next(), one.next(), other.next()];
    assert!(tags[0] != tags[1] && tags[0] != tags[2] && tags[1] != tags[2]);
    let codec = Codec::new("/fleetknock/", "a");
    assert!(!codec.is_tagged(&codec.encode_value(tags[0], b"same"), tags[1]));
}

#[test]
fn what_somebody_else_wrote_is_named() {
    let codec = Codec::new("/fleetknock/", "a");
    for stored in [b"".as_slice(), b"by hand, and longer than the header", &[1; 16]] {
        let error = codec.decode_value("doors/x", stored).unwrap_err();
        assert!(
            matches!(&error, StoreError::Broken(why) if why.contains("/fleetknock/a/doors/x")),
            "{error}"
        );
    }
    assert!(matches!(codec.decode_key(b"/fleetknock/b/doors/x"), Err(StoreError::Broken(_))));
    assert!(matches!(codec.decode_key(b"/fleetknock/a/\xff"), Err(StoreError::Broken(_))));
}

#[test]
fn a_range_ends_where_the_prefix_does() {
    let (from, end) = Codec::new("/fleetknock/", "a").range("doors/");
    assert_eq!(
        (from.as_slice(), end.as_slice()),
        (b"/fleetknock/a/doors/".as_slice(), b"/fleetknock/a/doors0".as_slice())
    );
}
