//! The controller: follows sequences across the fleet, decides openings, pushes them to the agents, serves operators.
//!
//! It never touches a firewall. From packet to opening the way is: `agent_api` (an observation arrives) → `peers` (it
//! goes to whoever follows its source) → `matching` (the matcher decides) → `decide` (one transaction) → the store →
//! `keeper` (the watch tells every controller) → `sessions` (pushed to the agents).

pub mod agent_api;
pub mod audit;
pub mod backup;
pub mod balance;
pub mod boots;
pub mod clock;
pub mod command;
pub mod config;
pub mod confirm;
pub mod control_api;
pub mod decide;
pub mod enrolment;
pub mod fleet;
pub mod grant;
pub mod keeper;
pub mod limits;
pub mod matching;
pub mod membership;
pub mod metrics;
#[cfg(feature = "operator")]
pub mod operator;
pub mod peers;
pub mod recollection;
pub mod record;
pub mod seal;
pub mod serve;
pub mod sessions;
pub mod shared;
pub mod status;
pub mod store;
pub mod tally;
pub mod traces;
pub mod trust;
pub mod web;
pub mod wire;
