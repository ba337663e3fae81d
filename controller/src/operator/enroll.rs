//! Hosts that enrol by the word of their cluster: the pod of an agent shows the token of its service account, which the
//! kubelet writes for it, and the API server says on which node that pod runs.
//!
//! ```text
//!   agent ──token──▶ controller ──TokenReview, audience fleetknock──▶ API server
//!                        ◀── account, audiences, pod and node of the token ──
//! ```
//!
//! A token counts for enrolling only because of its audience: one that an ordinary pod has for the API server is refused,
//! and one for enrolling is nothing to the API server. It is bound to its pod, and over when the pod is.

use std::{fmt, str::FromStr};

use async_trait::async_trait;
use fleetknock_core::host::HostName;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{
    Client,
    api::PostParams,
    core::{Request, Resource as _},
};
use tokio::{sync::Semaphore, time::timeout};

use super::client::{ANSWER_MAX, CallError, call, words};
use crate::enrolment::cluster::{Cluster, ClusterError, TOKEN_MAX, Word};

#[cfg(test)]
mod tests;

/// For whom a token must be made.
pub const AUDIENCE: &str = "fleetknock";
/// Tokens that the API server is asked about at the same time; others wait, as long as one answer may take. Whoever sends
/// junk keeps this many questions under way, and no more.
const REVIEWS_MAX: usize = 8;

/// Where the API server says on which node a token's pod runs: Kubernetes 1.30 and later.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Where it says which pod that is.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// A service account, `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    namespace: String,
    name: String,
}

impl FromStr for ServiceAccount {
    type Err = String;

    /// A namespace is 1 to 63 lower-case letters, digits and hyphens (RFC 1123 label), an account's name a DNS name.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = "a service account is written NAMESPACE/NAME, such as fleetknock/fleetknock-agent";
        let (namespace, name) = text.split_once('/').ok_or(form)?;
        let named = |part: &str| part.parse::<HostName>().is_ok();
        if namespace.len() > 63 || namespace.contains('.') || !named(namespace) || !named(name) {
            return Err(form.to_owned());
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ServiceAccount {
    /// As the API server names it.
    fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// Why the API server's answer does not make a host of a token's holder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// It is another account's.
    #[error(
        "the token is that of {user}; pods of the service account {wanted} enrol here (--kubernetes-enroll)"
    )]
    Account {
        /// Whose it is.
        user: String,
        /// Whose it should be.
        wanted: String,
    },
    /// It is for somebody else.
    #[error(
        "the token is not for the audience {AUDIENCE}; mount a projected one: serviceAccountToken with audience: {AUDIENCE}"
    )]
    Audience,
    /// It is not good.
    #[error("the cluster does not vouch for the token: {reason}")]
    NotAuthenticated {
        /// What the API server said.
        reason: String,
    },
    /// It is bound to no pod.
    #[error("the token is bound to no pod; mount a projected one (serviceAccountToken) into the agent's pod")]
    NoPod,
    /// The API server does not say on which node the pod runs.
    #[error(
        "the cluster does not say on which node the pod runs: that takes Kubernetes 1.30 or later, and a token that the \
         kubelet of a node has written"
    )]
    NoNode,
    /// The node's name cannot be that of a host.
    #[error("the pod runs on a node whose name no host can have: {reason}")]
    Node {
        /// Why.
        reason: String,
    },
}

/// Judges what the API server says of a token that should be one of this account's.
///
/// # Errors
/// When it is not, or its node is not known.
pub fn judge(status: &TokenReviewStatus, account: &ServiceAccount) -> Result<Word, ReviewError> {
    if status.authenticated != Some(true) {
        let reason = status.error.as_deref().map(words).filter(|reason| !reason.is_empty());
        let reason = reason.unwrap_or_else(|| "it is over, or was never one of its tokens".to_owned());
        return Err(ReviewError::NotAuthenticated { reason });
    }
    // An API server that knows no audiences names none, and has judged the token for itself.
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(ReviewError::Audience);
    }
    let user = status.user.as_ref();
    let name = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
    if name != account.user() {
        return Err(ReviewError::Account { user: words(name), wanted: account.to_string() });
    }
    let said = |key: &str| match user.and_then(|user| user.extra.as_ref()?.get(key)).map(Vec::as_slice) {
        Some([one]) => Some(one.as_str()),
        _ => None,
    };
    // Pods' names have the form of hosts' names.
    let pod: HostName = said(POD_NAME).and_then(|pod| pod.parse().ok()).ok_or(ReviewError::NoPod)?;
    let node = said(NODE_NAME).ok_or(ReviewError::NoNode)?;
    let host = node.parse().map_err(|error| ReviewError::Node { reason: format!("{error}") })?;
    Ok(Word { host, holder: format!("kubernetes serviceaccount {account} pod {pod}") })
}

/// Asks the API server of a cluster.
pub struct Reviewer {
    client: Client,
    account: ServiceAccount,
    places: Semaphore,
}

impl Reviewer {
    /// Pods of this account enrol.
    pub fn new(client: Client, account: ServiceAccount) -> Self {
        Self { client, account, places: Semaphore::new(REVIEWS_MAX) }
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, CallError> {
        let spec =
            TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let body = serde_json::to_vec(&review).map_err(|_| CallError::Unreadable)?;
        let request = Request::new(TokenReview::url_path(&(), None)).create(&PostParams::default(), body);
        let answer: TokenReview = call(&self.client, request).await?;
        Ok(answer.status.unwrap_or_default())
    }
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviewer").field("account", &self.account).finish_non_exhaustive()
    }
}

#[async_trait]
impl Cluster for Reviewer {
    async fn word(&self, token: &str) -> Result<Word, ClusterError> {
        if token.len() > TOKEN_MAX {
            let reason = format!("the token has more than {TOKEN_MAX} bytes");
            return Err(ClusterError::Refused { reason });
        }
        let away = |reason: String| ClusterError::Away { reason };
        let place = timeout(ANSWER_MAX, self.places.acquire()).await;
        let _place = place
            .map_err(|_| away("too many tokens are being looked at".to_owned()))?
            .map_err(|_| away("this controller is leaving".to_owned()))?;
        let status = self.review(token).await.map_err(|error| {
            // Which is the operator's to mend, not the host's.
            tracing::warn!(%error, "a host's token cannot be shown to the Kubernetes API server");
            away("the cluster's API server cannot be asked now".to_owned())
        })?;
        judge(&status, &self.account).map_err(|error| {
            // Whatever the API server says of a token, its text goes nowhere.
            ClusterError::Refused { reason: error.to_string().replace(token, "(the token)") }
        })
    }
}
