//! The labels of a node become those of its host: written as the agent's configuration before the agent starts.
//!
//! A node's labels have the form that a host's have. What a host cannot carry all the same is left out, and said.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use fleetknock_core::host::{HostName, LABELS_MAX, Labels};
use fleetknock_runtime::{
    exit::{self, coded},
    tls::authority::{Access, Staged},
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Client,
    api::GetParams,
    core::{Request, Resource as _},
};

use super::client::{CallError, call, connect};

#[cfg(test)]
mod tests;

/// The help's examples.
pub const EXAMPLES: &str = "\
Examples:
  fleetknock-controller kubernetes node-config --node \"$NODE_NAME\" --out /etc/fleetknock/agent.yaml
      in an init container of the agent's pod, with the node's name from the downward API
  fleetknock-controller kubernetes node-config --node n-1 --out agent.yaml --labels topology.kubernetes.io/,role
      only these, so that a door cannot hang on one that is about something else

The agent's --label and FLEETKNOCK_LABEL count before the file. A label that changes later counts when the pod starts anew.";

/// Write a node's labels into a configuration file for the agent that runs there
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct NodeConfig {
    /// Which node
    #[arg(long, value_name = "NAME")]
    pub node: HostName,

    /// Where to write, by renaming; what is there is replaced
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,

    /// Take only labels whose key begins with one of these; all of them unless given
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub labels: Vec<String>,
}

/// What a host takes over, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Of the host.
    pub labels: Labels,
    /// Those that were left out, with the reason.
    pub left_out: Vec<(String, String)>,
}

impl NodeConfig {
    /// Carries it out with the account of this pod.
    ///
    /// # Errors
    /// One line that says what is missing.
    pub async fn run(&self) -> anyhow::Result<()> {
        let client = connect().await.map_err(|error| coded(exit::UNAVAILABLE, error))?;
        self.write(&client).await
    }

    /// Reads the node, and writes the file.
    ///
    /// # Errors
    /// When there is no such node, it may not be read, or the file cannot be written.
    pub async fn write(&self, client: &Client) -> anyhow::Result<()> {
        let request = Request::new(Node::url_path(&(), None)).get(self.node.as_str(), &GetParams::default());
        let node: Node = call(client, request).await.map_err(|error| {
            let (code, remedy) = match &error {
                CallError::Away { .. } => (exit::UNAVAILABLE, ""),
                CallError::Forbidden { .. } => (exit::NO_PERMISSION, "; let this account get nodes"),
                CallError::NotFound => {
                    (exit::NO_INPUT, "; give --node the name that kubectl get nodes shows")
                }
                _ => (exit::DATA, ""),
            };
            coded(code, anyhow!("cannot read the node {}: {error}{remedy}", self.node))
        })?;
        let taken = take(&node.metadata.labels.unwrap_or_default(), &self.labels);
        for (key, reason) in &taken.left_out {
            say(&format!("warning: the label '{key}' is left out: {reason}"));
        }
        let text = text(&self.node, &taken.labels);
        Staged::new(&self.out, &text, Access::Everybody)
            .and_then(Staged::commit)
            .map_err(|error| coded(exit::IO, error))
            .with_context(|| format!("cannot write --out {}", self.out.display()))?;
        say(&format!("{}: {} labels of node {}", self.out.display(), taken.labels.iter().count(), self.node));
        Ok(())
    }
}

/// Which labels of a node its host takes over: those that begin with one of the prefixes, or all when there is none, as
/// many as a host can have, in the order of their keys.
pub fn take(of_node: &BTreeMap<String, String>, prefixes: &[String]) -> Taken {
    let wanted =
        |key: &str| prefixes.is_empty() || prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()));
    let (mut pairs, mut left_out) = (Vec::new(), Vec::new());
    for (key, value) in of_node.iter().filter(|(key, _)| wanted(key)) {
        let pair = (key.clone(), value.clone());
        // The key may be anything, and is said.
        let told = || key.chars().filter(|c| !c.is_control()).take(80).collect();
        match Labels::new([pair.clone()]) {
            Err(error) => left_out.push((told(), error.to_string())),
            Ok(_) if pairs.len() == LABELS_MAX => {
                left_out
                    .push((told(), format!("a host has at most {LABELS_MAX}; choose some with --labels")));
            }
            Ok(_) => pairs.push(pair),
        }
    }
    // Each is good, no key comes twice, and they are not too many.
    let labels = Labels::new(pairs).unwrap_or_default();
    Taken { labels, left_out }
}

/// The agent's configuration. What labels are made of needs no escape in a quoted scalar (YAML 1.2 section 7.3.1).
fn text(node: &HostName, labels: &Labels) -> String {
    let mut text = format!(
        "# The labels of node {node}, by which doors choose its host; written anew with each start of the pod.\n"
    );
    if labels.is_empty() {
        return text + "label: []\n";
    }
    text.push_str("label:\n");
    for (key, value) in labels.iter() {
        text.push_str(&format!("  - \"{key}={value}\"\n"));
    }
    text
}

/// For the log of the init container. A reader that went away is no error.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
