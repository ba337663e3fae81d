//! The stream to one controller at a time.
//!
//! ```text
//!   waiting ──time is up──▶ connecting ──accepted──▶ attached ──▶ lost: the next controller, after a back-off
//!      ▲                        │ refused               │ Goodbye with move_now: the next controller at once
//!      └────────────────────────┴───────────────────────┘
//! ```
//!
//! The link moves messages and knows when a controller is dead. What messages mean is the driver's matter.

use std::{future::Future, pin::Pin, time::Duration};

use fleetknock_proto::{
    limits,
    v1::{
        self, AgentMessage, ControllerMessage, agent_message::Kind as Said,
        agent_service_client::AgentServiceClient,
    },
};
use fleetknock_runtime::backoff::{Backoff, BackoffError};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep_until, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use crate::config::ControllerUrl;

pub mod wire;

/// Messages that wait to be written to a stream. Small, so that observations that cannot be sent yet gather in the
/// window and go in larger batches.
pub const OUTBOUND_MAX: usize = 64;
/// Of these, kept free of observations for answers to probes, results and reports.
pub const OUTBOUND_URGENT: usize = 16;

const RETRY_LEAST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// From dialling to the stream's acceptance.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// HTTP/2 pings find a dead peer that the system's TCP would take minutes to give up.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_MAX: Duration = Duration::from_secs(5);
/// How long nothing may be heard before Welcome has said what to expect.
const SILENCE_AT_FIRST: Duration = Duration::from_secs(10);
/// A stream that lived this long was a good one: its end counts as the first failure, however it ended.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// What happens on the link.
#[derive(Debug)]
pub enum Event {
    /// A controller accepted the stream; Hello is on its way.
    Attached(mpsc::Sender<AgentMessage>),
    /// It said something.
    Heard(Box<ControllerMessage>),
    /// The stream ended; the link goes on by itself.
    Lost,
}

/// The stream to one controller at a time.
#[derive(Debug)]
pub struct Link {
    controllers: Vec<ControllerUrl>,
    at: usize,
    hello: v1::Hello,
    backoff: Backoff,
    failures: u32,
    silence: Duration,
    state: State,
}

enum State {
    Attached { inbound: Box<Streaming<ControllerMessage>>, heard: Instant, since: Instant },
    Connecting(Pin<Box<dyn Future<Output = Result<Accepted, LinkError>> + Send>>),
    Waiting(Pin<Box<Sleep>>),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Attached { .. } => "attached",
            Self::Connecting(_) => "connecting",
            Self::Waiting(_) => "waiting",
        })
    }
}

struct Accepted {
    outbound: mpsc::Sender<AgentMessage>,
    inbound: Streaming<ControllerMessage>,
}

impl Link {
    /// Begins with the controller that `random` chooses, so that a fleet spreads over them.
    ///
    /// # Errors
    /// When the retry times are no back-off, which a test excludes.
    pub fn new(
        controllers: Vec<ControllerUrl>,
        hello: v1::Hello,
        random: usize,
    ) -> Result<Self, BackoffError> {
        Ok(Self {
            at: random % controllers.len().max(1),
            controllers,
            hello,
            backoff: Backoff::new(RETRY_LEAST, RETRY_MOST, 0.5)?,
            failures: 0,
            silence: SILENCE_AT_FIRST,
            state: State::Waiting(Box::pin(sleep_until(Instant::now()))),
        })
    }

    /// What is said first on the next stream.
    pub fn hello_mut(&mut self) -> &mut v1::Hello {
        &mut self.hello
    }

    /// The controller said Welcome: it is a good one, and re-asserts at this interval.
    pub fn welcomed(&mut self, reassert: Duration) {
        let controller = self.current();
        tracing::info!(controller, "attached to a controller");
        self.failures = 0;
        self.silence = reassert.clamp(Duration::from_millis(100), Duration::from_secs(600)) * 3;
    }

