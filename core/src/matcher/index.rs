//! Which steps of which doors a knock matches.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hashbrown::HashMap;
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::{
    door::{Door, DoorName, Knock, Sequence},
    host::{HostId, HostName, HostSelector, Labels},
    port::Port,
};

/// Stands for a selector that chooses every host, known or not.
const ANY_HOST: u32 = u32::MAX;

/// One step of a door that a port stands for.
#[derive(Clone, Copy, Debug)]
struct Hit {
    /// Position among the doors.
    door: u32,
    step: u8,
    /// Position among the resolved selectors, or [`ANY_HOST`].
    hosts: u32,
}

/// A door with a sequence.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Arc<DoorName>,
    /// Stays while a door of that name exists and is never given to another.
    pub(super) key: u32,
    /// Microseconds.
    pub(super) within: u64,
    pub(super) total: usize,
    door: Door,
}

impl Entry {
    pub(super) fn admits(&self, source: crate::source::Source) -> bool {
        self.door.admits(source)
    }
}

/// The doors and hosts, made quick to ask. Ports and hosts come from operators, so the hash needs no key.
#[derive(Debug, Default)]
pub(super) struct Index {
    doors: Vec<Entry>,
    hosts: Vec<(HostId, HostName, Labels)>,
    keys_used: u32,
    /// Port to a run of `hits`.
    ports: HashMap<Port, (u32, u32), FxBuildHasher>,
    hits: Vec<Hit>,
    selected: Vec<FxHashSet<u32>>,
}

impl Index {
    pub(super) fn set_doors<'a>(&mut self, doors: impl IntoIterator<Item = &'a Door>) {
        let old: BTreeMap<_, _> = self.doors.drain(..).map(|entry| (entry.name, entry.key)).collect();
        for door in doors {
            let Some(sequence) = sequence(door) else { continue };
            let (name, key) = match old.get_key_value(door.name()) {
                Some((name, key)) => (Arc::clone(name), *key),
                None => {
                    self.keys_used += 1;
                    (Arc::new(door.name().clone()), self.keys_used)
                }
            };
            self.doors.push(Entry {
                name,
                key,
                within: micros(sequence.within),
                total: sequence.steps.len(),
                door: door.clone(),
            });
        }
        self.doors.sort_by(|a, b| a.name.cmp(&b.name));
        self.rebuild();
    }

    pub(super) fn set_hosts<'a>(
        &mut self,
        hosts: impl IntoIterator<Item = (HostId, &'a HostName, &'a Labels)>,
    ) {
        self.hosts = hosts.into_iter().map(|(id, name, labels)| (id, name.clone(), labels.clone())).collect();
        self.rebuild();
    }

    /// Whether some step of some door knocks at this port, on whatever host.
    pub(super) fn uses(&self, port: Port) -> bool {
        self.ports.contains_key(&port)
    }

    /// The steps that a knock at this port and host matches, as positions of door and step.
    pub(super) fn matches(&self, port: Port, host: u32) -> impl Iterator<Item = (u32, u8)> {
        let run = self.ports.get(&port).map_or(0..0, |&(from, to)| from as usize..to as usize);
        self.hits[run]
            .iter()
            .filter(move |hit| hit.hosts == ANY_HOST || self.selected[hit.hosts as usize].contains(&host))
            .map(|hit| (hit.door, hit.step))
    }

    /// The door at a position that [`matches`](Self::matches) told.
    pub(super) fn door(&self, at: u32) -> &Entry {
        &self.doors[at as usize]
    }

    /// Whether a door has this key.
    pub(super) fn has_key(&self, key: u32) -> bool {
        self.doors.iter().any(|door| door.key == key)
    }

    /// The longest `within` of all doors, in microseconds.
    pub(super) fn within_max(&self) -> u64 {
        self.doors.iter().map(|door| door.within).max().unwrap_or(0)
    }

    fn rebuild(&mut self) {
        let mut selectors: BTreeMap<&HostSelector, u32> = BTreeMap::new();
        let mut by_port: BTreeMap<Port, Vec<Hit>> = BTreeMap::new();
        self.selected.clear();
        for (at, entry) in self.doors.iter().enumerate() {
            let steps = sequence(&entry.door).map_or(&[][..], |sequence| &sequence.steps);
            for (step, wanted) in steps.iter().enumerate() {
                let hosts = if wanted.hosts.is_any() {
                    ANY_HOST
                } else {
                    *selectors.entry(&wanted.hosts).or_insert_with(|| {
                        let chosen =
                            self.hosts.iter().filter(|(_, name, labels)| wanted.hosts.matches(name, labels));
                        self.selected.push(chosen.map(|(id, _, _)| id.0).collect());
                        self.selected.len() as u32 - 1
                    })
                };
                by_port.entry(wanted.port).or_default().push(Hit {
                    door: at as u32,
                    step: step as u8,
                    hosts,
                });
            }
        }
        self.hits.clear();
        self.ports.clear();
        for (port, hits) in by_port {
            let from = self.hits.len() as u32;
            self.hits.extend(hits);
            self.ports.insert(port, (from, self.hits.len() as u32));
        }
    }
}

/// The sequence of a door that has one; other kinds of knock are none of the matcher's business.
fn sequence(door: &Door) -> Option<&Sequence> {
    #[allow(irrefutable_let_patterns, reason = "the kinds of knock grow; the matcher follows sequences only")]
    if let Knock::Sequence(sequence) = door.knock() { Some(sequence) } else { None }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
