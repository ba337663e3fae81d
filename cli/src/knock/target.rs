//! Where to knock: `tcp/7412@203.0.113.5`, `udp/23981@db-1.example`, `icmp/731@[2001:db8::5]`.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use anyhow::{Context as _, anyhow};
use fleetknock_core::port::Port;
use fleetknock_runtime::exit;

/// A port at a host. `Debug` does not print the port, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) port: Port,
    /// A name or an address, without brackets.
    pub(super) host: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("host", &self.host).finish_non_exhaustive()
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "write it like tcp/7412@203.0.113.5, udp/23981@db-1.example or icmp/731@[2001:db8::5]";
        let (port, host) = text.split_once('@').ok_or(FORM)?;
        let port = port.parse().map_err(|error| format!("{error}"))?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|inside| inside.contains(':')).ok_or(FORM)?,
            None => host,
        };
        let address = bare.parse::<IpAddr>().is_ok();
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'%');
        if bare.is_empty()
            || bare.len() > 253
            || !(address || bare.bytes().all(name))
            || bare.starts_with('-')
        {
            return Err(FORM.to_owned());
        }
        Ok(Self { port, host: bare.to_owned() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// One address for each target, all of one family: a door follows one source address.
pub(super) async fn resolve(
    targets: &[&Target],
    wanted: Option<Family>,
    timeout: Duration,
) -> anyhow::Result<Vec<IpAddr>> {
    let mut all = Vec::with_capacity(targets.len());
    for target in targets {
        let lookup = tokio::net::lookup_host((target.host.as_str(), 0));
        let found = tokio::time::timeout(timeout, lookup)
            .await
            .with_context(|| format!("looking up '{}' took longer than {timeout:?} (--timeout)", target.host))
            .and_then(|found| found.with_context(|| format!("cannot look up '{}'", target.host)))
            .map_err(|error| exit::coded(exit::UNAVAILABLE, error))?;
        all.push(found.map(|address| address.ip().to_canonical()).collect::<Vec<_>>());
    }
    choose(&all, wanted).map_err(|index| {
        let error = match index {
            Some(index) => anyhow!(
                "'{}' has no {} address",
                targets.get(index).map(|target| target.host.as_str()).unwrap_or_default(),
                if wanted == Some(Family::V6) { "IPv6" } else { "IPv4" }
            ),
            None => anyhow!(
                "the targets have no address family in common, so that no single source can knock at all of them; give \
                 addresses of one family"
            ),
        };
        exit::coded(exit::UNAVAILABLE, error)
    })
}

/// The first address of each list that belongs to one family; the family that the system prefers for the first target
/// if every target has it. An error names the target that lacks the wanted family.
fn choose(all: &[Vec<IpAddr>], wanted: Option<Family>) -> Result<Vec<IpAddr>, Option<usize>> {
    let of = |family: Family| -> Result<Vec<IpAddr>, usize> {
        let pick = |(index, list): (usize, &Vec<IpAddr>)| {
            list.iter().copied().find(|address| Family::of(address) == family).ok_or(index)
        };
        all.iter().enumerate().map(pick).collect()
    };
    if let Some(family) = wanted {
        return of(family).map_err(Some);
    }
    let preferred = all.first().and_then(|list| list.first()).map_or(Family::V4, Family::of);
    let other = if preferred == Family::V4 { Family::V6 } else { Family::V4 };
    of(preferred).or_else(|_| of(other)).map_err(|_| None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        for (text, port, host) in [
            ("tcp/7412@203.0.113.5", "tcp/7412", "203.0.113.5"),
            ("udp/23981@db-1.example", "udp/23981", "db-1.example"),
            ("icmp/0@localhost", "icmp/0", "localhost"),
            ("tcp/7412@[2001:db8::5]", "tcp/7412", "2001:db8::5"),
            ("tcp/7412@2001:db8::5", "tcp/7412", "2001:db8::5"),
            ("tcp/7412@fe80::1%eth0", "tcp/7412", "fe80::1%eth0"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.port.to_string().as_str(), target.host.as_str()), (port, host));
            assert!(!format!("{target:?}").contains(&port[4..]) || port == "icmp/0");
        }
        for wrong in [
            "",
            "tcp/22",
            "tcp/0@a",
            "tcp/70000@a",
            "sctp/1@a",
            "tcp/22@",
            "tcp/22@[a]",
            "tcp/22@[::1",
            "tcp/22@a b",
            "tcp/22@-4",
            "tcp/22@a/b",
        ] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_family_serves_all_targets() {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let both = list(&["2001:db8::1", "192.0.2.1"]);
        let (v4, v6) = (list(&["192.0.2.2"]), list(&["2001:db8::2"]));
        assert_eq!(choose(&[both.clone(), v4.clone()], None).unwrap(), list(&["192.0.2.1", "192.0.2.2"]));
        assert_eq!(choose(&[both.clone(), v6.clone()], None).unwrap(), list(&["2001:db8::1", "2001:db8::2"]));
        assert_eq!(choose(std::slice::from_ref(&both), None).unwrap(), list(&["2001:db8::1"]));
        assert_eq!(choose(std::slice::from_ref(&both), Some(Family::V4)).unwrap(), list(&["192.0.2.1"]));
        assert_eq!(choose(&[v4.clone(), v6.clone()], None), Err(None));
        assert_eq!(choose(&[both, v6], Some(Family::V4)), Err(Some(1)));
    }
}
