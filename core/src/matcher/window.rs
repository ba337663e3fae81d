//! The knocks known of one source.

use std::{mem::size_of, slice};

use crate::{
    host::HostId,
    knock::{Observation, ObservationId},
    port::Port,
    source::Source,
};

use super::chain::{Set, first};

/// Records of one source, so that a set of them fits a `u64`.
pub(super) const RECORDS_MAX: usize = 64;

/// What an allocation costs beyond its size, estimated.
pub(super) const ALLOCATION: usize = 16;

/// One knock, without its source: 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Microseconds.
    pub(super) time: u64,
    pub(super) counter: u64,
    pub(super) host: u32,
    pub(super) boot: u32,
    /// Microseconds; more than 71 minutes are kept as that.
    pub(super) uncertainty: u32,
    pub(super) fingerprint: u32,
    pub(super) port: Port,
    /// Its report came so late that others of its time may never come: it was sent again.
    pub(super) late: bool,
}

impl Record {
    pub(super) fn new(observation: &Observation, late: bool) -> Self {
        Self {
            time: observation.time.as_micros(),
            counter: observation.id.counter,
            host: observation.id.host.0,
            boot: observation.id.boot,
            uncertainty: u32::try_from(observation.uncertainty.as_micros()).unwrap_or(u32::MAX),
            fingerprint: observation.fingerprint,
            port: observation.port,
            late,
        }
    }

    pub(super) fn id(&self) -> ObservationId {
        ObservationId { host: HostId(self.host), boot: self.boot, counter: self.counter }
    }

    /// The latest that it can have been.
    pub(super) fn latest(&self) -> u64 {
        self.time.saturating_add(u64::from(self.uncertainty))
    }

    /// The earliest that it can have been.
    pub(super) fn earliest(&self) -> u64 {
        self.time.saturating_sub(u64::from(self.uncertainty))
    }

    /// Where it stands among the knocks of its host.
    fn place(&self) -> (u32, u64) {
        (self.boot, self.counter)
    }

    /// Whether this came before the other for certain: by capture order on one host, by time on different ones.
    pub(super) fn certainly_before(&self, other: &Self) -> bool {
        if self.host == other.host { self.place() < other.place() } else { self.latest() < other.earliest() }
    }

    fn same_id(&self, other: &Self) -> bool {
        self.host == other.host && self.place() == other.place()
    }

    fn retransmits(&self, other: &Self) -> bool {
        self.fingerprint != 0
            && self.fingerprint == other.fingerprint
            && self.host == other.host
            && self.port == other.port
    }
}

/// A source's knocks in the order in which they arrived. One knock lies in place, more on the heap.
#[derive(Debug)]
pub(super) enum Window {
    One(Record),
    Many { records: Vec<Record>, extra: Option<Box<Extra>> },
}

/// What few sources need.
#[derive(Clone, Debug, Default)]
pub(super) struct Extra {
    /// The latest that a dropped record can have been, in microseconds; 0: none was dropped.
    floor: u64,
    /// Doors that were completed, or are followed beside the first one.
    spent: Vec<Spent>,
}

/// Records that may not be used for the door again.
#[derive(Clone, Copy, Debug)]
struct Spent {
    door: u32,
    /// The source is under way at the door.
    followed: bool,
    records: Set,
}

impl Spent {
    fn is_void(&self) -> bool {
        self.records == 0 && !self.followed
    }
}

/// What became of a record that was offered to a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It lies at this place.
    At(usize),
    /// Its id is known.
    Duplicate,
    /// It retransmits an earlier record.
    Repeat,
    /// It lies before what is kept.
    TooLate,
}

impl Window {
    pub(super) fn records(&self) -> &[Record] {
        match self {
            Self::One(record) => slice::from_ref(record),
            Self::Many { records, .. } => records,
        }
    }

