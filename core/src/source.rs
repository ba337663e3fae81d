//! Who knocks: a source address, in one spelling.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The address that a knock came from: unicast, and an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is its IPv4
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpAddr", into = "IpAddr")]
pub struct Source(IpAddr);

impl Source {
    /// # Errors
    /// When the address is unspecified, multicast or the IPv4 broadcast address: nobody can knock from there.
    pub fn new(address: IpAddr) -> Result<Self, SourceError> {
        let address = address.to_canonical();
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if address.is_unspecified() || address.is_multicast() || broadcast {
            return Err(SourceError::NotUnicast { address });
        }
        Ok(Self(address))
    }

    /// From 4 or 16 bytes in network order.
    ///
    /// # Errors
    /// When there are neither 4 nor 16 bytes, or the address is not unicast.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SourceError> {
        let address = if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
            IpAddr::from(v4)
        } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
            IpAddr::from(v6)
        } else {
            return Err(SourceError::Length { length: bytes.len() });
        };
        Self::new(address)
    }

    /// The address itself.
    pub fn address(self) -> IpAddr {
        self.0
    }

    /// The network by which sources are counted together: /24 for IPv4, /56 for IPv6 (what a site commonly gets,
    /// RFC 6177 section 2).
    pub fn prefix(self) -> IpNet {
        match self.0 {
            IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new_assert(v4, 24).trunc()),
            IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(v6, 56).trunc()),
        }
    }

    /// The 16 bytes of the address, IPv4 in its mapped form.
    pub fn octets(self) -> [u8; 16] {
        match self.0 {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        }
    }

    /// The inverse of [`octets`](Self::octets) for bytes that came from it.
    pub fn from_octets(octets: [u8; 16]) -> Self {
        Self(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Source> for IpAddr {
    fn from(source: Source) -> Self {
        source.0
    }
}

impl TryFrom<IpAddr> for Source {
    type Error = SourceError;

    fn try_from(address: IpAddr) -> Result<Self, SourceError> {
        Self::new(address)
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let address = text.parse().map_err(|_| SourceError::Form { text: text.to_owned() })?;
        Self::new(address)
    }
}

/// Why something is not a source address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Not an IP address.
    #[error("'{text}' is not an IP address; write it like 203.0.113.5 or 2001:db8::5")]
    Form {
        /// What was given.
        text: String,
    },
    /// Neither 4 nor 16 bytes.
    #[error("an address has 4 or 16 bytes, not {length}")]
    Length {
        /// How many bytes were given.
        length: usize,
    },
    /// Nobody can knock from there.
    #[error("{address} is not a unicast address")]
    NotUnicast {
        /// What was given.
        address: IpAddr,
    },
}
