//! Our ipsets, by netlink.
//!
//! Message layout: `linux/netfilter/ipset/ip_set.h`. ipset wants numbers flagged as being in network order.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    net::IpAddr,
    time::Duration,
};

use fleetknock_core::{
    port::{Port, Protocol},
    source::Source,
};
use ipnet::IpNet;
use netlink_packet_core::NLM_F_EXCL;

use super::super::{
    Element, FirewallError,
    kernel::{
        self, IPSET, IPV4, IPV6, Kernel, Request, UNSPECIFIED,
        attributes::{Attribute, Reader},
    },
    nftables::{TCP, UDP},
};

/// `IPSET_CMD_*`.
const PROTOCOL: u8 = 1;
const CREATE: u8 = 2;
const DESTROY: u8 = 3;
const LIST: u8 = 7;
const ADD: u8 = 9;
const DELETE: u8 = 10;

/// `IPSET_ATTR_*` of a command.
const VERSION: u16 = 1;
const NAME: u16 = 2;
const TYPE: u16 = 3;
const REVISION: u16 = 4;
const FAMILY: u16 = 5;
const DATA: u16 = 7;
const ENTRIES: u16 = 8;
const LINE: u16 = 9;

/// `IPSET_ATTR_*` of a set or an entry.
const ADDRESS: u16 = 1;
const PREFIX: u16 = 3;
const PORT: u16 = 4;
const PORT_TO: u16 = 5;
const TIMEOUT: u16 = 6;
const TRANSPORT: u16 = 7;
const FLAGS: u16 = 8;
const ENTRIES_MAX: u16 = 19;
const PACKETS: u16 = 25;
const ADDRESS_V4: u16 = 1;
const ADDRESS_V6: u16 = 2;

/// The oldest version that kernels with version 7 still speak.
const VERSION_SPOKEN: u8 = 6;
/// `IPSET_FLAG_WITH_COUNTERS`, and the revision of `bitmap:port` that has them, since Linux 3.10.
const WITH_COUNTERS: u32 = 1 << 3;
const REVISION_COUNTERS: u8 = 1;
/// The revision of `hash:ip,port` that every kernel since 2011 has; the other types have revision 0.
const REVISION_IP_PORT: u8 = 1;
/// Entries of one timed set at most; more are refused.
const TIMED_MAX: u32 = 131_072;
/// Seconds for an entry that someone adds by hand without a time.
const TIMEOUT_DEFAULT: u32 = 30;
/// Entries of one request: the list's length is counted in 16 bits, and an entry takes up to 56 bytes.
const ENTRIES_PER_REQUEST: usize = 500;

/// Errors of ipset's own, `IPSET_ERR_*`.
const ERROR_FULL: i32 = 4352;
const ERROR_BUSY: i32 = 4100;
const ERROR_TYPE: i32 = 4098;
const ERROR_EXISTS: i32 = 4103;

/// One of our sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    GuardTcp,
    GuardUdp,
    ObservedTcp,
    ObservedUdp,
    /// What was dropped, and what would have been: filled by rules. Each takes 1 MiB of the kernel's memory.
    DroppedTcp,
    DroppedUdp,
    NoticedTcp,
    NoticedUdp,
    Open4,
    Open6,
    Ban4,
    Ban6,
    Cut4,
    Cut6,
    Management4,
    Management6,
}

impl Set {
    const ALL: [Self; 16] = [
        Self::GuardTcp,
        Self::GuardUdp,
        Self::ObservedTcp,
        Self::ObservedUdp,
        Self::DroppedTcp,
        Self::DroppedUdp,
        Self::NoticedTcp,
        Self::NoticedUdp,
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
            Self::GuardTcp => "fk-guard-tcp",
            Self::GuardUdp => "fk-guard-udp",
            Self::ObservedTcp => "fk-observed-tcp",
            Self::ObservedUdp => "fk-observed-udp",
            Self::DroppedTcp => "fk-dropped-tcp",
            Self::DroppedUdp => "fk-dropped-udp",
            Self::NoticedTcp => "fk-noticed-tcp",
            Self::NoticedUdp => "fk-noticed-udp",
            Self::Open4 => "fk-open4",
            Self::Open6 => "fk-open6",
            Self::Ban4 => "fk-ban4",
            Self::Ban6 => "fk-ban6",
            Self::Cut4 => "fk-cut4",
            Self::Cut6 => "fk-cut6",
            Self::Management4 => "fk-mgmt4",
            Self::Management6 => "fk-mgmt6",
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

    pub(super) fn management(network: IpNet) -> Self {
        if network.addr().is_ipv4() { Self::Management4 } else { Self::Management6 }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::GuardTcp | Self::GuardUdp | Self::ObservedTcp | Self::ObservedUdp => "bitmap:port",
            Self::DroppedTcp | Self::DroppedUdp | Self::NoticedTcp | Self::NoticedUdp => "bitmap:port",
            Self::Open4 | Self::Open6 | Self::Cut4 | Self::Cut6 => "hash:ip,port",
            Self::Ban4 | Self::Ban6 => "hash:ip",
            Self::Management4 | Self::Management6 => "hash:net",
        }
    }

