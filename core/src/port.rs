//! Protocols, ports and port ranges, written `tcp/22`, `udp/23981`, `icmp/731`, `tcp/1024-2047`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What carries a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A SYN without ACK.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request of ICMP (RFC 792) or ICMPv6 (RFC 4443).
    Icmp,
}

impl Protocol {
    /// Lower-case name, as in `tcp/22`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A protocol and a port. For ICMP the number is the length of the echo payload in bytes, which may be 0; a TCP or UDP
/// port is never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    protocol: Protocol,
    number: u16,
}

impl Port {
    /// # Errors
    /// When a TCP or UDP port is 0.
    pub fn new(protocol: Protocol, number: u16) -> Result<Self, PortError> {
        if number == 0 && protocol != Protocol::Icmp {
            return Err(PortError::Zero { protocol });
        }
        Ok(Self { protocol, number })
    }

    /// The protocol.
    pub fn protocol(self) -> Protocol {
        self.protocol
    }

    /// The port, or for ICMP the payload length in bytes.
    pub fn number(self) -> u16 {
        self.number
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.number)
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

impl TryFrom<String> for Port {
    type Error = PortError;

    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (protocol, number) = split(text)?;
        Self::new(protocol, parse_number(text, number)?)
    }
}

/// Ports of one protocol from `first` to `last`, both included. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    protocol: Protocol,
    first: u16,
    last: u16,
}

impl PortRange {
    /// # Errors
    /// When `first` is above `last`, or 0 for TCP or UDP.
    pub fn new(protocol: Protocol, first: u16, last: u16) -> Result<Self, PortError> {
        if first > last {
            return Err(PortError::Reversed { first, last });
        }
        Port::new(protocol, first)?;
        Ok(Self { protocol, first, last })
    }

    /// The protocol.
    pub fn protocol(self) -> Protocol {
        self.protocol
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether the port lies in this range.
    pub fn contains(self, port: Port) -> bool {
        self.protocol == port.protocol && (self.first..=self.last).contains(&port.number)
    }

    /// How many ports lie in this range: 1 to 65,536.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}/{}", self.protocol, self.first)
        } else {
            write!(f, "{}/{}-{}", self.protocol, self.first, self.last)
        }
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl TryFrom<String> for PortRange {
    type Error = PortError;

    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (protocol, numbers) = split(text)?;
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        Self::new(protocol, parse_number(text, first)?, parse_number(text, last)?)
    }
}

fn split(text: &str) -> Result<(Protocol, &str), PortError> {
    let Some((name, number)) = text.split_once('/') else {
        return Err(PortError::Form { text: text.to_owned() });
    };
    let protocol = match name {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        _ => return Err(PortError::Protocol { name: name.to_owned() }),
    };
    Ok((protocol, number))
}

fn parse_number(text: &str, number: &str) -> Result<u16, PortError> {
    // u16's own parser takes a leading plus.
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PortError::Form { text: text.to_owned() });
    }
    number.parse().map_err(|_| PortError::TooLarge { number: number.to_owned() })
}

/// Why a text is not a port or a port range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// Not of the form protocol, slash, number.
    #[error("'{text}' is not a port; write it like tcp/22, udp/23981 or icmp/731")]
    Form {
        /// What was given.
        text: String,
    },
    /// Neither TCP, UDP nor ICMP.
    #[error("unknown protocol '{name}'; it must be tcp, udp or icmp")]
    Protocol {
        /// What was given.
        name: String,
    },
    /// The first port of a range lies above its last.
    #[error("the range {first}-{last} is empty; write the lower port first")]
    Reversed {
        /// The first port given.
        first: u16,
        /// The last port given.
        last: u16,
    },
    /// Above 65,535.
    #[error("port {number} is too large; the highest is 65535")]
    TooLarge {
        /// What was given.
        number: String,
    },
    /// Port 0 of TCP or UDP.
    #[error("{protocol}/0 is no port; the lowest is 1")]
    Zero {
        /// The protocol given.
        protocol: Protocol,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        for text in ["tcp/1", "tcp/65535", "udp/53", "icmp/0", "icmp/731"] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), text);
        }
        for text in ["tcp/1-65535", "udp/53", "icmp/0-10"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in [
            "",
            "22",
            "tcp",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/+1",
            "tcp/-1",
            "sctp/1",
            "TCP/1",
            "tcp/1 ",
            "tcp/1/2",
        ] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
        for text in ["tcp/2-1", "tcp/0-5", "tcp/1-", "tcp/-", "tcp/1-2-3"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
