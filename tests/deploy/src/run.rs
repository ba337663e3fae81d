//! Commands that say what failed, and with what words.

use std::{
    io::ErrorKind,
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

/// Runs a command without standard input and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot be run (with what to install) or fails (with all that it wrote).
pub fn run(command: &mut Command) -> Result<String> {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{command:?}: there is no such program; install what is needed with: make deps")
        }
        Err(error) => bail!("{command:?}: {error}"),
    };
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{command:?} failed ({}):\n{said}{complained}", output.status);
    }
    Ok(said.into_owned())
}