    fn family(self) -> u8 {
        match self {
            Self::GuardTcp | Self::GuardUdp | Self::ObservedTcp | Self::ObservedUdp => UNSPECIFIED,
            Self::DroppedTcp | Self::DroppedUdp | Self::NoticedTcp | Self::NoticedUdp => UNSPECIFIED,
            Self::Open4 | Self::Ban4 | Self::Cut4 | Self::Management4 => IPV4,
            Self::Open6 | Self::Ban6 | Self::Cut6 | Self::Management6 => IPV6,
        }
    }

    fn counts(self) -> bool {
        matches!(self, Self::DroppedTcp | Self::DroppedUdp | Self::NoticedTcp | Self::NoticedUdp)
    }

    fn command(self, kind: u8, more: Vec<Attribute>) -> Request {
        let mut attributes =
            vec![Attribute::number8(VERSION, VERSION_SPOKEN), Attribute::text(NAME, self.name())];
        attributes.extend(more);
        Request::new(IPSET, kind, self.family(), attributes)
    }

    /// With `NLM_F_EXCL` the kernel says when the set exists; without, only when it exists and differs.
    fn create(self, exclusive: bool) -> Request {
        let (revision, data) = match self.kind() {
            "bitmap:port" => {
                let mut data = vec![port16(PORT, 0), port16(PORT_TO, u16::MAX)];
                if self.counts() {
                    data.push(Attribute::number32(FLAGS, WITH_COUNTERS).in_network_order());
                }
                (if self.counts() { REVISION_COUNTERS } else { 0 }, data)
            }
            "hash:net" => (0, Vec::new()),
            kind => {
                let revision = if kind == "hash:ip,port" { REVISION_IP_PORT } else { 0 };
                let bound = Attribute::number32(ENTRIES_MAX, TIMED_MAX).in_network_order();
                (revision, vec![timeout(TIMEOUT_DEFAULT), bound])
            }
        };
        let request = self.command(
            CREATE,
            vec![
                Attribute::text(TYPE, self.kind()),
                Attribute::number8(REVISION, revision),
                Attribute::number8(FAMILY, self.family()),
                Attribute::nest(DATA, data),
            ],
        );
        if exclusive { request.creating().with(NLM_F_EXCL) } else { request.creating() }
    }
}

/// One entry of a set, without regard to its time when compared.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    address: Option<(IpAddr, Option<u8>)>,
    port: Option<(Option<u8>, u16)>,
    seconds: Option<u32>,
}

impl Entry {
    pub(super) fn port(number: u16) -> Self {
        Self { address: None, port: Some((None, number)), seconds: None }
    }

    /// Two for everything: a `hash:net` takes no prefix of length 0.
    pub(super) fn networks(network: IpNet) -> Vec<Self> {
        let entry = |network: IpNet| Self {
            address: Some((network.network(), Some(network.prefix_len()))),
            port: None,
            seconds: None,
        };
        if network.prefix_len() == 0 {
            network.subnets(1).into_iter().flatten().map(entry).collect()
        } else {
            vec![entry(network)]
        }
    }

    /// `None` for what is neither TCP nor UDP.
    pub(super) fn opening(element: Element, seconds: u32) -> Option<Self> {
        let transport = match element.port.protocol() {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
            Protocol::Icmp => return None,
        };
        Some(Self::end(element.source, transport, element.port.number(), seconds))
    }

