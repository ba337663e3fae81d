//! Containers and pods: namespaces behind a host, which forwards to them.

use anyhow::Result;
use fleetknock_lab::Host;

/// Joins a namespace to a host as a container engine or a network plugin does: the host has 172.N.0.1 and fdN::1 on a
/// device of its own, the namespace 172.N.0.2 and fdN::2 and its default route over the host. `network` is N, from 16 to
/// 31, read as decimal in both families.
///
/// # Errors
/// When the kernel refuses.
pub fn join(host: &Host, inside: &Host, network: u8) -> Result<()> {
    let device = "cnt0";
    host.ok(&[
        "ip",
        "link",
        "add",
        device,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        inside.namespace(),
    ])?;
    host.ok(&["ip", "link", "set", device, "up"])?;
    host.ok(&["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
    inside.ok(&["ip", "link", "set", "eth0", "up"])?;
    for (family, base, length) in
        [("-4", format!("172.{network}.0."), 24), ("-6", format!("fd{network}::"), 64)]
    {
        // An address of IPv6 is asked for before it counts, which takes a second.
        let nodad: &[&str] = if family == "-6" { &["nodad"] } else { &[] };
        for (host, number, device) in [(host, 1, device), (inside, 2, "eth0")] {
            let address = format!("{base}{number}/{length}");
            host.ok(&[&["ip", "addr", "add", &address, "dev", device], nodad].concat())?;
        }
        inside.ok(&["ip", family, "route", "add", "default", "via", &format!("{base}1")])?;
    }
    Ok(())
}
