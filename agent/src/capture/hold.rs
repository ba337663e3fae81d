//! Keeps datagrams to ports of clients for a moment, to see whether they answer a client that has just gone.
//!
//! A resolver reads its answer and closes its socket, often before this agent asks whose port it was. The kernel tells of
//! each UDP socket that is closed, slightly later. So such a sighting waits a moment, [`WAIT_MIN`] on a host that has time,
//! and with it what the same source sends meanwhile, so that each source's knocks stay in order.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use fleetknock_core::source::Source;

use super::Sighting;

/// The kernel's word about a closed socket came 20 to 60 microseconds after it was closed; this leaves room for load.
pub const WAIT_MIN: Duration = Duration::from_millis(2);

/// A kernel thread sends that word, which has to wait for a processor like others. Each word that comes too late doubles
/// the wait, up to this.
pub const WAIT_MAX: Duration = Duration::from_millis(20);

/// The wait is halved when for so long no word came too late.
pub const WAIT_DECAY: Duration = Duration::from_secs(10);

/// At most this many sightings wait. One more that is unsure is not a knock, and counted as unverified.
pub const HELD_MAX: usize = 4_096;

/// Released knocks that are remembered, to notice that the word about them came too late; the oldest is forgotten first.
const RELEASED_MAX: usize = 256;

/// For so long: words are read at least once a second.
const RELEASED_MEMORY: Duration = Duration::from_secs(2);

/// For so long a closed socket's port explains a datagram that came after.
pub const CLOSED_MEMORY: Duration = Duration::from_millis(100);

/// Ports of sockets that were closed lately.
#[derive(Debug, Default)]
pub struct ClosedPorts {
    /// By local port, so at most 65,536: when it was closed, and whom it was connected to.
    ports: HashMap<u16, (Duration, Option<IpAddr>)>,
}

impl ClosedPorts {
    /// Notes that a UDP socket was closed. `peer`: whom it was connected to, if at all.
    pub fn note(&mut self, port: u16, peer: Option<IpAddr>, now: Duration) {
        self.ports.insert(port, (now, peer.map(|peer| peer.to_canonical())));
    }

    /// Whether a datagram from this source to this port, captured at that time, was for a socket now closed.
    pub fn explain(&self, source: Source, port: u16, captured: Duration) -> bool {
        self.ports.get(&port).is_some_and(|(closed, peer)| {
            *closed + CLOSED_MEMORY >= captured && peer.is_none_or(|peer| peer == source.address())
        })
    }

    /// Forgets what is too old to explain anything still held.
    pub fn forget(&mut self, now: Duration) {
        self.ports.retain(|_, (closed, _)| *closed + CLOSED_MEMORY + WAIT_MAX * 2 >= now);
    }
}

#[derive(Debug)]
struct Held {
    sighting: Sighting,
    captured: Duration,
    until: Duration,
    unsure: bool,
}

/// What has become of a sighting that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was sure, and waited for its turn only.
    Waited,
    /// It is a knock after all.
    Knock,
    /// It answered a client that had just gone.
    Answer,
}

/// Sightings that wait.
#[derive(Debug)]
pub struct Hold {
    /// `until` never falls from front to back.
    queue: VecDeque<Held>,
    /// How many each source has in the queue.
    sources: HashMap<Source, u32>,
    /// Taken for knocks lately.
    released: VecDeque<(Source, u16, Duration)>,
    wait: Duration,
    wait_changed: Duration,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            sources: HashMap::new(),
            released: VecDeque::new(),
            wait: WAIT_MIN,
            wait_changed: Duration::ZERO,
        }
    }
}

impl Hold {
    /// Whether a sure sighting must wait too, behind an unsure one of its source.
    pub fn must_wait(&self, source: Source) -> bool {
        !self.queue.is_empty() && self.sources.contains_key(&source)
    }

    /// Keeps a sighting; false when [`HELD_MAX`] wait already.
    #[must_use]
    pub fn keep(&mut self, sighting: Sighting, unsure: bool, now: Duration) -> bool {
        if self.queue.len() >= HELD_MAX {
            return false;
        }
        if now.saturating_sub(self.wait_changed) >= WAIT_DECAY && self.wait > WAIT_MIN {
            (self.wait, self.wait_changed) = ((self.wait / 2).max(WAIT_MIN), now);
        }
        // One that waits only for its turn need not wait longer than those before it.
        let last = self.queue.back().map_or(now, |held| held.until);
        let until = if unsure { last.max(now + self.wait) } else { last };
        *self.sources.entry(sighting.source).or_default() += 1;
        self.queue.push_back(Held { sighting, captured: now, until, unsure });
        true
    }

    /// When the next is to be released.
    pub fn deadline(&self) -> Option<Duration> {
        self.queue.front().map(|held| held.until)
    }

    /// The next that has waited long enough, and what has become of it.
    pub fn release(&mut self, now: Duration, closed: &ClosedPorts) -> Option<(Sighting, Fate)> {
        let held = self.queue.pop_front_if(|held| held.until <= now)?;
        if let Some(count) = self.sources.get_mut(&held.sighting.source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&held.sighting.source);
            }
        }
        let port = held.sighting.port.number();
        let fate = match held.unsure {
            false => Fate::Waited,
            true if closed.explain(held.sighting.source, port, held.captured) => Fate::Answer,
            true => Fate::Knock,
        };
        if fate == Fate::Knock {
            if self.released.len() == RELEASED_MAX {
                self.released.pop_front();
            }
            self.released.push_back((held.sighting.source, port, now));
        }
        Some((held.sighting, fate))
    }

    /// Waits longer from now on when this closed socket explains a sighting that was already released as a knock.
    pub fn learn(&mut self, port: u16, peer: Option<IpAddr>, now: Duration) {
        while self.released.pop_front_if(|(_, _, at)| *at + RELEASED_MEMORY < now).is_some() {}
        let explains = |(source, number, _): &(Source, u16, Duration)| {
            *number == port && peer.is_none_or(|peer| peer.to_canonical() == source.address())
        };
        if let Some(late) = self.released.iter().position(explains) {
            self.released.remove(late);
            (self.wait, self.wait_changed) = ((self.wait * 2).min(WAIT_MAX), now);
        }
    }
}

#[cfg(test)]
mod tests;
