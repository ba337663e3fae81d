//! The sets of our table, and how their keys are written.
//!
//! A key of several fields has each padded to four bytes, as the registers that it is looked up from.

use std::{net::IpAddr, time::Duration};

use fleetknock_core::{
    port::{Port, Protocol},
    source::Source,
};
use ipnet::IpNet;

use super::{
    super::{
        Element,
        kernel::{
            INET, NFTABLES, Request,
            attributes::{Attribute, Reader},
        },
    },
    TABLE,
};

/// `NFT_MSG_*` of `linux/netfilter/nf_tables.h`.
const NEW_SET: u8 = 9;
const GET_SET: u8 = 10;
const NEW_ELEMENT: u8 = 12;
const GET_ELEMENT: u8 = 13;
const DELETE_ELEMENT: u8 = 14;

/// `NFTA_SET_*`.
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DESCRIPTION: u16 = 9;
const SET_ID: u16 = 10;
const DESCRIPTION_SIZE: u16 = 1;

/// `NFT_SET_*`.
const INTERVAL: u32 = 0x4;
const TIMEOUT: u32 = 0x10;
/// Elements are made by rules.
const EVALUATED: u32 = 0x20;

/// `NFTA_SET_ELEM_LIST_*` and `NFTA_SET_ELEM_*`.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_FLAGS: u16 = 3;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
const ELEMENT_EXPRESSION: u16 = 7;
/// `NFTA_EXPR_DATA`, `NFTA_COUNTER_PACKETS`.
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;
const DATA_VALUE: u16 = 1;
const INTERVAL_END: u32 = 1;

/// nft's numbers of the types of fields (`datatype.h` of nftables), by which it prints a set's elements.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_SERVICE: u32 = 13;
/// Bits of each in the type of several fields.
const TYPE_BITS: u32 = 6;

/// Elements of one kind at most; more are refused by the kernel with `ENFILE`. All TCP and UDP ports there are, too.
const SIZE: u32 = 131_072;
/// Elements of one request: the list's length is counted in 16 bits, and an element takes up to 56 bytes.
pub(super) const ELEMENTS_PER_REQUEST: usize = 500;

/// `IPPROTO_*`, RFC 5237's registry.
pub(in super::super) const TCP: u8 = 6;
/// See [`TCP`].
pub(in super::super) const UDP: u8 = 17;

/// One of our sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    /// Guarded ports: protocol, port.
    Guard,
    /// Ports of doors that only observe: the same.
    Observed,
    /// What was dropped by port, and what would have been: the same, made by rules.
    Dropped,
    Noticed,
    /// Openings: source, protocol, port. One set per address family, as all that follow.
    Open4,
    Open6,
    /// Banned sources.
    Ban4,
    Ban6,
    /// Ends of connections that were cut: source, protocol, source port.
    Cut4,
    Cut6,
    /// Management networks.
    Management4,
    Management6,
}

