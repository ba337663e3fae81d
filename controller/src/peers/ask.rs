//! Asks all peers at once, so that one controller answers for all. A peer that does not answer in time is named, and
//! never holds up the answer longer.

use std::{collections::BTreeMap, time::Duration};

use fleetknock_core::host::HostName;
use fleetknock_proto::v1::{self as pb, peer_service_client::PeerServiceClient};
use futures::future::join_all;
use tokio::time::timeout;
use tonic::{Response, Status, transport::Channel};

use super::{Peers, route::Link};

/// How long a peer may take to answer.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What the peers answered, and who did not. One entry per peer.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    pub(crate) answers: BTreeMap<HostName, T>,
    pub(crate) unanswered: BTreeMap<HostName, Silence>,
}

/// Why a peer did not answer.
#[derive(Clone, Debug)]
pub(crate) struct Silence {
    /// No process of it runs: there is nothing that it could know.
    pub(crate) dead: bool,
    /// For people.
    pub(crate) reason: String,
}

impl<T> Answers<T> {
    /// Nobody was asked.
    pub(crate) fn none() -> Self {
        Self { answers: BTreeMap::new(), unanswered: BTreeMap::new() }
    }

    /// Who did not answer, as operators are told.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        self.unanswered.keys().map(ToString::to_string).collect()
    }
}

impl Peers {
    /// Asks every peer.
    pub(crate) async fn ask<T, A>(&self, question: impl Fn(PeerServiceClient<Channel>) -> A) -> Answers<T>
    where
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let statuses = self.statuses();
        let asking = self.clients().into_iter().map(|(name, client)| {
            let asked = client.map(&question);
            let status = statuses.get(&name);
            async move {
                let Some(asked) = asked else {
                    let reason =
                        status.map(|status| status.reason.clone()).filter(|reason| !reason.is_empty());
                    let dead = status.is_some_and(|status| status.link == Link::Dead);
                    let reason = reason.unwrap_or_else(|| "it is not reached yet".to_owned());
                    return (name, Err(Silence { dead, reason }));
                };
                let answer = match timeout(ANSWER_MAX, asked).await {
                    Ok(Ok(answer)) => Ok(answer.into_inner()),
                    Ok(Err(status)) => Err(format!("{}: {}", status.code(), status.message())),
                    Err(_) => Err(format!("it did not answer within {ANSWER_MAX:?}")),
                };
                (name, answer.map_err(|reason| Silence { dead: false, reason }))
            }
        });
        let mut all = Answers::none();
        for (name, answer) in join_all(asking).await {
            match answer {
                Ok(answer) => {
                    all.answers.insert(name, answer);
                }
                Err(silence) => {
                    tracing::debug!(peer = %name, reason = silence.reason, "a controller did not answer");
                    all.unanswered.insert(name, silence);
                }
            }
        }
        all
    }

    /// Asks every peer how it stands.
    pub(crate) async fn describe_all(&self) -> Answers<pb::Controller> {
        self.ask(|mut client| async move { client.describe(pb::DescribeRequest {}).await }).await
    }
}
