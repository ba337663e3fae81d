//! Decides whether a packet is a knock.

use std::{collections::BTreeSet, hash::RandomState, sync::Arc, time::Duration};

use fleetknock_core::{
    port::{Port, Protocol},
    source::Source,
};

use super::{
    KnockSpace, limit::SourceLimit, packet::Packet, ports::PortSet, repeats::Repeats, view::LocalView,
};

/// Why a packet that passed the kernel filter is no knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Reason {
    /// A correct packet of another kind, such as a later fragment.
    Unrelated,
    /// It came over an interface that does not count.
    Interface,
    /// It is for another host: forwarded.
    Destination,
    /// Its source is no unicast address, or one of this host's own.
    Source,
    /// A door opens this port.
    Guarded,
    /// The port is outside the knock space.
    Outside,
    /// A second copy of a packet, seen on another interface.
    Copy,
    /// A local service or client has this port.
    Service,
    /// A datagram to a port of clients when too many of them came to ask about each.
    Unverified,
    /// The source has sent too many.
    SourceLimit,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Unrelated,
        Self::Interface,
        Self::Destination,
        Self::Source,
        Self::Guarded,
        Self::Outside,
        Self::Copy,
        Self::Service,
        Self::Unverified,
        Self::SourceLimit,
    ];

    /// As metrics label it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unrelated => "unrelated",
            Self::Interface => "interface",
            Self::Destination => "destination",
            Self::Source => "source",
            Self::Guarded => "guarded",
            Self::Outside => "outside",
            Self::Copy => "copy",
            Self::Service => "service",
            Self::Unverified => "unverified",
            Self::SourceLimit => "source_limit",
        }
    }
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A knock.
    Knock(Source),
    /// A knock unless it turns out to answer a client that has just closed its socket, or [`Judge::admits`] no more.
    Unsure(Source),
    /// No knock.
    Not(Reason),
}

/// Whether a socket of this host takes a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// One does.
    Used,
    /// None does.
    Free,
    /// Too many questions lately.
    Unknown,
}

/// Knows the host's sockets.
pub trait SocketLookup {
    /// Whether a socket takes this packet that came over the interface of this index.
    fn ask(&mut self, packet: &Packet, interface: u32, now: Duration) -> Use;
}

/// Holds what decides, and what was lately seen.
#[derive(Debug)]
pub struct Judge {
    interfaces: BTreeSet<String>,
    counted: BTreeSet<u32>,
    /// Captured because an operator named it: there own addresses are the normal source.
    loopbacks: BTreeSet<u32>,
    view: Arc<LocalView>,
    guarded: BTreeSet<Port>,
    tcp: PortSet,
    udp: PortSet,
    icmp: PortSet,
    repeats: Repeats,
    limit: SourceLimit,
}

impl Judge {
    /// With nothing seen yet. `interfaces` are the names of the only ones that count; empty: all suitable ones.
    pub fn new(
        interfaces: BTreeSet<String>,
        space: &KnockSpace,
        view: Arc<LocalView>,
        key: RandomState,
    ) -> Self {
        let mut judge = Self {
            interfaces,
            counted: BTreeSet::new(),
            loopbacks: BTreeSet::new(),
            view: Arc::clone(&view),
            guarded: BTreeSet::new(),
            tcp: PortSet::default(),
            udp: PortSet::default(),
            icmp: PortSet::default(),
            repeats: Repeats::default(),
            limit: SourceLimit::new(key),
        };
        judge.set_space(space);
        judge.set_view(view);
        judge
    }

    /// Judges by this space from now on.
    pub fn set_space(&mut self, space: &KnockSpace) {
        self.guarded.clone_from(&space.guarded);
        self.tcp = space.numbers(Protocol::Tcp);
        self.udp = space.numbers(Protocol::Udp);
        self.icmp = space.numbers(Protocol::Icmp);
    }

    /// Judges by this view from now on.
    pub fn set_view(&mut self, view: Arc<LocalView>) {
        let counts = |interface: &super::view::Interface| {
            if self.interfaces.is_empty() {
                !interface.loopback && !interface.enslaved
            } else {
                self.interfaces.contains(&interface.name)
            }
        };
        let counted = view.interfaces.iter().filter(|(_, interface)| counts(interface));
        self.counted = counted.map(|(index, _)| *index).collect();
        let loopback = |index: &&u32| view.interfaces.get(index).is_some_and(|interface| interface.loopback);
        self.loopbacks = self.counted.iter().filter(loopback).copied().collect();
        self.view = view;
    }

    /// Whether a loopback interface counts.
    pub fn counts_loopback(&self) -> bool {
        !self.loopbacks.is_empty()
    }

    /// Whether this packet, received over the interface of this index, is a knock. `now` counts from any start and
    /// never falls.
    pub fn judge(
        &mut self,
        packet: &Packet,
        interface: u32,
        now: Duration,
        sockets: &mut impl SocketLookup,
    ) -> Verdict {
        let identity = &packet.identity;
        if !self.counted.contains(&interface) {
            return Verdict::Not(Reason::Interface);
        }
        if !self.view.owns(identity.destination) {
            return Verdict::Not(Reason::Destination);
        }
        let Ok(source) = Source::new(identity.source) else {
            return Verdict::Not(Reason::Source);
        };
        if self.view.owns(source.address()) && !self.loopbacks.contains(&interface) {
            return Verdict::Not(Reason::Source);
        }
        if self.guarded.contains(&identity.port) {
            return Verdict::Not(Reason::Guarded);
        }
        if !self.space(identity.port.protocol()).contains(identity.port.number()) {
            return Verdict::Not(Reason::Outside);
        }
        if self.repeats.is_copy(*identity, interface, now) {
            return Verdict::Not(Reason::Copy);
        }
        let sure = match self.uses(packet, interface, now, sockets) {
            Ok(sure) => sure,
            Err(reason) => return Verdict::Not(reason),
        };
        match sure {
            false => Verdict::Unsure(source),
            true if self.admits(source, now) => Verdict::Knock(source),
            true => Verdict::Not(Reason::SourceLimit),
        }
    }

    /// Whether this source may have another knock reported; to be asked once an unsure one has proved to be a knock, so that
    /// a resolver's answers do not count against it.
    pub fn admits(&mut self, source: Source, now: Duration) -> bool {
        self.limit.admits(source, now)
    }

    /// Whether it is sure that no socket takes the packet.
    fn uses(
        &self,
        packet: &Packet,
        interface: u32,
        now: Duration,
        sockets: &mut impl SocketLookup,
    ) -> Result<bool, Reason> {
        let (port, destination) = (packet.identity.port, packet.identity.destination);
        if port.protocol() == Protocol::Icmp {
            return Ok(true);
        }
        let client = port.protocol() == Protocol::Udp && self.view.ephemeral.contains(&port.number());
        match sockets.ask(packet, interface, now) {
            Use::Used => Err(Reason::Service),
            Use::Free => Ok(!client),
            Use::Unknown if client => Err(Reason::Unverified),
            Use::Unknown if self.view.services.uses(port.protocol(), destination, port.number()) => {
                Err(Reason::Service)
            }
            Use::Unknown => Ok(true),
        }
    }

    fn space(&self, protocol: Protocol) -> &PortSet {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
            Protocol::Icmp => &self.icmp,
        }
    }
}

#[cfg(test)]
mod tests;
