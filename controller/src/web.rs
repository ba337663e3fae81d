//! What the `--http` port serves: the dashboard's files, and the control API as JSON, beside health and metrics.
//!
//! ```text
//!   GET  /, /app.js, ...        the dashboard's files, which hold nothing of the fleet
//!   POST /api/v1/{Method}       a call of the control service; proto3 JSON both ways
//!   GET  /api/v1/WatchEvents    events as they happen, as server-sent events
//!        /api/v1/session        a browser's cookie with a token: GET who, POST, DELETE
//! ```
//!
//! A call takes the same way as one over gRPC: the gate, the limits of callers, the service. So who may do what, what it
//! is noted as, and why it is refused are the same. A browser shows a certificate or a token by itself, whoever made it
//! call; that no other page can is for [`origin`] to see to.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, Uri, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use fleetknock_proto::status as refuse;
use fleetknock_runtime::{admin::Admin, tls::NoCertificate};
use tonic::Status;

use crate::{limits::WATCHERS_MAX, trust::Trust};

pub mod answer;
pub mod api;
pub mod assets;
pub mod json;
pub mod origin;
mod session;

pub use self::api::Api;

/// Connections at a time: as many as there may be watchers, each of whom makes calls too.
const CONNECTIONS: usize = 2 * WATCHERS_MAX;

/// What a browser may do with what it is served here: nothing from elsewhere, nothing within a page of somebody else.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The dashboard and the API, which answers once the store is read. Cloning shares it.
#[derive(Clone, Default)]
pub struct Web {
    api: Arc<OnceLock<Api>>,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").field("open", &self.is_open()).finish()
    }
}

impl Web {
    /// Lets browsers in as this controller is spoken to.
    ///
    /// # Errors
    /// When there is no certificate to show.
    pub fn entrance(&self, admin: Admin, trust: &Trust) -> Result<Admin, NoCertificate> {
        let admin = admin.with_connections(CONNECTIONS);
        let Some(acceptor) = trust.browsers()? else { return Ok(admin) };
        let api = self.api.clone();
        Ok(admin.with_tls(acceptor.on_refusal(move |refusal| {
            if let Some(api) = api.get() {
                api.refusals.note_certificate(refusal);
            }
        })))
    }

    /// Answers calls from now on; only the first time counts.
    pub fn open(&self, api: Api) {
        let _only_the_first = self.api.set(api);
    }

    /// Whether calls are answered.
    pub fn is_open(&self) -> bool {
        self.api.get().is_some()
    }

    /// The routes, to be served with a [`Peer`](fleetknock_runtime::tls::Peer) for each connection.
    pub fn routes(&self) -> Router {
        let files = assets::ASSETS
            .iter()
            .fold(Router::new(), |router, asset| router.route(asset.path, get(assets::serve)));
        Router::new()
            .route("/api/v1/WatchEvents", get(api::watch))
            .route("/api/v1/session", get(session::who).post(session::begin).delete(session::end))
            .route("/api/v1/{method}", post(api::call))
            .route("/api/{*rest}", axum::routing::any(no_such_call))
            .with_state(self.clone())
            .merge(files)
            .layer(middleware::from_fn(secured))
    }

    fn api(&self) -> Result<&Api, Status> {
        self.api.get().ok_or_else(|| refuse::unavailable("this controller is starting: it reads the store"))
    }
}

async fn no_such_call(uri: Uri) -> Response {
    answer::refused(&api::no_such_call(uri.path()))
}

async fn secured(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
