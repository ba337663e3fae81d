//! Established connections, as connection tracking knows them: found and cut.
//!
//! Message layout: `linux/netfilter/nfnetlink_conntrack.h`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    net::IpAddr,
};

use fleetknock_core::{
    port::{Port, Protocol},
    source::Source,
};

use super::{
    Element, FirewallError,
    kernel::{
        self, CONNTRACK, IPV4, IPV6, Kernel, Request,
        attributes::{Attribute, Reader},
    },
    nftables::{TCP, UDP},
};

/// `IPCTNL_MSG_CT_*`.
const GET: u8 = 1;
const DELETE: u8 = 2;

/// `CTA_*`.
const TUPLE_ORIGINAL: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE_PORT: u16 = 2;
const PROTOCOL_DESTINATION_PORT: u16 = 3;

/// One tracked connection to this host.
pub(super) struct Connection {
    pub(super) source: Source,
    pub(super) protocol: u8,
    pub(super) source_port: u16,
    family: u8,
    /// By which the kernel knows it.
    identity: Vec<Attribute>,
}

/// The connections of these openings: from their source, to their port at one of this host's own addresses. Connections
/// that this host only forwards are not among them.
pub(super) fn find(kernel: &mut Kernel, elements: &[Element]) -> Result<Vec<Connection>, FirewallError> {
    if elements.is_empty() {
        return Ok(Vec::new());
    }
    let local = local_addresses().map_err(|source| kernel::refused("list this host's addresses", source))?;
    let mut wanted: BTreeMap<Source, Vec<Port>> = BTreeMap::new();
    for element in elements {
        wanted.entry(element.source).or_default().push(element.port);
    }
    let mut connections = Vec::new();
    for (family, is_v4) in [(IPV4, true), (IPV6, false)] {
        if wanted.keys().any(|source| source.address().is_ipv4() == is_v4) {
            let request = Request::new(CONNTRACK, GET, family, Vec::new());
            let found = kernel
                .dump("list the connections", &request, |_, reader| read(family, reader, &wanted, &local))?;
            connections.extend(found.unwrap_or_default());
        }
    }
    Ok(connections)
}

/// Makes the kernel forget these connections; says how many it still knew.
pub(super) fn delete(kernel: &mut Kernel, connections: &[Connection]) -> Result<usize, FirewallError> {
    let mut deleted = 0;
    for connection in connections {
        let request = Request::new(CONNTRACK, DELETE, connection.family, connection.identity.clone());
        match kernel.request_raw(&request) {
            Ok(()) => deleted += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(kernel::refused("cut a connection", error)),
        }
    }
    Ok(deleted)
}

fn read(
    family: u8,
    reader: Reader<'_>,
    wanted: &BTreeMap<Source, Vec<Port>>,
    local: &BTreeSet<IpAddr>,
) -> Option<Connection> {
    let tuple = reader.nest(TUPLE_ORIGINAL)?;
    let (addresses, ports) = (tuple.nest(TUPLE_IP)?, tuple.nest(TUPLE_PROTOCOL)?);
    let (source, destination) = if family == IPV4 {
        (address(addresses.bytes(IP_V4_SOURCE)?)?, address(addresses.bytes(IP_V4_DESTINATION)?)?)
    } else {
        (address(addresses.bytes(IP_V6_SOURCE)?)?, address(addresses.bytes(IP_V6_DESTINATION)?)?)
    };
    let source = Source::new(source).ok()?;
    let number = ports.number8(PROTOCOL_NUMBER)?;
    let protocol = match number {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        _ => return None,
    };
    let port = Port::new(protocol, ports.number16(PROTOCOL_DESTINATION_PORT)?).ok()?;
    if !wanted.get(&source)?.contains(&port) || !local.contains(&destination) {
        return None;
    }
    let mut identity = vec![Attribute::nest(TUPLE_ORIGINAL, copy(tuple))];
    for kind in [ID, ZONE] {
        identity.extend(reader.bytes(kind).map(|bytes| Attribute::bytes(kind, bytes)));
    }
    let source_port = ports.number16(PROTOCOL_SOURCE_PORT)?;
    Some(Connection { source, protocol: number, source_port, family, identity })
}

/// The same tuple, to be sent back. Addresses and protocol are nests; a zone within the tuple is not.
fn copy(tuple: Reader<'_>) -> Vec<Attribute> {
    let plain =
        |reader: Reader<'_>| reader.iter().map(|(kind, bytes)| Attribute::bytes(kind, bytes)).collect();
    tuple
        .iter()
        .map(|(kind, bytes)| match kind {
            TUPLE_IP | TUPLE_PROTOCOL => Attribute::nest(kind, plain(Reader::new(bytes))),
            _ => Attribute::bytes(kind, bytes),
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn local_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    });
    Ok(addresses.collect())
}
