//! The process shell that every Fleetknock program wears: where settings come from, how errors end a process, logs,
//! metrics, readiness, the service manager, drain and mutual TLS.
//!
//! There is no word of knocking here, and nothing of ours is used. Mutual TLS reads its files, follows them as they
//! change and knows who is at the other end of a connection in `tls`, so that every program does it the same way.
#![forbid(unsafe_code)]

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod drain;
pub mod exit;
pub mod harden;
pub mod log;
pub mod metrics;
pub mod notify;
pub mod otlp;
pub mod ready;
pub mod tls;
