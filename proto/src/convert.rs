//! Conversions between the wire's messages and the core's types.
//!
//! From the wire to the core a conversion can fail, and says which field and why: the functions here take the field's
//! path for that. From the core to the wire it cannot fail.

use std::{collections::HashMap, fmt::Display, net::IpAddr, str::FromStr, time::Duration};

use fleetknock_core::{
    host::{HostId, HostSelector, Labels},
    identity::Role,
    knock::{Observation, ObservationId},
    network,
    port::{Port, PortRange, Protocol},
    source::Source,
    time::Timestamp,
};
use ipnet::IpNet;

use crate::{FieldError, limits, v1};

mod door;
#[cfg(test)]
mod tests;

pub use door::{door, door_message};

/// An observation as an agent reports it: everything but the host and the boot, which the stream knows, and the
/// correction of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Rises by one with each knock of the agent's run.
    pub counter: u64,
    /// By the agent's clock.
    pub time: Timestamp,
    /// Who knocked.
    pub source: Source,
    /// At what.
    pub port: Port,
    /// Equal for a packet and its retransmission. 0: cannot tell.
    pub fingerprint: u32,
}

impl TryFrom<v1::Observation> for Seen {
    type Error = FieldError;

    fn try_from(message: v1::Observation) -> Result<Self, FieldError> {
        Self::try_from(&message)
    }
}

impl TryFrom<&v1::Observation> for Seen {
    type Error = FieldError;

    fn try_from(message: &v1::Observation) -> Result<Self, FieldError> {
        let source = Source::from_bytes(&message.source)
            .map_err(|error| FieldError::new("observation.source", error))?;
        let port = port_of(message.protocol, message.port).map_err(|error| error.under("observation"))?;
        Ok(Self {
            counter: message.counter,
            time: Timestamp::from_micros(message.time_us),
            source,
            port,
            fingerprint: message.fingerprint,
        })
    }
}

impl Seen {
    /// As an observation of this run of this host's agent, put at this time.
    pub fn observed(self, host: HostId, boot: u32, time: Timestamp, uncertainty: Duration) -> Observation {
        let Self { counter, source, port, fingerprint, .. } = self;
        Observation {
            id: ObservationId { host, boot, counter },
            source,
            port,
            time,
            uncertainty,
            fingerprint,
        }
    }
}

impl From<&Observation> for Seen {
    fn from(observation: &Observation) -> Self {
        let Observation { id, source, port, time, fingerprint, .. } = *observation;
        Self { counter: id.counter, time, source, port, fingerprint }
    }
}

impl From<Seen> for v1::Observation {
    /// The destination, which only people may want to know, is left out.
    fn from(seen: Seen) -> Self {
        Self {
            counter: seen.counter,
            time_us: seen.time.as_micros(),
            source: source_bytes(seen.source),
            destination: Vec::new(),
            protocol: v1::Protocol::from(seen.port.protocol()).into(),
            port: seen.port.number().into(),
            fingerprint: seen.fingerprint,
        }
    }
}

impl From<Protocol> for v1::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Icmp => Self::Icmp,
        }
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

impl From<Port> for v1::Port {
    fn from(port: Port) -> Self {
        Self { protocol: v1::Protocol::from(port.protocol()).into(), port: port.number().into() }
    }
}

impl From<PortRange> for v1::PortRange {
    fn from(range: PortRange) -> Self {
        Self {
            protocol: v1::Protocol::from(range.protocol()).into(),
            first: range.first().into(),
            last: range.last().into(),
        }
    }
}

