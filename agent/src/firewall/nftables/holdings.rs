//! What the kernel holds of our table.

use std::collections::{BTreeMap, BTreeSet};

use fleetknock_core::port::Port;

use super::{
    super::{
        FirewallError,
        difference::Held,
        kernel::{INET, Kernel, NFTABLES, Request},
        settings::MarkBit,
    },
    TABLE,
    layout::{self, Chain},
    sets::{self, Entry, Set},
};

/// What the kernel holds of our table. When the table is missing or not as we make it, all else may be empty.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    table: Table,
    pub(super) rules: Rules,
    pub(super) guard: BTreeSet<Vec<u8>>,
    pub(super) observed: BTreeSet<Vec<u8>>,
    pub(super) management4: Vec<Entry>,
    pub(super) management6: Vec<Entry>,
    /// Openings and bans, when they were asked for.
    pub(super) timed: BTreeMap<Set, Vec<Entry>>,
    /// Elements among them that we would never have added.
    pub(super) strange: BTreeMap<Set, Vec<Entry>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Table {
    #[default]
    Missing,
    /// Out of force, or with chains or sets missing, changed or not ours.
    Wrong,
    Right,
}

#[derive(Debug, Default)]
pub(super) struct Rules {
    missing: usize,
    foreign: usize,
    disordered: bool,
}

impl Rules {
    pub(super) fn are_right(&self) -> bool {
        self.missing == 0 && self.foreign == 0 && !self.disordered
    }
}

impl Holdings {
    /// Whether there is a table of our name.
    pub(super) fn is_there(&self) -> bool {
        self.table != Table::Missing
    }

    pub(super) fn read(kernel: &mut Kernel, mark: MarkBit, with_timed: bool) -> Result<Self, FirewallError> {
        let mut held = Self { table: read_table(kernel)?, ..Self::default() };
        if held.table == Table::Missing {
            return Ok(held);
        }
        // Of a table that is wrong, the sets that are right are still worth keeping.
        let present = read_sets(kernel)?;
        if held.table == Table::Right && (present.ours.len() != Set::ALL.len() || present.others) {
            held.table = Table::Wrong;
        }
        if held.table == Table::Right {
            held.rules = read_rules(kernel, mark)?;
        }
        for set in present.ours {
            match set {
                Set::Guard => held.guard = keys(kernel, set)?,
                Set::Observed => held.observed = keys(kernel, set)?,
                // What was counted is read when it is asked for.
                Set::Dropped | Set::Noticed => {}
                Set::Management4 => held.management4 = intervals(kernel, set)?,
                Set::Management6 => held.management6 = intervals(kernel, set)?,
                // Cut connections are forgotten with a wrong table; they have ended.
                Set::Cut4 | Set::Cut6 => {}
                Set::Open4 | Set::Open6 | Set::Ban4 | Set::Ban6 if with_timed => {
                    let (known, strange) =
                        elements(kernel, set)?.into_iter().partition(|entry| is_known(set, entry));
                    held.timed.insert(set, known);
                    let strange: Vec<Entry> = strange;
                    if !strange.is_empty() {
                        held.strange.insert(set, strange);
                    }
                }
                Set::Open4 | Set::Open6 | Set::Ban4 | Set::Ban6 => {}
            }
        }
        Ok(held)
    }

    /// Whether table, chains and sets are as we make them.
    pub(super) fn is_sound(&self) -> bool {
        self.table == Table::Right
    }

    /// What is wrong with table and rules, in words.
    pub(super) fn said(&self, ports: usize) -> Vec<String> {
        if !self.is_sound() {
            return vec![self.said_with(ports, self.timed().openings.len())];
        }
        let mut said = Vec::new();
        let Rules { missing, foreign, disordered } = self.rules;
        if foreign > 0 {
            let what = if foreign == 1 { "a rule that is" } else { "rules that are" };
            let was = if foreign == 1 { "was" } else { "were" };
            said.push(format!("{what} not ours {was} found in our chains and removed"));
        }
        if missing > 0 {
            let were = if missing == 1 { "rule was" } else { "rules were" };
            said.push(format!("{missing} of the guard's {were} missing and put back"));
        } else if disordered && foreign == 0 {
            said.push("the guard's rules were out of order and have been put back".to_owned());
        }
        said
    }

    /// As [`said`](Self::said) for a table that was made anew, with what was put back.
    pub(super) fn said_with(&self, ports: usize, openings: usize) -> String {
        let what = match self.table {
            Table::Missing => "was missing",
            Table::Wrong | Table::Right => "had been changed by others",
        };
        let port = if ports == 1 { "port" } else { "ports" };
        let opening = if openings == 1 { "opening" } else { "openings" };
        format!("the guard's table {what} and has been put back ({ports} {port}, {openings} {opening})")
    }

