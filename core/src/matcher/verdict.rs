//! What the matcher says.

use std::{sync::Arc, time::Duration};

use crate::{door::DoorName, host::HostId, knock::ObservationId, source::Source, time::Timestamp};

/// What follows from an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Open a door.
    Complete(Completion),
    /// Ban a source, which the matcher has forgotten.
    Ban {
        /// Whom.
        source: Source,
        /// How many misses there were.
        misses: u32,
        /// In which time.
        window: Duration,
    },
    /// An attempt that had reached its second step can no longer be completed.
    Failed(Failure),
}

/// Why an attempt can no longer be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FailReason {
    /// Its source was banned.
    Banned,
    /// Its door exists no longer. Such attempts are counted and not told.
    DoorGone,
    /// Its source was forgotten for want of room.
    NoRoom,
    /// Its time was over.
    TooSlow,
    /// Another knock came between.
    WrongKnock,
}

impl FailReason {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Banned, Self::DoorGone, Self::NoRoom, Self::TooSlow, Self::WrongKnock];

    /// As metrics and traces name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::DoorGone => "door_gone",
            Self::NoRoom => "no_room",
            Self::TooSlow => "too_slow",
            Self::WrongKnock => "wrong_knock",
        }
    }
}

/// An attempt that had reached its second step and failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// At which door.
    pub door: DoorName,
    /// Who knocked.
    pub source: Source,
    /// Accepted steps, at least 2.
    pub step: usize,
    /// The door's steps.
    pub of: usize,
    /// Why.
    pub reason: FailReason,
    /// The packet time of its earliest knock.
    pub first: Timestamp,
    /// By when the last knock must have been sent.
    pub deadline: Timestamp,
    /// When it failed: the packet time of the knock that came between, the deadline, or now.
    pub at: Timestamp,
    /// Its accepted knocks, in the order of their reports.
    pub knocks: Vec<ObservationId>,
    /// The knock whose report ended it, if one did.
    pub wrong: Option<ObservationId>,
}

/// A door's sequence was knocked in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which door.
    pub door: DoorName,
    /// Who knocked.
    pub source: Source,
    /// The packet time of the earliest knock.
    pub first: Timestamp,
    /// The packet time of the latest knock.
    pub last: Timestamp,
    /// The knock that stands for the last step. Clocks that are measured anew may change which knock is the latest by
    /// time; which of them was the last to be asked for stays.
    pub end: ObservationId,
    /// The knocks of the chain, that one among them, in the order of their reports.
    pub knocks: Vec<ObservationId>,
}

/// What an observation was to its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It completed at least one door.
    Completed,
    /// It is the last of a chain.
    Advanced {
        /// The door at which the source got furthest with it; of several the first by name.
        door: Arc<DoorName>,
        /// The accepted step, from 1.
        step: usize,
        /// The door's steps.
        of: usize,
    },
    /// It repeats an accepted step, or a packet.
    Repeat,
    /// It matches a later step of some door, and those before may yet be reported.
    Waiting,
    /// It is neither progress nor a repeat.
    Miss,
    /// It was not taken in.
    Ignored(Ignored),
}

/// Why an observation was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It is known already.
    Duplicate,
    /// It is older than [`Matcher::retention`](super::Matcher::retention), or than what is kept of a source that knocks a lot.
    TooLate,
    /// It lies in the future.
    Future,
    /// An echo request of a length that no door uses: somebody pings.
    IcmpUnused,
    /// There is no room, see [`Limits`](super::Limits).
    Refused,
}

/// One source's progress at one door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which door.
    pub door: DoorName,
    /// Who knocks.
    pub source: Source,
    /// Accepted steps.
    pub done: usize,
    /// The door's steps.
    pub total: usize,
    /// The packet time of the earliest accepted knock.
    pub started: Timestamp,
    /// By when the last knock must have been sent.
    pub deadline: Timestamp,
    /// Where the last accepted knock was seen.
    pub last_host: HostId,
}
