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
fn an_opening_remembers_packets_and_one_of_an_earlier_version_is_read() {
    let opening = opening();
    let key = Key::Opening(opening.door.clone(), opening.source);
    let bytes = encode(&opening).unwrap();
    assert_eq!(decode::<OpeningRecord>(&key, &bytes).unwrap(), opening);
    let text = str::from_utf8(&bytes).unwrap();
    let packets = r#","answered":[{"host":"edge-1","boot":"00000000000000000000000000000c0d","counter":7}]"#;
    assert!(text.contains(packets), "{text}");
    let earlier = decode::<OpeningRecord>(&key, text.replace(packets, "").as_bytes()).unwrap();
    assert_eq!(earlier, OpeningRecord { answered: Vec::new(), ..opening });
    for boot in ["", "c0d", "+0000000000000000000000000000c0d", "00000000000000000000000000000C0D"] {
        let other = text.replace("00000000000000000000000000000c0d", boot);
        assert!(decode::<OpeningRecord>(&key, other.as_bytes()).is_err(), "{boot}");
    }
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

fn opening() -> OpeningRecord {
    let mut boot = [0; 16];
    (boot[14], boot[15]) = (0x0c, 0x0d);
    OpeningRecord {
        id: "op-1".to_owned(),
        door: "bastion-ssh".parse().unwrap(),
        source: "203.0.113.5".parse().unwrap(),
        ports: BTreeSet::new(),
        hosts: BTreeSet::new(),
        opened: Timestamp::from_millis(1),
        refreshed: Timestamp::from_millis(1),
        expires: Timestamp::from_millis(2),
        generation: 1,
        by: By::Knock,
        reason: String::new(),
        knocked: Some(Timestamp::from_millis(1)),
        answered: vec![Packet { host: "edge-1".parse().unwrap(), boot: Boot(boot), counter: 7 }],
        withdrawn: None,
        trace: None,
    }
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
