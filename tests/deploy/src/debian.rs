//! A clean Debian, made with mmdebstrap from Debian's own packages.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{run::run, tree};

#[cfg(test)]
mod tests;

/// The release: that of `debian:bookworm-slim`, on which images are based.
pub const RELEASE: &str = "bookworm";

/// A tar file with a minimal Debian and these packages beside it, made once and kept.
///
/// Programs that run at the same time make it once: they wait for each other.
///
/// # Errors
/// When mmdebstrap is not there, or Debian's packages cannot be reached.
pub fn tar(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = tree::kept();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join(format!("{RELEASE}-{name}.tar"));
    let lock = File::create(folder.join(format!("{RELEASE}-{name}.lock")))?;
    lock.lock()?;
    if file.exists() {
        return Ok(file);
    }
    let unfinished = file.with_extension("unfinished.tar");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase"]);
    if !packages.is_empty() {
        command.arg(format!("--include={}", packages.join(",")));
    }
    run(command.arg(RELEASE).arg(&unfinished))?;
    fs::rename(&unfinished, &file)?;
    Ok(file)
}
