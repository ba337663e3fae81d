//! Errors of both services, with the details that google.rpc describes (error_details.proto), and their way back into
//! one line for people.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

#[cfg(test)]
mod tests;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "fleetknock.io";
/// After how long a caller may try again when something is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A field of the request is wrong: INVALID_ARGUMENT with a BadRequest.
pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Status {
    let (field, reason) = (field.into(), reason.into());
    let message = if field.is_empty() { reason.clone() } else { format!("{field}: {reason}") };
    let mut details = details("INVALID_FIELD");
    details.add_bad_request_violation(field, reason);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// Several fields of the request are wrong: INVALID_ARGUMENT with a BadRequest.
pub fn invalid_fields(fields: impl IntoIterator<Item = (String, String)>) -> Status {
    let mut details = details("INVALID_FIELD");
    let mut message = String::new();
    for (field, reason) in fields {
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(&field);
        message.push_str(": ");
        message.push_str(&reason);
        details.add_bad_request_violation(field, reason);
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// There is no such thing: NOT_FOUND with a ResourceInfo. `kind` is such as `door`.
pub fn not_found(kind: &str, name: &str) -> Status {
    let message = format!("there is no {kind} '{name}'");
    let mut details = details("NOT_FOUND");
    details.set_resource_info(kind, name, "", message.clone());
    Status::with_error_details(Code::NotFound, message, details)
}

/// Somebody else changed it first: ABORTED with a PreconditionFailure. Reading it again and repeating may help.
pub fn conflict(kind: &str, name: &str, reason: impl Into<String>) -> Status {
    precondition_failure(Code::Aborted, "CONFLICT", kind, name, reason.into())
}

/// Something is in the way that the caller must change first: FAILED_PRECONDITION with a PreconditionFailure.
pub fn precondition(kind: &str, name: &str, reason: impl Into<String>) -> Status {
    precondition_failure(Code::FailedPrecondition, "PRECONDITION", kind, name, reason.into())
}

/// Somebody who is known may not do this: PERMISSION_DENIED.
pub fn denied(reason: impl Into<String>) -> Status {
    Status::with_error_details(Code::PermissionDenied, reason, details("PERMISSION_DENIED"))
}

/// Nobody knows who asks: UNAUTHENTICATED.
pub fn unknown_caller(reason: impl Into<String>) -> Status {
    Status::with_error_details(Code::Unauthenticated, reason, details("UNAUTHENTICATED"))
}

/// What is needed cannot be reached now: UNAVAILABLE with a RetryInfo.
pub fn unavailable(reason: impl Into<String>) -> Status {
    let mut details = details("UNAVAILABLE");
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, reason, details)
}

fn precondition_failure(code: Code, what: &str, kind: &str, name: &str, reason: String) -> Status {
    let mut details = details(what);
    details.add_precondition_failure_violation(what, format!("{kind}/{name}"), reason.clone());
    Status::with_error_details(code, format!("{kind} '{name}': {reason}"), details)
}

fn details(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, std::collections::HashMap::new())
}

/// One line for people: what went wrong, with every field and reason that the details name. Works for statuses of any
/// origin; details that cannot be read are passed over.
pub fn describe(status: &Status) -> String {
    let mut parts = Vec::new();
    if !status.message().is_empty() {
        parts.push(status.message().to_owned());
    }
    let mut add = |text: String| {
        if !text.is_empty() && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    };
    if let Some(bad) = status.get_details_bad_request() {
        for violation in bad.field_violations {
            let field = violation.field;
            let reason = violation.description;
            add(if field.is_empty() { reason } else { format!("{field}: {reason}") });
        }
    }
    if let Some(failure) = status.get_details_precondition_failure() {
        failure.violations.into_iter().for_each(|violation| add(violation.description));
    }
    if parts.is_empty() {
        parts.push(status.code().description().to_lowercase());
    }
    one_line(&parts.join("; "))
}

/// Of bounded length, without anything that steers a terminal: a peer may be hostile.
fn one_line(text: &str) -> String {
    const CHARACTERS_MAX: usize = 2_000;
    let shown = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line: String = shown.chars().filter(|c| !c.is_control()).take(CHARACTERS_MAX).collect();
    if shown.chars().count() > CHARACTERS_MAX {
        line.push('…');
    }
    line
}
