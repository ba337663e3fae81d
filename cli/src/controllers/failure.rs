//! Why a controller gave no result, whether another one may be asked instead, and the line and exit code of it all.

use std::{error::Error, io, time::Duration};

use anyhow::anyhow;
use fleetknock_proto::status;
use fleetknock_runtime::{exit, tls};
use tonic::{Code, ConnectError, Status};

#[cfg(test)]
mod tests;

/// Something was not found, or was refused for a reason that only the message tells.
pub(crate) const REFUSED: u8 = 1;

/// What the call would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It changes nothing: any controller may be asked, also twice.
    Read,
    /// It changes something: it is sent once.
    Write,
}

/// Why one controller gave no result.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The connection was never made, so that nothing was sent.
    Unreachable(String),
    /// Somebody is there, but not a controller that is trusted; nothing was sent.
    Untrusted(String),
    /// It does not take the user's certificate.
    TurnedAway(String),
    /// The connection broke, or what came through it made no sense.
    Broken(String),
    /// It was silent for this long.
    Silent(Duration),
    /// It answered that it cannot do it now, as when it is suspended.
    Unavailable(String),
    /// It answered something else.
    Refused(Code, String),
}

impl Failure {
    /// A status that a controller sent has no source; one that the connection made up has one.
    pub(super) fn of(status: &Status) -> Self {
        let Some(source) = status.source() else {
            let text = status::describe(status);
            return match status.code() {
                Code::Unavailable => Self::Unavailable(text),
                code => Self::Refused(code, text),
            };
        };
        let mut chain = vec![source];
        let mut inner = source.source();
        while let Some(error) = inner {
            chain.push(error);
            inner = error.source();
        }
        let timed_out = |error: &&(dyn Error + 'static)| {
            error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        };
        let cause = if chain.iter().any(timed_out) {
            "no answer".to_owned()
        } else {
            chain.last().map_or_else(|| status.message().to_owned(), ToString::to_string)
        };
        let mut met = chain.iter().filter_map(|error| error.downcast_ref::<tls::ConnectError>());
        match met.next() {
            Some(tls::ConnectError::Refused { reason, .. }) => return Self::Untrusted(reason.clone()),
            Some(tls::ConnectError::TurnedAway { reason }) => return Self::TurnedAway(reason.clone()),
            _ => {}
        }
        if let Some(reason) = chain.iter().find_map(|error| turned_away(*error)) {
            return Self::TurnedAway(reason);
        }
        if chain.iter().any(|error| error.is::<ConnectError>()) {
            Self::Unreachable(cause)
        } else {
            Self::Broken(cause)
        }
    }

    /// Whether another controller may be asked instead. What changes something is not sent again once it may have
    /// arrived, even when the controller says that it did nothing: it may not know.
    pub(super) fn passes_on(&self, purpose: Purpose) -> bool {
        match self {
            Self::Unreachable(_) | Self::Untrusted(_) => true,
            Self::TurnedAway(_) | Self::Broken(_) | Self::Silent(_) | Self::Unavailable(_) => {
                purpose == Purpose::Read
            }
            Self::Refused(..) => false,
        }
    }

