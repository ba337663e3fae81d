//! The fleet as the store tells it: doors, hosts, openings and bans, and what each host should hold of them.
//!
//! Pure. Each controller keeps one copy, fed by the store's watch; nothing else changes it. A change is taken in by
//! [`Fleet::apply`], which says what it meant ([`Effect`]); what a host should hold is asked of [`Fleet::guarded`] and
//! [`Fleet::openings_on`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use fleetknock_core::{
    door::{Door, DoorName, Knock, Mode},
    host::{HostId, HostName},
    port::{Port, Protocol},
    source::Source,
    time::Timestamp,
};
use ipnet::IpNet;

use crate::{
    record::{
        AuditRecord, BanRecord, DoorRecord, EventId, HostRecord, IdentityRecord, Key, MemberRecord,
        OpeningRecord, RecordError, TokenId, TokenRecord, decode,
    },
    store::{Change, Changes, Entry, Listing, Revision},
};

mod trail;

pub use self::trail::Trail;

/// How long a store that was set up anew must know a host before the host's coming back shows that it is the fleet's. An
/// agent that is without a controller tries again every 15 seconds at most: all that can come have come by then.
pub const KNOWN_AFTER: Duration = Duration::from_secs(600);

/// A record with the revision of its last change, against which the next change is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held<T> {
    /// What the store holds.
    pub record: T,
    /// Of its last change.
    pub revision: Revision,
}

/// Every record of the fleet.
#[derive(Debug, Default)]
pub struct Fleet {
    doors: BTreeMap<DoorName, Held<DoorRecord>>,
    hosts: BTreeMap<HostName, Held<HostRecord>>,
    host_ids: BTreeMap<HostName, HostId>,
    host_names: Vec<HostName>,
    openings: BTreeMap<(DoorName, Source), Held<OpeningRecord>>,
    openings_by_id: HashMap<String, (DoorName, Source)>,
    bans: BTreeMap<Source, Held<BanRecord>>,
    members: BTreeMap<HostName, Held<MemberRecord>>,
    identity: Option<Held<IdentityRecord>>,
    trail: Trail,
    tokens: BTreeMap<TokenId, Held<TokenRecord>>,
    revision: Revision,
}

/// What a change of the store meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "few exist at a time, and a box would be one more allocation before every push"
)]
pub enum Effect {
    /// A source is banned, or its ban changed.
    Banned(BanRecord),
    /// An event was written to the audit trail.
    Audited(AuditRecord),
    /// A record cannot be read and is left aside.
    Broken(RecordError),
    /// A door was created or changed.
    DoorApplied(DoorName),
    /// A door is gone.
    DoorDeleted(DoorName),
    /// A host was added, changed or removed.
    HostChanged(HostName),
    /// The fleet's identity was written or deleted.
    Identified,
    /// A controller joined, or joined anew.
    MemberJoined(HostName),
    /// A controller left, or its lease ended.
    MemberLeft(HostName),
    /// An opening was granted, refreshed or withdrawn.
    Opening {
        /// What it was, if it was.
        before: Option<OpeningRecord>,
        /// What it is.
        after: OpeningRecord,
    },
    /// An ended opening's record was cleared away.
    OpeningForgotten(OpeningRecord),
    /// A token was made or revoked.
    TokenChanged(TokenId),
    /// A source's ban is gone.
    Unbanned(Source),
}

impl Fleet {
    /// The fleet as a listing of the whole store tells it.
    pub fn load(listing: Listing) -> (Self, Vec<RecordError>) {
        let mut fleet = Self::default();
        let broken = fleet.replace(listing);
        (fleet, broken)
    }

    /// Forgets everything and takes in a listing of the whole store; host numbers stay. Of a door or a host whose record
    /// is there and cannot be read, what was known stays: as if it were absent, its guard would be taken off.
    pub fn replace(&mut self, listing: Listing) -> Vec<RecordError> {
        let mut doors = std::mem::take(&mut self.doors);
        let mut hosts = std::mem::take(&mut self.hosts);
        self.openings.clear();
        self.openings_by_id.clear();
        self.bans.clear();
        self.members.clear();
        self.identity = None;
        self.trail = Trail::default();
        self.tokens.clear();
        let mut broken = Vec::new();
        for Entry { key, value, revision } in listing.entries {
            if let Effect::Broken(error) = self.put(&key, &value, revision) {
                match key.parse() {
                    Ok(Key::Door(name)) => {
                        self.doors.extend(doors.remove(&name).map(|known| (name, known)));
                    }
                    Ok(Key::Host(name)) => {
                        self.hosts.extend(hosts.remove(&name).map(|known| (name, known)));
                    }
                    _ => {}
                }
                broken.push(error);
            }
        }
        self.revision = listing.revision;
        broken
    }