    /// A source and one of its own ports, or one of ours.
    pub(super) fn end(source: Source, transport: u8, port: u16, seconds: u32) -> Self {
        Self {
            address: Some((source.address(), None)),
            port: Some((Some(transport), port)),
            seconds: Some(seconds),
        }
    }

    pub(super) fn ban(source: Source, seconds: u32) -> Self {
        Self { address: Some((source.address(), None)), port: None, seconds: Some(seconds) }
    }

    /// The opening, if this is one that we would have added.
    pub(super) fn element(&self) -> Option<Element> {
        let (transport, number) = self.port?;
        let protocol = match transport? {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => return None,
        };
        Some(Element { source: self.source()?, port: Port::new(protocol, number).ok()? })
    }

    /// The source, if this is one that we would have added.
    pub(super) fn source(&self) -> Option<Source> {
        let (address, _) = self.address?;
        let source = Source::new(address).ok()?;
        (source.address() == address).then_some(source)
    }

    /// `None` never ends.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.seconds.filter(|&seconds| seconds > 0).map(|seconds| Duration::from_secs(u64::from(seconds)))
    }

    fn key(&self) -> impl Ord + use<> {
        (self.address, self.port)
    }

    fn attribute(&self, with_time: bool) -> Attribute {
        let mut data = Vec::with_capacity(4);
        if let Some((address, prefix)) = self.address {
            let octets = match address {
                IpAddr::V4(v4) => Attribute::bytes(ADDRESS_V4, v4.octets()),
                IpAddr::V6(v6) => Attribute::bytes(ADDRESS_V6, v6.octets()),
            };
            data.push(Attribute::nest(ADDRESS, vec![octets.in_network_order()]));
            data.extend(prefix.map(|prefix| Attribute::number8(PREFIX, prefix)));
        }
        if let Some((transport, number)) = self.port {
            data.push(port16(PORT, number));
            data.extend(transport.map(|transport| Attribute::number8(TRANSPORT, transport)));
        }
        data.extend(self.seconds.filter(|_| with_time).map(timeout));
        Attribute::nest(DATA, data)
    }

    fn read(reader: Reader<'_>) -> Self {
        let address = reader.nest(ADDRESS).and_then(|nest| {
            let v4 = nest.bytes(ADDRESS_V4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            let v6 = nest.bytes(ADDRESS_V6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            v4.map(IpAddr::from).or(v6.map(IpAddr::from))
        });
        Self {
            address: address.map(|address| (address, reader.number8(PREFIX))),
            port: reader.number16(PORT).map(|number| (reader.number8(TRANSPORT), number)),
            seconds: reader.number32(TIMEOUT),
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

fn port16(kind: u16, number: u16) -> Attribute {
    Attribute::number16(kind, number).in_network_order()
}

fn timeout(seconds: u32) -> Attribute {
    Attribute::number32(TIMEOUT, seconds).in_network_order()
}

/// Whether the kernel has ipset and lets us use it.
pub(super) fn ask(kernel: &mut Kernel) -> Result<(), FirewallError> {
    let request = Request::new(IPSET, PROTOCOL, IPV4, vec![Attribute::number8(VERSION, VERSION_SPOKEN)]);
    kernel.request_raw(&request).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => FirewallError::Permission,
        _ => FirewallError::Missing {
            what: "ipset in the kernel".to_owned(),
            remedy: "load the module ip_set, or choose --firewall nftables".to_owned(),
        },
    })
}

/// Creates those of our sets that are missing; says how many.
pub(super) fn create_all(kernel: &mut Kernel) -> Result<usize, FirewallError> {
    let mut created = 0;
    for set in Set::ALL {
        match kernel.request_raw(&set.create(true)) {
            Ok(()) => created += 1,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => same_or_anew(kernel, set)?,
            Err(error) => return Err(explained("create a set", error)),
        }
    }
    Ok(created)
}

/// A set of our name that is not as we make it is made anew, which works while no rule uses it.
fn same_or_anew(kernel: &mut Kernel, set: Set) -> Result<(), FirewallError> {
    if kernel.request_raw(&set.create(false)).is_ok() {
        return Ok(());
    }
    kernel
        .request_raw(&set.command(DESTROY, Vec::new()))
        .map_err(|error| explained("replace a set", error))?;
    kernel.request_raw(&set.create(true)).map_err(|error| explained("replace a set", error))
}

/// Whether one of our sets is there.
pub(super) fn is_there(kernel: &mut Kernel) -> Result<bool, FirewallError> {
    for set in Set::ALL {
        if kernel.dump("list a set", &set.command(LIST, Vec::new()), |_, _| Some(()))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Destroys our sets; says what was there.
pub(super) fn destroy_all(kernel: &mut Kernel) -> Result<Vec<String>, FirewallError> {
    let mut destroyed = 0;
    for set in Set::ALL {
        match kernel.request_raw(&set.command(DESTROY, Vec::new())) {
            Ok(()) => destroyed += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(explained("remove a set", error)),
        }
    }
    Ok((destroyed > 0).then(|| format!("{destroyed} ipsets (fk-…)")).into_iter().collect())
}

/// The entries of this set; none when it does not exist.
pub(super) fn list(kernel: &mut Kernel, set: Set) -> Result<Vec<Entry>, FirewallError> {
    // A set that is rehashed while it is listed may show an entry twice.
    let entries: BTreeSet<Entry> = read(kernel, set, |entry| Some(Entry::read(entry)))?.into_iter().collect();
    Ok(entries.into_iter().collect())
}

/// The ports of sets that count, with their packets; none when they do not exist.
pub(super) fn counted(kernel: &mut Kernel, tcp: Set, udp: Set) -> Result<Vec<(Port, u64)>, FirewallError> {
    let mut counted = Vec::new();
    for (protocol, set) in [(Protocol::Tcp, tcp), (Protocol::Udp, udp)] {
        counted.extend(read(kernel, set, |entry| {
            Some((Port::new(protocol, entry.number16(PORT)?).ok()?, entry.number64(PACKETS)?))
        })?);
    }
    Ok(counted)
}

fn read<T>(
    kernel: &mut Kernel,
    set: Set,
    each: impl Fn(Reader<'_>) -> Option<T>,
) -> Result<Vec<T>, FirewallError> {
    let messages = kernel.dump("list a set", &set.command(LIST, Vec::new()), |_, reader| {
        let entries = reader.nest(ENTRIES).into_iter().flat_map(Reader::iter);
        Some(entries.filter_map(|(_, entry)| each(Reader::new(entry))).collect::<Vec<_>>())
    })?;
    Ok(messages.unwrap_or_default().into_iter().flatten().collect())
}

/// Adds these; of those that exist the time is set.
pub(super) fn add(
    kernel: &mut Kernel,
    action: &'static str,
    set: Set,
    entries: &[Entry],
) -> Result<(), FirewallError> {
    change(kernel, action, set, ADD, entries)
}

/// Removes these; those that do not exist are fine.
pub(super) fn delete(
    kernel: &mut Kernel,
    action: &'static str,
    set: Set,
    entries: &[Entry],
) -> Result<(), FirewallError> {
    change(kernel, action, set, DELETE, entries)
}

fn change(
    kernel: &mut Kernel,
    action: &'static str,
    set: Set,
    kind: u8,
    entries: &[Entry],
) -> Result<(), FirewallError> {
    for chunk in entries.chunks(ENTRIES_PER_REQUEST) {
        let list = chunk.iter().map(|entry| entry.attribute(kind == ADD)).collect();
        // The line is where the kernel writes which entry it refused; it has to be there.
        let more = vec![Attribute::number32(LINE, 0), Attribute::nest(ENTRIES, list)];
        match kernel.request_raw(&set.command(kind, more)) {
            Ok(()) => {}
            Err(error) if kind == DELETE && error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(explained(action, error)),
        }
    }
    Ok(())
}

/// ipset's own error numbers mean nothing to the C library.
fn explained(action: &'static str, error: io::Error) -> FirewallError {
    let words = match error.raw_os_error() {
        Some(ERROR_FULL) => "the set is full",
        Some(ERROR_BUSY) => "the set is in use by a rule that is not ours",
        Some(ERROR_TYPE) => "the kernel lacks this type of ipset",
        Some(ERROR_EXISTS) => "the entry exists already",
        _ => return kernel::refused(action, error),
    };
    FirewallError::Kernel { action, source: io::Error::other(words) }
}
