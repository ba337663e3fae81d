//! The controllers that may be asked, one at a time, and which of them is.
//!
//! All controllers of a fleet answer for all of it, so any of them will do. The one that answered last is asked first.
//! What only reads goes on to the next one whenever one cannot answer; what changes something only when it was never
//! sent, because a change whose answer was lost may have been made.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use fleetknock_core::identity::Expected;
use fleetknock_proto::v1::control_service_client::ControlServiceClient;
use fleetknock_runtime::{
    exit,
    tls::{self, Connector, Credentials, UriRule},
};
use tonic::{
    Response, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Uri},
};

use crate::args::Global;

mod bearer;
mod failure;

use bearer::{Bearer, VARIABLE};
pub(crate) use failure::REFUSED;
use failure::{Failure, Purpose};

/// Where a controller is unless the user says.
const URL: &str = "https://127.0.0.1:7600";
const INSECURE_URL: &str = "http://127.0.0.1:7600";
/// How long an answer may take unless the user says.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long one of several controllers may take to accept a connection: the next one is waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A page of a list may be larger than what agents and controllers say to each other.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// More addresses than an agent may know of are a mistake.
const CONTROLLERS_MAX: usize = 64;

/// A client of one controller.
pub(crate) type Client = ControlServiceClient<InterceptedService<Channel, Bearer>>;

/// Where one controller is.
struct Address {
    url: String,
    channel: Channel,
}

/// Clients of the controllers that the user named.
pub(crate) struct Controllers {
    /// At least one.
    addresses: Vec<Address>,
    timeout: Duration,
    bearer: Bearer,
    /// The place of the one that is asked first.
    first: Cell<usize>,
    /// What is to be said about those that were passed over.
    passed_over: RefCell<Vec<String>>,
}

impl Controllers {
    /// Checks the settings. Connections are made with the first call.
    pub(crate) fn new(global: &Global) -> anyhow::Result<Self> {
        let timeout = global.timeout.unwrap_or(TIMEOUT);
        let near = [if global.insecure { INSECURE_URL } else { URL }.to_owned()];
        let urls = if global.controller.is_empty() { &near[..] } else { &global.controller };
        if urls.len() > CONTROLLERS_MAX {
            let count = urls.len();
            let line =
                anyhow!("{count} controllers (--controller) are given; give from 1 to {CONTROLLERS_MAX}");
            return Err(exit::coded(exit::USAGE, line));
        }
        let connect_timeout = if urls.len() == 1 { timeout } else { CONNECT_TIMEOUT.min(timeout / 2) };
        let address = |url: &String| {
            let endpoint = endpoint(url, global.insecure)?
                .connect_timeout(connect_timeout)
                // A watch is quiet for hours; a dead peer must show all the same.
                .http2_keep_alive_interval(Duration::from_secs(20))
                .keep_alive_timeout(Duration::from_secs(10));
            anyhow::Ok(endpoint)
        };
        let endpoints: Vec<_> = urls.iter().map(address).collect::<anyhow::Result<_>>()?;
        let bearer = Bearer::read(global.token_file.as_ref(), std::env::var(VARIABLE).ok())?;
        let connector = connector(global, &bearer)?.map(|connector| connector.within(connect_timeout));
        let addresses = urls.iter().zip(endpoints).map(|(url, endpoint)| {
            let channel = match &connector {
                None => endpoint.connect_lazy(),
                Some(connector) => endpoint.connect_with_connector_lazy(connector.clone()),
            };
            Address { url: url.clone(), channel }
        });
        Ok(Self {
            addresses: addresses.collect(),
            timeout,
            bearer,
            first: Cell::new(0),
            passed_over: RefCell::default(),
        })
    }

    /// Asks for something that changes nothing.
    pub(crate) async fn read<T>(
        &self,
        ask: impl AsyncFn(Client) -> Result<Response<T>, Status>,
    ) -> anyhow::Result<T> {
        self.call(Purpose::Read, ask).await
    }

    /// Asks for a change. It is sent to one controller only.
    pub(crate) async fn write<T>(
        &self,
        ask: impl AsyncFn(Client) -> Result<Response<T>, Status>,
    ) -> anyhow::Result<T> {
        self.call(Purpose::Write, ask).await
    }

    /// Where the one is that answered last, or is to be asked first.
    pub(crate) fn url(&self) -> &str {
        self.addresses.get(self.first.get()).map_or("", |address| &address.url)
    }

    /// Asks the one after this first from now on; whether there is another one.
    pub(crate) fn move_on(&self) -> bool {
        self.first.set((self.first.get() + 1) % self.addresses.len().max(1));
        self.addresses.len() > 1
    }

    /// What is to be said about controllers that did not answer while others did, each once.
    pub(crate) fn passed_over(&self) -> Vec<String> {
        self.passed_over.take()
    }

    /// What broke a stream of the one at [`url`](Self::url), as an error.
    pub(crate) fn error(&self, status: &Status) -> anyhow::Error {
        Failure::of(status).error(self.url(), Purpose::Read)
    }

