//! The agent: captures knocks on one host and reports them, keeps guard there, applies openings and bans.
//!
//! It never learns a sequence or a secret and never decides an opening.

pub mod capture;
pub mod certificate;
pub mod config;
pub mod driver;
pub mod firewall;
pub mod harden;
pub mod lift;
pub mod link;
pub mod picture;
pub mod start;
pub mod window;
