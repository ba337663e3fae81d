//! A whole controller in one process, spoken to by agents and operators over real gRPC on loopback.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do"
)]

#[cfg(feature = "operator")]
#[path = "../kubernetes/api_server.rs"]
mod api_server;
mod audit;
mod backup;
mod balance;
mod catching_up;
mod confirm;
mod enrolling;
#[path = "../store_conformance/etcd_server.rs"]
#[allow(dead_code, reason = "the store's own tests do more with it")]
mod etcd_server;
#[cfg(feature = "operator")]
mod kubernetes;
mod logs;
mod metrics;
mod overview;
mod promises;
mod several;
mod store_away;
mod store_loss;
mod support;
mod tokens;
mod trust;
mod web;
mod writes;