    async fn call<T>(
        &self,
        purpose: Purpose,
        ask: impl AsyncFn(Client) -> Result<Response<T>, Status>,
    ) -> anyhow::Result<T> {
        let mut failures: Vec<(&str, Failure)> = Vec::new();
        let places = self.addresses.iter().enumerate().cycle().skip(self.first.get());
        for (place, Address { url, channel }) in places.take(self.addresses.len()) {
            let client = Client::new(InterceptedService::new(channel.clone(), self.bearer.clone()))
                .max_decoding_message_size(ANSWER_MAX);
            let result = match tokio::time::timeout(self.timeout, ask(client)).await {
                Ok(Ok(answer)) => Ok(answer.into_inner()),
                Ok(Err(status)) => Err(Failure::of(&status)),
                Err(_) => Err(Failure::Silent(self.timeout)),
            };
            let result = match result {
                Err(failure) if failure.passes_on(purpose) => {
                    failures.push((url, failure));
                    continue;
                }
                Err(failure) => Err(failure.error(url, purpose)),
                Ok(answer) => Ok(answer),
            };
            self.first.set(place);
            let passed_over =
                failures.iter().map(|(url, failure)| format!("passed over {url}: {}", failure.brief()));
            self.passed_over.borrow_mut().extend(passed_over);
            return result;
        }
        match &failures[..] {
            [(url, failure)] => Err(failure.error(url, purpose)),
            _ => Err(failure::all_failed(failures.iter().map(|(url, failure)| (*url, failure)))),
        }
    }
}

/// What makes connections with TLS: shows the user's certificate unless a token is shown in its place, and talks to controllers of the fleet only. Nothing in
/// plain text.
fn connector(global: &Global, bearer: &Bearer) -> anyhow::Result<Option<Connector>> {
    let fleet = global.fleet.clone().unwrap_or_default();
    let rule = |expected: Expected| {
        let fleet = fleet.clone();
        UriRule::new(move |uris| {
            let who = expected.among(&fleet, uris);
            who.map(|_| ()).map_err(|error| format!("{error} (--fleet {fleet})"))
        })
    };
    let instead = format!("a token (--token-file or {VARIABLE})");
    let files = if bearer.is_given() {
        Some(global.tls.authorities_only(global.insecure, &instead)?)
    } else {
        global.tls.files(global.insecure, rule(Expected::User))?
    };
    let Some(files) = files else { return Ok(None) };
    let credentials = Credentials::load(files)?;
    Ok(Some(Connector::new(credentials, tls::Expected::Uri(rule(Expected::AnyController)))))
}

/// Where trust is decided: the one place that makes an address into a connection.
fn endpoint(url: &str, insecure: bool) -> anyhow::Result<Endpoint> {
    let usage = |reason: String| exit::coded(exit::USAGE, anyhow!(reason));
    let (scheme, _) = url.split_once("://").ok_or_else(|| {
        usage(format!(
            "'{url}' is not the address of a controller (--controller); write it like https://127.0.0.1:7600"
        ))
    })?;
    match scheme {
        "http" if insecure => {}
        "http" => {
            return Err(usage(format!(
                "{url} (--controller) is plain text, which anybody on the way can read and change; use https://, or pass \
                 --insecure if that is all right here, as on a loopback address or inside a tunnel"
            )));
        }
        "https" if insecure => {
            return Err(usage(format!(
                "{url} (--controller) asks for TLS, and --insecure for plain text; choose one of them"
            )));
        }
        "https" => {}
        _ => return Err(usage(format!("'{scheme}' (--controller) is not a known scheme; use https://"))),
    }
    let address = || format!("'{url}' is not the address of a controller (--controller)");
    let wrong = |error: anyhow::Error| exit::coded(exit::USAGE, error.context(address()));
    let uri: Uri = url.parse().map_err(|error| wrong(anyhow::Error::new(error)))?;
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    // The connector is the one that speaks TLS, not the endpoint.
    let endpoint = Connector::endpoint(&authority, uri).map_err(|error| wrong(anyhow::Error::new(error)))?;
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
        assert!(endpoint("https://127.0.0.1:7600", false).is_ok());
        assert!(refused("https://127.0.0.1:7600", true).contains("--insecure for plain text"));
        assert!(refused("127.0.0.1:7600", true).contains("write it like https://127.0.0.1:7600"));
        assert!(refused("ftp://127.0.0.1", true).contains("not a known scheme"));
        assert!(refused("http://a b", true).contains("not the address"));
    }

    #[tokio::test]
    async fn every_address_is_checked_before_any_is_asked() {
        let controllers = |urls: &[&str]| {
            Controllers::new(&Global {
                controller: urls.iter().map(|url| (*url).to_owned()).collect(),
                tls: tls::Settings::default(),
                token_file: None,
                fleet: None,
                insecure: true,
                timeout: None,
                config: None,
            })
        };
        let two = controllers(&["http://a:1", "http://b:1"]).unwrap();
        assert_eq!(two.url(), "http://a:1");
        assert!(two.move_on());
        assert_eq!(two.url(), "http://b:1");
        assert!(two.move_on());
        assert_eq!(two.url(), "http://a:1");
        assert!(!controllers(&["http://a:1"]).unwrap().move_on());
        assert!(controllers(&["http://a:1", "b:1"]).is_err());
        assert_eq!(controllers(&[]).unwrap().url(), "http://127.0.0.1:7600");
        assert!(controllers(&["http://a:1"; CONTROLLERS_MAX + 1]).is_err());
    }
}
