//! Records that earlier versions wrote: this one reads each kind of them, sealed and in the clear, and writes them again as
//! they were, so that a rollback finds nothing new in them. `tests/released` holds some of each version, as lines of JSON
//! with key and value; `tests/scripts/record` makes them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

use std::{collections::BTreeMap, env, fs, path::Path};

use bytes::Bytes;
use fleetknock_controller::{
    record::{
        AuditRecord, BanRecord, DoorRecord, HostRecord, IdentityRecord, Key, MemberRecord, OpeningRecord,
        RecordError, TokenRecord, decode, encode,
    },
    seal::{Keyring, SealKey},
    store::{Entry, Store as _, embedded::EmbeddedStore},
};
use serde_json::{Value, json};

/// The fleet that the recorded values are sealed for.
const FLEET: &str = "default";
/// Audit events, bans, controllers, doors, hosts, the identity, openings, tokens.
const KINDS: usize = 8;

#[test]
fn what_earlier_versions_wrote_is_read_and_written_again_as_it_was() {
    let mut versions = 0;
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/released");
    let versions_there = fs::read_dir(released).unwrap().map(|version| version.unwrap().path());
    for folder in versions_there.filter(|path| path.is_dir()) {
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let key = SealKey::parse(read("seal.key").trim()).unwrap();
        let ring = Keyring::new(FLEET, vec![key]).unwrap();
        for name in ["clear.jsonl", "sealed.jsonl"] {
            let mut kinds = BTreeMap::new();
            for line in read(name).lines() {
                let line: BTreeMap<String, String> = serde_json::from_str(line).unwrap();
                let (key, value) = (line["key"].parse::<Key>().unwrap(), Bytes::from(line["value"].clone()));
                let opened = ring.open(&line["key"], &value).unwrap();
                let is_sealed = name == "sealed.jsonl" && matches!(key, Key::Door(_));
                assert_eq!(opened != value, is_sealed, "{name} of {}: {key}", folder.display());
                let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
                let again = written_again(&key, &opened).unwrap();
                assert_eq!(parsed(&again), parsed(&opened), "{name} of {}: {key}", folder.display());
                *kinds.entry(line["key"].split('/').next().unwrap().to_owned()).or_insert(0) += 1;
            }
            assert_eq!(kinds.len(), KINDS, "{name} of {} lacks a kind: {kinds:?}", folder.display());
        }
        versions += 1;
    }
    assert!(versions > 0);
}

fn written_again(key: &Key, value: &[u8]) -> Result<Bytes, RecordError> {
    let written = match key {
        Key::Audit(_) => encode(&decode::<AuditRecord>(key, value)?),
        Key::Ban(_) => encode(&decode::<BanRecord>(key, value)?),
        Key::Controller(_) => encode(&decode::<MemberRecord>(key, value)?),
        Key::Door(_) => encode(&decode::<DoorRecord>(key, value)?),
        Key::Host(_) => encode(&decode::<HostRecord>(key, value)?),
        Key::Identity => encode(&decode::<IdentityRecord>(key, value)?),
        Key::Opening(..) => encode(&decode::<OpeningRecord>(key, value)?),
        Key::Token(_) => encode(&decode::<TokenRecord>(key, value)?),
    };
    Ok(written.unwrap())
}

/// All entries of an embedded store are read as lines of such a file. With FLEETKNOCK_RECORD_STORE=FOLDER:FILE, as
/// `tests/scripts/record` sets it, of the store in that folder, and the file is written.
#[tokio::test]
async fn a_store_is_recorded_as_lines() {
    let asked = env::var("FLEETKNOCK_RECORD_STORE").ok();
    let asked = asked.as_ref().map(|both| both.split_once(':').unwrap());
    let own = tempfile::tempdir().unwrap();
    let folder = asked.map_or(own.path(), |(folder, _)| Path::new(folder));
    let store = EmbeddedStore::open(folder.to_owned()).await.unwrap();
    let entries = store.list("").await.unwrap().entries;
    let lines: String = entries.iter().map(line).collect();
    assert_eq!(lines.lines().count(), entries.len());
    if let Some((_, file)) = asked {
        fs::write(file, lines).unwrap();
    }
}

fn line(entry: &Entry) -> String {
    let value = String::from_utf8(entry.value.to_vec()).unwrap();
    json!({ "key": entry.key, "value": value }).to_string() + "\n"
}
