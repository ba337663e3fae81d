//! Writes certificates and keys: whole or not at all, and keys for their owner only.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner: mode 600.
    Owner,
    /// Its owner, and for reading its group: mode 640, less what the umask takes.
    Group,
    /// Everybody: mode 644, less what the umask takes.
    Everybody,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o640,
            Self::Everybody => 0o644,
        }
    }
}

/// Writes a file that is not there yet.
///
/// # Errors
/// When there is one, or the system refuses.
pub fn write_new(path: &Path, contents: &str, access: Access) -> io::Result<()> {
    let written = create(path, contents, access);
    if written.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
        // Half a file is worse than none; that it cannot be removed changes nothing about the error.
        let _ = fs::remove_file(path);
    }
    written
}

/// A file beside the one that it will replace: several can be made ready before the first takes its place. It keeps that
/// one's owner, group and mode - a daemon that may read the old one can read the new one -, but never lets others at a
/// key.
#[derive(Debug)]
pub struct Staged {
    beside: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Staged {
    /// Writes it beside `path`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(path: &Path, contents: &str, access: Access) -> io::Result<Self> {
        // Through a link to the file itself, so that the link stays one.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        let beside = path.with_file_name(format!(".{name}.{:08x}", rand::random::<u32>()));
        let staged = Self { beside, path, done: false };
        create(&staged.beside, contents, access)?;
        if let Ok(old) = fs::metadata(&staged.path) {
            let new = fs::metadata(&staged.beside)?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                chown(&staged.beside, Some(old.uid()), Some(old.gid()))?;
            }
            let others = if access == Access::Everybody { 0o007 } else { 0 };
            fs::set_permissions(&staged.beside, Permissions::from_mode(old.mode() & (0o770 | others)))?;
        }
        Ok(staged)
    }

    /// Puts it in its place, whether there is one or not.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn commit(mut self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.done {
            // It may never have been made.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

fn create(path: &Path, contents: &str, access: Access) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(access.mode()).open(path)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()
}
