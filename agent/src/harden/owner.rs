//! Gives the state directory to the user whom the agent becomes. Done as root, in a directory where that user, or one
//! before it, may have put anything: what is given away is looked at through the file that was opened, never by name.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::Path,
};

use fleetknock_runtime::harden::User;

use crate::driver::state::FILE_NAME;

/// The agent keeps a handful of files.
const FILES_MAX: usize = 64;

/// Gives a directory and the files in it to a user; makes it when it is not there. A directory that holds anything but
/// the agent's files is left alone: somebody may have named one that others use.
pub(super) fn hand_over(directory: &Path, uid: u32, gid: u32) -> Result<(), String> {
    let told = |error: io::Error| format!("{} (--state): {error}", directory.display());
    let stranger = |what: String| {
        format!("{} (--state) {what}; give the agent a directory of its own", directory.display())
    };
    if !directory.exists() {
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent).map_err(told)?;
        }
        DirBuilder::new().mode(0o700).create(directory).map_err(told)?;
    }
    let opened = File::open(directory).map_err(told)?;
    let meta = opened.metadata().map_err(told)?;
    if !meta.is_dir() {
        return Err(stranger("is no directory".to_owned()));
    }
    if meta.uid() == uid {
        return Ok(());
    }
    if meta.mode() & 0o022 != 0 {
        return Err(stranger("can be written by others".to_owned()));
    }
    let mut files = Vec::new();
    let mut ours = false;
    for entry in fs::read_dir(directory).map_err(told)? {
        let name = entry.map_err(told)?.file_name();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(directory.join(&name))
            .map_err(told)?;
        let of = file.metadata().map_err(told)?;
        // Who owns the directory could put a link to somebody else's file here, and get that file.
        if !of.is_file() || of.uid() != meta.uid() || files.len() == FILES_MAX {
            return Err(stranger(format!("holds {}, which is not the agent's", name.display())));
        }
        ours |= name.to_str().is_some_and(|name| name.starts_with(FILE_NAME));
        files.push(file);
    }
    if !files.is_empty() && !ours {
        return Err(stranger("holds files, and none of them is the agent's".to_owned()));
    }
    for file in files.iter().chain([&opened]) {
        fchown(file, Some(uid), Some(gid)).map_err(told)?;
    }
    Ok(())
}

/// Lets a user's group take the lock of iptables-legacy, which that program opens for reading. When it cannot be, the
/// program says so itself.
pub(super) fn share_lock(path: &Path, user: Option<&User>) {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path);
    let (Ok(file), Some(user)) = (opened, user) else { return };
    let shared = fchown(&file, None, Some(user.gid))
        .and_then(|()| file.set_permissions(Permissions::from_mode(0o640)));
    if let Err(error) = shared {
        tracing::warn!(%error, lock = %path.display(), user = %user.name, "the lock of iptables cannot be shared with the agent's user");
    }
}
