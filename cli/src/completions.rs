//! `fleetknock completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{args::Cli, output::Out};

/// Write a completion script for a shell
///
/// Writes the script to standard output.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock completions bash > /etc/bash_completion.d/fleetknock
  fleetknock completions zsh > ~/.zfunc/_fleetknock")]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

pub(crate) fn run(command: &Completions, out: &mut Out) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut Cli::command(), "fleetknock", &mut script);
    out.raw(&String::from_utf8_lossy(&script))?;
    Ok(())
}
