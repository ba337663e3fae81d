//! The connection to a controller, and its errors as lines and exit codes.

use std::{error::Error as _, future::Future, time::Duration};

use anyhow::{Context as _, anyhow};
use fleetknock_proto::{status, v1::control_service_client::ControlServiceClient};
use fleetknock_runtime::exit;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::args::Global;

/// How long an answer may take unless the user says.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A page of a list may be larger than what agents and controllers say to each other.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// Something was not found, or was refused for a reason that only the message tells.
pub(crate) const REFUSED: u8 = 1;

/// A client of one controller.
pub(crate) struct Controller {
    url: String,
    timeout: Duration,
    channel: Channel,
}

impl Controller {
    /// Checks the settings. The connection is made with the first call.
    pub(crate) fn new(global: &Global) -> anyhow::Result<Self> {
        let timeout = global.timeout.unwrap_or(TIMEOUT);
        let endpoint = endpoint(&global.controller, global.insecure)?
            .connect_timeout(timeout)
            // A watch is quiet for hours; a dead peer must show all the same.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        Ok(Self { url: global.controller.clone(), timeout, channel: endpoint.connect_lazy() })
    }

    /// For calls, each of which goes through [`call`](Self::call).
    pub(crate) fn client(&self) -> ControlServiceClient<Channel> {
        ControlServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX)
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits for an answer, for as long as the user lets it take.
    pub(crate) async fn call<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> anyhow::Result<T> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => {
                let after = humantime::format_duration(self.timeout);
                let line = anyhow!(
                    "the controller at {} did not answer within {after} (--timeout); try again or ask another one",
                    self.url
                );
                Err(exit::coded(exit::UNAVAILABLE, line))
            }
        }
    }

    /// A status as an error with its line and exit code.
    pub(crate) fn error(&self, status: &Status) -> anyhow::Error {
        let text = status::describe(status);
        if let Some(cause) = transport_cause(status) {
            let line = anyhow!(
                "cannot reach the controller at {} (--controller): {cause}; check the address and that it runs",
                self.url
            );
            return exit::coded(exit::UNAVAILABLE, line);
        }
        let (code, remedy) = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => (exit::DATA, ""),
            Code::PermissionDenied | Code::Unauthenticated => {
                (exit::NO_PERMISSION, "; ask an admin of the fleet for a role that may do this")
            }
            Code::Unavailable | Code::Aborted | Code::ResourceExhausted | Code::DeadlineExceeded => {
                (exit::TEMPORARY, "; try again")
            }
            Code::Unimplemented => {
                (REFUSED, "; the controller is older than this command, or is no controller")
            }
            Code::Internal | Code::Unknown | Code::DataLoss => {
                (exit::SOFTWARE, "; the controller's log says more")
            }
            _ => (REFUSED, ""),
        };
        let remedy = if text.contains(remedy.trim_start_matches("; ")) { "" } else { remedy };
        exit::coded(code, anyhow!("{text}{remedy}"))
    }
}

/// The innermost cause when the call did not reach a controller: a status that a controller sent has none.
fn transport_cause(status: &Status) -> Option<String> {
    let transport = status.source()?.downcast_ref::<tonic::transport::Error>()?;
    if status.get_details_error_info().is_some() {
        return None;
    }
    let mut cause: &dyn std::error::Error = transport;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Some(cause.to_string())
}

/// Where trust is decided: the one place that makes an address into a connection, and the place for TLS.
fn endpoint(url: &str, insecure: bool) -> anyhow::Result<Endpoint> {
    let usage = |reason: String| exit::coded(exit::USAGE, anyhow!(reason));
    let (scheme, _) = url.split_once("://").ok_or_else(|| {
        usage(format!(
            "'{url}' is not the address of a controller (--controller); write it like http://127.0.0.1:7600"
        ))
    })?;
    match scheme {
        "http" if insecure => {}
        "http" => {
            return Err(usage(format!(
                "{url} (--controller) is plain text, which anybody on the way can read and change; pass --insecure if \
                 that is all right here, as on a loopback address or inside a tunnel"
            )));
        }
        "https" => {
            return Err(usage(format!(
                "{url} (--controller): mutual TLS is not in this version yet; use http:// with --insecure inside a tunnel"
            )));
        }
        _ => return Err(usage(format!("'{scheme}' (--controller) is not a known scheme; use http://"))),
    }
    let endpoint = Endpoint::from_shared(url.to_owned())
        .context(format!("'{url}' is not the address of a controller (--controller)"))
        .map_err(|error| exit::coded(exit::USAGE, error))?;
    endpoint.user_agent(concat!("fleetknock/", env!("CARGO_PKG_VERSION"))).context("the user agent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_must_be_asked_for() {
        let refused = |url, insecure| {
            let error = endpoint(url, insecure).unwrap_err();
            assert_eq!(exit::code_of(&error), exit::USAGE);
            error.to_string()
        };
        assert!(endpoint("http://127.0.0.1:7600", true).is_ok());
        assert!(refused("http://127.0.0.1:7600", false).contains("pass --insecure"));
        assert!(refused("https://127.0.0.1:7600", true).contains("mutual TLS is not in this version yet"));
        assert!(refused("127.0.0.1:7600", true).contains("write it like http://127.0.0.1:7600"));
        assert!(refused("ftp://127.0.0.1", true).contains("not a known scheme"));
        assert!(refused("http://a b", true).contains("not the address"));
    }

    #[tokio::test]
    async fn statuses_become_lines_and_codes() {
        let controller = Controller::new(&Global {
            controller: "http://127.0.0.1:1".to_owned(),
            insecure: true,
            timeout: None,
            config: None,
        });
        let controller = controller.unwrap();
        for (status, code, line) in [
            (status::not_found("door", "x"), 1, "there is no door 'x'"),
            (status::invalid("door.name", "is missing"), 65, "door.name: is missing"),
            (status::unavailable("no store"), 75, "no store; try again"),
            (status::unavailable("no store; try again"), 75, "no store; try again"),
            (
                Status::permission_denied("no"),
                77,
                "no; ask an admin of the fleet for a role that may do this",
            ),
        ] {
            let error = controller.error(&status);
            assert_eq!((exit::code_of(&error), error.to_string().as_str()), (code, line));
        }
    }
}
