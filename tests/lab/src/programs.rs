//! Where the programs under test are.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail, ensure};

/// Programs that are taken from elsewhere than this build, by name.
static CHOSEN: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

/// Takes the program of that name from this folder from now on, or from this build again. For all labs of this process: a
/// test that mixes versions has one to itself.
pub fn choose(name: &str, folder: Option<&Path>) {
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    match folder {
        Some(folder) => drop(chosen.insert(name.to_owned(), folder.join(name))),
        None => drop(chosen.remove(name)),
    }
}

/// The program of that name: the one that was [chosen](choose), or the one from this build, which lies beside the running test
/// or program, or one folder above it.
///
/// # Errors
/// When it has not been built: says how.
pub fn path(name: &str) -> Result<PathBuf> {
    if let Some(chosen) = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
        ensure!(chosen.is_file(), "the program {} is not there", chosen.display());
        return Ok(chosen.clone());
    }
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
