//! What every Fleetknock program knows: addresses and ports, hosts, knocks, doors, and the matcher that follows knocks
//! through a door's sequence.
//!
//! Everything here is pure. There is no I/O, no clock, no async and no randomness: time comes in as an argument,
//! decisions go out as values. `clippy.toml` and the fence tests hold that wall.
#![forbid(unsafe_code)]

pub mod door;
pub mod explain;
pub mod host;
pub mod identity;
pub mod knock;
pub mod knockd;
pub mod matcher;
pub mod network;
pub mod port;
pub mod source;
pub mod time;