    /// Records that lie on the heap, by the room that they take.
    pub(super) fn spilled(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many { records, .. } => records.capacity(),
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many { records, extra } => {
                let extra = extra.as_ref().map_or(0, |extra| {
                    size_of::<Extra>() + 2 * ALLOCATION + extra.spent.capacity() * size_of::<Spent>()
                });
                records.capacity() * size_of::<Record>() + ALLOCATION + extra
            }
        }
    }

    /// The room that one more record would take, in records.
    pub(super) fn growth(&self, limit: usize) -> usize {
        match self {
            Self::One(_) => 2,
            Self::Many { records, .. } if records.len() == records.capacity() && records.len() < limit => {
                growth(records.len())
            }
            Self::Many { .. } => 0,
        }
    }

    pub(super) fn floor(&self) -> u64 {
        match self {
            Self::Many { extra: Some(extra), .. } => extra.floor,
            _ => 0,
        }
    }

    /// The records that are spent for the door.
    pub(super) fn spent(&self, door: u32) -> Set {
        match self {
            Self::Many { extra: Some(extra), .. } => {
                extra.spent.iter().find(|spent| spent.door == door).map_or(0, |spent| spent.records)
            }
            _ => 0,
        }
    }

    /// The time of the newest record, by packet time.
    pub(super) fn newest(&self) -> u64 {
        self.records().iter().map(|record| record.time).max().unwrap_or(0)
    }

    /// Whether the id is known or an earlier record is retransmitted, among what is not older than the horizon.
    pub(super) fn knows(&self, record: &Record, horizon: u64) -> Option<Added> {
        let mut known = None;
        for kept in self.records().iter().filter(|kept| kept.time >= horizon) {
            if kept.same_id(record) {
                return Some(Added::Duplicate);
            }
            if record.retransmits(kept) && kept.place() < record.place() {
                known = Some(Added::Repeat);
            }
        }
        known
    }

    /// Drops what is older than the horizon, down to one record: a window is never empty. A dropped record that may
    /// have been later than the horizon lives on as the floor.
    pub(super) fn expire(&mut self, horizon: u64) {
        if let Self::Many { extra: Some(extra), .. } = self
            && extra.floor < horizon
        {
            extra.floor = 0;
        }
        while self.records().len() > 1
            && let Some(at) = self.records().iter().position(|record| record.time < horizon)
        {
            self.drop_at(at, horizon);
        }
    }

    /// Adds a record that is not [known](Self::knows) to an [expired](Self::expire) window, dropping the oldest when
    /// there are `limit`.
    ///
    /// The earliest of several copies is the one that counts, so an earlier copy takes the place of a later one.
    pub(super) fn add(&mut self, record: Record, horizon: u64, limit: usize) -> Added {
        let stale = self.records().first().filter(|only| only.time < horizon).copied();
        let stale_floor = stale.map(|stale| stale.latest()).filter(|&latest| latest >= horizon).unwrap_or(0);
        let floor = self.floor().max(stale_floor);
        if floor != 0 && record.latest() <= floor {
            return Added::TooLate;
        }
        if stale.is_some() {
            if stale_floor == 0
                && let Self::One(only) = self
            {
                *only = record;
                return Added::At(0);
            }
            self.push(record);
            self.drop_at(0, horizon);
            return Added::At(0);
        }
        if let Some(at) = self.records().iter().position(|kept| record.retransmits(kept)) {
            match self {
                Self::One(kept) => *kept = record,
                Self::Many { records, .. } => records[at] = record,
            }
            return Added::At(at);
        }
        if self.records().len() >= limit {
            let oldest = (0..self.records().len()).min_by_key(|&at| self.records()[at].time).unwrap_or(0);
            if record.time < self.records()[oldest].time {
                self.raise_floor(record.latest());
                return Added::TooLate;
            }
            self.drop_at(oldest, 0);
        }
        self.push(record);
        Added::At(self.records().len() - 1)
    }

    /// Makes every record that is known now unusable for the door, but for those that are spared. `live` tells whether a
    /// door still exists.
    pub(super) fn spend(&mut self, door: u32, spared: Set, live: impl Fn(u32) -> bool) {
        let records = self.spent(door) | first(self.records().len()) & !spared;
        self.spill();
        if let Self::Many { extra, .. } = self {
            let spent = &mut extra.get_or_insert_default().spent;
            spent.retain(|spent| spent.door != door && (spent.followed || live(spent.door)));
            spent.reserve_exact(1);
            spent.push(Spent { door, records, followed: false });
        }
    }

    /// The keys of the doors that are noted here as followed.
    pub(super) fn followed(&self) -> impl Iterator<Item = u32> + '_ {
        let extra = if let Self::Many { extra, .. } = self { extra.as_ref() } else { None };
        let spent = extra.into_iter().flat_map(|extra| &extra.spent);
        spent.filter(|spent| spent.followed).map(|spent| spent.door)
    }

    /// Notes a door as followed.
    pub(super) fn follow(&mut self, door: u32) {
        self.spill();
        let Self::Many { extra, .. } = self else { return };
        let spent = &mut extra.get_or_insert_default().spent;
        match spent.iter_mut().find(|spent| spent.door == door) {
            Some(spent) => spent.followed = true,
            None => {
                spent.reserve_exact(1);
                spent.push(Spent { door, followed: true, records: 0 });
            }
        }
    }

    /// Notes a door as followed no longer.
    pub(super) fn unfollow(&mut self, door: u32) {
        if let Self::Many { extra: Some(extra), .. } = self {
            extra
                .spent
                .iter_mut()
                .filter(|spent| spent.door == door)
                .for_each(|spent| spent.followed = false);
            extra.spent.retain(|spent| !spent.is_void());
        }
    }

    /// Becomes a copy, keeping its room.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.spill();
        let Self::Many { records, extra } = self else { return };
        records.clear();
        records.extend_from_slice(other.records());
        *extra = if let Self::Many { extra, .. } = other { extra.clone() } else { None };
    }

    fn push(&mut self, record: Record) {
        match self {
            Self::One(first) => *self = Self::Many { records: vec![*first, record], extra: None },
            Self::Many { records, .. } => {
                if records.len() == records.capacity() {
                    records.reserve_exact(growth(records.len()));
                }
                records.push(record);
            }
        }
    }

    /// Drops one of several records; it becomes the floor unless it certainly lay before the horizon.
    fn drop_at(&mut self, at: usize, horizon: u64) {
        let Self::Many { records, extra } = self else { return };
        let dropped = records.remove(at);
        if let Some(extra) = extra {
            for spent in &mut extra.spent {
                let before = first(at);
                spent.records = (spent.records & before) | (spent.records >> 1 & !before);
            }
            extra.spent.retain(|spent| !spent.is_void());
        }
        if dropped.latest() >= horizon {
            self.raise_floor(dropped.latest());
        } else if extra.as_ref().is_some_and(|extra| extra.floor == 0 && extra.spent.is_empty()) {
            *extra = None;
        }
    }

    fn raise_floor(&mut self, latest: u64) {
        if let Self::Many { extra, .. } = self {
            let extra = extra.get_or_insert_default();
            extra.floor = extra.floor.max(latest);
        }
    }

    /// Moves a single record to the heap.
    fn spill(&mut self) {
        if let Self::One(record) = self {
            *self = Self::Many { records: vec![*record], extra: None };
        }
    }
}

/// By how much a full window of this length grows: little at first, because most knocks have few steps.
fn growth(length: usize) -> usize {
    (length / 2).clamp(1, RECORDS_MAX / 2)
}

/// A source as the arena keys it: its 16 bytes as two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) [u64; 2]);

impl Key {
    pub(super) fn new(source: Source) -> Self {
        let octets = u128::from_be_bytes(source.octets());
        Self([(octets >> 64) as u64, octets as u64])
    }

    pub(super) fn source(self) -> Source {
        Source::from_octets(((u128::from(self.0[0]) << 64) | u128::from(self.0[1])).to_be_bytes())
    }

    /// Stands for [`Source::prefix`]: the first 24 bits of an IPv4 address, marked, or the first 56 of an IPv6 one.
    pub(super) fn prefix(self) -> u64 {
        let [high, low] = self.0;
        if high == 0 && low >> 32 == 0xffff { (1 << 63) | ((low & 0xffff_ffff) >> 8) } else { high >> 8 }
    }
}
