//! A knock, and an agent's report of it.

use std::{fmt, time::Duration};

use crate::{host::HostId, port::Port, source::Source, time::Timestamp};

/// What makes a redelivered report recognisable: the host, the run of its agent, and a number that rises with each
/// knock of that run. On one host and boot, counter order is capture order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObservationId {
    /// Where it was seen.
    pub host: HostId,
    /// Which run of that host's agent: interned by the controller, a later boot has a larger number.
    pub boot: u32,
    /// Rises by one with each knock of the boot.
    pub counter: u64,
}

/// An agent's report of one knock, its time corrected to the controller's clock. `Debug` does not print its port, which
/// may be a step of some door.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Makes redelivery harmless.
    pub id: ObservationId,
    /// Who knocked.
    pub source: Source,
    /// At what.
    pub port: Port,
    /// When, by the controller's clock.
    pub time: Timestamp,
    /// The true time lies within `time` plus or minus this.
    pub uncertainty: Duration,
    /// Equal for a packet and its retransmission, derived from the TCP source port and sequence number. 0: cannot tell.
    pub fingerprint: u32,
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, source, port: _, time, uncertainty, fingerprint } = self;
        f.debug_struct("Observation")
            .field("id", id)
            .field("source", source)
            .field("port", &"(secret)")
            .field("time", time)
            .field("uncertainty", uncertainty)
            .field("fingerprint", fingerprint)
            .finish()
    }
}