impl Set {
    pub(super) const ALL: [Self; 12] = [
        Self::Guard,
        Self::Observed,
        Self::Dropped,
        Self::Noticed,
        Self::Open4,
        Self::Open6,
        Self::Ban4,
        Self::Ban6,
        Self::Cut4,
        Self::Cut6,
        Self::Management4,
        Self::Management6,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Observed => "observed",
            Self::Dropped => "dropped",
            Self::Noticed => "noticed",
            Self::Open4 => "open4",
            Self::Open6 => "open6",
            Self::Ban4 => "ban4",
            Self::Ban6 => "ban6",
            Self::Cut4 => "cut4",
            Self::Cut6 => "cut6",
            Self::Management4 => "mgmt4",
            Self::Management6 => "mgmt6",
        }
    }

    pub(super) fn open(source: Source) -> Self {
        if source.address().is_ipv4() { Self::Open4 } else { Self::Open6 }
    }

    pub(super) fn ban(source: Source) -> Self {
        if source.address().is_ipv4() { Self::Ban4 } else { Self::Ban6 }
    }

    pub(super) fn cut(source: Source) -> Self {
        if source.address().is_ipv4() { Self::Cut4 } else { Self::Cut6 }
    }

    fn key(self) -> (u32, u32) {
        let service = |address: u32| (address << TYPE_BITS | TYPE_PROTOCOL) << TYPE_BITS | TYPE_SERVICE;
        match self {
            Self::Guard | Self::Observed | Self::Dropped | Self::Noticed => {
                (TYPE_PROTOCOL << TYPE_BITS | TYPE_SERVICE, 8)
            }
            Self::Open4 | Self::Cut4 => (service(TYPE_IPV4), 12),
            Self::Open6 | Self::Cut6 => (service(TYPE_IPV6), 24),
            Self::Ban4 | Self::Management4 => (TYPE_IPV4, 4),
            Self::Ban6 | Self::Management6 => (TYPE_IPV6, 16),
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::Guard | Self::Observed => 0,
            Self::Dropped | Self::Noticed => EVALUATED,
            Self::Management4 | Self::Management6 => INTERVAL,
            _ => TIMEOUT,
        }
    }

    /// What makes this set what it is, as the kernel lists it too.
    fn definition(self) -> Vec<Attribute> {
        let (key_type, key_length) = self.key();
        let mut attributes = vec![
            Attribute::text(SET_TABLE, TABLE),
            Attribute::text(SET_NAME, self.name()),
            Attribute::number32(SET_KEY_TYPE, key_type),
            Attribute::number32(SET_KEY_LENGTH, key_length),
        ];
        if matches!(self.flags(), TIMEOUT | EVALUATED) {
            let size = Attribute::number32(DESCRIPTION_SIZE, SIZE);
            attributes.push(Attribute::nest(SET_DESCRIPTION, vec![size]));
        }
        attributes
    }

    pub(super) fn create(self) -> Request {
        let mut attributes = self.definition();
        attributes.push(Attribute::number32(SET_FLAGS, self.flags()));
        // An id is obligatory; it names the set within a batch.
        attributes.push(Attribute::number32(SET_ID, self as u32 + 1));
        Request::new(NFTABLES, NEW_SET, INET, attributes).creating()
    }

    /// Which of our sets is listed, if it is one and is as we define it.
    pub(super) fn listed(reader: Reader<'_>) -> Option<Self> {
        // No flags are not listed.
        let flags = reader.number32(SET_FLAGS).unwrap_or(0);
        Self::ALL.into_iter().find(|set| {
            set.flags() == flags && set.definition().iter().all(|attribute| attribute.is_in(reader))
        })
    }

    /// Lists the sets of our table.
    pub(super) fn list() -> Request {
        Request::new(NFTABLES, GET_SET, INET, vec![Attribute::text(SET_TABLE, TABLE)])
    }

    /// Lists the elements of this set.
    pub(super) fn list_elements(self) -> Request {
        Request::new(NFTABLES, GET_ELEMENT, INET, self.target())
    }

    fn target(self) -> Vec<Attribute> {
        vec![Attribute::text(LIST_TABLE, TABLE), Attribute::text(LIST_SET, self.name())]
    }

    /// Adds these; those that exist stay as they are.
    pub(super) fn add(self, entries: &[Entry]) -> Request {
        self.elements(NEW_ELEMENT, entries).creating()
    }

    /// Removes these. Those that do not exist are an error to the kernel.
    pub(super) fn delete(self, entries: &[Entry]) -> Request {
        self.elements(DELETE_ELEMENT, entries)
    }

    /// Removes all.
    pub(super) fn flush(self) -> Request {
        Request::new(NFTABLES, DELETE_ELEMENT, INET, self.target())
    }

    fn elements(self, kind: u8, entries: &[Entry]) -> Request {
        let mut attributes = self.target();
        let elements = entries.iter().map(Entry::attribute).collect();
        attributes.push(Attribute::nest(LIST_ELEMENTS, elements));
        Request::new(NFTABLES, kind, INET, attributes)
    }
}

/// One element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) key: Vec<u8>,
    /// Whether this is the first address behind an interval.
    pub(super) end: bool,
    /// Remaining milliseconds; `None` never ends.
    pub(super) remaining_ms: Option<u64>,
}

impl Entry {
    pub(super) fn new(key: Vec<u8>, remaining_ms: Option<u64>) -> Self {
        Self { key, end: false, remaining_ms }
    }

    pub(super) fn remaining(&self) -> Option<Duration> {
        self.remaining_ms.map(Duration::from_millis)
    }

    fn attribute(&self) -> Attribute {
        let value = Attribute::bytes(DATA_VALUE, self.key.as_slice());
        let mut attributes = vec![Attribute::nest(ELEMENT_KEY, vec![value])];
        if self.end {
            attributes.push(Attribute::number32(ELEMENT_FLAGS, INTERVAL_END));
        }
        if let Some(remaining_ms) = self.remaining_ms {
            attributes.push(Attribute::number64(ELEMENT_TIMEOUT, remaining_ms));
        }
        Attribute::nest(ELEMENT, attributes)
    }

