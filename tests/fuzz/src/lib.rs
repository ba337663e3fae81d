//! Throws bytes at everything that reads what comes from outside.
//!
//! A [target](Target) is a function of bytes that panics when a promise is broken. The [`engine`] gives it every
//! file of its committed corpus, then as many mutants of these as it says. Each mutant follows from the seed, the target's name
//! and its number alone, so that what a run finds is found again by every run, on every machine.
//!
//! No coverage guides the mutants: that needs instrumented code, which a stable compiler does not make without a second
//! build of everything. What makes up for it is a corpus of every form that the readers know, and dictionaries.

pub mod corpus;
pub mod engine;
pub mod targets;

/// What is thrown at: a name, what it reads, and how much it gets.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As on the command line, and its folder of the corpus.
    pub name: &'static str,
    /// Panics when a promise is broken. Of equal bytes always the same must come.
    pub run: fn(&[u8]),
    /// Words that mean something to what reads.
    pub dictionary: &'static [&'static [u8]],
}
