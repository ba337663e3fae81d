//! What this host should hold: its guard, the openings and the bans, at a revision.
//!
//! Pure: messages of the controller go in with the time at which they came, changes for the firewall come out, and at
//! any time the whole of what the kernel should hold.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use fleetknock_core::{
    port::{Port, PortRange},
    source::Source,
};
use ipnet::IpNet;

use crate::firewall::{Desired, Element, Guard};

mod changes;

use changes::Work;
pub use changes::{Changes, Opened, Refused};

/// Openings that one host holds; more are refused and reported as failed.
pub const OPENINGS_MAX: usize = 65_536;
/// Bans that one host holds; more are left out and counted.
pub const BANS_MAX: usize = 65_536;

/// Deadlines that differ by less are the same, told twice over a network.
const SAME: Duration = Duration::from_secs(1);

/// What is kept closed on this host and what counts as a knock there, as the fleet says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetGuard {
    /// TCP and UDP ports that some door opens here.
    pub ports: BTreeSet<Port>,
    /// Ports that doors open here which only observe; none of them is among the others.
    pub observed: BTreeSet<Port>,
    /// Where knocks count, before this host's own services and the ports of doors are taken out.
    pub knock_space: Vec<PortRange>,
    /// Whether echo requests count as knocks.
    pub icmp: bool,
    /// Networks that pass the guard of every host.
    pub management: BTreeSet<IpNet>,
}

/// Names an opening: 1 to 128 bytes.
pub type OpeningId = Arc<str>;

/// One source's hole on this host, as ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The opening's id.
    pub id: OpeningId,
    /// Rises when the opening is refreshed.
    pub generation: u64,
    /// Who.
    pub source: Source,
    /// What: TCP and UDP.
    pub ports: BTreeSet<Port>,
    /// How much longer.
    pub remaining: Duration,
}

/// Everything that this host should hold, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the fleet's picture.
    pub revision: u64,
    /// In one part of a snapshot at least.
    pub guard: Option<FleetGuard>,
    /// The openings.
    pub openings: Vec<Order>,
    /// Who is banned, and how much longer.
    pub bans: Vec<(Source, Duration)>,
    /// Sent at the usual interval, not as the first of a stream.
    pub reassertion: bool,
    /// It takes effect with a later part.
    pub more: bool,
}

/// A change to the picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Of the fleet's picture.
    pub revision: u64,
    /// The whole new guard, when it changed.
    pub guard: Option<FleetGuard>,
    /// Openings that are new or refreshed.
    pub openings: Vec<Order>,
    /// Openings that are taken back; `true`: their connections are cut as well.
    pub withdrawn: Vec<(OpeningId, bool)>,
    /// New bans, or their new remaining time.
    pub bans: Vec<(Source, Duration)>,
    /// Bans that are taken back.
    pub unbanned: Vec<Source>,
}

/// An opening that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Of the order that last changed it.
    pub generation: u64,
    /// Who.
    pub source: Source,
    /// What.
    pub ports: BTreeSet<Port>,
    /// Until when.
    pub deadline: Instant,
}

impl Held {
    fn elements(&self) -> impl Iterator<Item = Element> {
        self.ports.iter().map(|port| Element { source: self.source, port: *port })
    }
}

/// What this host should hold.
#[derive(Debug, Default)]
pub struct Picture {
    own_management: BTreeSet<IpNet>,
    revision: u64,
    guard: FleetGuard,
    openings: HashMap<OpeningId, Held>,
    /// Which openings need an element, and until when; the last one decides.
    holders: HashMap<Element, BTreeSet<(Instant, OpeningId)>>,
    bans: HashMap<Source, Instant>,
    /// The parts of a snapshot that is not complete.
    staged: Option<Snapshot>,
    /// Whether a complete snapshot was taken in.
    told: bool,
}

impl Picture {
    /// Holds nothing. `own_management` are networks that pass this host's guard whatever the fleet says.
    pub fn new(own_management: BTreeSet<IpNet>) -> Self {
        Self { own_management, ..Self::default() }
    }

    /// Of the last message taken in; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether a controller has said what to hold since the agent started.
    pub fn was_told(&self) -> bool {
        self.told
    }

    /// What the fleet guards here.
    pub fn fleet_guard(&self) -> &FleetGuard {
        &self.guard
    }

    /// What the firewall keeps closed.
    pub fn guard(&self) -> Guard {
        let management = self.guard.management.union(&self.own_management).copied().collect();
        Guard { ports: self.guard.ports.clone(), observed: self.guard.observed.clone(), management }
    }

