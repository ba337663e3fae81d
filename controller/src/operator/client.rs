//! How the API server of the cluster is reached, and asked.
//!
//! What is asked here is answered within a time, and an answer that cannot be read is never logged: it may hold a secret.
//! (The client's own typed calls write such an answer into the log.)

use std::time::Duration;

use kube::{Client, Config, config::KubeConfigOptions};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tonic::codegen::http;

/// How long a connection to the API server may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long one question may take, retries included.
pub const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The longest part of an API server's own words that is passed on, in characters.
const WORDS_MAX: usize = 300;
/// Names the file of a cluster, an account and its key, as for kubectl.
const KUBECONFIG: &str = "KUBECONFIG";

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot tell where the Kubernetes API server is: {reason}; run this in a pod with a service account's token, or name a \
     file in KUBECONFIG"
)]
pub struct ClientError {
    reason: String,
}

/// Why a question was not answered as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The API server is not there, or not now.
    #[error("the API server does not answer: {reason}")]
    Away {
        /// Why.
        reason: String,
    },
    /// It is not how it was when it was read, or is there already.
    #[error("somebody else changed it at the same time")]
    Conflict,
    /// This account may not.
    #[error("the API server does not allow it: {reason}")]
    Forbidden {
        /// What it said.
        reason: String,
    },
    /// It is not there.
    #[error("it is not there")]
    NotFound,
    /// It is not taken.
    #[error("the API server refuses it: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The answer is none.
    #[error("the API server's answer cannot be read")]
    Unreadable,
}

/// Where the cluster is in which this runs, with the account of its pod; or the one that the file named in `KUBECONFIG`
/// describes, when that is set. Files of tokens and authorities are read again as they change.
///
/// # Errors
/// When neither is there.
pub async fn config() -> Result<Config, ClientError> {
    let failed = |reason: String| ClientError { reason };
    if std::env::var_os(KUBECONFIG).is_some_and(|path| !path.is_empty()) {
        Config::from_kubeconfig(&KubeConfigOptions::default())
            .await
            .map_err(|error| failed(error.to_string()))
    } else {
        Config::incluster().map_err(|error| failed(error.to_string()))
    }
}

/// A client of [that cluster](config) for questions, which are answered soon or not at all.
///
/// # Errors
/// When nothing tells where it is.
pub async fn connect() -> Result<Client, ClientError> {
    let mut config = config().await?;
    config.connect_timeout = Some(CONNECT_MAX);
    Client::try_from(config).map_err(|error| ClientError { reason: error.to_string() })
}

/// Asks the API server, and reads the answer.
///
/// # Errors
/// When it does not answer in [`ANSWER_MAX`], refuses, or says what cannot be read.
pub async fn call<T: DeserializeOwned>(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<T, CallError> {
    let request = request.map_err(|error| CallError::Refused { reason: words(&error.to_string()) })?;
    let late = |_| CallError::Away { reason: format!("not within {} s", ANSWER_MAX.as_secs()) };
    let text = timeout(ANSWER_MAX, client.request_text(request)).await.map_err(late)?.map_err(failed)?;
    serde_json::from_str(&text).map_err(|_| CallError::Unreadable)
}

fn failed(error: kube::Error) -> CallError {
    let kube::Error::Api(status) = error else {
        return CallError::Away { reason: words(&chain(&error)) };
    };
    let reason = words(&status.message);
    match status.code {
        404 => CallError::NotFound,
        409 => CallError::Conflict,
        401 | 403 => CallError::Forbidden { reason },
        429 | 500..=599 => CallError::Away { reason },
        _ => CallError::Refused { reason },
    }
}

/// An error with all that is beneath it, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        next = error.source();
    }
    told
}

/// What the other side says, in one line of bounded length.
pub fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}
