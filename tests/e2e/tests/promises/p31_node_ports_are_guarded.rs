//! Promise 31: a NodePort, as kube-proxy makes it in its iptables mode, is guarded and opened like any other port: in front
//! of a pod on the node that is asked, and in front of one on another node, which sees a masqueraded source. Nodes still
//! reach pods of each other.

use std::{fs, net::SocketAddr};

use anyhow::{Result, ensure};
use fleetknock_e2e::{SOON, doors, pods};
use fleetknock_lab::{Fleet, Host, Lab, Reach, wait_until};

/// In front of the pod on the node that is asked, and of the pod on the other one.
const HERE: u16 = 30_080;
const THERE: u16 = 30_081;

#[test]
fn with_nftables() -> Result<()> {
    guarded_and_opened("nftables")
}

#[test]
fn with_iptables() -> Result<()> {
    guarded_and_opened("iptables")
}

fn guarded_and_opened(firewall: &str) -> Result<()> {
    Lab::scenario("node-ports", |lab| {
        let fleet = Fleet::start(lab)?;
        let (node, other) = (lab.host("node-1")?, lab.host("node-2")?);
        let (client, stranger) = (lab.client("client")?, lab.client("stranger")?);
        cluster(lab, &node, &other)?;
        let ports = [node.at(HERE), node.at(THERE), node.at6(HERE), node.at6(THERE)];
        for to in ports {
            wait_until(&format!("the service at {to} to answer"), SOON, || client.reaches(to))?;
        }
        for host in [&node, &other] {
            fleet.agent_with(host, &["role=worker"], &["--firewall", firewall])?;
        }
        fleet.wait_connected(2)?;
        let opens =
            format!("hosts: {{matchLabels: {{role: worker}}}}, ports: [tcp/{HERE}, tcp/{THERE}], for: 60s");
        fleet.apply(&doors::at_one("service", "node-1", &opens))?;
        fleet.wait_guarded(&stranger, &ports)?;
        for knock in [Host::at as fn(&Host, u16) -> SocketAddr, Host::at6] {
            let both = [HERE, THERE].map(|port| knock(&node, port));
            for to in both {
                ensure!(client.reach(to)? == Reach::Filtered, "{to} is not guarded");
            }
            client.knock(None, &doors::knock_at_one(|port| knock(&node, port)))?;
            for to in both {
                wait_until(&format!("{to} to open"), SOON, || client.reaches(to))?;
                client.hold(None, to)?.echoes()?;
                ensure!(stranger.reach(to)? == Reach::Filtered, "{to} is open for the stranger");
            }
        }
        // What nodes send to pods is no business of the guard.
        for pod in ["172.22.0.2:80", "[fd22::2]:80"] {
            ensure!(node.reaches(pod.parse()?)?, "node-1 does not reach the pod at {pod}");
        }
        fleet.cli_ok(&["close", "--door", "service"])?;
        fleet.wait_guarded(&client, &ports)?;
        Ok(())
    })
}

/// Two nodes with a pod each, and kube-proxy's rules on the first.
fn cluster(lab: &Lab, node: &Host, other: &Host) -> Result<()> {
    for (host, name, network) in [(node, "pod-1", 21), (other, "pod-2", 22)] {
        let pod = lab.island(name)?;
        pods::join(host, &pod, network)?;
        pod.serve(&[80], &[])?;
    }
    for (from, to, network) in [(node, other, 22), (other, node, 21)] {
        for (pods, via) in
            [(format!("172.{network}.0.0/24"), to.v4()), (format!("fd{network}::/64"), to.v6())]
        {
            from.ok(&["ip", "route", "add", &pods, "via", &via.to_string()])?;
        }
    }
    for (program, here, there, alone) in [
        ("iptables-restore", "172.21.0.2", "172.22.0.2", "32"),
        ("ip6tables-restore", "[fd21::2]", "[fd22::2]", "128"),
    ] {
        let file = lab.directory().join(program);
        fs::write(&file, kube_proxy([(HERE, here), (THERE, there)], alone))?;
        node.ok(&[program.as_ref(), "--noflush".as_ref(), file.as_os_str()])?;
    }
    Ok(())
}

/// What kube-proxy writes in its iptables mode for Services of type NodePort with one pod each and
/// `externalTrafficPolicy: Cluster` (kubernetes/pkg/proxy/iptables/proxier.go).
fn kube_proxy(services: [(u16, &str); 2], alone: &str) -> String {
    let [mut chains, mut rules] = [String::new(), String::new()];
    for (port, pod) in services {
        let bare = pod.trim_matches(['[', ']']);
        for chain in ["EXT", "SVC", "SEP"] {
            chains.push_str(&format!(":KUBE-{chain}-{port} - [0:0]\n"));
        }
        rules.push_str(&format!(
            "-A KUBE-NODEPORTS -p tcp -m tcp --dport {port} -j KUBE-EXT-{port}\n\
             -A KUBE-EXT-{port} -j KUBE-MARK-MASQ\n\
             -A KUBE-EXT-{port} -j KUBE-SVC-{port}\n\
             -A KUBE-SVC-{port} -j KUBE-SEP-{port}\n\
             -A KUBE-SEP-{port} -s {bare}/{alone} -j KUBE-MARK-MASQ\n\
             -A KUBE-SEP-{port} -p tcp -m tcp -j DNAT --to-destination {pod}:80\n"
        ));
    }
    format!(
        "*nat\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n{chains}\
         -A PREROUTING -j KUBE-SERVICES\n\
         -A OUTPUT -j KUBE-SERVICES\n\
         -A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         {rules}COMMIT\n"
    )
}
