//! What lies in the store: records under their keys, and sealed values.

use std::fmt::Debug;

use bytes::Bytes;
use fleetknock_controller::{
    record::{
        self, AuditRecord, BanRecord, DoorRecord, HostRecord, IdentityRecord, Key, MemberRecord,
        OpeningRecord, TokenRecord,
    },
    seal::{Keyring, SealKey, State, keyring::NONCE_BYTES, keyring::state_of, why_unopened},
};
use serde::{Serialize, de::DeserializeOwned};

/// Parts of records and of seals.
pub(super) const WORDS: &[&[u8]] = &[
    b"{\"format\":1,\"record\":",
    b"{\"format\":2,\"sealed\":",
    b"\"format\":3",
    b"\"format\":-1",
    b"\"key\":",
    b"\"nonce\":",
    b"\"text\":",
    b"\"unopened\":",
    b"fuzz-a",
    b"fuzz-b",
    b"null",
    b"{}",
    b"[]",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":",
    b"\"",
    b",",
    b":",
    b"}",
    b"1e400",
    b"-0",
    b"18446744073709551616",
    b"\\u0000",
    b"\\ud800",
    b"doors/",
    b"hosts/",
    b"openings/",
    b"bans/",
    b"controllers/",
    b"identity",
    b"audit/",
    b"tokens/",
    b"tcp/22",
    b"203.0.113.5",
    b"secs",
    b"nanos",
    b"AAAA",
    b"==",
    b"\n",
];

/// The fleet whose values the corpus holds.
pub const FLEET: &str = "fuzz";
/// Under which key they lie.
pub const PLACE: &str = "doors/bastion-ssh";
/// The lines of the ring's keys; made up, and used nowhere else.
pub const SEAL_KEYS: [&str; 2] = [
    "fleetknock-seal-1 fuzz-a AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "fleetknock-seal-1 fuzz-b ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=",
];

/// A ring of [`SEAL_KEYS`]; the one of this number seals.
pub fn keyring(fleet: &str, first: usize) -> Option<Keyring> {
    let mut keys: Vec<_> = SEAL_KEYS.iter().filter_map(|line| SealKey::parse(line).ok()).collect();
    keys.rotate_left(first % SEAL_KEYS.len());
    Keyring::new(fleet, keys).ok()
}

/// A key on the first line, then a value.
pub(super) fn record(input: &[u8]) {
    let (line, value) = match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (&[][..], input),
    };
    match String::from_utf8_lossy(line).parse::<Key>() {
        Ok(key) => {
            // Addresses have several spellings; what is written is the one.
            assert_eq!(key.to_string().parse(), Ok(key.clone()), "a key changes when it is written");
            of_key(&key, value);
        }
        Err(_) => of_every_kind(value),
    }
}

fn of_key(key: &Key, value: &[u8]) {
    match key {
        Key::Audit(_) => read::<AuditRecord>(key, value),
        Key::Ban(_) => read::<BanRecord>(key, value),
        Key::Controller(_) => read::<MemberRecord>(key, value),
        Key::Door(_) => read::<DoorRecord>(key, value),
        Key::Host(_) => read::<HostRecord>(key, value),
        Key::Identity => read::<IdentityRecord>(key, value),
        Key::Opening(..) => read::<OpeningRecord>(key, value),
        Key::Token(_) => read::<TokenRecord>(key, value),
    }
}

fn of_every_kind(value: &[u8]) {
    read::<AuditRecord>(&Key::Identity, value);
    read::<BanRecord>(&Key::Identity, value);
    read::<MemberRecord>(&Key::Identity, value);
    read::<DoorRecord>(&Key::Identity, value);
    read::<HostRecord>(&Key::Identity, value);
    read::<IdentityRecord>(&Key::Identity, value);
    read::<OpeningRecord>(&Key::Identity, value);
    read::<TokenRecord>(&Key::Identity, value);
}

/// What is read of a value is read again from what is written of it.
fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(key: &Key, value: &[u8]) {
    match record::decode::<T>(key, value) {
        Ok(read) => {
            let again = record::encode(&read).ok().and_then(|value| record::decode::<T>(key, &value).ok());
            assert_eq!(again.as_ref(), Some(&read), "a record changes when it is written");
        }
        Err(error) => assert!(error.reason.len() <= 1_000),
    }
}

/// A value as it lies in the store, and as something to be sealed.
pub(super) fn sealed(input: &[u8]) {
    let rings = (keyring(FLEET, 0), keyring(FLEET, 1), keyring("other", 0));
    let (Some(ring), Some(rotated), Some(other)) = rings else { return };
    let value = Bytes::copy_from_slice(input);
    let opened = ring.open(PLACE, &value);
    assert_eq!(opened, rotated.open(PLACE, &value), "the order of keys decides what opens");
    match (state_of(&value), opened) {
        // Nobody can make a seal without the key: whatever opens is what the corpus sealed.
        (State::Sealed(_), Ok(opened)) => {
            assert!(crate::corpus::store::SEALED.iter().any(|plain| *plain == opened), "a forged seal opens");
            assert!(other.open(PLACE, &value).is_err(), "a seal opens in another fleet");
            assert!(ring.open("doors/elsewhere", &value).is_err(), "a seal opens elsewhere");
            of_every_kind(&opened);
        }
        (State::Sealed(_), Err(_)) => refused(&value),
        (State::Clear, opened) => assert_eq!(opened, Ok(value.clone())),
        (State::Strange, Ok(opened)) => assert_eq!(opened, value, "what is no seal is handed on as it is"),
        (State::Strange, Err(_)) => refused(&value),
    }
    if input.len() >= NONCE_BYTES + 3 {
        seals(&ring, &other, input);
    }
}

/// A sealed value is no record, and says why.
fn refused(value: &[u8]) {
    let read = record::decode::<DoorRecord>(&Key::Identity, value);
    assert!(read.is_err(), "a seal that does not open is a record");
    assert!(why_unopened(value).len() <= 1_000);
}

fn seals(ring: &Keyring, other: &Keyring, input: &[u8]) {
    let Some((nonce, plain)) = input.split_first_chunk::<NONCE_BYTES>() else { return };
    let [at, by, bit, ..] = plain else { return };
    let plain = Bytes::copy_from_slice(plain);
    let Ok(sealed) = ring.seal(PLACE, &plain, *nonce) else { return };
    assert_eq!(ring.open(PLACE, &sealed), Ok(plain.clone()), "what was sealed does not come back");
    assert!(other.open(PLACE, &sealed).is_err(), "a seal opens in another fleet");
    assert!(ring.open("doors/elsewhere", &sealed).is_err(), "a seal opens elsewhere");
    let mut changed = sealed.to_vec();
    let at = (usize::from(*at) * 256 + usize::from(*by)) % changed.len();
    changed[at] ^= 1 << (bit % 8);
    let changed = Bytes::from(changed);
    if let Ok(opened) = ring.open(PLACE, &changed) {
        // What no longer says that it is sealed is handed on as it is, and is no record.
        assert_eq!(opened, changed, "a changed seal opens");
        refused(&changed);
    }
}
