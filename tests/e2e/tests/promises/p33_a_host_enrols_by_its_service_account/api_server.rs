//! The API server of a cluster, as far as enrolling goes: it says whose a token is and on which node its pod runs, as
//! Kubernetes documents TokenReview (authentication.k8s.io/v1), and what labels a node has.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use fleetknock_lab::Host;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Whose a token is, what for, and where its pod runs.
pub(super) struct Holder {
    pub(super) account: &'static str,
    pub(super) audience: &'static str,
    pub(super) pod: &'static str,
    pub(super) node: &'static str,
}

/// What it knows.
pub(super) struct Cluster {
    pub(super) tokens: BTreeMap<&'static str, Holder>,
    /// The labels of nodes.
    pub(super) nodes: BTreeMap<&'static str, Value>,
}

/// It, on loopback of a host, as long as this is kept.
pub(super) struct ApiServer {
    kubeconfig: PathBuf,
    _serving: Runtime,
}

impl ApiServer {
    pub(super) fn start(host: &Host, directory: &Path, cluster: Cluster) -> Result<Self> {
        let serving = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = host.inside(|| TcpListener::bind("127.0.0.1:0"))??;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = Router::new().fallback(answer).with_state(Arc::new(cluster));
        serving.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, routes).await
        });
        let kubeconfig = directory.join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": url}}],
            "users": [{"name": "lab", "user": {}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        fs::write(&kubeconfig, text.to_string())?;
        Ok(Self { kubeconfig, _serving: serving })
    }

    /// The variable by which a program on that host finds it.
    pub(super) fn variable(&self) -> Result<String> {
        let path = self.kubeconfig.to_str().context("a path in UTF-8")?;
        Ok(format!("KUBECONFIG={path}"))
    }
}

async fn answer(State(cluster): State<Arc<Cluster>>, method: Method, uri: Uri, body: Bytes) -> Response {
    let (code, object) = match uri.path() {
        TOKEN_REVIEWS if method == Method::POST => {
            let mut review: Value = serde_json::from_slice(&body).unwrap_or_default();
            review["status"] = cluster.review(&review["spec"]);
            (StatusCode::CREATED, review)
        }
        path => match path.strip_prefix("/api/v1/nodes/").and_then(|name| cluster.nodes.get(name)) {
            Some(labels) => {
                (StatusCode::OK, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"labels": labels}}))
            }
            None => (StatusCode::NOT_FOUND, json!({"kind": "Status", "apiVersion": "v1", "code": 404})),
        },
    };
    (code, [(CONTENT_TYPE, "application/json")], object.to_string()).into_response()
}

impl Cluster {
    /// Good is a token for one of the audiences that are asked for.
    fn review(&self, spec: &Value) -> Value {
        let token = spec["token"].as_str().unwrap_or_default();
        let asked = |audience: &str| {
            spec["audiences"].as_array().is_some_and(|all| all.iter().any(|one| one == audience))
        };
        let Some(holder) = self.tokens.get(token).filter(|holder| asked(holder.audience)) else {
            return json!({"authenticated": false, "error": "[invalid bearer token, unknown audience]"});
        };
        json!({
            "authenticated": true,
            "audiences": [holder.audience],
            "user": {
                "username": format!("system:serviceaccount:{}", holder.account),
                "uid": "6f1c7b2e-53a3-4c5a-9a56-3b1f0b1f2a11",
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "extra": {
                    "authentication.kubernetes.io/node-name": [holder.node],
                    "authentication.kubernetes.io/pod-name": [holder.pod],
                },
            },
        })
    }
}
