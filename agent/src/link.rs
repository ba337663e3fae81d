//! The stream to one controller at a time, of as many as there are.
//!
//! ```text
//!   waiting ──time is up──▶ resolving ──candidates──▶ connecting ──accepted──▶ attached ──Welcome──▶ welcomed
//!
//!   connecting, attached:  refused, slow or ended        ──▶ connecting to the next candidate; waiting if none is left
//!   welcomed not long ago: lost or dismissed             ──▶ the same
//!   welcomed long ago:     lost or dismissed             ──▶ resolving, at once
//!   welcomed:              asked to leave without hurry  ──▶ waiting
//! ```
//!
//! A *round* asks every candidate (an address that a URL stands for now) once, in random order, without waiting in
//! between; the back-off lies between rounds. A stream that ends soon after Welcome goes on with the round that it came
//! from, so that a controller that takes agents only to drop them is paced as well.
//!
//! When a round ends without a Welcome and somebody in it said that it cannot serve, the next round's Hellos say so
//! ([`v1::Hello::last_resort`]): somebody shall hear this host's knocks.
//!
//! The link moves messages and knows when a controller is dead. What messages mean is the driver's matter.

use std::{pin::Pin, time::Duration};

use fleetknock_proto::v1::{self, AgentMessage, ControllerMessage};
use fleetknock_runtime::{
    backoff::{Backoff, BackoffError},
    tls::Connector,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tonic::Streaming;

use dial::Accepted;
use names::{Candidate, Names};
use round::Round;

pub mod dial;
pub mod names;
pub mod office;
pub mod round;
pub mod wire;

pub use dial::LinkError;

/// Messages that wait to be written to a stream. Small, so that observations that cannot be sent yet gather in the
/// window and go in larger batches.
pub const OUTBOUND_MAX: usize = 64;
/// Of these, kept free of observations for answers to probes, results and reports.
pub const OUTBOUND_URGENT: usize = 16;

const RETRY_LEAST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// How long nothing may be heard before Welcome has said what to expect.
const SILENCE_AT_FIRST: Duration = Duration::from_secs(10);
/// A stream that lived this long was a good one: its end is the first failure, and a new round begins at once.
pub const GOOD_AFTER: Duration = Duration::from_secs(5);

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

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It broke, or what was said on it was wrong.
    Broken,
    /// The controller cannot serve: another one at once.
    Dismissed,
    /// The controller asks to be left, without hurry: another one after the back-off.
    Asked,
}

/// The stream to one controller at a time.
#[derive(Debug)]
pub struct Link {
    names: Names,
    /// For controllers with TLS.
    connector: Option<Connector>,
    round: Round<Candidate>,
    /// The candidate that is dialled or attached to.
    at: Option<Candidate>,
    /// The candidate whose stream ended last: the next round asks it after all others.
    lost: Option<Candidate>,
    hello: v1::Hello,
    /// What the next round says in its Hellos.
    last_resort: bool,
    backoff: Backoff,
    /// Rounds in a row that gained nothing.
    failures: u32,
    /// A round has failed since the last Welcome: refusals are no news any more.
    quiet: bool,
    silence: Duration,
    state: State,
}

enum State {
    Attached(Attached),
    Connecting(Pin<Box<dyn Future<Output = Result<Accepted, LinkError>> + Send>>),
    Resolving { asked: Instant },
    Waiting(Pin<Box<Sleep>>),
}

struct Attached {
    inbound: Box<Streaming<ControllerMessage>>,
    heard: Instant,
    since: Instant,
    welcomed: bool,
    /// As what it was dialled.
    last_resort: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Attached(_) => "attached",
            Self::Connecting(_) => "connecting",
            Self::Resolving { .. } => "resolving",
            Self::Waiting(_) => "waiting",
        })
    }
}

impl Link {
    /// Dials as soon as it is asked for [`next`](Self::next).
    ///
    /// # Errors
    /// When the retry times are no back-off, which a test excludes.
    pub fn new(names: Names, connector: Option<Connector>, hello: v1::Hello) -> Result<Self, BackoffError> {
        Ok(Self {
            names,
            connector,
            round: Round::new(Vec::new(), None, false, &mut rand::rng()),
            at: None,
            lost: None,
            hello,
            last_resort: false,
            backoff: Backoff::new(RETRY_LEAST, RETRY_MOST, 0.5)?,
            failures: 0,
            quiet: false,
            silence: SILENCE_AT_FIRST,
            state: State::Waiting(Box::pin(sleep_until(Instant::now()))),
        })
    }

    /// What is said first on the next stream. Whether it is a last resort is filled in.
    pub fn hello_mut(&mut self) -> &mut v1::Hello {
        &mut self.hello
    }

    /// The controller of this name said Welcome: it is a good one, and re-asserts at this interval.
    pub fn welcomed(&mut self, name: &str, reassert: Duration) {
        let State::Attached(attached) = &mut self.state else { return };
        attached.welcomed = true;
        let at = shown(self.at.as_ref());
        if attached.last_resort {
            tracing::warn!(
                controller = name,
                at,
                "attached as a last resort: every controller refused this agent"
            );
        } else {
            tracing::info!(controller = name, at, "attached to a controller");
        }
        self.round.welcomed();
        self.quiet = false;
        self.silence = reassert.clamp(Duration::from_millis(100), Duration::from_secs(600)) * 3;
    }