    /// The elements in one message of a dump.
    pub(super) fn read_all(message: Reader<'_>) -> Vec<Self> {
        elements(message).filter_map(Self::read).collect()
    }

    fn read(element: Reader<'_>) -> Option<Self> {
        let key = element.nest(ELEMENT_KEY)?.bytes(DATA_VALUE)?.to_vec();
        let end = element.number32(ELEMENT_FLAGS).is_some_and(|flags| flags & INTERVAL_END != 0);
        Some(Self { key, end, remaining_ms: element.number64(ELEMENT_EXPIRATION) })
    }
}

fn elements(message: Reader<'_>) -> impl Iterator<Item = Reader<'_>> {
    let elements = message.nest(LIST_ELEMENTS).into_iter().flat_map(Reader::iter);
    elements.map(|(_, element)| Reader::new(element))
}

/// The ports and packets in one message of a dump of a set that counts. What we would never have counted is left out.
pub(super) fn read_counts(message: Reader<'_>) -> Vec<(Port, u64)> {
    let counts = elements(message).filter_map(|element| {
        let key = element.nest(ELEMENT_KEY)?.bytes(DATA_VALUE)?;
        let counter = element.nest(ELEMENT_EXPRESSION)?.nest(EXPRESSION_DATA)?;
        Some((read_port(key)?, counter.number64(COUNTER_PACKETS)?))
    });
    counts.collect()
}

/// `None` for what is neither TCP nor UDP.
pub(super) fn port_key(port: Port) -> Option<Vec<u8>> {
    let protocol = match port.protocol() {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Icmp => return None,
    };
    Some(service_key(protocol, port.number()))
}

fn service_key(protocol: u8, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol, 0, 0, 0, high, low, 0, 0]
}

pub(super) fn source_key(source: Source) -> Vec<u8> {
    match source.address() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// `None` for what is neither TCP nor UDP.
pub(super) fn opening_key(element: Element) -> Option<Vec<u8>> {
    let mut key = source_key(element.source);
    key.extend(port_key(element.port)?);
    Some(key)
}

/// The end of a connection that is cut.
pub(super) fn cut_key(source: Source, protocol: u8, source_port: u16) -> Vec<u8> {
    let mut key = source_key(source);
    key.extend(service_key(protocol, source_port));
    key
}

/// `None` when we would never have added such a key.
pub(super) fn read_opening(key: &[u8]) -> Option<Element> {
    let (source, port) = key.split_at_checked(key.len().checked_sub(8)?)?;
    Some(Element { source: read_source(source)?, port: read_port(port)? })
}

/// As [`read_opening`].
pub(super) fn read_source(key: &[u8]) -> Option<Source> {
    let source = Source::from_bytes(key).ok()?;
    // An IPv4-mapped key would be read as IPv4 and be looked for in the other set.
    (source_key(source) == key).then_some(source)
}

fn read_port(key: &[u8]) -> Option<Port> {
    let &[protocol, 0, 0, 0, high, low, 0, 0] = key else { return None };
    let protocol = match protocol {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        _ => return None,
    };
    Port::new(protocol, u16::from_be_bytes([high, low])).ok()
}

/// The elements of an interval set for these networks: the first address of each, and the first behind it unless it ends
/// with the last address there is.
pub(super) fn intervals<'a>(networks: impl Iterator<Item = &'a IpNet>) -> (Vec<Entry>, Vec<Entry>) {
    let networks: Vec<IpNet> = networks.copied().collect();
    let (mut four, mut six) = (Vec::new(), Vec::new());
    // Neighbours are joined: the end of one would be the start of the next.
    for network in IpNet::aggregate(&networks) {
        let (first, last, list) = match network {
            IpNet::V4(v4) => {
                let octets = |address: u32| address.to_be_bytes().to_vec();
                let behind = u32::from(v4.broadcast()).checked_add(1).map(octets);
                (octets(u32::from(v4.network())), behind, &mut four)
            }
            IpNet::V6(v6) => {
                let octets = |address: u128| address.to_be_bytes().to_vec();
                let behind = u128::from(v6.broadcast()).checked_add(1).map(octets);
                (octets(u128::from(v6.network())), behind, &mut six)
            }
        };
        // Joined networks of unequal size may still touch.
        if list.last().is_some_and(|entry: &Entry| entry.end && entry.key == first) {
            list.pop();
        } else {
            list.push(Entry::new(first, None));
        }
        list.extend(last.map(|key| Entry { key, end: true, remaining_ms: None }));
    }
    (four, six)
}

#[cfg(test)]
mod tests;
