//! Errors of calls as HTTP: a status, and what is wrong as JSON.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// After how many seconds something that is unavailable may be tried again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What is wrong.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// The code of gRPC, such as `PERMISSION_DENIED`.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Which fields of the request are wrong, when it is those.
    pub details: Vec<Wrong>,
}

/// A field that is wrong.
#[derive(Debug, Serialize)]
pub struct Wrong {
    /// Such as `door.spec.opens.ports[0]`.
    pub field: String,
    /// Why.
    pub description: String,
}

impl Refused {
    /// Of a status of gRPC.
    pub fn of(status: &Status) -> Self {
        let details = status.get_details_bad_request().into_iter().flat_map(|bad| bad.field_violations);
        let details =
            details.map(|wrong| Wrong { field: wrong.field, description: wrong.description }).collect();
        Self { code: name(status.code()), message: status.message().to_owned(), details }
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        // Text and lists of it can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The answer that says so.
pub fn refused(status: &Status) -> Response {
    let mut response = (http_status(status.code()), json(Refused::of(status).to_json())).into_response();
    match status.code() {
        Code::Unauthenticated => {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Code::Unavailable => {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        _ => {}
    }
    response
}

/// An answer in JSON, which nobody keeps.
pub fn json(body: impl IntoResponse) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body)
}

/// As google.rpc.Code says (google/rpc/code.proto).
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// As google.rpc.Code names it.
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
