//! The admin server: `/live`, `/ready` and `/metrics` over HTTP, for orchestrators and Prometheus.
//!
//! It serves no secrets and changes nothing, but is meant for a private address all the same; a program may serve more
//! beside it, in TLS. It has 64 connections unless it is given more: when all are taken, a new one is given the place of the
//! oldest of the address that holds most, so that those who begin requests and never end them hold up nobody; and one over
//! which nothing comes, and nothing could be sent, for 75 s is closed.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::entrance::Entrance;
use crate::{
    metrics::exposition,
    ready::Readiness,
    tls::{Acceptor, Incoming, Limits, Peer, Spoken},
};

pub mod check;
mod entrance;

/// Connections at a time: a few for Prometheus, an orchestrator and a person each.
const CONNECTIONS: usize = 64;
/// Longer than a scrape's usual interval, so that its connection lasts.
const IDLE_MAX: Duration = Duration::from_secs(75);

/// A bound admin server, not yet serving.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    acceptor: Option<Acceptor>,
    connections: usize,
}

/// Binds a TCP listener; `setting` is the flag that gave the address, for the error.
///
/// # Errors
/// When the address cannot be had: busy, not of this host, or a port below 1024 without the right to it.
pub async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { setting, address, source })
}

impl Admin {
    /// Binds the admin address; `setting` is the flag that gave it.
    ///
    /// # Errors
    /// As [`listen`].
    pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<Self, ListenError> {
        let listener = listen(setting, address).await?;
        Ok(Self { listener, acceptor: None, connections: CONNECTIONS })
    }

    /// In TLS, with HTTP/1.1 within it.
    #[must_use]
    pub fn with_tls(self, acceptor: Acceptor) -> Self {
        Self { acceptor: Some(acceptor.speaking(Spoken::Http1)), ..self }
    }

    /// With so many connections at a time; in TLS as many with a certificate and as many without.
    #[must_use]
    pub fn with_connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// Where it listens: tells the port when 0 was asked for.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the token is cancelled: [`routes`] and what else there is, with a [`Peer`] for each connection.
    ///
    /// # Errors
    /// When accepting connections fails for good.
    pub async fn serve(self, routes: Router, stop: CancellationToken) -> io::Result<()> {
        let address = self.listener.local_addr()?;
        let limits = Limits {
            connections: self.connections,
            without_certificate: self.connections,
            of_one: self.connections,
            ..Limits::default()
        };
        let incoming = match self.acceptor {
            Some(acceptor) => Incoming::tls(self.listener, acceptor, limits),
            None => Incoming::plain(self.listener, limits),
        };
        let entrance = Entrance::new(incoming, address, IDLE_MAX);
        let served = routes.into_make_service_with_connect_info::<Peer>();
        axum::serve(entrance, served).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

/// The admin routes, for a program that serves them beside its own.
pub fn routes(readiness: Readiness, metrics: Arc<Registry>) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready).with_state(readiness))
        .route("/metrics", get(scrape).with_state(metrics))
}

/// Whether the program is ready and what is missing, as text, or as JSON for who asks for that.
async fn ready(State(readiness): State<Readiness>, headers: HeaderMap) -> Response {
    let missing = readiness.missing();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/json") {
        let body = serde_json::json!({"ready": missing.is_empty(), "missing": missing}).to_string();
        return (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    }
    let text = if missing.is_empty() {
        "ready\n".to_owned()
    } else {
        format!("not ready: {}\n", missing.join(", "))
    };
    (status, text).into_response()
}

async fn scrape(State(metrics): State<Arc<Registry>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    match exposition(&metrics, accept) {
        Ok((kind, text)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response(),
    }
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    /// The flag that gave the address, such as `--http`.
    pub setting: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { setting, address, source } = self;
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => "another process listens there; stop it or choose another port",
            io::ErrorKind::AddrNotAvailable => {
                "no interface of this host has that address; use one of its own, or 0.0.0.0"
            }
            io::ErrorKind::PermissionDenied => {
                "choose a port above 1023, or give the program CAP_NET_BIND_SERVICE"
            }
            _ => "choose another address",
        };
        write!(f, "cannot listen on {address} ({setting}): {source}; {remedy}")
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests;
