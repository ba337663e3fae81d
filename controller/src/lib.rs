//! The controller: follows sequences across the fleet, decides openings, pushes them to the agents, serves operators.
//!
//! It never touches a firewall.

pub mod store;
