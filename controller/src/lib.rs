//! The controller: follows sequences across the fleet, decides openings, pushes them to the agents, serves operators.
//!
//! It never touches a firewall. From packet to opening the way is: `agent_api` (an observation arrives) → `matching`
//! (the matcher decides) → `decide` (one transaction) → the store → `keeper` (the watch tells every controller) →
//! `sessions` (pushed to the agents).

pub mod clock;
pub mod fleet;
pub mod grant;
pub mod record;
pub mod store;
