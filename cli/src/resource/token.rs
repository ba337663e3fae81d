//! Tokens, without their secrets.

use fleetknock_core::{door::yaml::API_VERSION, identity::Role, time::Timestamp};
use fleetknock_proto::{convert, v1};
use serde_json::{Value, json};

use super::{Resource, some};
use crate::output::{ago, remaining, time_value};

impl Resource for v1::Token {
    const PLURAL: &'static str = "tokens";
    const COLUMNS: &'static [(&'static str, bool)] =
        &[("ID", false), ("FOR", false), ("REMAINING", false), ("BY", false), ("AGE", false)];

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            self.id.clone(),
            token_holder(self),
            remaining(Timestamp::from_millis(self.expires_ms), now),
            some(&self.created_by),
            ago(self.created_ms, now),
        ]
    }

    fn document(&self) -> Value {
        let spec = match &self.holder {
            Some(v1::token::Holder::User(user)) => json!({ "user": user.name, "role": role(user.role) }),
            Some(v1::token::Holder::Host(host)) => json!({ "host": host }),
            None => json!({}),
        };
        json!({
            "apiVersion": API_VERSION,
            "kind": "Token",
            "metadata": { "name": self.id },
            "spec": spec,
            "status": {
                "created": time_value(self.created_ms),
                "createdBy": self.created_by,
                "expires": time_value(self.expires_ms),
            },
        })
    }
}

/// Such as `user alice (viewer)` or `host db-1`.
pub(crate) fn token_holder(token: &v1::Token) -> String {
    match &token.holder {
        Some(v1::token::Holder::User(user)) => format!("user {} ({})", user.name, role(user.role)),
        Some(v1::token::Holder::Host(host)) => format!("host {host}"),
        None => "?".to_owned(),
    }
}

fn role(number: i32) -> &'static str {
    convert::role(number, "").map_or("?", Role::name)
}
