//! The walls of this workspace, as tests: what may depend on what, which words may stand where, which licences come in,
//! how files look. Each fence says what it found, where, why that is not wanted, and what to do.
//!
//! A fence is a pure function from what is there to a list of trespasses, and one test that gives it the real thing.
//! Beside it stand tests that plant a trespass, so that no fence is a wall with a hole.

#![cfg(test)]

mod arrows;
mod bans;
mod deny;
mod licences;
mod links;
mod lock;
mod no_shell;
mod paths;
mod pure_core;
mod shape;
mod sources;
mod tree;
mod units;
mod words;
