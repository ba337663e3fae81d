//! The driver for iptables: a chain placed by the program, and ipsets filled by netlink.
//!
//! ```text
//! mangle PREROUTING (priority -150, as in the driver for nftables): -p tcp and -p udp jump to
//! chain FLEETKNOCK, the same for iptables and ip6tables:
//!   from lo                                       return
//!   port not in fk-guard-* or fk-observed-*       return
//!   destination is another host's                 return   transit
//!   in fk-guard-*, source port in fk-cut          drop     the end of a cut connection
//!   related, established                          return
//!   source in fk-mgmt                             return
//!   source not in fk-ban, with port in fk-open    mark, return
//!   port not in fk-guard-*                        return, counted in fk-noticed-*
//!   all else                                      drop, counted in fk-dropped-*
//! ```
//!
//! Every `*` is tcp and udp, one set each. The sets that count are filled by the rules themselves and have room for every
//! port there is: a count stays when a port is guarded, observed or neither in turn. Only what is in fk-guard-* is ever
//! dropped, whatever becomes of the other sets; a port that changes sides does so with one operation on one set.
//!
//! The rules never change while the agent runs: what changes is in the sets.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetknock_core::{port::Protocol, source::Source};
use ipnet::IpNet;

use super::{
    Counts, Desired, Element, Firewall, FirewallError, Guard, Options, Repairs,
    accept::Acceptor,
    conntrack, counts,
    difference::{self, Difference, Held},
    kernel::Kernel,
    nftables::Nftables,
    others,
    settings::Variant,
};

mod ipset;
mod programs;
mod rules;

use ipset::{Entry, Set};
pub(super) use programs::Programs;
pub(super) use rules::AcceptRules;
use rules::Chain;

/// As the driver for nftables: longer than the fifteen minutes for which TCP sends again.
const CUT_SECONDS: u32 = 20 * 60;

/// Keeps guard in a chain of iptables and in ipsets.
pub struct Iptables {
    kernel: Kernel,
    programs: Programs,
    /// For IPv4 and for IPv6.
    chains: [Chain; 2],
    acceptor: Acceptor,
}

impl Iptables {
    /// Opens the netlink socket, in the network namespace of the calling thread, and looks for ipset in the kernel and for
    /// the programs.
    ///
    /// # Errors
    /// When one is missing, or the agent may not change the firewall.
    pub fn new(options: Options) -> Result<Self, FirewallError> {
        let mut kernel = Kernel::open()?;
        ipset::ask(&mut kernel)?;
        let programs = Programs::new(options.variant);
        programs.version()?;
        let chains = [Chain::new(programs, false, options.mark), Chain::new(programs, true, options.mark)];
        Ok(Self { kernel, programs, chains, acceptor: Acceptor::new(&options) })
    }

    /// Removes what is ours, whichever variant of the program placed it; says what was there. Without one of our sets in
    /// the kernel, which come before the rules and go after them, no program is run.
    pub(super) fn lift(options: &Options) -> Result<Vec<String>, FirewallError> {
        let mut kernel = Kernel::open()?;
        if !Self::is_there(&mut kernel)? {
            return Ok(Vec::new());
        }
        let mut said = Acceptor::new(options).remove(&mut kernel).unwrap_or_default();
        for variant in [Variant::Nft, Variant::Legacy, Variant::System] {
            // Listing the tables of the legacy variant would make them.
            let unused = || !others::legacy_table_names().iter().any(|name| name == rules::TABLE);
            let programs = Programs::new(variant);
            if (variant == Variant::Legacy && unused()) || programs.version().is_err() {
                continue;
            }
            for six in [false, true] {
                said.extend(Chain::new(programs, six, options.mark).remove()?);
            }
        }
        said.extend(ipset::destroy_all(&mut kernel)?);
        Ok(said)
    }

    /// Whether this driver's sets are in the kernel, which come before its rules and go after them.
    pub(super) fn is_there(kernel: &mut Kernel) -> Result<bool, FirewallError> {
        match ipset::ask(kernel) {
            Err(FirewallError::Missing { .. }) => Ok(false),
            asked => asked.and_then(|_| ipset::is_there(kernel)),
        }
    }

