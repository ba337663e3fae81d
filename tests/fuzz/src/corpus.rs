//! What mutants are made of: valid inputs of every form, and some that are almost valid. Made here, so that nothing is
//! fetched from anywhere and everybody can see where a file comes from.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::Target;

mod json;
mod messages;
pub(crate) mod packets;
pub(crate) mod store;
mod text;

/// The longest file, in bytes.
pub const FILE_MAX: usize = 4 * 1024;
/// Files of one target.
pub const FILES_MAX: usize = 96;

/// A file: its name, and what it holds.
pub type File = (String, Vec<u8>);

/// The files of a target, by name.
pub fn files(target: &Target) -> Vec<File> {
    let mut files = match target.name {
        "packet" => packets::files(),
        "agent-message" => messages::agent(),
        "controller-message" => messages::controller(),
        "peer-message" => messages::peer(),
        "control" => messages::control(),
        "json" => json::requests(),
        "door-yaml" => text::doors(),
        "knockd-conf" => text::knockd(),
        "identity" => text::identities(),
        "token" => text::tokens(),
        "record" => store::records(),
        "sealed" => store::sealed(),
        "backup" => store::backups(),
        _ => vec![],
    };
    files.sort();
    files
}

/// Where the committed files of all targets lie.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The committed files of a target, by name.
///
/// # Errors
/// When they cannot be read.
pub fn committed(target: &Target) -> io::Result<Vec<File>> {
    let mut files = vec![];
    for entry in fs::read_dir(folder().join(target.name))? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    files.sort();
    Ok(files)
}

/// Writes the files of a target where they are committed, and takes away what else lies there.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(target: &Target) -> io::Result<usize> {
    let folder = folder().join(target.name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let files = files(target);
    for (name, bytes) in &files {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(files.len())
}

fn file(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> File {
    (name.into(), bytes.into())
}
