//! From an address to a stream that a controller accepted.

use std::time::Duration;

use fleetknock_proto::{
    limits,
    v1::{
        self, AgentMessage, ControllerMessage, agent_message::Kind as Said,
        agent_service_client::AgentServiceClient,
    },
};
use fleetknock_runtime::tls::Connector;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{OUTBOUND_MAX, names::Candidate};

/// From dialling to the stream's acceptance, when there is nobody else to ask.
const ALONE_MAX: Duration = Duration::from_secs(10);
/// When there is: a partition costs no more than this for each controller behind it.
const AMONG_OTHERS_MAX: Duration = Duration::from_secs(2);
/// HTTP/2 pings find a dead peer that the system's TCP would take minutes to give up.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_MAX: Duration = Duration::from_secs(2);

/// A stream that was accepted, with Hello on its way.
pub(super) struct Accepted {
    pub(super) outbound: mpsc::Sender<AgentMessage>,
    pub(super) inbound: Streaming<ControllerMessage>,
}

/// How long a candidate may take, of this many.
pub(super) fn time_for_one_of(candidates: usize) -> Duration {
    if candidates > 1 { AMONG_OTHERS_MAX } else { ALONE_MAX }
}

/// A channel to a controller. The one place where TLS comes in: the connector checks who is there, by certificate.
///
/// # Errors
/// When nobody answers there, or not the right one.
pub async fn connect(
    candidate: &Candidate,
    connector: Option<Connector>,
    most: Duration,
) -> Result<Channel, LinkError> {
    let origin = candidate.url().uri().clone();
    let endpoint = Connector::endpoint(&candidate.address().to_string(), origin)
        .map_err(LinkError::Unreachable)?
        .tcp_nodelay(true)
        .connect_timeout(most)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_MAX)
        .keep_alive_while_idle(true);
    let channel = match (candidate.url().is_secure(), connector) {
        (true, Some(connector)) => endpoint.connect_with_connector(connector.within(most)).await,
        (false, None) => endpoint.connect().await,
        // The settings exclude it; nothing is ever spoken in plain text where TLS was asked for.
        (true, None) | (false, Some(_)) => return Err(LinkError::Mixed),
    };
    channel.map_err(LinkError::Unreachable)
}

/// Opens a stream and says Hello.
pub(super) async fn dial(
    candidate: Candidate,
    connector: Option<Connector>,
    hello: v1::Hello,
    most: Duration,
) -> Result<Accepted, LinkError> {
    let attach = async {
        let channel = connect(&candidate, connector, most).await?;
        let mut client = AgentServiceClient::new(channel)
            .max_decoding_message_size(limits::MESSAGE_MAX)
            .max_encoding_message_size(limits::MESSAGE_MAX);
        let (outbound, messages) = mpsc::channel(OUTBOUND_MAX);
        // The queue is new: it has room.
        let _ = outbound.try_send(AgentMessage { kind: Some(Said::Hello(hello)) });
        let answer = client.attach(ReceiverStream::new(messages)).await;
        let inbound = answer.map_err(|status| LinkError::Refused(Box::new(status)))?.into_inner();
        Ok(Accepted { outbound, inbound })
    };
    timeout(most, attach).await.unwrap_or(Err(LinkError::Slow { most }))
}

/// Whether a controller itself said that it cannot serve. A connection that broke can end in the same code, made up on
/// this side: then there is an error beneath it.
pub(super) fn is_unavailable(status: &Status) -> bool {
    status.code() == Code::Unavailable && std::error::Error::source(status).is_none()
}

/// What a status says, for people.
pub(super) fn said(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(beneath) => format!("the connection broke: {}", innermost(beneath)),
        None => format!("{}: {}", status.code(), status.message()),
    }
}

/// Why a controller cannot be attached to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It said no.
    #[error("refused: {}", said(.0))]
    Refused(Box<Status>),
    /// TLS for a plain URL, or the reverse.
    #[error("https:// and --insecure, or http:// and --tls-cert, do not go together")]
    Mixed,
    /// No answer in time.
    #[error("no answer within {most:?}")]
    Slow {
        /// How long was waited.
        most: Duration,
    },
    /// Nobody answers there.
    #[error("cannot connect: {}", innermost(.0))]
    Unreachable(tonic::transport::Error),
}

impl LinkError {
    /// Whether a controller is there and says that it cannot serve.
    pub(super) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Refused(status) if is_unavailable(status))
    }
}

/// The cause beneath "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests;