    /// Takes in the changes of one commit.
    pub fn apply(&mut self, changes: Changes) -> Vec<Effect> {
        self.revision = self.revision.max(changes.revision);
        changes
            .changes
            .into_iter()
            .filter_map(|change| match change {
                Change::Delete { key } => self.delete(&key),
                Change::Put { key, value } => Some(self.put(&key, &value, changes.revision)),
            })
            .collect()
    }

    fn put(&mut self, key: &str, value: &[u8], revision: Revision) -> Effect {
        let taken = key.parse::<Key>().and_then(|key| match &key {
            Key::Audit(id) => decode::<AuditRecord>(&key, value).map(|record| {
                self.trail.put(id.clone(), record.clone(), revision);
                Effect::Audited(record)
            }),
            Key::Ban(source) => decode::<BanRecord>(&key, value).map(|record| {
                self.bans.insert(*source, Held { record: record.clone(), revision });
                Effect::Banned(record)
            }),
            Key::Controller(name) => decode::<MemberRecord>(&key, value).map(|record| {
                self.members.insert(name.clone(), Held { record, revision });
                Effect::MemberJoined(name.clone())
            }),
            Key::Door(name) => decode::<DoorRecord>(&key, value).map(|record| {
                self.doors.insert(name.clone(), Held { record, revision });
                Effect::DoorApplied(name.clone())
            }),
            Key::Host(name) => decode::<HostRecord>(&key, value).map(|record| {
                if !self.host_ids.contains_key(name) {
                    let next = HostId(u32::try_from(self.host_names.len()).unwrap_or(u32::MAX));
                    self.host_ids.insert(name.clone(), next);
                    self.host_names.push(name.clone());
                }
                self.hosts.insert(name.clone(), Held { record, revision });
                Effect::HostChanged(name.clone())
            }),
            Key::Identity => decode::<IdentityRecord>(&key, value).map(|record| {
                self.identity = Some(Held { record, revision });
                Effect::Identified
            }),
            Key::Opening(door, source) => decode::<OpeningRecord>(&key, value).map(|after| {
                let held = Held { record: after.clone(), revision };
                let before = self.openings.insert((door.clone(), *source), held).map(|held| held.record);
                if let Some(before) = &before {
                    self.openings_by_id.remove(&before.id);
                }
                self.openings_by_id.insert(after.id.clone(), (door.clone(), *source));
                Effect::Opening { before, after }
            }),
            Key::Token(id) => decode::<TokenRecord>(&key, value).map(|record| {
                self.tokens.insert(id.clone(), Held { record, revision });
                Effect::TokenChanged(id.clone())
            }),
        });
        taken.unwrap_or_else(Effect::Broken)
    }

    fn delete(&mut self, key: &str) -> Option<Effect> {
        match key.parse::<Key>() {
            Err(error) => Some(Effect::Broken(error)),
            Ok(Key::Audit(id)) => {
                self.trail.remove(&id);
                None
            }
            Ok(Key::Token(id)) => self.tokens.remove(&id).map(|_| Effect::TokenChanged(id)),
            Ok(Key::Ban(source)) => self.bans.remove(&source).map(|_| Effect::Unbanned(source)),
            Ok(Key::Controller(name)) => self.members.remove(&name).map(|_| Effect::MemberLeft(name)),
            Ok(Key::Door(name)) => self.doors.remove(&name).map(|_| Effect::DoorDeleted(name)),
            Ok(Key::Host(name)) => self.hosts.remove(&name).map(|_| Effect::HostChanged(name)),
            Ok(Key::Identity) => self.identity.take().map(|_| Effect::Identified),
            Ok(Key::Opening(door, source)) => self.openings.remove(&(door, source)).map(|held| {
                self.openings_by_id.remove(&held.record.id);
                Effect::OpeningForgotten(held.record)
            }),
        }
    }

