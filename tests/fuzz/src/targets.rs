//! The table of targets: one for each kind of thing that comes from outside.

use crate::Target;

mod backup;
mod json;
pub mod messages;
mod packet;
mod store;
mod text;
mod wire;

pub use store::{FLEET, PLACE, SEAL_KEYS, keyring};

/// All of them.
pub const ALL: &[Target] = &[
    Target { name: "packet", run: packet::packet, dictionary: packet::WORDS },
    Target { name: "agent-message", run: wire::agent_message, dictionary: wire::WORDS },
    Target { name: "controller-message", run: wire::controller_message, dictionary: wire::WORDS },
    Target { name: "peer-message", run: wire::peer_message, dictionary: wire::WORDS },
    Target { name: "control", run: wire::control, dictionary: wire::WORDS },
    Target { name: "json", run: json::json, dictionary: json::WORDS },
    Target { name: "door-yaml", run: text::door_yaml, dictionary: text::YAML_WORDS },
    Target { name: "knockd-conf", run: text::knockd_conf, dictionary: text::KNOCKD_WORDS },
    Target { name: "identity", run: text::identity, dictionary: text::NAME_WORDS },
    Target { name: "token", run: text::token, dictionary: text::NAME_WORDS },
    Target { name: "record", run: store::record, dictionary: store::WORDS },
    Target { name: "backup", run: backup::backup, dictionary: backup::WORDS },
    Target { name: "sealed", run: store::sealed, dictionary: store::WORDS },
];

/// The one of this name.
pub fn named(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}
