//! Doors from files, directories and standard input.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use fleetknock_core::door::{
    Door, DoorName,
    yaml::{self, TEXT_MAX},
};
use fleetknock_runtime::exit;

#[cfg(test)]
mod tests;

/// Files of a directory that hold doors.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Files in all.
const FILES_MAX: usize = 10_000;

/// A door and where it stands.
#[derive(Debug)]
pub(crate) struct Found {
    /// Such as `bastion.yaml:2`.
    pub(crate) place: String,
    pub(crate) door: Door,
}

/// All doors, and one line for each problem.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    pub(crate) found: Vec<Found>,
    pub(crate) problems: Vec<String>,
}

/// Reads every door of these files; `-` is standard input, a directory stands for its `.yaml`, `.yml` and `.json`
/// files, without those of directories beneath it.
///
/// # Errors
/// When a file cannot be read at all.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Doors> {
    let mut doors = Doors::default();
    let mut places: BTreeMap<DoorName, String> = BTreeMap::new();
    for path in expand(paths)? {
        let name = if is_stdin(&path) { "(standard input)".to_owned() } else { path.display().to_string() };
        let text = text(&path)?;
        let documents = match yaml::parse_each(&text) {
            Ok(documents) => documents,
            Err(error) => {
                doors.problems.push(format!("{name}:{error}"));
                continue;
            }
        };
        if documents.is_empty() {
            doors.problems.push(format!("{name}: holds no door"));
        }
        for document in documents {
            match document {
                Err(error) => doors.problems.push(format!("{name}:{error}")),
                Ok(document) => {
                    let place = format!("{name}:{}", document.line);
                    if let Some(first) = places.get(document.door.name()) {
                        let problem = format!(
                            "{place}: metadata.name: the door '{}' is already in {first}; names are unique in a fleet",
                            document.door.name()
                        );
                        doors.problems.push(problem);
                        continue;
                    }
                    places.insert(document.door.name().clone(), place.clone());
                    doors.found.push(Found { place, door: document.door });
                }
            }
        }
    }
    Ok(doors)
}

/// The text of a file, or of standard input for `-`.
pub(crate) fn text(path: &Path) -> anyhow::Result<String> {
    let unreadable = |error: std::io::Error| {
        let error = anyhow::Error::new(error).context(format!("cannot read {}", path.display()));
        exit::coded(exit::NO_INPUT, error)
    };
    let mut bytes = Vec::new();
    // One byte more than a reader takes is enough for it to say that this is too much.
    let most = TEXT_MAX as u64 + 1;
    if is_stdin(path) {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        fs::File::open(path).map_err(unreadable)?.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    String::from_utf8(bytes)
        .with_context(|| format!("{} is not text (UTF-8)", path.display()))
        .map_err(|error| exit::coded(exit::DATA, error))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn expand(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if is_stdin(path) || !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |error: std::io::Error| {
            let error =
                anyhow::Error::new(error).context(format!("cannot read the directory {}", path.display()));
            exit::coded(exit::NO_INPUT, error)
        };
        let mut inside = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if EXTENSIONS.contains(&extension) && file.is_file() {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            let error = anyhow!("{} holds no .yaml, .yml or .json file", path.display());
            return Err(exit::coded(exit::NO_INPUT, error));
        }
        inside.sort();
        files.extend(inside);
    }
    if files.len() > FILES_MAX {
        return Err(exit::coded(exit::DATA, anyhow!("more than {FILES_MAX} files; name fewer at a time")));
    }
    Ok(files)
}
