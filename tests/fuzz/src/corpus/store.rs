//! One record of each kind with every field set, and values that were sealed with the keys of the target.

use bytes::Bytes;
use fleetknock_controller::seal::keyring::NONCE_BYTES;

use super::{File, file};
use crate::targets::{FLEET, PLACE, keyring};

const DOOR: &str = r#"{"format":1,"record":{"door":{"name":"bastion-ssh","labels":{"team":"core"},"knock":{"sequence":{"steps":[{"hosts":{"matchLabels":{"role":"edge"}},"port":"tcp/7412"},{"port":"udp/23981"}],"within":{"secs":15,"nanos":0}}},"sources":["10.0.0.0/8"],"opens":{"hosts":{},"ports":["tcp/22"],"for":{"secs":30,"nanos":0}},"mode":"observe"},"created":1,"updated":2}}"#;
const RECORDS: [(&str, &str, &str); 8] = [
    (
        "audit",
        "audit/018bcfe56800-0badc0de",
        r#"{"format":1,"record":{"id":"018bcfe56800-0badc0de","at":7,"code":"DOOR_APPLIED","controller":"ctl-1","actor":{"who":"user alice","role":"admin","by":"certificate","address":"192.0.2.9:4711"},"door":"bastion-ssh","source":"203.0.113.5","host":"db-1","opening":"x","message":"applied","changes":[{"field":"spec.opens.for","before":"30s","after":"1m"}]}}"#,
    ),
    (
        "ban",
        "bans/203.0.113.5",
        r#"{"format":1,"record":{"source":"203.0.113.5","since":1,"expires":2,"reason":"misses","by":{"user":"alice"}}}"#,
    ),
    (
        "controller",
        "controllers/ctl-1",
        r#"{"format":1,"record":{"name":"ctl-1","address":"https://10.0.1.1:7600","version":"0.1.0","started":1}}"#,
    ),
    ("door", "doors/bastion-ssh", DOOR),
    (
        "host",
        "hosts/db-1",
        r#"{"format":1,"record":{"name":"db-1","labels":{"role":"edge"},"addresses":["192.0.2.1"],"management":["198.51.100.0/24"],"version":"0.1.0","firewall":"nftables","created":1}}"#,
    ),
    ("identity", "identity", r#"{"format":1,"record":{"id":"0123456789abcdef0123456789abcdef"}}"#),
    (
        "opening",
        "openings/bastion-ssh/203.0.113.5",
        r#"{"format":1,"record":{"id":"x","door":"bastion-ssh","source":"203.0.113.5","ports":["tcp/22"],"hosts":["db-1"],"opened":1,"refreshed":2,"expires":3,"generation":1,"by":"knock","reason":"","knocked":1,"answered":[{"host":"db-1","boot":"07070707070707070707070707070707","counter":7}],"withdrawn":{"at":2,"reason":"closed","kill_connections":true}}}"#,
    ),
    (
        "token",
        "tokens/0123456789abcdef",
        r#"{"format":1,"record":{"id":"0123456789abcdef","holder":{"user":{"name":"ci","role":"operator"}},"hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","created":1,"expires":2,"created_by":"user alice"}}"#,
    ),
];

/// What was sealed into the corpus. Nothing else may ever open.
pub(crate) const SEALED: [&[u8]; 4] = [DOOR.as_bytes(), b"", b"not JSON", RECORDS[1].2.as_bytes()];

pub(super) fn records() -> Vec<File> {
    let mut files: Vec<File> =
        RECORDS.iter().map(|(name, key, value)| file(*name, format!("{key}\n{value}"))).collect();
    let door = |value: &str| format!("{PLACE}\n{value}");
    files.extend([
        file("almost-key", format!("doors/Bastion\n{DOOR}")),
        file("almost-newer", door(&DOOR.replace("\"format\":1", "\"format\":9"))),
        file("almost-sealed", door(&DOOR.replace("\"format\":1", "\"format\":2"))),
        file("almost-own-step", door(&DOOR.replace("tcp/22", "tcp/7412"))),
        file("almost-time", door(&DOOR.replace("\"nanos\":0", "\"nanos\":4294967295"))),
        file("almost-cut", door(&DOOR[..DOOR.len() / 2])),
        file("ban-mapped", format!("bans/::ffff:203.0.113.5\n{}", RECORDS[1].2)),
        file("pending", door(&DOOR.replace("\"updated\":2", r#""updated":2,"pending":{"before":null,"until":9,"by":{"who":"x","by":"y","address":"z"}},"rolled_back":3"#))),
        file("no-key", DOOR),
    ]);
    files
}

/// Files without the sum that ends them: the target adds one.
pub(super) fn backups() -> Vec<File> {
    let line = |key: &str, value: &str| format!("{{\"key\":{key:?},\"value\":{value:?}}}\n");
    let header = |records: usize| {
        format!(
            "{{\"fleetknock\":\"backup\",\"format\":1,\"fleet\":\"fuzz\",\"store\":\"0123456789abcdef0123456789abcdef\",\
             \"version\":\"0.1.0\",\"made\":7,\"revision\":9,\"keys\":[\"fuzz-a\"],\"clear\":0,\"left_out\":0,\
             \"records\":{records}}}\n"
        )
    };
    let kept = |name: &str| !matches!(name, "controller" | "identity" | "opening");
    let lines: Vec<_> =
        RECORDS.iter().filter(|(name, ..)| kept(name)).map(|(_, key, value)| line(key, value)).collect();
    let all = format!("{}{}", header(lines.len()), lines.concat());
    let sealed = seal(FLEET, PLACE, 0, SEALED[0], 20);
    let sealed = line(PLACE, &String::from_utf8_lossy(&sealed));
    vec![
        file("all", all.clone()),
        file("empty", header(0)),
        file("sealed", format!("{}{sealed}", header(1))),
        file("almost-twice", format!("{}{}{}", header(2), lines[0], lines[0])),
        file("almost-opening", format!("{}{}", header(1), line(RECORDS[6].1, RECORDS[6].2))),
        file("almost-newer", all.replacen("\"format\":1", "\"format\":2", 1)),
        file("almost-cut", &all[..all.len() / 2]),
        file("almost-more", format!("{}{}", header(0), lines[0])),
        file("almost-elsewhere", format!("{}{}", header(1), line("doors/elsewhere", DOOR))),
    ]
}

pub(super) fn sealed() -> Vec<File> {
    let mut files =
        vec![file("clear", DOOR), file("plain-to-seal", [&[9; NONCE_BYTES], DOOR.as_bytes()].concat())];
    for (number, plain) in SEALED.iter().enumerate() {
        for first in 0..2 {
            let value = seal(FLEET, PLACE, first, plain, number);
            files.push(file(format!("sealed-{number}-key-{first}"), value));
        }
    }
    let whole = seal(FLEET, PLACE, 0, SEALED[0], 9);
    files.push(file("almost-cut", &whole[..whole.len() / 2]));
    files.push(file("almost-elsewhere", seal(FLEET, "doors/elsewhere", 0, SEALED[0], 10)));
    files.push(file("almost-other-fleet", seal("other", PLACE, 0, SEALED[0], 11)));
    let text = String::from_utf8_lossy(&whole).into_owned();
    files.push(file("almost-unknown-key", text.replace("fuzz-a", "fuzz-c")));
    files.push(file("almost-other-key", text.replace("fuzz-a", "fuzz-b")));
    files.push(file("almost-clear", text.replace("\"format\":2", "\"format\":1")));
    files.push(file("almost-unopened", r#"{"format":2,"unopened":"torn"}"#));
    files
}

fn seal(fleet: &str, place: &str, first: usize, plain: &[u8], nonce: usize) -> Vec<u8> {
    let nonce = [nonce.to_le_bytes()[0]; NONCE_BYTES];
    let sealed =
        keyring(fleet, first).and_then(|ring| ring.seal(place, &Bytes::copy_from_slice(plain), nonce).ok());
    sealed.map(Vec::from).unwrap_or_default()
}
