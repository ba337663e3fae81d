//! What a controller does in Kubernetes, against an API server in the test's own process.
#![cfg(feature = "operator")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

mod api_server;
mod node_config;
mod pki;