    /// Openings and bans as people know them.
    pub(super) fn timed(&self) -> Held {
        let mut held = Held::default();
        for (set, entries) in &self.timed {
            for entry in entries {
                match set {
                    Set::Open4 | Set::Open6 => {
                        held.openings
                            .extend(sets::read_opening(&entry.key).map(|key| (key, entry.remaining())));
                    }
                    _ => held.bans.extend(sets::read_source(&entry.key).map(|key| (key, entry.remaining()))),
                }
            }
        }
        held
    }
}

/// Whether there is a table of our name.
pub(super) fn is_there(kernel: &mut Kernel) -> Result<bool, FirewallError> {
    Ok(read_table(kernel)? != Table::Missing)
}

fn read_table(kernel: &mut Kernel) -> Result<Table, FirewallError> {
    let tables =
        kernel.dump("list the tables", &layout::list_tables(), |_, reader| layout::is_our_table(reader))?;
    let Some(in_force) = tables.and_then(|tables| tables.first().copied()) else { return Ok(Table::Missing) };
    let chains = Request::new(NFTABLES, layout::GET_CHAIN, INET, Vec::new());
    let chains = kernel.dump("list the chains", &chains, |_, reader| {
        (reader.text(layout::CHAIN_TABLE) == Some(TABLE)).then(|| Chain::listed(reader))
    })?;
    let chains = chains.unwrap_or_default();
    let right = in_force && chains.len() == Chain::ALL.len() && chains.iter().all(Option::is_some);
    Ok(if right { Table::Right } else { Table::Wrong })
}

struct Present {
    ours: Vec<Set>,
    others: bool,
}

fn read_sets(kernel: &mut Kernel) -> Result<Present, FirewallError> {
    let listed = kernel
        .dump("list the sets", &Set::list(), |_, reader| Some(Set::listed(reader)))?
        .unwrap_or_default();
    Ok(Present { others: listed.iter().any(Option::is_none), ours: listed.into_iter().flatten().collect() })
}

fn read_rules(kernel: &mut Kernel, mark: MarkBit) -> Result<Rules, FirewallError> {
    let mut rules = Rules::default();
    for chain in Chain::ALL {
        let wanted = chain.rules(mark);
        let listed = kernel.dump("list the rules", &chain.list_rules(), |_, reader| {
            let ours = reader.text(layout::RULE_TABLE) == Some(TABLE)
                && reader.text(layout::RULE_CHAIN) == Some(chain.name());
            ours.then(|| wanted.iter().position(|rule| layout::is_listed(rule, reader)))
        })?;
        let listed = listed.unwrap_or_default();
        let known: BTreeSet<usize> = listed.iter().flatten().copied().collect();
        rules.missing += wanted.len() - known.len();
        rules.foreign += listed.len() - known.len();
        rules.disordered |= !listed.iter().copied().eq((0..wanted.len()).map(Some));
    }
    Ok(rules)
}

fn elements(kernel: &mut Kernel, set: Set) -> Result<Vec<Entry>, FirewallError> {
    let messages =
        kernel.dump("list a set", &set.list_elements(), |_, reader| Some(Entry::read_all(reader)))?;
    Ok(messages.unwrap_or_default().into_iter().flatten().collect())
}

fn keys(kernel: &mut Kernel, set: Set) -> Result<BTreeSet<Vec<u8>>, FirewallError> {
    Ok(elements(kernel, set)?.into_iter().map(|entry| entry.key).collect())
}

/// The ports of a set that counts, with their packets; none when there is no such set.
pub(super) fn counted(kernel: &mut Kernel, set: Set) -> Result<Vec<(Port, u64)>, FirewallError> {
    let messages = kernel
        .dump("list what was counted", &set.list_elements(), |_, reader| Some(sets::read_counts(reader)))?;
    Ok(messages.unwrap_or_default().into_iter().flatten().collect())
}

/// An interval set's elements in the order in which we write them.
fn intervals(kernel: &mut Kernel, set: Set) -> Result<Vec<Entry>, FirewallError> {
    let mut entries = elements(kernel, set)?;
    entries.sort_unstable();
    Ok(entries)
}

fn is_known(set: Set, entry: &Entry) -> bool {
    match set {
        Set::Open4 | Set::Open6 => sets::read_opening(&entry.key).is_some(),
        _ => sets::read_source(&entry.key).is_some(),
    }
}
