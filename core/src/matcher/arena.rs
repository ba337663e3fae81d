//! Where the sources in flight lie, how they are found, and which of them goes when there is no room.
//!
//! ```text
//!   table ──▶ slot ◀── prefix table ──▶ prefix
//!              │ order:    ring per class over all sources, longest silent first
//!              │ siblings: ring per class within the prefix, longest silent first
//! ```
//!
//! Slots lie in chunks that never move, rings are links in the slots, and both tables hold slot numbers only, so a
//! source with one record costs no allocation of its own.

use std::{
    hint::black_box,
    mem::{replace, size_of},
};

use hashbrown::HashTable;

use super::{
    limits::Stats,
    slab::Slab,
    window::{ALLOCATION, Key, Record, Window},
};

/// No slot.
const NONE: u32 = u32::MAX;

/// How much a source has to lose. A higher class is never evicted for a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Class {
    /// No viable chain.
    Noise,
    /// A viable chain of one step.
    First,
    /// A viable chain of more steps.
    Progressed,
}

pub(super) const CLASSES: [Class; 3] = [Class::Noise, Class::First, Class::Progressed];

/// A source in flight.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: Key,
    pub(super) window: Window,
    order: Links,
    siblings: Links,
    prefix: u32,
    pub(super) class: Class,
    /// The key of a door at which the source was under way when that was looked at last, 0: of none. It lies where there
    /// would be nothing; further ones, and keys that do not fit, are in the window.
    followed: [u8; 3],
}

impl Slot {
    /// Whether the source was under way at some door when that was looked at last.
    pub(super) fn is_followed(&self) -> bool {
        self.followed != [0; 3]
            || (self.class == Class::Progressed && self.window.followed().next().is_some())
    }

    /// The keys of the doors at which the source was under way when that was looked at last.
    pub(super) fn followed(&self) -> impl Iterator<Item = u32> + '_ {
        let [a, b, c] = self.followed;
        let one = Some(u32::from_le_bytes([a, b, c, 0])).filter(|key| *key != 0);
        one.into_iter().chain(self.window.followed())
    }
}

const _: () = assert!(size_of::<Slot>() == 80 && size_of::<Record>() == 40);

/// A place in a ring.
#[derive(Clone, Copy, Debug)]
struct Links {
    next: u32,
    previous: u32,
}

/// The sources of one prefix, by class.
#[derive(Debug)]
struct Prefix {
    key: u64,
    heads: [u32; 3],
    count: u32,
}

#[derive(Clone, Copy, Debug)]
enum Ring {
    Order,
    Siblings,
}

/// A keyed hash of sources. Sources are chosen by whoever sends packets, so the key must matter to which of them
/// collide: it does not with `rustc-hash`, whose collisions hold under every seed. This is two rounds of the folded
/// multiplication that foldhash and wyhash are made of, over the 16 bytes of an address.
#[derive(Clone, Copy, Debug)]
struct Hasher([u64; 4]);

