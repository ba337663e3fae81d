//! The form of a backup: lines of JSON (RFC 8259), in UTF-8, each ended by a newline. Pure.
//!
//! ```text
//! {"fleetknock":"backup","format":1,"fleet":"default","store":"9f…","version":"0.1.0","made":1795361411250000,…}
//! {"key":"bans/203.0.113.5","value":"{\"format\":1,\"record\":{…}}"}
//! {"key":"doors/bastion-ssh","value":"{\"format\":2,\"sealed\":{…}}"}
//! {"sha256":"…64 hexadecimal digits, of all bytes before this line…"}
//! ```
//!
//! A value is text as the store holds it, so that what is sealed there is sealed here. The sum tells accidents, not
//! forgers: whoever can write the file can make another sum. What is sealed cannot be forged without the seal key; hosts,
//! bans, tokens and events can, so a backup is kept where only admins write.

use std::collections::BTreeSet;

use bytes::Bytes;
use fleetknock_core::time::Timestamp;
use fleetknock_proto::limits::BACKUP_MAX;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    record::Key,
    seal::{self, KeyId, State, keyring::state_of},
    store::{KEY_MAX, Listing, Revision, VALUE_MAX},
};

/// The form's number. A reader refuses a newer one.
pub const FORMAT: u32 = 1;
/// The most records of one file: above all that a fleet may have together.
pub const RECORDS_MAX: usize = 100_000;
/// The longest line: the longest key and value, with each byte of it escaped.
pub const LINE_MAX: usize = 2 * VALUE_MAX + 2 * KEY_MAX;
/// What the first line calls itself.
const WORD: &str = "backup";

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`WORD`].
    fleetknock: String,
    /// [`FORMAT`].
    pub format: u32,
    /// The fleet's name, which what is sealed is bound to.
    pub fleet: String,
    /// The identity of the store; empty when it has none.
    pub store: String,
    /// The version of the controller that made it.
    pub version: String,
    /// When, by the fleet's time.
    pub made: Timestamp,
    /// The store's revision at which all of it was so.
    pub revision: Revision,
    /// The keys that something in it is sealed with.
    pub keys: BTreeSet<KeyId>,
    /// Secret records that lie in it in the clear.
    pub clear: usize,
    /// Records of the store that are none of this version and were left out.
    pub left_out: usize,
    /// How many records follow.
    pub records: usize,
}

/// Where a backup comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The fleet's name.
    pub fleet: &'a str,
    /// The identity of the store.
    pub store: &'a str,
    /// When it is made.
    pub made: Timestamp,
}

/// A file that is whole and unaltered. Its values are not parsed.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The first line.
    pub header: Header,
    /// Keys with their values, in the order of the file.
    pub records: Vec<(Key, Bytes)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    sha256: String,
}

/// Whether records under this key are in a backup: openings are short, controllers sign on by themselves, and the identity
/// stands in the header.
fn is_kept(key: &Key) -> bool {
    matches!(key, Key::Audit(_) | Key::Ban(_) | Key::Door(_) | Key::Host(_) | Key::Token(_))
}

/// A listing of the whole store as it lies there, as a file.
///
/// # Errors
/// [`FileError::Large`] when no reader would take it.
pub fn write(listing: &Listing, origin: Origin<'_>) -> Result<Vec<u8>, FileError> {
    let (mut keys, mut clear, mut left_out) = (BTreeSet::new(), 0, 0);
    let mut lines = Vec::new();
    for entry in &listing.entries {
        match entry.key.parse::<Key>() {
            Ok(key) if is_kept(&key) => {}
            Ok(_) => continue,
            Err(_) => {
                left_out += 1;
                continue;
            }
        }
        let Ok(value) = str::from_utf8(&entry.value) else {
            left_out += 1;
            continue;
        };
        if seal::is_secret(&entry.key) {
            match state_of(&entry.value) {
                State::Sealed(id) => drop(keys.insert(id)),
                State::Clear | State::Strange => clear += 1,
            }
        }
        lines.push(Line { key: entry.key.clone(), value: value.to_owned() });
    }
    let header = Header {
        fleetknock: WORD.to_owned(),
        format: FORMAT,
        fleet: origin.fleet.to_owned(),
        store: origin.store.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made: origin.made,
        revision: listing.revision,
        keys,
        clear,
        left_out,
        records: lines.len(),
    };
    let mut file = Vec::new();
    add(&mut file, &header)?;
    for line in &lines {
        add(&mut file, line)?;
    }
    let sha256 = digest(&file);
    add(&mut file, &Sum { sha256 })?;
    Ok(file)
}

