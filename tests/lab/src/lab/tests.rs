//! The lab does what scenarios rely on: reachability, probes, senders, and leaving nothing behind.

use std::time::{Duration, Instant};

use super::*;
use crate::{Monitor, Reach, Shot, wait_until};

#[test]
fn owner_is_in_the_name() {
    assert_eq!(leftovers::owner("fnl-4711-0-edge-1"), Some(4711));
    assert_eq!(leftovers::owner("fnl-x-0-edge-1"), None);
    assert_eq!(leftovers::owner("other-4711-0"), None);
}

#[test]
fn hosts_reach_each_other_at_once_and_the_lab_leaves_nothing() {
    let start = Instant::now();
    let lab = Lab::new("plumbing").unwrap();
    let (one, two) = (lab.host("one").unwrap(), lab.host("two").unwrap());
    let (client, _) = (lab.client("client").unwrap(), lab.client("other").unwrap());
    assert!(start.elapsed() < Duration::from_secs(1), "a small lab took {:?}", start.elapsed());
    for address in [one.v4(), one.v6(), two.v4(), two.v6()] {
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        client.ok(&["ping", family, "-c", "1", "-W", "1", &address.to_string()]).unwrap();
    }
    let sleeper = one.spawn("sleeper", &["sh", "-c", "sleep 1000 & sleep 1000"]).unwrap();
    let (prefix, directory) = (lab.prefix().to_owned(), lab.directory().to_owned());
    assert!(sleeper.is_running());
    drop(lab);
    assert!(!sleeper.is_running());
    assert!(!ip(&["netns", "list"]).unwrap().contains(&prefix));
    assert!(!directory.exists());
}

#[test]
fn ports_are_seen_open_refused_and_filtered() {
    let lab = Lab::new("ports").unwrap();
    let (host, client) = (lab.host("host").unwrap(), lab.client("client").unwrap());
    host.ok(&["nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }"]).unwrap();
    let drop_port = ["nft", "add rule inet t c tcp dport 23 counter drop"];
    let listener = host
        .inside(|| std::net::TcpListener::bind(std::net::SocketAddr::new("::".parse().unwrap(), 22)))
        .unwrap()
        .unwrap();
    for at in [host.at(22), host.at6(22)] {
        assert_eq!(client.reach(at).unwrap(), Reach::Open);
    }
    assert_eq!(client.reach(host.at(23)).unwrap(), Reach::Refused);
    let monitor = Monitor::for_gaps(&client, host.at(22)).unwrap();
    host.ok(&drop_port).unwrap();
    for at in [host.at(23), host.at6(23)] {
        assert_eq!(client.reach(at).unwrap(), Reach::Filtered);
    }
    drop(listener);
    wait_until("the monitor to see it closed", Duration::from_secs(5), || Ok(monitor.so_far().closed > 0))
        .unwrap();
    assert!(monitor.finish().unwrap().open > 0);
}

#[test]
fn knocks_of_every_tool_arrive_once() {
    let lab = Lab::new("tools").unwrap();
    let (host, client) = (lab.host("host").unwrap(), lab.client("client").unwrap());
    let source = "10.77.200.1".parse().unwrap();
    client.add_addresses([source]).unwrap();
    host.ok(&["nft", "add table inet t; add chain inet t c { type filter hook prerouting priority -300; }"])
        .unwrap();
    for rule in
        ["tcp dport 7001 tcp flags syn counter", "udp dport 7002 counter", "ip saddr 10.77.200.1 counter"]
    {
        host.ok(&["nft", &format!("add rule inet t c {rule}")]).unwrap();
    }
    let mut expected = 0;
    for address in [host.v4(), host.v6()] {
        let shots = [Shot::Tcp((address, 7001).into()), Shot::Udp((address, 7002).into())];
        client.knock(None, &shots).unwrap();
        expected += 1;
        for tool in [crate::Tool::Knock, crate::Tool::Hping3, crate::Tool::Nmap, crate::Tool::Netcat] {
            if tool.can(address) {
                client.knock_with(tool, &shots).unwrap();
                expected += 1;
                assert_eq!(counters(&host)[..2], [expected, expected], "after {tool:?} over {address}");
            }
        }
    }
    client.knock(Some(source), &[Shot::Tcp(host.at(7001))]).unwrap();
    assert_eq!(counters(&host), [expected + 1, expected, 1]);
}

#[test]
fn the_first_packets_of_a_new_client_arrive_at_once_and_in_order() {
    let lab = Lab::new("first").unwrap();
    let host = lab.host("host").unwrap();
    host.ok(&["nft", "add table inet t; add chain inet t c { type filter hook prerouting priority -300; }"])
        .unwrap();
    host.ok(&["nft", "add rule inet t c tcp dport 7001 counter"]).unwrap();
    for count in 1..=20 {
        let client = lab.client(&format!("client-{count}")).unwrap();
        client.knock(None, &[Shot::Tcp(host.at(7001))]).unwrap();
        // Sooner than the kernel asks again for a neighbour that did not answer.
        wait_until("the first packet", Duration::from_millis(500), || Ok(counters(&host) == [count]))
            .unwrap();
    }
}

#[test]
fn a_flood_arrives_at_about_its_rate() {
    let lab = Lab::new("flood").unwrap();
    let (host, client) = (lab.host("host").unwrap(), lab.client("client").unwrap());
    host.ok(&["nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }"]).unwrap();
    host.ok(&["nft", "add rule inet t c tcp dport 7001 tcp flags syn ct state new counter drop"]).unwrap();
    let std::net::IpAddr::V4(to) = host.v4() else { panic!("not an IPv4 address") };
    let flooded = client
        .inside(|| crate::flood::flood(std::net::SocketAddrV4::new(to, 7001), 20_000, 1))
        .unwrap()
        .unwrap();
    // Some are lost while the host's hardware address is being asked for.
    assert!(flooded.sent > 19_000, "{flooded:?}");
    let arrived = counters(&host)[0];
    assert!(arrived > 15_000 && arrived <= flooded.sent, "{arrived} of {flooded:?}");
}

/// The packet counters of all rules, in order.
fn counters(host: &Host) -> Vec<u64> {
    let listing = host.ok(&["nft", "list", "ruleset"]).unwrap();
    listing
        .split_whitespace()
        .zip(listing.split_whitespace().skip(1))
        .filter(|(word, _)| *word == "packets")
        .map(|(_, number)| number.parse().unwrap())
        .collect()
}
