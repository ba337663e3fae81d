//! A field of a message that does not hold what it should.

use std::fmt::Display;

/// Which field of a message is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    /// As the `.proto` files spell it, from the request down, such as `door.spec.open_ports[2]`.
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl FieldError {
    /// Of a field and anything that says why.
    pub fn new(field: impl Into<String>, reason: impl Display) -> Self {
        Self { field: field.into(), reason: reason.to_string() }
    }
}

impl From<FieldError> for tonic::Status {
    fn from(error: FieldError) -> Self {
        crate::status::invalid(error.field, error.reason)
    }
}
