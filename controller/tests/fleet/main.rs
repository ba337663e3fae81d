//! A whole controller in one process, spoken to by agents and operators over real gRPC on loopback.

mod promises;
mod support;
