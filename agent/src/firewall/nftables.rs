//! The driver for nftables: the table `inet fleetknock`, by netlink alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetknock_core::source::Source;

use super::{
    Counts, Desired, Element, Firewall, FirewallError, Guard, Options, Repairs,
    accept::Acceptor,
    conntrack, counts,
    difference::{self, Difference},
    iptables::Iptables,
    kernel::{Kernel, NFTABLES, Request},
    others,
    settings::MarkBit,
};

pub(super) mod expressions;
pub(super) mod foreign;
mod holdings;
mod layout;
mod sets;

use holdings::Holdings;
use sets::{ELEMENTS_PER_REQUEST, Entry, Set};
pub(super) use sets::{TCP, UDP};

/// Our table's name.
pub(super) const TABLE: &str = "fleetknock";
/// `NFT_MSG_GETGEN`.
const GET_GENERATION: u8 = 16;

/// Keeps guard in an own nftables table.
pub struct Nftables {
    kernel: Kernel,
    mark: MarkBit,
    acceptor: Acceptor,
}

impl Nftables {
    /// Opens the netlink socket, in the network namespace of the calling thread, and asks whether the kernel has nftables.
    ///
    /// # Errors
    /// When it has not, or the agent may not change the firewall.
    pub fn new(options: Options) -> Result<Self, FirewallError> {
        let mut kernel = Kernel::open()?;
        kernel.request("use nftables", &Request::new(NFTABLES, GET_GENERATION, 0, Vec::new()))?;
        Ok(Self { kernel, mark: options.mark, acceptor: Acceptor::new(&options) })
    }

    /// Whether this driver's table is in the kernel.
    pub(super) fn is_there(kernel: &mut Kernel) -> Result<bool, FirewallError> {
        holdings::is_there(kernel)
    }

    /// Makes table, rules and guard as they should be; says what differed. Openings and bans stay.
    fn mend_guard(&mut self, guard: &Guard, held: &Holdings) -> Result<Vec<String>, FirewallError> {
        let mut said = held.said(guard.ports.len());
        let (management4, management6) = sets::intervals(guard.management.iter());
        let mut first = Vec::new();
        if held.is_sound() {
            if !held.rules.are_right() {
                first.extend(layout::new_rules(self.mark));
            }
        } else {
            first.extend(layout::new_table(self.mark));
        }
        let mut management_differs = false;
        for (set, wanted, present) in [
            (Set::Management4, &management4, &held.management4),
            (Set::Management6, &management6, &held.management6),
        ] {
            if !held.is_sound() {
                first.extend(add(set, wanted));
            } else if wanted != present {
                management_differs = true;
                first.push(set.flush());
                first.extend(add(set, wanted));
            }
        }
        // What is to be guarded comes first and together with the rules; what no longer is goes last.
        let mut last = Vec::new();
        for (set, wanted, present, what) in [
            (Set::Guard, &guard.ports, &held.guard, "guarded"),
            (Set::Observed, &guard.observed, &held.observed, "observed"),
        ] {
            let wanted: BTreeSet<Vec<u8>> = wanted.iter().filter_map(|port| sets::port_key(*port)).collect();
            let nothing = BTreeSet::new();
            let present = if held.is_sound() { present } else { &nothing };
            let entries = |keys: Vec<&Vec<u8>>| -> Vec<Entry> {
                keys.into_iter().map(|key| Entry::new(key.clone(), None)).collect()
            };
            let missing = entries(wanted.difference(present).collect());
            let surplus = entries(present.difference(&wanted).collect());
            first.extend(add(set, &missing));
            last.extend(surplus.chunks(ELEMENTS_PER_REQUEST).map(|chunk| set.delete(chunk)));
            if held.is_sound() {
                said.extend(difference::ports_said(what, missing.len(), surplus.len()));
            }
        }
        if held.is_sound() {
            said.extend(
                management_differs.then(|| "the management networks differed and are mended".to_owned()),
            );
        }
        first.extend(last);
        self.kernel.batch("set the guard", &first)?;
        if !held.is_sound() {
            // They went with the table.
            self.set_timed("keep the openings and bans", &held.timed)?;
        }
        Ok(said)
    }

    fn read(&mut self, with_timed: bool) -> Result<Holdings, FirewallError> {
        Holdings::read(&mut self.kernel, self.mark, with_timed)
    }

    /// Adds timed elements, or sets their remaining times.
    fn set_timed(
        &mut self,
        action: &'static str,
        sets: &BTreeMap<Set, Vec<Entry>>,
    ) -> Result<(), FirewallError> {
        for (set, entries) in sets {
            for chunk in entries.chunks(ELEMENTS_PER_REQUEST) {
                // Kernels before 6.12 leave the time of an element that exists as it is: it has to be removed first, and
                // for that it has to exist.
                self.kernel.batch(action, &[set.add(chunk), set.delete(chunk), set.add(chunk)])?;
            }
        }
        Ok(())
    }

    /// Removes timed elements, whether they exist or not.
    fn clear_timed(
        &mut self,
        action: &'static str,
        sets: &BTreeMap<Set, Vec<Entry>>,
    ) -> Result<(), FirewallError> {
        for (set, entries) in sets {
            for chunk in entries.chunks(ELEMENTS_PER_REQUEST) {
                self.kernel.batch(action, &[set.add(chunk), set.delete(chunk)])?;
            }
        }
        Ok(())
    }
}