impl From<&HostSelector> for v1::HostSelector {
    fn from(selector: &HostSelector) -> Self {
        Self {
            match_labels: labels_message(&selector.match_labels),
            names: selector.names.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<v1::Port> for Port {
    type Error = FieldError;

    fn try_from(message: v1::Port) -> Result<Self, FieldError> {
        port(&message, "port")
    }
}

impl TryFrom<v1::PortRange> for PortRange {
    type Error = FieldError;

    fn try_from(message: v1::PortRange) -> Result<Self, FieldError> {
        port_range(&message, "range")
    }
}

/// A protocol by its number.
///
/// # Errors
/// When the number stands for none.
pub fn protocol(number: i32, field: &str) -> Result<Protocol, FieldError> {
    match v1::Protocol::try_from(number) {
        Ok(v1::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(v1::Protocol::Udp) => Ok(Protocol::Udp),
        Ok(v1::Protocol::Icmp) => Ok(Protocol::Icmp),
        Ok(v1::Protocol::Unspecified) => {
            Err(FieldError::new(field, "must be tcp, udp or icmp, and is missing"))
        }
        Err(_) => Err(FieldError::new(field, format_args!("must be tcp, udp or icmp, not number {number}"))),
    }
}

/// A role by its number.
///
/// # Errors
/// When the number stands for none.
pub fn role(number: i32, field: &str) -> Result<Role, FieldError> {
    match v1::Role::try_from(number) {
        Ok(v1::Role::Viewer) => Ok(Role::Viewer),
        Ok(v1::Role::Operator) => Ok(Role::Operator),
        Ok(v1::Role::Admin) => Ok(Role::Admin),
        Ok(v1::Role::Unspecified) => {
            Err(FieldError::new(field, "must be viewer, operator or admin, and is missing"))
        }
        Err(_) => Err(FieldError::new(
            field,
            format_args!("must be viewer, operator or admin, not number {number}"),
        )),
    }
}

/// A port.
///
/// # Errors
/// When its protocol is missing or its number out of range.
pub fn port(message: &v1::Port, field: &str) -> Result<Port, FieldError> {
    port_of(message.protocol, message.port).map_err(|error| error.under(field))
}

/// A list of ports.
///
/// # Errors
/// When one of them is none.
pub fn ports(messages: &[v1::Port], field: &str) -> Result<Vec<Port>, FieldError> {
    messages.iter().enumerate().map(|(index, message)| port(message, &format!("{field}[{index}]"))).collect()
}

/// A range of ports.
///
/// # Errors
/// When its protocol is missing, a number is out of range, or it is empty.
pub fn port_range(message: &v1::PortRange, field: &str) -> Result<PortRange, FieldError> {
    let protocol = protocol(message.protocol, &format!("{field}.protocol"))?;
    let first = number(message.first, &format!("{field}.first"))?;
    let last = number(message.last, &format!("{field}.last"))?;
    PortRange::new(protocol, first, last).map_err(|error| FieldError::new(field, error))
}

/// A source address, textual.
///
/// # Errors
/// When the text is not a unicast address.
pub fn source(text: &str, field: &str) -> Result<Source, FieldError> {
    parsed(text, field)
}

/// A source address's 4 or 16 bytes, as observations carry it.
pub fn source_bytes(source: Source) -> Vec<u8> {
    match source.address() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A name, or anything else that is written as text. Texts of any length are refused with a short message.
///
/// # Errors
/// When the text does not have the form.
pub fn parsed<T: FromStr<Err: Display>>(text: &str, field: &str) -> Result<T, FieldError> {
    if text.is_empty() {
        return Err(FieldError::new(field, "is missing"));
    }
    if text.len() > limits::TEXT_MAX {
        return Err(FieldError::new(field, format_args!("has more than {} bytes", limits::TEXT_MAX)));
    }
    text.parse().map_err(|error: T::Err| FieldError::new(field, error))
}

/// Labels.
///
/// # Errors
/// When a key or value has the wrong form, or there are too many.
pub fn labels(map: &HashMap<String, String>, field: &str) -> Result<Labels, FieldError> {
    if map.len() > limits::LABELS_MAX {
        return Err(FieldError::new(
            field,
            format_args!("there are more than {} labels", limits::LABELS_MAX),
        ));
    }
    // In the order of their keys, so that of several errors always the same one is told.
    let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
    let pairs = sorted.into_iter().map(|(key, value)| (key.clone(), value.clone()));
    Labels::new(pairs).map_err(|error| FieldError::new(field, error))
}

/// Labels for the wire.
pub fn labels_message(labels: &Labels) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A choice of hosts; a missing one chooses every host.
///
/// # Errors
/// When a label or a name has the wrong form, or there are too many.
pub fn selector(message: Option<&v1::HostSelector>, field: &str) -> Result<HostSelector, FieldError> {
    let Some(message) = message else {
        return Ok(HostSelector::default());
    };
    if message.names.len() > limits::NAMES_MAX {
        let reason = format_args!("there are more than {} names; use labels", limits::NAMES_MAX);
        return Err(FieldError::new(format!("{field}.names"), reason));
    }
    let names = message.names.iter().enumerate();
    Ok(HostSelector {
        match_labels: labels(&message.match_labels, &format!("{field}.match_labels"))?,
        names: names
            .map(|(index, name)| parsed(name, &format!("{field}.names[{index}]")))
            .collect::<Result<_, _>>()?,
    })
}

/// Networks, textual.
///
/// # Errors
/// When a text is not a network, or there are too many.
pub fn networks(texts: &[String], field: &str) -> Result<Vec<IpNet>, FieldError> {
    if texts.len() > limits::ADDRESSES_MAX {
        return Err(FieldError::new(
            field,
            format_args!("there are more than {} networks", limits::ADDRESSES_MAX),
        ));
    }
    let read = |(index, text): (usize, &String)| {
        network::parse(text).map_err(|error| FieldError::new(format!("{field}[{index}]"), error))
    };
    texts.iter().enumerate().map(read).collect()
}

/// Addresses, textual, in one spelling each.
///
/// # Errors
/// When a text is not an address, or there are too many.
pub fn addresses(texts: &[String], field: &str) -> Result<Vec<IpAddr>, FieldError> {
    if texts.len() > limits::ADDRESSES_MAX {
        return Err(FieldError::new(
            field,
            format_args!("there are more than {} addresses", limits::ADDRESSES_MAX),
        ));
    }
    let read = |(index, text): (usize, &String)| {
        let address = text.parse::<IpAddr>().map(|address| address.to_canonical());
        address.map_err(|_| {
            FieldError::new(format!("{field}[{index}]"), "not an IP address; write it like 203.0.113.5")
        })
    };
    texts.iter().enumerate().map(read).collect()
}

/// A duration as the wire carries it: whole milliseconds, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn port_of(protocol_number: i32, port: u32) -> Result<Port, FieldError> {
    let protocol = protocol(protocol_number, "protocol")?;
    Port::new(protocol, number(port, "port")?).map_err(|error| FieldError::new("port", error))
}

fn number(number: u32, field: &str) -> Result<u16, FieldError> {
    u16::try_from(number)
        .map_err(|_| FieldError::new(field, format_args!("port {number} is too large; the highest is 65535")))
}

impl FieldError {
    /// The same error, its field being a part of `parent`.
    #[must_use]
    fn under(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}
