//! The session in which the command itself runs, and the doors that would shut it out.

use std::net::IpAddr;

use fleetknock_core::{
    door::{Door, Mode},
    port::{Port, Protocol},
};
use fleetknock_proto::v1;
use ipnet::IpNet;

#[cfg(test)]
mod tests;

/// An SSH session, as SSH_CONNECTION tells it (ssh(1), section ENVIRONMENT): the client's address and port, the server's
/// address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// Where it comes from; nothing when it is written in a way that is not known.
    client: Option<IpAddr>,
    /// The address of this host at which it came in, likewise.
    server: Option<IpAddr>,
    /// The port at which it came in.
    port: Port,
}

impl Session {
    /// The one that this process runs in, if it is one.
    pub(crate) fn own() -> Option<Self> {
        std::env::var("SSH_CONNECTION").ok().as_deref().and_then(Self::parse)
    }

    fn parse(connection: &str) -> Option<Self> {
        let words: Vec<_> = connection.split(' ').collect();
        let [client, _, server, port] = words.as_slice() else { return None };
        let port = Port::new(Protocol::Tcp, port.parse().ok()?).ok()?;
        Some(Self { client: address(client), server: address(server), port })
    }

    /// Whether the door keeps the port closed by which sessions like this one come in.
    pub(crate) fn is_guarded_by(&self, door: &Door) -> bool {
        door.mode() == Mode::Enforce && door.opens().ports.contains(&self.port)
    }

    /// A warning when the door could shut this session out. `hosts` are those of the fleet; `None`: they are not known.
    ///
    /// Where this host is not found among them by its address, any host that the door opens may be it.
    pub(crate) fn lockout(&self, door: &Door, hosts: Option<&[v1::Host]>) -> Option<String> {
        if !self.is_guarded_by(door) || hosts.is_some_and(|hosts| self.is_safe(door, hosts)) {
            return None;
        }
        Some(format!(
            "this door guards {}, by which your own session came in: on the hosts of this door only knocking lets new \
             sessions in; name a management network in the agents' settings first",
            self.port
        ))
    }

    fn is_safe(&self, door: &Door, hosts: &[v1::Host]) -> bool {
        let here = |host: &v1::Host| {
            let mut addresses = host.addresses.iter().filter_map(|text| address(text));
            self.server.is_some_and(|server| addresses.any(|address| address == server))
        };
        let opened: Vec<_> = hosts.iter().filter(|host| is_opened(door, host)).collect();
        let on: Vec<_> = if hosts.iter().any(here) {
            opened.into_iter().filter(|host| here(host)).collect()
        } else if opened.is_empty() {
            // No host that is known: this one may come to the fleet later.
            return false;
        } else {
            opened
        };
        on.iter().all(|host| self.passes_guard_of(host))
    }

    fn passes_guard_of(&self, host: &v1::Host) -> bool {
        let mut networks = host.management.iter().filter_map(|text| text.parse::<IpNet>().ok());
        self.client.is_some_and(|client| networks.any(|network| network.contains(&client)))
    }
}

fn is_opened(door: &Door, host: &v1::Host) -> bool {
    let labels = fleetknock_core::host::Labels::new(host.labels.clone());
    match (host.name.parse(), labels) {
        (Ok(name), Ok(labels)) => door.opens().hosts.matches(&name, &labels),
        _ => false,
    }
}

/// Without a zone, and IPv4 as IPv4.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.split('%').next().unwrap_or_default();
    text.parse().ok().map(|address: IpAddr| address.to_canonical())
}