    /// The store's revision up to which this copy is true.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision of a record's last change, when there is such a record.
    pub fn revision_of(&self, key: &Key) -> Option<Revision> {
        match key {
            Key::Audit(id) => self.trail.events().get(id).map(|held| held.revision),
            Key::Token(id) => self.tokens.get(id).map(|held| held.revision),
            Key::Ban(source) => self.bans.get(source).map(|held| held.revision),
            Key::Controller(name) => self.members.get(name).map(|held| held.revision),
            Key::Door(name) => self.doors.get(name).map(|held| held.revision),
            Key::Host(name) => self.hosts.get(name).map(|held| held.revision),
            Key::Identity => self.identity.as_ref().map(|held| held.revision),
            Key::Opening(door, source) => {
                self.openings.get(&(door.clone(), *source)).map(|held| held.revision)
            }
        }
    }

    /// All doors by name.
    pub fn doors(&self) -> &BTreeMap<DoorName, Held<DoorRecord>> {
        &self.doors
    }

    /// All hosts by name.
    pub fn hosts(&self) -> &BTreeMap<HostName, Held<HostRecord>> {
        &self.hosts
    }

    /// All openings whose records are kept, also ended ones, by door and source.
    pub fn openings(&self) -> &BTreeMap<(DoorName, Source), Held<OpeningRecord>> {
        &self.openings
    }