    /// Makes sets, rules and guard as they should be; says what differed. Openings and bans stay.
    fn mend_guard(&mut self, guard: &Guard) -> Result<Vec<String>, FirewallError> {
        let mut said = Vec::new();
        let created = ipset::create_all(&mut self.kernel)?;
        if created > 0 {
            let were = if created == 1 { "set was" } else { "sets were" };
            said.push(format!("{created} of the guard's {were} missing and put back"));
        }
        let mut wanted: BTreeMap<Set, BTreeSet<Entry>> = BTreeMap::new();
        for (ports, tcp, udp) in [
            (&guard.ports, Set::GuardTcp, Set::GuardUdp),
            (&guard.observed, Set::ObservedTcp, Set::ObservedUdp),
        ] {
            for port in ports {
                let set = match port.protocol() {
                    Protocol::Tcp => tcp,
                    Protocol::Udp => udp,
                    Protocol::Icmp => continue,
                };
                wanted.entry(set).or_default().insert(Entry::port(port.number()));
            }
        }
        for network in IpNet::aggregate(&guard.management.iter().copied().collect()) {
            for entry in Entry::networks(network) {
                wanted.entry(Set::management(network)).or_default().insert(entry);
            }
        }
        let (mut guarded, mut observed, mut management) = ([0, 0], [0, 0], false);
        for set in [
            Set::GuardTcp,
            Set::GuardUdp,
            Set::ObservedTcp,
            Set::ObservedUdp,
            Set::Management4,
            Set::Management6,
        ] {
            let held: BTreeSet<Entry> = ipset::list(&mut self.kernel, set)?.into_iter().collect();
            let wanted = wanted.remove(&set).unwrap_or_default();
            let add: Vec<Entry> = wanted.difference(&held).cloned().collect();
            let delete: Vec<Entry> = held.difference(&wanted).cloned().collect();
            ipset::add(&mut self.kernel, "set the guard", set, &add)?;
            ipset::delete(&mut self.kernel, "set the guard", set, &delete)?;
            let [missing, surplus] = match set {
                Set::GuardTcp | Set::GuardUdp => &mut guarded,
                Set::ObservedTcp | Set::ObservedUdp => &mut observed,
                _ => {
                    management |= !add.is_empty() || !delete.is_empty();
                    continue;
                }
            };
            *missing += add.len();
            *surplus += delete.len();
        }
        for (what, [missing, surplus]) in [("guarded", guarded), ("observed", observed)] {
            said.extend(difference::ports_said(what, if created == 0 { missing } else { 0 }, surplus));
        }
        said.extend(
            (management && created == 0)
                .then(|| "the management networks differed and are mended".to_owned()),
        );
        // The sets are filled before the rules look them up.
        for chain in &mut self.chains {
            said.extend(chain.mend()?);
        }
        Ok(said)
    }

    fn held(&mut self) -> Result<(Held, Vec<(Set, Entry)>), FirewallError> {
        let mut held = Held::default();
        let mut strange = Vec::new();
        for set in [Set::Open4, Set::Open6, Set::Ban4, Set::Ban6] {
            for entry in ipset::list(&mut self.kernel, set)? {
                let known = match set {
                    Set::Open4 | Set::Open6 => entry
                        .element()
                        .map(|element| held.openings.insert(element, entry.remaining()))
                        .is_some(),
                    _ => entry.source().map(|source| held.bans.insert(source, entry.remaining())).is_some(),
                };
                if !known {
                    strange.push((set, entry));
                }
            }
        }
        Ok((held, strange))
    }
}

