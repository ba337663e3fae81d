//! The file: one redb database with the entries, which of them are bound to leases, the revision and the number of this
//! format.
//!
//! redb writes copy-on-write pages with checksums and makes a transaction durable with one fsync, so that a torn write
//! is a transaction that never was. The whole file is checked when it is opened.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::writer::{Disk, Found};
use crate::store::bounds::check_key;
use crate::store::mirror::{Commit, Kept, Picture};
use crate::store::{Change, LeaseId, Revision, StoreError};

const FILE: &str = "store.redb";
/// A new file gets its name only when it is whole.
const FILE_NEW: &str = "store.redb.new";
/// Value and the revision of its last change, by key.
const ENTRIES: TableDefinition<'_, &str, (Revision, &[u8])> = TableDefinition::new("entries");
/// The lease of a key that is bound to one, by key. Since format 2.
const BOUND: TableDefinition<'_, &str, i64> = TableDefinition::new("bound");
/// Numbers by name.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("fleetknock");
const NUMBER_FORMAT: &str = "format";
const NUMBER_REVISION: &str = "revision";
/// The format this build writes and reads.
const FORMAT: u64 = 2;
/// The one before it, without leases; such a file becomes one of [`FORMAT`] when it is opened.
const FORMAT_BEFORE: u64 = 1;
/// redb's page cache. Small, because all reads are served from memory anyway.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The database of one directory.
#[derive(Debug)]
pub(super) struct RedbFile {
    path: PathBuf,
    /// `None` after a failed write: redb then refuses everything until the file is opened again.
    database: Option<Database>,
}

impl RedbFile {
    /// Opens the file in a directory, or makes it.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let made = path.try_exists().map_err(|error| failure(&path, error))?;
        if !made {
            make(directory)?;
        }
        let database = open(&path)?;
        bring_up(&database).map_err(|error| error.into_store_error(&path))?;
        Ok(Self { path, database: Some(database) })
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        Ok(self.database.insert(database))
    }
}

impl Disk for RedbFile {
    fn read(&mut self) -> Result<Found, StoreError> {
        let path = self.path.clone();
        read(self.database()?).map_err(|error| error.into_store_error(&path))
    }

    fn write(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        let path = self.path.clone();
        let written = write(self.database()?, commits);
        if written.is_err() {
            self.database = None;
        }
        written.map_err(|error| error.into_store_error(&path))
    }
}

/// Writes the file anew. redb leaves what was deleted in pages that it may use again, where it can still be read.
pub(super) fn rewrite(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join(FILE);
    let found = read(&open(&path)?).map_err(|error| error.into_store_error(&path))?;
    make_with(directory, |database| fill(database, &found))
}

fn make(directory: &Path) -> Result<(), StoreError> {
    make_with(directory, |_| Ok(()))
}

fn make_with(
    directory: &Path,
    fill: impl FnOnce(&Database) -> Result<(), DiskError>,
) -> Result<(), StoreError> {
    let path = directory.join(FILE_NEW);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failure(&path, error)),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    drop(file.map_err(|error| failure(&path, error))?);
    let database = Database::create(&path).map_err(|error| failure(&path, error))?;
    initialise(&database).and_then(|()| fill(&database)).map_err(|error| error.into_store_error(&path))?;
    drop(database);
    let named = fs::rename(&path, directory.join(FILE)).and_then(|()| File::open(directory)?.sync_all());
    named.map_err(|error| failure(&path, error))
}

fn open(path: &Path) -> Result<Database, StoreError> {
    // redb takes an empty file for a new database; here it is one that lost everything.
    if path.metadata().map_err(|error| failure(path, error))?.len() == 0 {
        return Err(broken(path, "it is empty"));
    }
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder.open(path).map_err(|error| failure(path, error))
}

fn initialise(database: &Database) -> Result<(), DiskError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.open_table(ENTRIES)?;
    transaction.open_table(BOUND)?;
    {
        let mut numbers = transaction.open_table(NUMBERS)?;
        numbers.insert(NUMBER_FORMAT, FORMAT)?;
        numbers.insert(NUMBER_REVISION, 0)?;
    }
    Ok(transaction.commit()?)
}

fn fill(database: &Database, found: &Found) -> Result<(), DiskError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for entry in found.picture.list("").entries {
            entries.insert(entry.key.as_str(), (entry.revision, entry.value.as_ref()))?;
        }
        let mut bound = transaction.open_table(BOUND)?;
        for (key, lease) in &found.bound {
            bound.insert(key.as_str(), lease.0)?;
        }
        transaction.open_table(NUMBERS)?.insert(NUMBER_REVISION, found.picture.revision())?;
    }
    Ok(transaction.commit()?)
}

