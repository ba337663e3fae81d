//! The packages, built by `tests/scripts/packages`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{run::run, tree};

/// How much time goes into making them small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As they are handed out.
    Small,
    /// For tests.
    Fast,
}

/// Builds the .deb and .rpm packages of the programs in a folder into another one; of another version than the
/// workspace's when one is given.
///
/// # Errors
/// When a tool is missing or fails, with what it said.
pub fn build(
    programs: &Path,
    out: &Path,
    version: Option<&str>,
    compression: Compression,
) -> Result<PathBuf> {
    let mut command = Command::new(tree::top().join("tests/scripts/packages"));
    command.arg(programs).arg(out).args(version);
    if compression == Compression::Fast {
        command.env("PACKAGES_FAST", "1");
    }
    run(&mut command)?;
    Ok(out.to_path_buf())
}
