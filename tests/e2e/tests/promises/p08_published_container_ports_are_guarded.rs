//! Promise 8: ports published by a container (destination NAT in prerouting) are guarded and opened like any other.

use anyhow::Result;
use fleetknock_e2e::{SOON, doors, pods};
use fleetknock_lab::{Fleet, Host, Lab, Reach, wait_until};

/// As published on the host; the container serves port 80.
const PUBLISHED: u16 = 8080;

#[test]
fn with_nftables() -> Result<()> {
    guarded_and_opened("nftables")
}

#[test]
fn with_iptables() -> Result<()> {
    guarded_and_opened("iptables")
}

fn guarded_and_opened(firewall: &str) -> Result<()> {
    Lab::scenario("container", |lab| {
        let fleet = Fleet::start(lab)?;
        let (docker, client, stranger) =
            (lab.host("docker-1")?, lab.client("client")?, lab.client("stranger")?);
        publish(&docker, &lab.island("container")?)?;
        let published = [docker.at(PUBLISHED), docker.at6(PUBLISHED)];
        for to in published {
            wait_until("the published port to answer", SOON, || client.reaches(to))?;
        }
        let agent = fleet.agent_with(&docker, &[], &["--firewall", firewall])?;
        fleet.wait_connected(1)?;
        let opens = format!("hosts: {{names: [docker-1]}}, ports: [tcp/{PUBLISHED}], for: 60s");
        fleet.apply(&doors::at_one("web", "docker-1", &opens))?;
        fleet.wait_guarded(&stranger, &published)?;
        for (to, knock) in published.into_iter().zip([Host::at as fn(&Host, u16) -> _, Host::at6]) {
            anyhow::ensure!(client.reach(to)? == Reach::Filtered, "{to} is not guarded");
            client.knock(None, &doors::knock_at_one(|port| knock(agent.host(), port)))?;
            wait_until(&format!("{to} to open"), SOON, || client.reaches(to))?;
            client.hold(None, to)?.echoes()?;
            anyhow::ensure!(stranger.reach(to)? == Reach::Filtered, "{to} is open for the stranger");
        }
        fleet.cli_ok(&["close", "--door", "web"])?;
        fleet.wait_guarded(&client, &published)?;
        Ok(())
    })
}

/// What a container engine does for `--publish 8080:80`, in both families.
fn publish(docker: &Host, container: &Host) -> Result<()> {
    pods::join(docker, container, 30)?;
    for (program, to) in [("iptables", "172.30.0.2:80"), ("ip6tables", "[fd30::2]:80")] {
        let port = PUBLISHED.to_string();
        docker.ok(&[
            program,
            "-t",
            "nat",
            "-A",
            "PREROUTING",
            "-i",
            "eth0",
            "-p",
            "tcp",
            "--dport",
            &port,
            "-j",
            "DNAT",
            "--to-destination",
            to,
        ])?;
    }
    container.serve(&[80], &[])?;
    Ok(())
}