/// Makes a file of the format before into one of this. Others are left as they are, for [`read`] to judge.
fn bring_up(database: &Database) -> Result<(), DiskError> {
    let format = database.begin_read()?.open_table(NUMBERS)?.get(NUMBER_FORMAT)?.map(|format| format.value());
    if format != Some(FORMAT_BEFORE) {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.open_table(BOUND)?;
    transaction.open_table(NUMBERS)?.insert(NUMBER_FORMAT, FORMAT)?;
    Ok(transaction.commit()?)
}

fn read(database: &Database) -> Result<Found, DiskError> {
    let transaction = database.begin_read()?;
    let numbers = transaction.open_table(NUMBERS)?;
    let number = |name: &str| -> Result<u64, DiskError> {
        let found = numbers.get(name)?.ok_or_else(|| DiskError::Foreign(format!("it has no {name}")))?;
        Ok(found.value())
    };
    let format = number(NUMBER_FORMAT)?;
    if format != FORMAT {
        return Err(DiskError::Foreign(format!("it has format {format}, and this build reads {FORMAT}")));
    }
    let revision = number(NUMBER_REVISION)?;
    let mut entries = BTreeMap::new();
    for entry in transaction.open_table(ENTRIES)?.iter()? {
        let (key, value) = entry?;
        let (changed, value) = value.value();
        if check_key(key.value()).is_err() || changed == 0 || changed > revision {
            return Err(DiskError::Foreign("it holds an entry that cannot be".to_owned()));
        }
        let kept = Kept { value: Bytes::copy_from_slice(value), revision: changed };
        entries.insert(key.value().to_owned(), kept);
    }
    let mut bound = BTreeMap::new();
    for entry in transaction.open_table(BOUND)?.iter()? {
        let (key, lease) = entry?;
        if !entries.contains_key(key.value()) {
            return Err(DiskError::Foreign("it binds a key that it does not hold".to_owned()));
        }
        bound.insert(key.value().to_owned(), LeaseId(lease.value()));
    }
    Ok(Found { picture: Picture::new(entries, revision), bound })
}

fn write(database: &Database, commits: &[Commit]) -> Result<(), DiskError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut bound = transaction.open_table(BOUND)?;
        let mut numbers = transaction.open_table(NUMBERS)?;
        for commit in commits {
            let changes = commit.changes();
            for change in &changes.changes {
                match change {
                    Change::Delete { key } => drop(entries.remove(key.as_str())?),
                    Change::Put { key, value } => {
                        drop(entries.insert(key.as_str(), (changes.revision, value.as_ref()))?);
                    }
                }
                match (change, commit.lease()) {
                    (Change::Put { key, .. }, Some(lease)) => {
                        drop(bound.insert(key.as_str(), lease.0)?);
                    }
                    (change, _) => drop(bound.remove(change.key())?),
                }
            }
            numbers.insert(NUMBER_REVISION, changes.revision)?;
        }
    }
    Ok(transaction.commit()?)
}

/// Why the file could not be read or written.
#[derive(Debug)]
enum DiskError {
    /// Boxed for its size.
    Redb(Box<redb::Error>),
    /// A sound redb file, but not ours.
    Foreign(String),
}

impl DiskError {
    fn into_store_error(self, path: &Path) -> StoreError {
        match self {
            Self::Redb(error) => failure(path, *error),
            Self::Foreign(why) => broken(path, &why),
        }
    }
}

impl<E: Into<redb::Error>> From<E> for DiskError {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

/// Sorts failures by what helps: restoring a backup, or waiting and making room.
fn failure(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) if is_damage(&error) => broken(path, &error.to_string()),
        error @ (redb::Error::Io(_) | redb::Error::PreviousIo) => {
            StoreError::Unavailable(format!("{}: {error}; is the disk full or failing?", path.display()))
        }
        error @ (redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch) => {
            StoreError::Unavailable(format!("{}: {error}; stop whatever has it open", path.display()))
        }
        error => broken(path, &error.to_string()),
    }
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput)
}

/// Says what helps against a file that cannot be used.
pub(super) fn broken(path: &Path, why: &str) -> StoreError {
    StoreError::Broken(format!(
        "{} is no store of ours, or damaged: {why}; move it away and restore a backup, or start empty and apply the \
         doors again",
        path.display()
    ))
}