    /// Leaves the stream for a reason.
    pub fn leave(&mut self, reason: &str, parting: Parting) {
        let State::Attached(attached) = &self.state else { return };
        if !attached.welcomed {
            return self.refused(reason, parting == Parting::Dismissed);
        }
        let controller = shown(self.at.as_ref());
        match parting {
            // Routine: it leaves, has too many agents, or cannot reach its store. That nobody else is there is said then.
            Parting::Dismissed => tracing::info!(controller, reason, "the controller lets this agent go"),
            Parting::Broken | Parting::Asked => {
                tracing::warn!(controller, reason, "the link to the controller ended");
            }
        }
        let (good, last_resort) = (attached.since.elapsed() >= GOOD_AFTER, attached.last_resort);
        self.lost = self.at.take();
        if good {
            self.failures = 0;
        }
        if parting == Parting::Asked {
            self.rest();
        } else if good {
            self.begin_round();
        } else if last_resort {
            // The others were dialled as a last resort: they are asked properly first.
            self.rest();
        } else {
            self.dial_next();
        }
    }

    /// The next event. Cancelling this loses nothing.
    pub async fn next(&mut self) -> Event {
        loop {
            match &mut self.state {
                State::Waiting(sleep) => {
                    sleep.await;
                    self.begin_round();
                }
                State::Resolving { asked } => {
                    self.names.answered(*asked).await;
                    let candidates = self.names.candidates();
                    let last = self.lost.take();
                    self.round = Round::new(candidates, last.as_ref(), self.last_resort, &mut rand::rng());
                    self.dial_next();
                }
                State::Connecting(dialling) => match dialling.await {
                    Ok(Accepted { outbound, inbound }) => {
                        let now = Instant::now();
                        self.silence = SILENCE_AT_FIRST;
                        self.state = State::Attached(Attached {
                            inbound: Box::new(inbound),
                            heard: now,
                            since: now,
                            welcomed: false,
                            last_resort: self.round.is_last_resort(),
                        });
                        return Event::Attached(outbound);
                    }
                    Err(error) => self.refused(&error.to_string(), error.is_unavailable()),
                },
                State::Attached(Attached { inbound, heard, .. }) => {
                    let silent_at = *heard + self.silence;
                    let (reason, parting) = match timeout_at(silent_at, inbound.message()).await {
                        Ok(Ok(Some(message))) => {
                            *heard = Instant::now();
                            return Event::Heard(Box::new(message));
                        }
                        Ok(Ok(None)) => ("the controller ended the stream".to_owned(), Parting::Broken),
                        Ok(Err(status)) => {
                            let unavailable = dial::is_unavailable(&status);
                            (
                                dial::said(&status),
                                if unavailable { Parting::Dismissed } else { Parting::Broken },
                            )
                        }
                        Err(_) => (format!("nothing was heard for {:?}", self.silence), Parting::Broken),
                    };
                    self.leave(&reason, parting);
                    return Event::Lost;
                }
            }
        }
    }

    fn begin_round(&mut self) {
        self.names.ask();
        self.state = State::Resolving { asked: Instant::now() };
    }

    fn dial_next(&mut self) {
        let Some(candidate) = self.round.next_candidate() else { return self.rest() };
        let hello = v1::Hello { last_resort: self.round.is_last_resort(), ..self.hello.clone() };
        let most = dial::time_for_one_of(self.round.size());
        self.at = Some(candidate.clone());
        let connector = self.connector.clone();
        self.state = State::Connecting(Box::pin(dial::dial(candidate, connector, hello, most)));
    }

    /// A candidate did not say Welcome.
    fn refused(&mut self, reason: &str, unavailable: bool) {
        let controller = shown(self.at.as_ref());
        let others = self.round.size().saturating_sub(1);
        if self.quiet {
            tracing::debug!(controller, error = reason, failures = self.failures, "still cannot attach");
        } else {
            tracing::warn!(controller, error = reason, others, "cannot attach to the controller; trying on");
        }
        self.round.refused(unavailable);
        self.dial_next();
    }

    /// The round gained nothing: the next one begins after the back-off.
    fn rest(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.last_resort = self.round.next_is_last_resort();
        self.at = None;
        if !self.quiet {
            let (candidates, last_resort) = (self.round.size(), self.last_resort);
            tracing::warn!(
                candidates,
                last_resort,
                "no controller is attached to; all are asked again and again"
            );
            self.quiet = true;
        }
        let delay = self.backoff.random_delay(self.failures);
        self.state = State::Waiting(Box::pin(sleep_until(Instant::now() + delay)));
    }
}

fn shown(candidate: Option<&Candidate>) -> String {
    candidate.map(ToString::to_string).unwrap_or_default()
}
