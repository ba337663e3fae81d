//! What this host looks like: its interfaces, its own addresses, and which ports its services use.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use fleetknock_core::port::{PortRange, Protocol};

use super::{KnockSpace, ports::PortSet};

/// Sockets on one address only that are remembered; the rest is found when the kernel is asked about a packet.
pub const SPECIFIC_MAX: usize = 65_536;

/// Linux's default of net.ipv4.ip_local_port_range.
pub const EPHEMERAL_DEFAULT: RangeInclusive<u16> = 32_768..=60_999;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Which one an address is of.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Whether it is a loopback.
    pub loopback: bool,
    /// Whether it belongs to a bridge, bond or the like, which shows its packets a second time. A member of a VRF is
    /// none: the kernel shows its packets once.
    pub enslaved: bool,
}

/// A socket that waits for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSocket {
    /// TCP: listening. UDP: bound.
    pub protocol: Protocol,
    /// Where it is bound; unspecified: at every address of its family.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Of the IPv6 family, takes no IPv4.
    pub only_v6: bool,
}

/// Which ports are in use, and on which addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    everywhere: BTreeMap<(Protocol, Family), PortSet>,
    specific: HashSet<(Protocol, IpAddr, u16)>,
}

impl Services {
    /// Adds a socket.
    pub fn add(&mut self, socket: LocalSocket) {
        if !socket.address.is_unspecified() {
            if self.specific.len() < SPECIFIC_MAX {
                self.specific.insert((socket.protocol, socket.address.to_canonical(), socket.port));
            }
            return;
        }
        let family = Family::of(socket.address);
        self.everywhere.entry((socket.protocol, family)).or_default().insert(socket.port);
        if family == Family::V6 && !socket.only_v6 {
            self.everywhere.entry((socket.protocol, Family::V4)).or_default().insert(socket.port);
        }
    }

    /// Whether a socket waits there.
    pub fn uses(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.everywhere.get(&(protocol, Family::of(address))).is_some_and(|ports| ports.contains(port))
            || self.specific.contains(&(protocol, address, port))
    }
}

/// What this host looks like at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalView {
    /// By index.
    pub interfaces: BTreeMap<u32, Interface>,
    /// Of all interfaces.
    pub addresses: BTreeSet<IpAddr>,
    /// What the host serves, up to a second old.
    pub services: Services,
    /// From where the kernel takes ports for clients (net.ipv4.ip_local_port_range).
    pub ephemeral: RangeInclusive<u16>,
}

impl Default for LocalView {
    /// A host without interfaces.
    fn default() -> Self {
        Self {
            interfaces: BTreeMap::new(),
            addresses: BTreeSet::new(),
            services: Services::default(),
            ephemeral: EPHEMERAL_DEFAULT,
        }
    }
}

impl LocalView {
    /// Whether packets to this address are for this host. All of 127.0.0.0/8 is.
    pub fn owns(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    /// The ports on which sockets wait at every address of this host but loopback, so that no packet of the family to
    /// them can be a knock.
    pub fn ports_in_use(&self, protocol: Protocol, family: Family) -> PortSet {
        let mut ports = self.services.everywhere.get(&(protocol, family)).cloned().unwrap_or_default();
        let own = |address: &IpAddr| {
            Family::of(*address) == family && !address.is_loopback() && self.addresses.contains(address)
        };
        let total = self.addresses.iter().filter(|address| own(address)).count();
        let mut bound: HashMap<u16, usize> = HashMap::new();
        for (_, _, port) in
            self.services.specific.iter().filter(|(p, address, _)| *p == protocol && own(address))
        {
            *bound.entry(*port).or_default() += 1;
        }
        bound.into_iter().filter(|(_, count)| *count == total).for_each(|(port, _)| ports.insert(port));
        ports
    }
}

/// Ports of the space at which nothing is a knock, because services of this host wait there: on all addresses of IPv4 or
/// on all of IPv6. UDP ports from which the kernel takes those of clients are left out: they come and go. At most `limit`
/// ranges, the lowest.
pub fn in_use(view: &LocalView, space: &KnockSpace, limit: usize) -> Vec<PortRange> {
    let mut ranges = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut used = view.ports_in_use(protocol, Family::V4);
        used.add(&view.ports_in_use(protocol, Family::V6));
        let mut free = PortSet::default();
        free.insert_range(0, u16::MAX);
        free.subtract(&space.numbers(protocol));
        used.subtract(&free);
        if protocol == Protocol::Udp {
            view.ephemeral.clone().for_each(|port| used.remove(port));
        }
        let used = used.ranges().into_iter();
        ranges.extend(used.filter_map(|(first, last)| PortRange::new(protocol, first, last).ok()));
    }
    ranges.truncate(limit);
    ranges
}

/// The unspecified address of a family.
pub fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests;