    /// The openings held, expired ones perhaps among them.
    pub fn openings(&self) -> impl Iterator<Item = (&OpeningId, &Held)> {
        self.openings.iter()
    }

    /// The openings that have not expired.
    pub fn active(&self, now: Instant) -> usize {
        self.openings.values().filter(|held| held.deadline > now).count()
    }

    /// Bans and their ends, expired ones perhaps among them.
    pub fn bans(&self) -> impl Iterator<Item = (Source, Instant)> {
        self.bans.iter().map(|(source, deadline)| (*source, *deadline))
    }

    /// The opening of that id, if it is held.
    pub fn opening(&self, id: &str) -> Option<&Held> {
        self.openings.get(id)
    }

    /// The opening of that id with its id, if it is held.
    pub fn entry(&self, id: &str) -> Option<(&OpeningId, &Held)> {
        self.openings.get_key_value(id)
    }

    /// Forgets the parts of a snapshot whose stream ended before it was complete.
    pub fn stream_ended(&mut self) {
        self.staged = None;
    }

    /// Takes in a snapshot, or one part of it: with the last part it replaces everything.
    pub fn take_snapshot(&mut self, part: Snapshot, now: Instant) -> Option<Changes> {
        let mut whole = match self.staged.take() {
            Some(mut staged) => {
                staged.guard = part.guard.or(staged.guard);
                // Beyond the bounds only what is refused grows; it is reported and forgotten with the last part.
                staged.openings.extend(part.openings);
                staged.openings.truncate(2 * OPENINGS_MAX);
                staged.bans.extend(part.bans);
                staged.bans.truncate(2 * BANS_MAX);
                Snapshot { revision: part.revision, reassertion: part.reassertion, more: part.more, ..staged }
            }
            None => part,
        };
        if whole.more {
            whole.more = false;
            self.staged = Some(whole);
            return None;
        }
        let delta = self.difference(&whole, now);
        // What the kernel already has to the second needs no message and no report.
        let only_news = whole.reassertion && self.told;
        self.told = true;
        Some(self.take(delta, now, only_news))
    }

    /// What turns the picture held into a snapshot's.
    fn difference(&self, whole: &Snapshot, now: Instant) -> Delta {
        let named: BTreeSet<&str> = whole.openings.iter().map(|order| &*order.id).collect();
        let banned: BTreeSet<Source> = whole.bans.iter().map(|(source, _)| *source).collect();
        let gone = self.openings.iter().filter(|(id, held)| !named.contains(&***id) && held.deadline > now);
        Delta {
            revision: whole.revision,
            guard: whole.guard.clone(),
            openings: whole.openings.clone(),
            withdrawn: gone.map(|(id, _)| (id.clone(), false)).collect(),
            bans: whole.bans.clone(),
            unbanned: self.bans.keys().filter(|source| !banned.contains(source)).copied().collect(),
        }
    }

    /// Takes in a change. The order is guard, withdrawals, bans, openings.
    pub fn take_delta(&mut self, delta: Delta, now: Instant) -> Changes {
        self.take(delta, now, false)
    }

    fn take(&mut self, delta: Delta, now: Instant, only_news: bool) -> Changes {
        let mut work = Work::default();
        self.revision = delta.revision;
        if let Some(guard) = delta.guard.filter(|guard| *guard != self.guard) {
            self.guard = guard;
            work.guard = true;
            let spared: Vec<Source> = self.bans.keys().filter(|s| self.manages(**s)).copied().collect();
            work.unbanned.extend(spared);
        }
        for (id, kill) in delta.withdrawn {
            self.withdraw(&id, kill, now, &mut work);
        }
        work.unbanned.extend(delta.unbanned);
        for source in &work.unbanned {
            self.bans.remove(source);
        }
        for (source, remaining) in delta.bans {
            self.ban(source, remaining, now, &mut work);
        }
        for order in delta.openings {
            self.hold(order, now, &mut work);
        }
        work.finish(self, now, only_news)
    }

    fn manages(&self, source: Source) -> bool {
        let mut networks = self.own_management.iter().chain(&self.guard.management);
        networks.any(|network| network.contains(&source.address()))
    }

