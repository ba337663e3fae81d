//! Where the programs under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The program of that name from this build: beside the running test or program, or one folder above it.
///
/// # Errors
/// When it has not been built: says how.
pub fn path(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find this program's own file")?;
    let mut folder = own.parent();
    for _ in 0..2 {
        let Some(here) = folder else { break };
        let candidate = here.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
        folder = here.parent();
    }
    let profile = if own.components().any(|part| part.as_os_str() == "release") { " --release" } else { "" };
    bail!("the program {name} is not built; build it with: cargo build --workspace --bins{profile}")
}

/// The OTLP collector of others that `tests/scripts/deps test` puts beside the build.
///
/// # Errors
/// When it is not there: says how to get it.
pub fn rotel() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find this program's own file")?;
    let tools = own.ancestors().map(|folder| folder.join("tools/lib"));
    let versions = tools.filter_map(|lib| lib.read_dir().ok()).flatten().flatten();
    let mut found = versions.map(|version| version.path().join("site-packages/rotel/rotel-agent"));
    found.find(|path| path.is_file()).context("rotel is not there; get it with: tests/scripts/deps test")
}

/// The search path for the tools of the operating system: administrators' folders too, which an ordinary user's lacks.
pub(crate) fn search_path() -> String {
    let own = env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// Whether a tool of the operating system is there.
pub fn has_tool(name: &str) -> bool {
    search_path().split(':').any(|folder| Path::new(folder).join(name).is_file())
}
