//! What the agent remembers over a restart: the last guard, knock space, openings and bans, in one file.
//!
//! The file is written whole beside the old one and renamed over it, readable by its owner only. It is read as if
//! somebody else had written it. What is in it is a memory, not an order: it is asserted before any controller is
//! reached, and replaced by the first snapshot.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fleetknock_core::{
    door::OPEN_FOR_MAX,
    port::{Port, PortRange, Protocol},
    source::Source,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::picture::{Delta, FleetGuard, OPENINGS_MAX, Order, Picture};

/// The file's name in the directory of `--state`.
pub const FILE_NAME: &str = "picture.json";
/// A full picture takes about half of this.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
const FORMAT: u32 = 1;

/// The file.
#[derive(Clone, Debug)]
pub struct StateFile {
    directory: PathBuf,
}

/// What is in the file. Times are microseconds since the Unix epoch.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    format: u32,
    revision: u64,
    ports: Vec<Port>,
    /// Left out while nothing is observed, as earlier versions do, which refuse what they do not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    observed: Vec<Port>,
    knock_space: Vec<PortRange>,
    icmp: bool,
    management: Vec<IpNet>,
    openings: Vec<SavedOpening>,
    bans: Vec<SavedBan>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct SavedOpening {
    id: String,
    generation: u64,
    source: Source,
    ports: Vec<Port>,
    expires_us: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct SavedBan {
    source: Source,
    expires_us: u64,
}

impl Saved {
    /// Of a picture, at a time by both clocks.
    pub fn of(picture: &Picture, now: Instant, now_us: u64) -> Self {
        let expires = |deadline: Instant| {
            let remaining = deadline.saturating_duration_since(now).as_micros();
            now_us.saturating_add(u64::try_from(remaining).unwrap_or(u64::MAX))
        };
        let guard = picture.fleet_guard();
        let openings = picture.openings().filter(|(_, held)| held.deadline > now);
        let bans = picture.bans().filter(|(_, deadline)| *deadline > now);
        Self {
            format: FORMAT,
            revision: picture.revision(),
            ports: guard.ports.iter().copied().collect(),
            observed: guard.observed.iter().copied().collect(),
            knock_space: guard.knock_space.clone(),
            icmp: guard.icmp,
            management: guard.management.iter().copied().collect(),
            openings: openings
                .map(|(id, held)| SavedOpening {
                    id: id.to_string(),
                    generation: held.generation,
                    source: held.source,
                    ports: held.ports.iter().copied().collect(),
                    expires_us: expires(held.deadline),
                })
                .collect(),
            bans: bans.map(|(source, at)| SavedBan { source, expires_us: expires(at) }).collect(),
        }
    }

    /// As a change to an empty picture: what has expired meanwhile is left out. A clock that was set back gives no
    /// opening a longer life than the longest that a door can give.
    pub fn into_delta(self, now_us: u64) -> Delta {
        let remaining = |expires_us: u64| {
            let remaining = Duration::from_micros(expires_us.saturating_sub(now_us));
            (!remaining.is_zero()).then(|| remaining.min(OPEN_FOR_MAX))
        };
        let opened = |port: &Port| port.protocol() != Protocol::Icmp;
        let openings = self.openings.into_iter().take(OPENINGS_MAX).filter_map(|saved| {
            Some(Order {
                remaining: remaining(saved.expires_us)?,
                id: saved.id.into(),
                generation: saved.generation,
                source: saved.source,
                ports: saved.ports.into_iter().filter(opened).collect(),
            })
        });
        let ports: BTreeSet<Port> = self.ports.into_iter().filter(opened).collect();
        let observed = self.observed.into_iter().filter(|port| opened(port) && !ports.contains(port));
        Delta {
            revision: self.revision,
            guard: Some(FleetGuard {
                observed: observed.collect(),
                ports,
                knock_space: self.knock_space,
                icmp: self.icmp,
                management: self.management.into_iter().map(|network| network.trunc()).collect(),
            }),
            openings: openings.collect(),
            withdrawn: Vec::new(),
            bans: self.bans.iter().filter_map(|ban| Some((ban.source, remaining(ban.expires_us)?))).collect(),
            unbanned: Vec::new(),
        }
    }
}

impl StateFile {
    /// In this directory, which is made when it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made, or no file can be written in it.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let file = Self { directory: directory.to_owned() };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| file.error("make the directory", error))?;
        file.create_new().map(drop)?;
        let _ = fs::remove_file(file.new_path());
        Ok(file)
    }

    /// What was saved last; `None` when nothing was.
    ///
    /// # Errors
    /// When the file cannot be read or does not hold what [`save`](Self::save) writes.
    pub fn load(&self) -> Result<Option<Saved>, StateError> {
        let unreadable = |error| self.error("read", error);
        let opened =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(self.path());
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(self.damaged("it is not a regular file"));
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(self.damaged("it is too long"));
        }
        let saved: Saved = serde_json::from_str(&text).map_err(|error| self.damaged(&error.to_string()))?;
        if saved.format != FORMAT {
            return Err(self.damaged(&format!("its format is {}, not {FORMAT}", saved.format)));
        }
        Ok(Some(saved))
    }

    /// Replaces what was saved, in one step: a crash leaves the old or the new.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self, saved: &Saved) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(saved).map_err(|error| self.error("write", error.into()))?;
        let mut file = self.create_new()?;
        let write = |file: &mut File| {
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(self.new_path(), self.path())?;
            File::open(&self.directory)?.sync_all()
        };
        write(&mut file).map_err(|error| self.error("write", error))
    }

    fn create_new(&self) -> Result<File, StateError> {
        // What a crash left behind.
        let _ = fs::remove_file(self.new_path());
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.new_path());
        created.map_err(|error| self.error("write", error))
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE_NAME)
    }

    fn new_path(&self) -> PathBuf {
        self.directory.join(format!("{FILE_NAME}.new"))
    }

    fn error(&self, action: &'static str, source: io::Error) -> StateError {
        StateError::Io { action, path: self.path(), source }
    }

    fn damaged(&self, reason: &str) -> StateError {
        StateError::Damaged { path: self.path(), reason: reason.to_owned() }
    }
}

/// Why the memory cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// It does not hold what it should.
    #[error("{} (--state) is damaged: {reason}; remove it, and the next snapshot writes a new one", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refuses.
    #[error("cannot {action} {} (--state): {source}; the agent needs a directory that it may write", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
