//! The cases, by area. Each runs in a thread within the host's namespace.

pub(crate) mod cuts;
pub(crate) mod elsewhere;
pub(crate) mod guard;
pub(crate) mod observing;
pub(crate) mod openings;
pub(crate) mod repairs;