impl Hasher {
    fn new(seed: u64) -> Self {
        let mut state = seed;
        // SplitMix64 (Steele, Lea, Flood 2014): spreads a seed over any number of words.
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        };
        Self([next(), next(), next(), next() | 1])
    }

    fn pair(self, a: u64, b: u64) -> u64 {
        let [k0, k1, k2, k3] = self.0;
        fold(fold(a ^ k0, b ^ k1) ^ k2, k3)
    }

    fn key(self, key: Key) -> u64 {
        self.pair(key.0[0], key.0[1])
    }

    fn prefix(self, prefix: u64) -> u64 {
        self.pair(prefix, 0)
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// All sources in flight.
#[derive(Debug)]
pub(super) struct Arena {
    hasher: Hasher,
    slots: Slab<Slot>,
    table: HashTable<u32>,
    prefixes: Slab<Prefix>,
    prefix_table: HashTable<u32>,
    heads: [u32; 3],
    counts: [u32; 3],
    /// Bytes of all windows on the heap, and the records they have room for.
    heap: usize,
    spilled: usize,
    sources_max: u32,
    per_prefix_max: u32,
    records_max: usize,
    evicted: [u64; 3],
    pub(super) refused: u64,
}

impl Arena {
    pub(super) fn new(seed: u64, limits: &super::Limits) -> Self {
        Self {
            hasher: Hasher::new(seed),
            slots: Slab::new(),
            table: HashTable::new(),
            prefixes: Slab::new(),
            prefix_table: HashTable::new(),
            heads: [NONE; 3],
            counts: [0; 3],
            heap: 0,
            spilled: 0,
            sources_max: limits.sources,
            per_prefix_max: limits.sources_per_prefix,
            records_max: limits.records as usize,
            evicted: [0; 3],
            refused: 0,
        }
    }

    pub(super) fn find(&self, key: Key) -> Option<u32> {
        self.table.find(self.hasher.key(key), |&at| self.slots[at].key == key).copied()
    }

    /// Brings what these sources will need into the processor's caches. The reads of one pass do not wait for each
    /// other, so that their latencies overlap.
    pub(super) fn read_ahead(&self, keys: impl Iterator<Item = Key>) {
        let mut found = [NONE; super::READ_AHEAD];
        let mut new = 0;
        for (at, key) in found.iter_mut().zip(keys) {
            *at = self.find(key).unwrap_or_else(|| {
                new += 1;
                self.read_prefix(key);
                NONE
            });
        }
        let known = || found.iter().filter(|at| **at != NONE).map(|at| &self.slots[*at]);
        for slot in known() {
            let (next, previous) = (&self.slots[slot.order.next], &self.slots[slot.order.previous]);
            black_box((
                slot.window.records().len(),
                self.prefixes[slot.prefix].count,
                next.prefix,
                previous.prefix,
            ));
        }
        for slot in known() {
            black_box(slot.window.records().iter().fold(0, |read, record| read ^ record.host));
        }
        // Newcomers to a full table need those who go, too.
        if self.slots.len() >= self.sources_max {
            for slot in self.of_class(Class::Noise).chain(self.of_class(Class::First)).take(new) {
                black_box(self.find(slot.key));
                self.read_prefix(slot.key);
            }
        }
    }

    fn read_prefix(&self, key: Key) {
        let prefix = key.prefix();
        black_box(self.prefix_table.find(self.hasher.prefix(prefix), |&at| self.prefixes[at].key == prefix));
    }

    pub(super) fn slot(&self, at: u32) -> &Slot {
        &self.slots[at]
    }

    /// What is or was at this place, if there ever was something since everything was given back.
    pub(super) fn get(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at)
    }

    /// Changes a source's window, keeping account of its memory.
    pub(super) fn change<R>(&mut self, at: u32, change: impl FnOnce(&mut Window) -> R) -> R {
        let window = &mut self.slots[at].window;
        let (heap, spilled) = (window.heap(), window.spilled());
        let result = change(window);
        self.heap = self.heap - heap + window.heap();
        self.spilled = self.spilled - spilled + window.spilled();
        result
    }

    /// Notes that a source is under way at a door that is not noted.
    pub(super) fn follow(&mut self, at: u32, door: u32) {
        match door.to_le_bytes() {
            [a, b, c, 0] if self.slots[at].followed == [0; 3] => self.slots[at].followed = [a, b, c],
            _ => self.change(at, |window| window.follow(door)),
        }
    }

    /// Notes that a source is no longer under way at a door.
    pub(super) fn unfollow(&mut self, at: u32, door: u32) {
        let [a, b, c, rest] = door.to_le_bytes();
        if rest == 0 && self.slots[at].followed == [a, b, c] {
            self.slots[at].followed = [0; 3];
        } else {
            self.change(at, |window| window.unfollow(door));
        }
    }

    /// Takes in a source that is not there, evicting another if it must. `None`: there is no room for its class.
    pub(super) fn insert(&mut self, key: Key, record: Record, class: Class) -> Option<u32> {
        let prefix_key = key.prefix();
        let prefix_hash = self.hasher.prefix(prefix_key);
        let full = |prefix: &u32| self.prefixes[*prefix].count >= self.per_prefix_max;
        let found = self.prefix_table.find(prefix_hash, |&at| self.prefixes[at].key == prefix_key).copied();
        let victim = match found.filter(full) {
            Some(prefix) => Some(self.victim(self.prefixes[prefix].heads, class, NONE)?),
            None if self.slots.len() >= self.sources_max => Some(self.victim(self.heads, class, NONE)?),
            None => None,
        };
        // The new source holds on to its prefix before the victim, perhaps the last of it, lets go.
        let prefix = found.unwrap_or_else(|| self.insert_prefix(prefix_key, prefix_hash));
        self.prefixes[prefix].count += 1;
        if let Some(victim) = victim {
            self.evict(victim);
        }
        let links = Links { next: NONE, previous: NONE };
        let window = Window::One(record);
        let at = self.slots.insert(Slot {
            key,
            window,
            order: links,
            siblings: links,
            prefix,
            class,
            followed: [0; 3],
        });
        self.link(at, class);
        let (slots, hasher) = (&self.slots, self.hasher);
        self.table.insert_unique(hasher.key(key), at, |&at| hasher.key(slots[at].key));
        Some(at)
    }

    /// Notes that a source was heard of just now, and its class.
    pub(super) fn touch(&mut self, at: u32, class: Class) {
        self.unlink(at);
        self.link(at, class);
    }

    pub(super) fn remove(&mut self, at: u32) {
        let key = self.slots[at].key;
        if let Ok(entry) = self.table.find_entry(self.hasher.key(key), |&other| other == at) {
            entry.remove();
        }
        self.unlink(at);
        self.slots[at].followed = [0; 3];
        self.change(at, |window| {
            let record = window.records()[0];
            drop(replace(window, Window::One(record)));
        });
        let prefix = self.slots[at].prefix;
        self.slots.free(at);
        self.prefixes[prefix].count -= 1;
        if self.prefixes[prefix].count == 0 {
            let hash = self.hasher.prefix(self.prefixes[prefix].key);
            if let Ok(entry) = self.prefix_table.find_entry(hash, |&other| other == prefix) {
                entry.remove();
            }
            self.prefixes.free(prefix);
        }
    }

    /// Makes room for so many more records on the heap, at the cost of sources of no higher class than this one's.
    /// False when there is none.
    pub(super) fn make_room(&mut self, at: u32, growth: usize) -> bool {
        while self.spilled + growth > self.records_max {
            let Some(victim) = self.victim(self.heads, self.slots[at].class, at) else { return false };
            self.evict(victim);
        }
        true
    }

    /// The source of this class that has been silent for longest.
    pub(super) fn oldest(&self, class: Class) -> Option<u32> {
        Some(self.heads[class as usize]).filter(|&at| at != NONE)
    }

    /// The sources of a class, longest silent first.
    pub(super) fn of_class(&self, class: Class) -> impl Iterator<Item = &Slot> {
        let head = self.heads[class as usize];
        let mut next = head;
        std::iter::from_fn(move || {
            let slot = (next != NONE).then(|| &self.slots[next])?;
            next = if slot.order.next == head { NONE } else { slot.order.next };
            Some(slot)
        })
    }

    /// Gives memory back when little of it is in use.
    pub(super) fn shrink(&mut self) {
        if self.slots.len() == 0 {
            self.slots = Slab::new();
            self.prefixes = Slab::new();
        }
        let (slots, prefixes, hasher) = (&self.slots, &self.prefixes, self.hasher);
        if self.table.capacity() / 8 > self.table.len() {
            self.table.shrink_to(self.table.len() * 2, |&at| hasher.key(slots[at].key));
        }
        if self.prefix_table.capacity() / 8 > self.prefix_table.len() {
            self.prefix_table.shrink_to(self.prefix_table.len() * 2, |&at| hasher.prefix(prefixes[at].key));
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let tables = self.table.allocation_size() + self.prefix_table.allocation_size();
        Stats {
            sources: self.slots.len(),
            noise: self.counts[0],
            first: self.counts[1],
            progressed: self.counts[2],
            limit: self.sources_max,
            evicted_noise: self.evicted[0],
            evicted_first: self.evicted[1],
            refused: self.refused,
            memory: size_of::<Self>()
                + tables
                + 2 * ALLOCATION
                + self.slots.memory()
                + self.prefixes.memory()
                + self.heap,
            attempts: super::Attempts::default(),
        }
    }

    fn insert_prefix(&mut self, key: u64, hash: u64) -> u32 {
        let at = self.prefixes.insert(Prefix { key, heads: [NONE; 3], count: 0 });
        let (prefixes, hasher) = (&self.prefixes, self.hasher);
        self.prefix_table.insert_unique(hash, at, |&at| hasher.prefix(prefixes[at].key));
        at
    }

    /// The source of the lowest class, not above `class` and never a progressed one, that has been silent for
    /// longest, other than `spared`.
    fn victim(&self, heads: [u32; 3], class: Class, spared: u32) -> Option<u32> {
        [Class::Noise, Class::First].into_iter().filter(|&candidate| candidate <= class).find_map(
            |candidate| {
                let head = heads[candidate as usize];
                let head = if head == spared && head != NONE { self.slots[head].order.next } else { head };
                (head != NONE && head != spared).then_some(head)
            },
        )
    }

    fn evict(&mut self, at: u32) {
        self.evicted[self.slots[at].class as usize] += 1;
        self.remove(at);
    }

    fn link(&mut self, at: u32, class: Class) {
        let which = class as usize;
        self.slots[at].class = class;
        self.counts[which] += 1;
        self.heads[which] = push_back(&mut self.slots, Ring::Order, self.heads[which], at);
        let prefix = &mut self.prefixes[self.slots[at].prefix];
        prefix.heads[which] = push_back(&mut self.slots, Ring::Siblings, prefix.heads[which], at);
    }

    fn unlink(&mut self, at: u32) {
        let which = self.slots[at].class as usize;
        self.counts[which] -= 1;
        self.heads[which] = take_out(&mut self.slots, Ring::Order, self.heads[which], at);
        let prefix = &mut self.prefixes[self.slots[at].prefix];
        prefix.heads[which] = take_out(&mut self.slots, Ring::Siblings, prefix.heads[which], at);
    }
}

fn links(slots: &mut Slab<Slot>, ring: Ring, at: u32) -> &mut Links {
    let slot = &mut slots[at];
    match ring {
        Ring::Order => &mut slot.order,
        Ring::Siblings => &mut slot.siblings,
    }
}

/// Puts a slot at the back of the ring with this head; gives the ring's head.
fn push_back(slots: &mut Slab<Slot>, ring: Ring, head: u32, at: u32) -> u32 {
    if head == NONE {
        *links(slots, ring, at) = Links { next: at, previous: at };
        return at;
    }
    let tail = replace(&mut links(slots, ring, head).previous, at);
    links(slots, ring, tail).next = at;
    *links(slots, ring, at) = Links { next: head, previous: tail };
    head
}

/// Takes a slot out of the ring with this head; gives the ring's head.
fn take_out(slots: &mut Slab<Slot>, ring: Ring, head: u32, at: u32) -> u32 {
    let Links { next, previous } = *links(slots, ring, at);
    if next == at {
        return NONE;
    }
    links(slots, ring, previous).next = next;
    links(slots, ring, next).previous = previous;
    if head == at { next } else { head }
}
