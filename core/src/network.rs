//! Networks as people write them: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads a network, or one address as the network that holds only it.
///
/// # Errors
/// When the text is neither, or when bits beyond the prefix are set: `10.1.2.3/8` may mean the host or the network, and
/// the difference is who may knock.
pub fn parse(text: &str) -> Result<IpNet, NetworkError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet =
        text.parse().map_err(|_| NetworkError::Form { text: text.chars().take(80).collect() })?;
    if network.trunc() != network {
        return Err(NetworkError::HostBits { given: network, network: network.trunc() });
    }
    Ok(network)
}

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Neither a network nor an address.
    #[error("'{text}' is not a network; write it like 192.0.2.0/24, 2001:db8::/32 or 203.0.113.5")]
    Form {
        /// The beginning of what was given.
        text: String,
    },
    /// Bits beyond the prefix are set.
    #[error("'{given}' has bits set beyond its prefix; write {network}, or the address alone")]
    HostBits {
        /// What was given.
        given: IpNet,
        /// Its network.
        network: IpNet,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_are_read() {
        for (text, network) in [
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("203.0.113.5", "203.0.113.5/32"),
            ("2001:db8::5", "2001:db8::5/128"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), network);
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_a_remedy() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "host", "::/129", "10.0.0.0/-1"] {
            assert!(matches!(parse(text), Err(NetworkError::Form { .. })), "{text}");
        }
        assert_eq!(
            parse("10.1.2.3/8").unwrap_err().to_string(),
            "'10.1.2.3/8' has bits set beyond its prefix; write 10.0.0.0/8, or the address alone"
        );
    }
}
