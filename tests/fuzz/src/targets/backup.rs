//! A backup, which may come from anywhere: as it is, and with the sum that makes it look whole.

use data_encoding::HEXLOWER;
use fleetknock_controller::backup::{
    file::{self, RECORDS_MAX},
    records::Records,
};
use sha2::{Digest as _, Sha256};

use super::store::{FLEET, keyring};

/// Parts of a backup.
pub(super) const WORDS: &[&[u8]] = &[
    b"{\"fleetknock\":\"backup\",\"format\":1",
    b"\"records\":",
    b"\"keys\":[",
    b"{\"key\":\"doors/",
    b"\",\"value\":\"",
    b"{\"sha256\":\"",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\\u0000",
    b"\\n",
    b"18446744073709551616",
    b"audit/",
    b"bans/",
    b"hosts/",
    b"tokens/",
    b"openings/",
    b"{\\\"format\\\":1,\\\"record\\\":",
];

/// What is read has as many records as it says, each under a key of its own, and nothing breaks what parses them.
pub(super) fn backup(input: &[u8]) {
    assert!(file::read(input).is_err(), "a file without its sum is whole");
    let mut whole = input.to_vec();
    whole.extend(format!("{{\"sha256\":\"{}\"}}\n", HEXLOWER.encode(&Sha256::digest(input))).into_bytes());
    match file::read(&whole) {
        Ok(backup) => {
            assert_eq!(backup.records.len(), backup.header.records);
            assert!(backup.records.len() <= RECORDS_MAX);
            let Some(ring) = keyring(FLEET, 0) else { return };
            match Records::of(&backup, |key, value| ring.open(key, &value).unwrap_or_default()) {
                Ok(records) => assert_eq!(records.len(), backup.records.len()),
                Err(unreadable) => assert!(unreadable.to_string().len() <= 4_000),
            }
        }
        Err(error) => assert!(error.to_string().len() <= 1_000),
    }
}