impl Firewall for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn set_guard(&mut self, guard: &Guard) -> Result<(), FirewallError> {
        let mut held = self.read(false)?;
        if !held.is_sound() {
            held = self.read(true)?;
        }
        self.mend_guard(guard, &held)?;
        self.acceptor.mend(&mut self.kernel)?;
        Ok(())
    }

    fn open(&mut self, openings: &[(Element, Duration)]) -> Result<(), FirewallError> {
        self.set_timed("add an opening", &opening_entries(openings.iter().copied()))
    }

    fn close(&mut self, elements: &[Element]) -> Result<(), FirewallError> {
        self.clear_timed(
            "remove an opening",
            &opening_entries(elements.iter().map(|element| (*element, SHORT))),
        )
    }

    fn cut(&mut self, elements: &[Element]) -> Result<usize, FirewallError> {
        let connections = conntrack::find(&mut self.kernel, elements)?;
        let mut ends: BTreeMap<Set, Vec<Entry>> = BTreeMap::new();
        for connection in &connections {
            let key = sets::cut_key(connection.source, connection.protocol, connection.source_port);
            ends.entry(Set::cut(connection.source)).or_default().push(Entry::new(key, Some(layout::CUT_MS)));
        }
        self.set_timed("cut a connection", &unique(ends))?;
        conntrack::delete(&mut self.kernel, &connections)
    }

    fn ban(&mut self, bans: &[(Source, Duration)]) -> Result<(), FirewallError> {
        self.set_timed("add a ban", &ban_entries(bans.iter().copied()))
    }

    fn unban(&mut self, sources: &[Source]) -> Result<(), FirewallError> {
        self.clear_timed("remove a ban", &ban_entries(sources.iter().map(|source| (*source, SHORT))))
    }

    fn reconcile(&mut self, desired: &Desired) -> Result<Repairs, FirewallError> {
        let mut held = self.read(true)?;
        if !held.is_sound() {
            // Nothing is to be kept but what is desired.
            held.timed.clear();
        }
        let mut said = self.mend_guard(&desired.guard, &held)?;
        if !held.strange.is_empty() {
            said.push(difference::removed(held.strange.values().map(Vec::len).sum(), "element"));
            self.clear_timed("remove an element", &held.strange)?;
        }
        let Difference { open, close, ban, unban, said: differs } =
            difference::compare(&held.timed(), desired);
        self.close(&close)?;
        self.unban(&unban)?;
        self.ban(&ban)?;
        self.open(&open)?;
        if held.is_sound() {
            said.extend(differs);
        } else if let Some(first) = said.first_mut() {
            *first = held.said_with(desired.guard.ports.len(), open.len());
        }
        said.extend(self.acceptor.mend(&mut self.kernel)?);
        Ok(Repairs { said })
    }

    fn counts(&mut self) -> Result<Counts, FirewallError> {
        let dropped = holdings::counted(&mut self.kernel, Set::Dropped)?;
        let observed = holdings::counted(&mut self.kernel, Set::Noticed)?;
        Ok(counts::joined(dropped, observed))
    }

    fn warnings(&mut self) -> Result<Vec<String>, FirewallError> {
        let mut warnings = Vec::new();
        let accept_in = self.acceptor.chain().cloned();
        others::default_deny(&mut self.kernel, accept_in.as_ref(), &mut warnings)?;
        if accept_in.is_none() {
            others::legacy_tables(&mut warnings);
        }
        if Iptables::is_there(&mut self.kernel).unwrap_or(false) {
            warnings.push(others::other_driver("iptables"));
        }
        Ok(warnings)
    }

    fn remove(&mut self) -> Result<Vec<String>, FirewallError> {
        let mut said = self.acceptor.remove(&mut self.kernel)?;
        let held = Holdings::read(&mut self.kernel, self.mark, false)?;
        self.kernel.batch("remove the guard", &layout::remove_table())?;
        said.extend(held.is_there().then(|| format!("the table inet {TABLE}")));
        Ok(said)
    }
}

/// The time that an element is given to be removed at once.
const SHORT: Duration = Duration::from_secs(1);

fn opening_entries(openings: impl Iterator<Item = (Element, Duration)>) -> BTreeMap<Set, Vec<Entry>> {
    let mut sets: BTreeMap<Set, Vec<Entry>> = BTreeMap::new();
    for (element, remaining) in openings {
        if let (Some(key), Some(ms)) = (sets::opening_key(element), difference::milliseconds(remaining)) {
            sets.entry(Set::open(element.source)).or_default().push(Entry::new(key, Some(ms)));
        }
    }
    unique(sets)
}

fn ban_entries(bans: impl Iterator<Item = (Source, Duration)>) -> BTreeMap<Set, Vec<Entry>> {
    let mut sets: BTreeMap<Set, Vec<Entry>> = BTreeMap::new();
    for (source, remaining) in bans {
        if let Some(ms) = difference::milliseconds(remaining) {
            sets.entry(Set::ban(source)).or_default().push(Entry::new(sets::source_key(source), Some(ms)));
        }
    }
    unique(sets)
}

/// Each key once, with the time given last: the kernel refuses to delete a key twice in one batch.
fn unique(mut sets: BTreeMap<Set, Vec<Entry>>) -> BTreeMap<Set, Vec<Entry>> {
    for entries in sets.values_mut() {
        if entries.len() > 1 {
            let last: BTreeMap<Vec<u8>, Option<u64>> =
                entries.drain(..).map(|entry| (entry.key, entry.remaining_ms)).collect();
            entries.extend(last.into_iter().map(|(key, remaining_ms)| Entry::new(key, remaining_ms)));
        }
    }
    sets
}

fn add(set: Set, entries: &[Entry]) -> impl Iterator<Item = Request> {
    entries.chunks(ELEMENTS_PER_REQUEST).map(move |chunk| set.add(chunk))
}