    fn withdraw(&mut self, id: &OpeningId, kill: bool, now: Instant, work: &mut Work) {
        let Some(held) = self.openings.remove(id) else {
            return;
        };
        for element in held.elements() {
            self.release(element, id, held.deadline);
            work.touched.insert(element);
            // Nothing is dropped for a door that only observes.
            let guarded = !self.guard.observed.contains(&element.port);
            if kill && guarded && self.deadline(element, now).is_none() {
                work.cut.insert(element);
            }
        }
    }

    fn ban(&mut self, source: Source, remaining: Duration, now: Instant, work: &mut Work) {
        if self.manages(source) || remaining.is_zero() {
            return;
        }
        if self.bans.len() >= BANS_MAX && !self.bans.contains_key(&source) {
            self.bans.retain(|_, deadline| *deadline > now);
            if self.bans.len() >= BANS_MAX {
                work.bans_left_out += 1;
                return;
            }
        }
        let deadline = saturating(now, remaining);
        work.banned.insert(source, deadline);
        self.bans.insert(source, deadline);
    }

    fn hold(&mut self, order: Order, now: Instant, work: &mut Work) {
        let Order { id, generation, source, ports, remaining } = order;
        let deadline = saturating(now, remaining);
        match self.openings.get(&id) {
            Some(old) if old.generation > generation && old.deadline > now => {
                // An order that was overtaken by its own refresh.
                return;
            }
            Some(old) => {
                let same = old.generation == generation && old.source == source && old.ports == ports;
                if same && old.deadline > now && distance(old.deadline, deadline) < SAME {
                    // Said again: it keeps its deadline, as in the kernel.
                    work.ordered(&id, generation, false);
                    return;
                }
            }
            None => {}
        }
        if !self.has_room(&id, now) {
            let reason = format!("this host already holds {OPENINGS_MAX} openings, its limit");
            work.refused.push(Refused { id, generation, reason });
            return;
        }
        work.ordered(&id, generation, true);
        let held = Held { generation, source, ports, deadline };
        if let Some(old) = self.openings.insert(id.clone(), held.clone()) {
            for element in old.elements() {
                self.release(element, &id, old.deadline);
                work.touched.insert(element);
            }
        }
        for element in held.elements() {
            self.holders.entry(element).or_default().insert((deadline, id.clone()));
            work.touched.insert(element);
        }
    }

    fn has_room(&mut self, id: &OpeningId, now: Instant) -> bool {
        if self.openings.len() < OPENINGS_MAX || self.openings.contains_key(id) {
            return true;
        }
        self.expire(now);
        self.openings.len() < OPENINGS_MAX
    }

    fn release(&mut self, element: Element, id: &OpeningId, deadline: Instant) {
        if let Some(holders) = self.holders.get_mut(&element) {
            holders.remove(&(deadline, id.clone()));
            if holders.is_empty() {
                self.holders.remove(&element);
            }
        }
    }

    /// Until when an element is needed, by the latest of its openings; `None` when none needs it any more.
    fn deadline(&self, element: Element, now: Instant) -> Option<Instant> {
        let (deadline, _) = self.holders.get(&element)?.last()?;
        Some(*deadline).filter(|deadline| *deadline > now)
    }

    /// Forgets what has expired; the kernel did so by itself.
    pub fn expire(&mut self, now: Instant) {
        let gone: Vec<OpeningId> =
            self.openings.iter().filter(|(_, held)| held.deadline <= now).map(|(id, _)| id.clone()).collect();
        for id in gone {
            if let Some(held) = self.openings.remove(&id) {
                for element in held.elements() {
                    self.release(element, &id, held.deadline);
                }
            }
        }
        self.bans.retain(|_, deadline| *deadline > now);
    }

    /// All that the kernel should hold now.
    pub fn desired(&mut self, now: Instant) -> Desired {
        self.expire(now);
        let openings = self
            .holders
            .keys()
            .filter_map(|element| self.deadline(*element, now).map(|at| (*element, at.duration_since(now))));
        let openings: BTreeMap<Element, Duration> = openings.collect();
        let bans =
            self.bans.iter().map(|(source, deadline)| (*source, deadline.duration_since(now))).collect();
        Desired { guard: self.guard(), openings, bans }
    }
}

/// A deadline; a remaining time beyond what the clock can count is a year.
fn saturating(now: Instant, remaining: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
    now.checked_add(remaining.min(YEAR)).unwrap_or(now)
}

fn distance(one: Instant, other: Instant) -> Duration {
    one.max(other).duration_since(one.min(other))
}

#[cfg(test)]
mod tests;
