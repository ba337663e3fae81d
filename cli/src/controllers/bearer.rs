//! The user's token: where it is read from, and how it goes with each call.

use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use fleetknock_runtime::exit;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

#[cfg(test)]
mod tests;

/// Holds the token itself, for pipelines whose secrets come as variables. A file is better: what runs as the same user
/// can read a process's environment, and child processes inherit it.
pub(super) const VARIABLE: &str = "FLEETKNOCK_TOKEN";
/// More than a token and the line break after it.
const BYTES_MAX: u64 = 1_024;

/// Shows a token with each call; nothing without one.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Bearer {
    /// Of the file, else of the variable's value.
    pub(super) fn read(file: Option<&PathBuf>, variable: Option<String>) -> anyhow::Result<Self> {
        let (text, origin) = match (file, variable.filter(|text| !text.is_empty())) {
            (Some(path), _) => (read(path)?, format!("{} (--token-file)", path.display())),
            (None, Some(text)) => (text, VARIABLE.to_owned()),
            (None, None) => return Ok(Self(None)),
        };
        Self::of(text.trim(), &origin).map_err(|error| exit::coded(exit::DATA, error))
    }

    /// Whether there is one.
    pub(super) fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// No error repeats what may be a secret.
    fn of(text: &str, origin: &str) -> anyhow::Result<Self> {
        if text.starts_with("fke_") {
            return Err(anyhow!(
                "{origin} holds a host's token, which is for its agent to enrol with; a user's begins with fkt_ (fleetknock \
                 token create)"
            ));
        }
        let is_one = text.starts_with("fkt_") && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_one {
            return Err(anyhow!(
                "{origin} holds no token, which is one word that begins with fkt_ (fleetknock token create)"
            ));
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {text}").parse().context("the token")?;
        // Neither in debug output nor in the tables that compress headers.
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| {
        exit::coded(exit::NO_INPUT, anyhow!("cannot read {shown} (--token-file): {error}"))
    };
    let file = File::open(path).map_err(cannot)?;
    let mode = file.metadata().map_err(cannot)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let line = anyhow!(
            "{shown} (--token-file) can be read or changed by others (mode {mode:03o}); whoever has the token is you: \
             chmod 600 {shown}"
        );
        return Err(exit::coded(exit::NO_PERMISSION, line));
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(cannot)?;
    Ok(text)
}