    /// The openings of a door whose records are kept, by source.
    pub fn openings_of<'a>(&'a self, door: &DoorName) -> impl Iterator<Item = &'a OpeningRecord> + use<'a> {
        // IPv4 comes before IPv6, and 0.0.0.0 before every other source.
        let least = Source::from_octets([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        let door = door.clone();
        self.openings
            .range((door.clone(), least)..)
            .take_while(move |((of, _), _)| *of == door)
            .map(|(_, held)| &held.record)
    }

    /// The opening of an id, as long as its record is kept.
    pub fn opening(&self, id: &str) -> Option<&Held<OpeningRecord>> {
        self.openings.get(self.openings_by_id.get(id)?)
    }

    /// All bans whose records are kept, by source.
    pub fn bans(&self) -> &BTreeMap<Source, Held<BanRecord>> {
        &self.bans
    }

    /// The audit trail, the oldest event first.
    pub fn audit(&self) -> &BTreeMap<EventId, Held<AuditRecord>> {
        self.trail.events()
    }

    /// The same with the shares of it.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// All tokens whose records are kept.
    pub fn tokens(&self) -> &BTreeMap<TokenId, Held<TokenRecord>> {
        &self.tokens
    }

    /// The controllers whose leases hold, by name; the revision of each is its epoch.
    pub fn members(&self) -> &BTreeMap<HostName, Held<MemberRecord>> {
        &self.members
    }

    /// The longest-serving member.
    pub fn eldest(&self) -> Option<&HostName> {
        self.members.iter().min_by_key(|(_, held)| held.revision).map(|(name, _)| name)
    }

    /// Who the fleet is, as far as it has been written down.
    pub fn identity(&self) -> Option<&str> {
        self.identity.as_ref().map(|held| held.record.id.as_str())
    }

    /// Its record and the revision of that, as far as it has been written down.
    pub fn identity_record(&self) -> Option<&Held<IdentityRecord>> {
        self.identity.as_ref()
    }

    /// Whether a host's agent that holds a picture of this revision may have it from another store than this one, which was
    /// set up anew: it is not known here, and nothing shows yet that this store is the fleet's.
    pub fn is_of_another_store(&self, host: &HostName, picture: Revision) -> bool {
        let is_new = self.identity.as_ref().is_some_and(|held| held.record.new);
        is_new && picture > 0 && !self.hosts.contains_key(host)
    }

    /// What is to be written of whose store this is, when a host's agent comes with a picture of this revision.
    ///
    /// A store that was set up anew becomes the fleet's when a host comes back to it that it has known for
    /// [`KNOWN_AFTER`], unless a host of an earlier store has missed that one meanwhile.
    pub fn identity_after(
        &self,
        host: &HostName,
        picture: Revision,
        now: Timestamp,
    ) -> Option<IdentityRecord> {
        let held = self.identity.as_ref().map(|held| &held.record);
        let record = held.filter(|record| record.new && !record.missed && picture > 0)?;
        match self.hosts.get(host) {
            None => Some(IdentityRecord { missed: true, ..record.clone() }),
            Some(known) if now.since(known.record.created) >= KNOWN_AFTER => {
                Some(IdentityRecord { new: false, ..record.clone() })
            }
            Some(_) => None,
        }
    }

    /// The number that stands for a host while this controller runs.
    pub fn host_id(&self, name: &HostName) -> Option<HostId> {
        self.host_ids.get(name).copied()
    }

    /// The host of a number.
    pub fn host_name(&self, id: HostId) -> Option<&HostName> {
        self.host_names.get(usize::try_from(id.0).ok()?)
    }

    /// The ban of a source that holds at that time.
    pub fn ban(&self, source: Source, now: Timestamp) -> Option<&BanRecord> {
        self.bans.get(&source).map(|held| &held.record).filter(|ban| ban.expires > now)
    }

    /// Whether an opening lets its source in at that time: it is active, its door still exists, nobody banned its
    /// source.
    pub fn is_effective(&self, opening: &OpeningRecord, now: Timestamp) -> bool {
        opening.is_active(now)
            && self.doors.contains_key(&opening.door)
            && self.ban(opening.source, now).is_none()
    }

    /// The openings that a host should hold at that time.
    pub fn openings_on<'a>(
        &'a self,
        host: &'a HostName,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a OpeningRecord> + use<'a> {
        self.openings
            .values()
            .map(|held| &held.record)
            .filter(move |opening| opening.hosts.contains(host) && self.is_effective(opening, now))
    }

    /// The doors that open something on a host.
    pub fn doors_on<'a>(&'a self, host: &'a HostRecord) -> impl Iterator<Item = &'a Door> + use<'a> {
        self.doors
            .values()
            .map(|held| &held.record.door)
            .filter(|door| door.opens().hosts.matches(&host.name, &host.labels))
    }

    /// The ports that must be kept closed on a host.
    pub fn guarded(&self, host: &HostRecord) -> BTreeSet<Port> {
        self.ports_on(host, Mode::Enforce)
    }

    /// The ports on a host that some door observes and none keeps closed.
    pub fn observed(&self, host: &HostRecord) -> BTreeSet<Port> {
        &self.ports_on(host, Mode::Observe) - &self.guarded(host)
    }

    fn ports_on(&self, host: &HostRecord, mode: Mode) -> BTreeSet<Port> {
        let doors = self.doors_on(host).filter(|door| door.mode() == mode);
        doors.flat_map(|door| door.opens().ports.iter().copied()).collect()
    }

    /// The hosts that a door opens.
    pub fn hosts_of(&self, door: &Door) -> BTreeSet<HostName> {
        self.hosts
            .values()
            .filter(|held| door.opens().hosts.matches(&held.record.name, &held.record.labels))
            .map(|held| held.record.name.clone())
            .collect()
    }

    /// Whether some door's knock has an ICMP step: only then do echo requests count.
    pub fn knocks_by_icmp(&self) -> bool {
        self.doors.values().any(|held| {
            let Knock::Sequence(sequence) = held.record.door.knock();
            sequence.steps.iter().any(|step| step.port.protocol() == Protocol::Icmp)
        })
    }

    /// The longest time that a knock of any door may take.
    pub fn longest_knock(&self) -> Duration {
        let within = |door: &Door| {
            let Knock::Sequence(sequence) = door.knock();
            sequence.within
        };
        self.doors.values().map(|held| within(&held.record.door)).max().unwrap_or(Duration::ZERO)
    }

    /// Networks that are never banned: what the hosts' agents said.
    pub fn management(&self) -> impl Iterator<Item = &IpNet> {
        self.hosts.values().flat_map(|held| held.record.management.iter())
    }

    /// A step of this door that could never be seen, because another door guards its port on a host where it counts:
    /// the step's position from 1, the other door, the host.
    pub fn blind_step(&self, door: &Door) -> Option<(usize, DoorName, HostName)> {
        let Knock::Sequence(sequence) = door.knock();
        let others =
            || self.doors.values().map(|held| &held.record.door).filter(|other| other.name() != door.name());
        for host in self.hosts.values().map(|held| &held.record) {
            for (position, step) in (1..).zip(&sequence.steps) {
                let counts = step.hosts.matches(&host.name, &host.labels);
                let guard = others().chain([door]).find(|other| {
                    other.opens().ports.contains(&step.port)
                        && other.opens().hosts.matches(&host.name, &host.labels)
                });
                if let (true, Some(guard)) = (counts, guard) {
                    return Some((position, guard.name().clone(), host.name.clone()));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