fn add<T: Serialize>(file: &mut Vec<u8>, line: &T) -> Result<(), FileError> {
    serde_json::to_writer(&mut *file, line).map_err(|_| FileError::Large)?;
    file.push(b'\n');
    if file.len() > BACKUP_MAX { Err(FileError::Large) } else { Ok(()) }
}

fn digest(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Reads a file that may be anything.
///
/// # Errors
/// [`FileError`]; it quotes nothing of the file but numbers, versions and names of keys.
pub fn read(file: &[u8]) -> Result<Backup, FileError> {
    if file.len() > BACKUP_MAX {
        return Err(FileError::Large);
    }
    let first = file.iter().take(LINE_MAX).position(|byte| *byte == b'\n').ok_or(FileError::Other)?;
    check_format(&file[..first])?;
    // The newline that ends the line before the last one ends what is summed.
    let ended = file.strip_suffix(b"\n").ok_or(FileError::Cut)?;
    let body = ended.iter().rposition(|byte| *byte == b'\n').ok_or(FileError::Cut)? + 1;
    let sum: Sum = serde_json::from_slice(&ended[body..]).map_err(|_| FileError::Cut)?;
    if sum.sha256 != digest(&file[..body]) {
        return Err(FileError::Altered);
    }
    let wrong = |line: usize, what: &'static str| FileError::Line { line, what };
    let header: Header =
        serde_json::from_slice(&file[..first]).map_err(|_| wrong(1, "it is no first line of this format"))?;
    if header.records > RECORDS_MAX {
        return Err(wrong(1, "it has more records than a fleet may have"));
    }
    let mut records = Vec::new();
    let mut seen = BTreeSet::new();
    let lines = file[..body].split(|byte| *byte == b'\n').enumerate().skip(1);
    for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let wrong = |what| wrong(number + 1, what);
        if records.len() == header.records {
            return Err(wrong("there are more records than the first line says"));
        }
        if line.len() > LINE_MAX {
            return Err(wrong("it is longer than a record can be"));
        }
        let Line { key, value } = serde_json::from_slice(line).map_err(|_| wrong("it is no record"))?;
        let key: Key = key.parse().map_err(|_| wrong("no record of this version has such a key"))?;
        if !is_kept(&key) {
            return Err(wrong("such a record is in no backup"));
        }
        if value.len() > VALUE_MAX {
            return Err(wrong("its value is larger than the store takes"));
        }
        if !seen.insert(key.clone()) {
            return Err(wrong("the same key stands in an earlier line"));
        }
        records.push((key, Bytes::from(value)));
    }
    if records.len() != header.records {
        return Err(wrong(1, "it says that there are more records than follow"));
    }
    Ok(Backup { header, records })
}

/// Whether the first line is that of a backup which this version can read, whatever else stands in it.
fn check_format(first: &[u8]) -> Result<(), FileError> {
    #[derive(Deserialize)]
    struct Known {
        fleetknock: String,
        format: u32,
        #[serde(default)]
        version: String,
    }
    let known: Known = serde_json::from_slice(first).map_err(|_| FileError::Other)?;
    if known.fleetknock != WORD {
        return Err(FileError::Other);
    }
    if known.format > FORMAT {
        let version = known.version.chars().filter(|c| c.is_ascii_graphic()).take(32).collect();
        return Err(FileError::Newer { format: known.format, version });
    }
    Ok(())
}

/// Why a file is not restored, or not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Its sum is not that of its contents.
    #[error("it was altered: its contents do not have the checksum that it ends with; take another copy")]
    Altered,
    /// It does not end as it should.
    #[error("it was cut: its last line is no checksum; take another copy")]
    Cut,
    /// Too much for any reader.
    #[error("it is larger than {BACKUP_MAX} bytes, the limit of a backup")]
    Large,
    /// A line that no writer of this version makes.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A later version made it.
    #[error(
        "its format {format} is newer than this version's {FORMAT}; restore it with version {version} or later"
    )]
    Newer {
        /// Its format.
        format: u32,
        /// What made it.
        version: String,
    },
    /// Something else altogether.
    #[error("it is no backup of fleetknock")]
    Other,
}
