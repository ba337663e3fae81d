//! Keys and records are read back as written, and hostile contents are refused without being quoted.

use super::*;

#[test]
fn keys_are_read_as_they_are_written() {
    for key in
        ["doors/bastion-ssh", "hosts/db-1.example", "openings/bastion-ssh/2001:db8::5", "bans/203.0.113.5"]
    {
        assert_eq!(key.parse::<Key>().unwrap().to_string(), key);
    }
    for key in ["", "doors/", "doors/Bastion", "openings/x", "openings/x/y", "bans/0.0.0.0", "other/x"] {
        assert!(key.parse::<Key>().is_err(), "{key}");
    }
}

#[test]
fn a_record_is_read_back_as_written() {
    let ban = ban();
    let key = Key::Ban(ban.source);
    assert_eq!(decode::<BanRecord>(&key, &encode(&ban).unwrap()).unwrap(), ban);
}

#[test]
fn foreign_contents_are_refused_and_never_quoted() {
    let key = Key::Ban(ban().source);
    for bytes in
        [&b""[..], b"tcp/7412", b"{}", b"{\"format\":1,\"record\":{\"port\":\"tcp/7412\"}}", b"\xff\xff"]
    {
        let error = decode::<BanRecord>(&key, bytes).unwrap_err().to_string();
        assert!(!error.contains("7412"), "{error}");
    }
    let newer = b"{\"format\":9,\"record\":{}}";
    assert!(decode::<BanRecord>(&key, newer).unwrap_err().to_string().contains("newer"));
}

fn ban() -> BanRecord {
    BanRecord {
        source: "203.0.113.5".parse().unwrap(),
        since: Timestamp::from_millis(1),
        expires: Timestamp::from_millis(2),
        reason: "10 misses in 60 s".to_owned(),
        by: By::Policy,
    }
}
