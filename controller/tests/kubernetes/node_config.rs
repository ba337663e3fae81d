//! The labels of a node, read from the API server and written for the agent.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use fleetknock_controller::operator::labels::NodeConfig;
use fleetknock_runtime::exit;
use serde_json::json;

use crate::api_server::{ApiServer, Fault};

const NODES: &str = "/api/v1/nodes";

#[tokio::test]
async fn a_nodes_labels_become_the_agents_configuration() {
    let (api, directory) = (ApiServer::start().await, tempfile::tempdir().unwrap());
    let out = directory.path().join("agent.yaml");
    let labels = json!({"topology.kubernetes.io/zone": "z-1", "role": "bastion", "wrong": "a b"});
    api.put(NODES, "node-1", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"labels": labels}}));
    let config = node_config("node-1", out.clone(), &[]);
    config.write(&api.client()).await.unwrap();
    let text = fs::read_to_string(&out).unwrap();
    assert!(
        text.ends_with("label:\n  - \"role=bastion\"\n  - \"topology.kubernetes.io/zone=z-1\"\n"),
        "{text}"
    );
    // The agent is another user than the one that writes, and root without the power to read everything.
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o444, 0o444);

    // What is there is replaced whole, and only what is asked for is taken.
    node_config("node-1", out.clone(), &["topology."]).write(&api.client()).await.unwrap();
    let text = fs::read_to_string(&out).unwrap();
    assert!(!text.contains("role=") && text.contains("zone=z-1"), "{text}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    assert_eq!(api.kept().calls, ["GET /api/v1/nodes/node-1", "GET /api/v1/nodes/node-1"]);
}

#[tokio::test]
async fn what_is_missing_is_said_and_nothing_is_written() {
    let (api, directory) = (ApiServer::start().await, tempfile::tempdir().unwrap());
    let out = directory.path().join("agent.yaml");
    let config = node_config("node-1", out.clone(), &[]);
    for (fault, said, code) in [
        (None, "kubectl get nodes", exit::NO_INPUT),
        (Some(Fault::Code(403)), "let this account get nodes", exit::NO_PERMISSION),
        (Some(Fault::Code(503)), "does not answer", exit::UNAVAILABLE),
        (Some(Fault::Nonsense), "cannot be read", exit::DATA),
    ] {
        if let Some(fault) = fault {
            api.spoil("GET", fault);
        }
        let error = config.write(&api.client()).await.unwrap_err();
        assert!(format!("{error:#}").contains(said), "{error:#}");
        assert_eq!(exit::code_of(&error), code, "{error:#}");
        assert!(!out.exists());
    }
}

fn node_config(node: &str, out: PathBuf, labels: &[&str]) -> NodeConfig {
    let labels = labels.iter().map(ToString::to_string).collect();
    NodeConfig { node: node.parse().unwrap(), out, labels }
}
