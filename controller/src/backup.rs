//! A fleet's records as a file, and back into a store.
//!
//! [`mod@file`] is the form of the file, [`records`] what it holds once it is parsed, [`plan`] what restoring it would
//! change; those are pure. [`restore`] carries a plan out. The page `deploy/backup.md` says what of a fleet is in a
//! backup and what is not, and why.

pub mod file;
pub mod plan;
pub mod records;
pub mod restore;

#[cfg(test)]
mod tests;