impl Firewall for Iptables {
    fn name(&self) -> &'static str {
        "iptables"
    }

    fn set_guard(&mut self, guard: &Guard) -> Result<(), FirewallError> {
        self.mend_guard(guard)?;
        self.acceptor.mend(&mut self.kernel)?;
        Ok(())
    }

    fn open(&mut self, openings: &[(Element, Duration)]) -> Result<(), FirewallError> {
        for (set, entries) in opening_entries(openings.iter().copied()) {
            ipset::add(&mut self.kernel, "add an opening", set, &entries)?;
        }
        Ok(())
    }

    fn close(&mut self, elements: &[Element]) -> Result<(), FirewallError> {
        for (set, entries) in opening_entries(elements.iter().map(|element| (*element, SHORT))) {
            ipset::delete(&mut self.kernel, "remove an opening", set, &entries)?;
        }
        Ok(())
    }

    fn cut(&mut self, elements: &[Element]) -> Result<usize, FirewallError> {
        let connections = conntrack::find(&mut self.kernel, elements)?;
        for connection in &connections {
            let end = Entry::end(connection.source, connection.protocol, connection.source_port, CUT_SECONDS);
            ipset::add(&mut self.kernel, "cut a connection", Set::cut(connection.source), &[end])?;
        }
        conntrack::delete(&mut self.kernel, &connections)
    }

    fn ban(&mut self, bans: &[(Source, Duration)]) -> Result<(), FirewallError> {
        for (set, entries) in ban_entries(bans.iter().copied()) {
            ipset::add(&mut self.kernel, "add a ban", set, &entries)?;
        }
        Ok(())
    }

    fn unban(&mut self, sources: &[Source]) -> Result<(), FirewallError> {
        for (set, entries) in ban_entries(sources.iter().map(|source| (*source, SHORT))) {
            ipset::delete(&mut self.kernel, "remove a ban", set, &entries)?;
        }
        Ok(())
    }

    fn reconcile(&mut self, desired: &Desired) -> Result<Repairs, FirewallError> {
        let mut said = self.mend_guard(&desired.guard)?;
        let (held, strange) = self.held()?;
        if !strange.is_empty() {
            said.push(difference::removed(strange.len(), "element"));
            for (set, entry) in strange {
                ipset::delete(&mut self.kernel, "remove an element", set, &[entry])?;
            }
        }
        let Difference { open, close, ban, unban, said: differs } = difference::compare(&held, desired);
        self.close(&close)?;
        self.unban(&unban)?;
        self.ban(&ban)?;
        self.open(&open)?;
        said.extend(differs);
        said.extend(self.acceptor.mend(&mut self.kernel)?);
        Ok(Repairs { said })
    }

    fn counts(&mut self) -> Result<Counts, FirewallError> {
        let dropped = ipset::counted(&mut self.kernel, Set::DroppedTcp, Set::DroppedUdp)?;
        let observed = ipset::counted(&mut self.kernel, Set::NoticedTcp, Set::NoticedUdp)?;
        Ok(counts::joined(dropped, observed))
    }

    fn warnings(&mut self) -> Result<Vec<String>, FirewallError> {
        let mut warnings = Vec::new();
        let accept_in = self.acceptor.chain();
        match others::default_deny(&mut self.kernel, accept_in, &mut warnings) {
            // A kernel without nftables has no such chains.
            Ok(()) | Err(FirewallError::Kernel { .. }) => {}
            Err(error) => return Err(error),
        }
        if Nftables::is_there(&mut self.kernel).unwrap_or(false) {
            warnings.push(others::other_driver("nftables"));
        }
        rules::warnings(self.programs, accept_in, &mut warnings)?;
        Ok(warnings)
    }

    fn remove(&mut self) -> Result<Vec<String>, FirewallError> {
        let mut said = self.acceptor.remove(&mut self.kernel)?;
        for chain in &mut self.chains {
            said.extend(chain.remove()?);
        }
        said.extend(ipset::destroy_all(&mut self.kernel)?);
        Ok(said)
    }
}

/// The time that an entry is given to be removed at once; a removal does not look at it.
const SHORT: Duration = Duration::from_secs(1);

fn opening_entries(openings: impl Iterator<Item = (Element, Duration)>) -> BTreeMap<Set, Vec<Entry>> {
    let mut sets: BTreeMap<Set, Vec<Entry>> = BTreeMap::new();
    for (element, remaining) in openings {
        if let (Some(seconds), true) = (difference::seconds(remaining), difference::can_be_opened(&element)) {
            sets.entry(Set::open(element.source)).or_default().extend(Entry::opening(element, seconds));
        }
    }
    sets
}

fn ban_entries(bans: impl Iterator<Item = (Source, Duration)>) -> BTreeMap<Set, Vec<Entry>> {
    let mut sets: BTreeMap<Set, Vec<Entry>> = BTreeMap::new();
    for (source, remaining) in bans {
        if let Some(seconds) = difference::seconds(remaining) {
            sets.entry(Set::ban(source)).or_default().push(Entry::ban(source, seconds));
        }
    }
    sets
}
