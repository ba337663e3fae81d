//! What the controller's program does for a fleet in Kubernetes beside serving.

use std::io::Write as _;

use anyhow::anyhow;
use clap::Subcommand;
use fleetknock_runtime::exit::{self, coded};

use super::{crd, labels::NodeConfig, pki::Pki};
use crate::config::Settings;

const CRD_EXAMPLES: &str = "\
Examples:
  fleetknock-controller kubernetes crd | kubectl apply --server-side -f -
      so that `kubectl apply -f door.yaml` works; the Helm chart and the kustomize base bring the same";

/// What a controller in Kubernetes needs beside it.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print the custom resource definition of doors
    #[command(after_help = CRD_EXAMPLES)]
    Crd,
    /// Write a node's labels into a configuration file for the agent that runs there
    NodeConfig(NodeConfig),
    /// Make the fleet's certificates, keep them as Secrets, and renew them
    ///
    /// Nothing that is there is replaced but certificates past two thirds of their life, or without a name that is asked
    /// for.
    Pki(Pki),
}

impl Command {
    /// Carries it out.
    ///
    /// # Errors
    /// One line that names the setting, its value and the remedy.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        match self {
            Self::Crd => {
                let text = crd::yaml().map_err(|error| coded(exit::SOFTWARE, anyhow!(error)))?;
                // A reader that went away is no error.
                let _ = std::io::stdout().lock().write_all(text.as_bytes());
                Ok(())
            }
            Self::NodeConfig(config) => exit::block_on(None, config.run()),
            Self::Pki(pki) => exit::block_on(None, pki.run(&settings.fleet_name())),
        }
    }
}
