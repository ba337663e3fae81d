//! What the controller's program does instead of serving. Each room brings its own commands.

use clap::Subcommand;

#[cfg(feature = "operator")]
use crate::operator;
use crate::{config::Settings, seal};

/// What to do instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Seal keys, and sealing a store anew.
    #[command(flatten)]
    Seal(seal::command::Command),

    /// What a controller in Kubernetes needs beside it
    #[cfg(feature = "operator")]
    #[command(subcommand)]
    Kubernetes(operator::command::Command),
}

impl Command {
    /// Carries it out.
    ///
    /// # Errors
    /// One line that names the setting, its value and the remedy.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        match self {
            Self::Seal(command) => command.run(settings),
            #[cfg(feature = "operator")]
            Self::Kubernetes(command) => command.run(settings),
        }
    }
}
