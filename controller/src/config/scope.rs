//! Of which namespaces of a Kubernetes cluster something is read.

use std::{fmt, str::FromStr};

/// One namespace, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every namespace, written `*`.
    All,
    /// This one.
    Namespace(String),
}

impl Scope {
    /// Whether a namespace is among them.
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(one) => one == namespace,
        }
    }
}

/// Something that is no namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is no namespace: it has 1 to 63 lower-case letters, digits and '-' (RFC 1123); * means all"
)]
pub struct ScopeError {
    text: String,
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text == "*" {
            return Ok(Self::All);
        }
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let whole = (1..=63).contains(&text.len()) && text.bytes().all(|byte| inner(byte) || byte == b'-');
        if whole && !text.starts_with('-') && !text.ends_with('-') {
            return Ok(Self::Namespace(text.to_owned()));
        }
        Err(ScopeError { text: text.chars().take(80).collect() })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Namespace(one) => f.write_str(one),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_one_namespace_or_all() {
        let all: Scope = "*".parse().unwrap();
        let one: Scope = "team-a".parse().unwrap();
        assert!(all.covers("team-a") && one.covers("team-a") && !one.covers("team-b"));
        assert_eq!((all.to_string().as_str(), one.to_string().as_str()), ("*", "team-a"));
        for wrong in ["", "-a", "a-", "A", "a.b", "a/b", "**", &"a".repeat(64)] {
            assert!(wrong.parse::<Scope>().is_err(), "{wrong}");
        }
    }
}
