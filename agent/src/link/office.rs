//! Asks the controllers for a certificate, one after the other until one of them answers.

use std::time::Duration;

use fleetknock_proto::{
    status,
    v1::{self, enrolment_service_client::EnrolmentServiceClient},
};
use fleetknock_runtime::tls::Connector;
use rand::seq::SliceRandom as _;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use super::{
    dial,
    names::{Candidate, Names},
};

/// How long a controller may take to answer once it is reached: its store may have to choose a leader first.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest answer, in bytes: room for hundreds of authorities.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What is asked for; the request is a PKCS #10 in PEM.
#[derive(Clone)]
pub enum Ask {
    /// The first certificate, by a token.
    First {
        /// As the operator was given it.
        token: String,
        /// For which key.
        request: String,
    },
    /// The next one, by the one that the connector shows.
    Next {
        /// For which key.
        request: String,
    },
}

/// What a controller answered, not yet looked at. All PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The certificate, then what leads up to an authority.
    pub certificate: String,
    /// Whose word counts in the fleet.
    pub authorities: String,
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No controller gave a certificate, and no other answer that counts.
    #[error("no controller of {tried} gave a certificate; {controller}: {reason}")]
    Nobody {
        /// How many were asked.
        tried: usize,
        /// The last one that was.
        controller: String,
        /// What it said, or why it was not reached.
        reason: String,
    },
    /// None of the controllers' names has an address now.
    #[error("no controller's name has an address; look at --controller and at this host's DNS")]
    NoAddress,
    /// A controller said no, and so would the others.
    #[error("{controller}: {reason}")]
    Refused {
        /// Which.
        controller: String,
        /// What it said.
        reason: String,
    },
}

/// Asks whichever controller is there.
#[derive(Debug)]
pub struct Office {
    names: Names,
    connector: Connector,
}

impl Office {
    /// Over connections of this connector.
    pub fn new(names: Names, connector: Connector) -> Self {
        Self { names, connector }
    }

    /// Asks every controller once, in random order, until one answers.
    ///
    /// # Errors
    /// When none does, or one says no.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Answer, AskError> {
        self.names.ask();
        self.names.answered(Instant::now()).await;
        let mut candidates = self.names.candidates();
        candidates.shuffle(&mut rand::rng());
        let tried = candidates.len();
        let mut last = AskError::NoAddress;
        for candidate in candidates {
            let controller = candidate.to_string();
            match self.ask_one(&candidate, ask, dial::time_for_one_of(tried)).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(reason)) => return Err(AskError::Refused { controller, reason }),
                Err(Failure::Passing(reason)) => {
                    tracing::debug!(controller, error = reason, "no certificate from this controller");
                    last = AskError::Nobody { tried, controller, reason };
                }
            }
        }
        Err(last)
    }

    async fn ask_one(&self, candidate: &Candidate, ask: &Ask, most: Duration) -> Result<Answer, Failure> {
        let channel = dial::connect(candidate, Some(self.connector.clone()), most).await;
        let channel = channel.map_err(|error| Failure::Passing(error.to_string()))?;
        let mut client = EnrolmentServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answering = async {
            match ask.clone() {
                Ask::First { token, request } => {
                    client.enrol(v1::EnrolRequest { token, signing_request: request }).await
                }
                Ask::Next { request } => client.renew(v1::RenewRequest { signing_request: request }).await,
            }
        };
        let slow = |_| Failure::Passing(format!("no answer within {ANSWER_MAX:?}"));
        let answer = timeout(ANSWER_MAX, answering).await.map_err(slow)?.map_err(Failure::of)?.into_inner();
        Ok(Answer { certificate: answer.certificate, authorities: answer.authorities })
    }
}

/// Whether it helps to ask on.
enum Failure {
    Passing(String),
    Final(String),
}

impl Failure {
    fn of(status: Status) -> Self {
        // One that was made up on this side says nothing about what the controller thinks.
        let made_up = std::error::Error::source(&status).is_some();
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument if !made_up => {
                Self::Final(status::describe(&status))
            }
            _ if made_up => Self::Passing(dial::said(&status)),
            _ => Self::Passing(status::describe(&status)),
        }
    }
}
