//! The static programs of a release, as images and packages carry them.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::{docker::Engine, images, tree};

/// The three programs.
pub const PROGRAMS: [&str; 3] = ["fleetknock", "fleetknock-agent", "fleetknock-controller"];
/// Names a folder with the three programs and their lists of contents, for who changes nothing in them and does not want
/// to wait for a build.
const READY_MADE: &str = "FLEETKNOCK_RELEASE_BINARIES";

/// A folder with [`PROGRAMS`], and with `PROGRAM.cdx.json` beside each: what the image's build writes, from the checkout
/// as it is. The first time takes minutes; what did not change since is not compiled again.
///
/// It starts an [`Engine`]: who holds one calls [`release_with`].
///
/// # Errors
/// When the engine does not start or the build fails, with what it said.
pub fn release() -> Result<PathBuf> {
    match ready_made() {
        Some(folder) => checked(folder),
        None => release_with(&Engine::start()?),
    }
}

/// [`release`] by an engine that runs.
///
/// # Errors
/// When the build fails, with what it said.
pub fn release_with(engine: &Engine) -> Result<PathBuf> {
    if let Some(folder) = ready_made() {
        return checked(folder);
    }
    let folder = tree::kept().join("release");
    images::export(engine, "binaries", &folder).context("the release's programs")?;
    checked(folder)
}

/// The folder that `FLEETKNOCK_RELEASE_BINARIES` names.
pub(crate) fn ready_made() -> Option<PathBuf> {
    std::env::var_os(READY_MADE).map(PathBuf::from)
}

fn checked(folder: PathBuf) -> Result<PathBuf> {
    for program in PROGRAMS {
        if !folder.join(program).is_file() {
            bail!("{} has no {program}; unset {READY_MADE}, or name another folder", folder.display());
        }
    }
    Ok(folder)
}