    /// Leaves the stream for a reason. `at_once`: the controller asked to move on now.
    pub fn leave(&mut self, reason: &str, at_once: bool) {
        let State::Attached { since, .. } = self.state else { return };
        // A controller that dismisses as soon as it accepts does not make the agent dial without end.
        let at_once = at_once && since.elapsed() > RETRY_LEAST;
        tracing::warn!(controller = self.current(), reason, "the link to the controller ended");
        if since.elapsed() > GOOD_AFTER {
            self.failures = 0;
        }
        self.move_on(if at_once { Some(Duration::ZERO) } else { None });
    }

    /// The next event. Cancelling this loses nothing.
    pub async fn next(&mut self) -> Event {
        loop {
            match &mut self.state {
                State::Waiting(sleep) => {
                    sleep.await;
                    let dial = dial(self.controllers.get(self.at).cloned(), self.hello.clone());
                    self.state = State::Connecting(Box::pin(dial));
                }
                State::Connecting(dialling) => match dialling.await {
                    Ok(Accepted { outbound, inbound }) => {
                        let now = Instant::now();
                        self.silence = SILENCE_AT_FIRST;
                        self.state = State::Attached { inbound: Box::new(inbound), heard: now, since: now };
                        return Event::Attached(outbound);
                    }
                    Err(error) => self.refused(&error),
                },
                State::Attached { inbound, heard, .. } => {
                    let silent_at = *heard + self.silence;
                    let ended = match timeout_at(silent_at, inbound.message()).await {
                        Ok(Ok(Some(message))) => {
                            *heard = Instant::now();
                            return Event::Heard(Box::new(message));
                        }
                        Ok(Ok(None)) => "the controller ended the stream".to_owned(),
                        Ok(Err(status)) => format!("{}: {}", status.code(), status.message()),
                        Err(_) => format!("nothing was heard for {:?}", self.silence),
                    };
                    self.leave(&ended, false);
                    return Event::Lost;
                }
            }
        }
    }

    fn current(&self) -> String {
        self.controllers.get(self.at).map(ToString::to_string).unwrap_or_default()
    }

    fn refused(&mut self, error: &LinkError) {
        let controller = self.current();
        // Once for each time that the link is lost, however long it stays so.
        if self.failures == 0 {
            let others = self.controllers.len().saturating_sub(1);
            tracing::warn!(controller, %error, others, "cannot attach to the controller; trying on");
        } else {
            tracing::debug!(controller, %error, failures = self.failures, "still cannot attach");
        }
        self.move_on(None);
    }

    fn move_on(&mut self, delay: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        self.at = (self.at + 1) % self.controllers.len().max(1);
        let delay = delay.unwrap_or_else(|| self.backoff.random_delay(self.failures));
        self.state = State::Waiting(Box::pin(sleep_until(Instant::now() + delay)));
    }
}

/// A channel to a controller. The one place where TLS comes in.
///
/// # Errors
/// When nobody answers there.
pub async fn connect(controller: &ControllerUrl) -> Result<Channel, LinkError> {
    Endpoint::from(controller.uri().clone())
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_MAX)
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(LinkError::Unreachable)
}

async fn dial(controller: Option<ControllerUrl>, hello: v1::Hello) -> Result<Accepted, LinkError> {
    let controller = controller.ok_or(LinkError::Nobody)?;
    let attach = async {
        let channel = connect(&controller).await?;
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
    timeout(CONNECT_MAX, attach).await.unwrap_or(Err(LinkError::Slow))
}

/// Why a controller cannot be attached to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No controller is known.
    #[error("no controller is given")]
    Nobody,
    /// It said no.
    #[error("refused: {}: {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
    /// No answer in time.
    #[error("no answer within {CONNECT_MAX:?}")]
    Slow,
    /// Nobody answers there.
    #[error("cannot connect: {}", innermost(.0))]
    Unreachable(tonic::transport::Error),
}

/// The cause beneath "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