    /// The error when there is nobody else to ask, or nobody else may be asked.
    pub(super) fn error(&self, url: &str, purpose: Purpose) -> anyhow::Error {
        let unknown = match purpose {
            Purpose::Read => "",
            Purpose::Write => "whether it was done is not known; ",
        };
        let line = match self {
            Self::Unreachable(cause) => format!(
                "cannot reach the controller at {url} (--controller): {cause}; check the address and that it runs"
            ),
            Self::Untrusted(cause) => format!(
                "the controller at {url} (--controller) is not trusted: {cause}; nothing was sent to it; check --tls-ca and \
                 --fleet"
            ),
            Self::TurnedAway(cause) => format!(
                "the controller at {url} (--controller) turned this user away: {cause}; check --tls-cert and whether it \
                 ended (fleetknock pki show)"
            ),
            Self::Broken(cause) => {
                // A server of TLS says nothing that plain text can understand.
                let plain = if url.starts_with("http://") {
                    ", and without --insecure if it speaks TLS (--tls-cert, --tls-key, --tls-ca)"
                } else {
                    ""
                };
                format!(
                    "the connection to the controller at {url} (--controller) broke: {cause}; {unknown}try again{plain}"
                )
            }
            Self::Silent(after) => {
                let after = humantime::format_duration(*after);
                format!(
                    "the controller at {url} did not answer within {after} (--timeout); {unknown}try again or ask \
                     another one (--controller)"
                )
            }
            Self::Unavailable(text) => {
                format!(
                    "the controller at {url} cannot do this now: {text}; {}ask another one (--controller)",
                    if text.contains("try again") { "or " } else { "try again or " }
                )
            }
            Self::Refused(code, text) => {
                let remedy = remedy(*code);
                let remedy = if text.contains(remedy.trim_start_matches("; ")) { "" } else { remedy };
                format!("{text}{remedy}")
            }
        };
        exit::coded(self.code(), anyhow!(line))
    }

    /// In a few words, after the address.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Unreachable(cause) => format!("cannot be reached: {cause}"),
            Self::Untrusted(cause) => format!("is not trusted: {cause}"),
            Self::TurnedAway(cause) => format!("turned this user away: {cause}"),
            Self::Broken(cause) => format!("the connection broke: {cause}"),
            Self::Silent(after) => format!("did not answer within {}", humantime::format_duration(*after)),
            Self::Unavailable(text) | Self::Refused(_, text) => text.clone(),
        }
    }

    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Silent(_) => exit::UNAVAILABLE,
            Self::Untrusted(_) | Self::TurnedAway(_) => exit::NO_PERMISSION,
            Self::Unavailable(_) => exit::TEMPORARY,
            Self::Refused(code, _) => match code {
                Code::InvalidArgument | Code::OutOfRange => exit::DATA,
                Code::PermissionDenied | Code::Unauthenticated => exit::NO_PERMISSION,
                Code::Aborted | Code::ResourceExhausted | Code::DeadlineExceeded => exit::TEMPORARY,
                Code::Internal | Code::Unknown | Code::DataLoss => exit::SOFTWARE,
                _ => REFUSED,
            },
        }
    }
}

/// The error when every one of several controllers failed.
pub(super) fn all_failed<'a>(failures: impl Iterator<Item = (&'a str, &'a Failure)>) -> anyhow::Error {
    let mut code = exit::UNAVAILABLE;
    let mut parts = Vec::new();
    for (url, failure) in failures {
        // One that is there and cannot do it now may be able to in a moment.
        if failure.code() == exit::TEMPORARY {
            code = exit::TEMPORARY;
        }
        parts.push(format!("{url}: {}", failure.brief()));
    }
    let line = anyhow!(
        "none of {} controllers (--controller) can do this now: {}; try again, or check the addresses and that they run",
        parts.len(),
        parts.join("; ")
    );
    exit::coded(code, line)
}

/// What a connection says whose server did not take the client's certificate, which in TLS 1.3 shows at the first read
/// only. Errors of the system have a number, this one has none.
fn turned_away(error: &(dyn Error + 'static)) -> Option<String> {
    let error = error.downcast_ref::<io::Error>()?;
    let ours = error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none();
    ours.then(|| error.to_string())
}

fn remedy(code: Code) -> &'static str {
    match code {
        // Why nobody knows who asks comes with what to do about it.
        Code::Unauthenticated => "",
        Code::PermissionDenied => "; ask an admin of the fleet for a role that may do this",
        Code::Aborted | Code::ResourceExhausted | Code::DeadlineExceeded => "; try again",
        Code::Unimplemented => "; the controller is older than this command, or is no controller",
        Code::Internal | Code::Unknown | Code::DataLoss => "; the controller's log says more",
        _ => "",
    }
}
