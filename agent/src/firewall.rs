//! The guard in the host's kernel: what is kept closed, and for whom it is open.
//!
//! A [`Firewall`] is a driver for one kernel facility. It owns a table or chain and some sets, and touches nothing else.
//! Openings and bans are set elements with kernel timeouts, so that they end with nobody's help. Every driver passes
//! the one conformance suite in `tests/firewall_conformance.rs`, against the real kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetknock_core::{port::Port, source::Source};
use ipnet::IpNet;

mod accept;
mod conntrack;
mod counts;
mod difference;
mod dry_run;
mod iptables;
mod kernel;
mod lift;
mod nftables;
mod others;
mod settings;

pub use counts::{Count, Counts, Tally};
pub use dry_run::DryRun;
pub use iptables::Iptables;
pub use lift::{Lifted, lift};
pub use nftables::Nftables;
pub use settings::{AcceptIn, Family, Kind, MarkBit, Options, SettingError, Variant, choose, programs};

/// What a host's kernel should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// What is kept closed.
    pub guard: Guard,
    /// For whom it is open, and how much longer.
    pub openings: BTreeMap<Element, Duration>,
    /// Whose openings do not count, and how much longer.
    pub bans: BTreeMap<Source, Duration>,
}

/// What is kept closed to everybody without an opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// TCP and UDP ports of this host's own addresses, as seen before destination NAT.
    pub ports: BTreeSet<Port>,
    /// Ports, none of them guarded, on which nothing is dropped and everything counted that guard would drop.
    pub observed: BTreeSet<Port>,
    /// Networks that pass.
    pub management: BTreeSet<IpNet>,
}

/// One hole: one source may reach one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// Who.
    pub source: Source,
    /// What: TCP or UDP.
    pub port: Port,
}

/// What a reconcile had to mend; empty when kernel and picture agreed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// One sentence for people per kind of repair, such as `the guard's rules were missing`.
    pub said: Vec<String>,
}

/// A driver for one kernel firewall. Established connections, loopback, management networks and sources with an opening
/// are neither dropped nor counted; banned sources are. All calls block, shortly. Dropping a driver changes nothing in the kernel.
pub trait Firewall: Send {
    /// As operators name it: `nftables`, `iptables`, `dry-run`.
    fn name(&self) -> &'static str;

    /// Makes the guard exactly this: creates what is missing, changes what differs, in a way that never leaves a port
    /// that was and stays guarded open in between. Openings and bans in the kernel stay.
    fn set_guard(&mut self, guard: &Guard) -> Result<(), FirewallError>;

    /// Adds openings, or sets the remaining time of those that exist, longer or shorter.
    fn open(&mut self, openings: &[(Element, Duration)]) -> Result<(), FirewallError>;

    /// Removes openings; those that do not exist are fine.
    fn close(&mut self, elements: &[Element]) -> Result<(), FirewallError>;

    /// Cuts the established connections from these sources to these ports; says how many.
    fn cut(&mut self, elements: &[Element]) -> Result<usize, FirewallError>;

    /// Adds bans, or sets the remaining time of those that exist.
    fn ban(&mut self, bans: &[(Source, Duration)]) -> Result<(), FirewallError>;

    /// Removes bans; those that do not exist are fine.
    fn unban(&mut self, sources: &[Source]) -> Result<(), FirewallError>;

    /// Compares what the kernel holds with what it should hold, and mends every difference: missing or foreign rules in
    /// what is ours, missing or surplus elements, remaining times that differ by more than two seconds.
    fn reconcile(&mut self, desired: &Desired) -> Result<Repairs, FirewallError>;

    /// What was dropped, and what would have been, by port, as the kernel has counted it. A port on which nothing was is
    /// left out; ports that are neither guarded nor observed any more may be in it. Counts begin anew when somebody
    /// else takes away what is ours.
    fn counts(&mut self) -> Result<Counts, FirewallError>;

    /// What stands in the way of openings or guard on this host, for people: a default-deny policy elsewhere, rules in
    /// another firewall variant. Each is one sentence with the remedy.
    fn warnings(&mut self) -> Result<Vec<String>, FirewallError>;

    /// Removes everything that is ours: the ports are open afterwards. Says what was there, one thing each, such as
    /// `the table inet fleetknock`.
    fn remove(&mut self) -> Result<Vec<String>, FirewallError>;
}

/// Why a driver could not do as told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// The kernel refused a netlink request.
    #[error("the kernel refused to {action}: {source}")]
    Kernel {
        /// What was tried, such as `add an opening`.
        action: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
    /// Something this driver needs is not on this host.
    #[error("{what} is missing on this host; {remedy}")]
    Missing {
        /// Such as `the program ipset`.
        what: String,
        /// Such as `install it with: apt-get install ipset`.
        remedy: String,
    },
    /// A program that places the static rules failed.
    #[error("{program} failed to {action}: {message}")]
    Program {
        /// Which.
        program: &'static str,
        /// What was tried.
        action: &'static str,
        /// What it said.
        message: String,
    },
    /// The agent may not change the firewall.
    #[error("not allowed to change the firewall; run the agent as root or with the capability CAP_NET_ADMIN")]
    Permission,
    /// The kernel's answer could not be understood.
    #[error("cannot understand the kernel's answer to {action}: {message}")]
    Answer {
        /// What was tried.
        action: &'static str,
        /// What was wrong with it.
        message: String,
    },
}
