//! The fleet that the tests of the program look at as well, as a screen sees it.

#[path = "../../tests/operate/wall.rs"]
mod wall;

use super::model::Seen;
pub(super) use wall::{events, explained};

pub(super) fn seen(now_ms: u64) -> Seen {
    Seen {
        overview: wall::overview(now_ms),
        hosts: wall::hosts(now_ms),
        attempts: wall::attempts(now_ms),
        openings: wall::openings(now_ms),
        bans: wall::bans(now_ms),
        ..Seen::default()
    }
}
