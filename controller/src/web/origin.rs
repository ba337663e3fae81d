//! Whether a request was made by a page of this controller, or by a program, and not by a page of somebody else.
//!
//! A browser shows a certificate and a cookie with every request to this address, whichever page makes it. What gives a
//! page of somebody else away: it cannot set headers of its own choice without being asked first (fetch.spec.whatwg.org,
//! section 4.8), which is never granted here, and newer browsers say from where a request comes (Sec-Fetch-Site). A call
//! that shows a token in a header was made by whoever has it.

use axum::http::{HeaderMap, header};
use fleetknock_proto::status as refuse;
use tonic::Status;

/// Set by the dashboard and by programs with each request that may change something.
pub const MARK: &str = "fleetknock-request";

#[cfg(test)]
mod tests;

/// Looks at a request that changes nothing.
///
/// # Errors
/// PERMISSION_DENIED when a page of somebody else made it.
pub fn check(headers: &HeaderMap) -> Result<(), Status> {
    let from = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    match from {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(refuse::denied("a page of another site may not ask this controller anything")),
    }
}

/// Looks at a request that may change something.
///
/// # Errors
/// PERMISSION_DENIED when a page of somebody else may have made it, INVALID_ARGUMENT when it is not in JSON.
pub fn check_change(headers: &HeaderMap) -> Result<(), Status> {
    check(headers)?;
    if !headers.contains_key(header::AUTHORIZATION) && headers.get(MARK).is_none_or(|mark| mark != "1") {
        return Err(refuse::denied(format!(
            "the request needs the header {MARK}: 1, so that no page of another site can make it, or a token as \
             authorization: Bearer"
        )));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(refuse::invalid("content-type", "write the request in JSON, with content-type: application/json"))
}
