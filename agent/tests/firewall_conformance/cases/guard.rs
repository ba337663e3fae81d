//! The guard itself.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use fleetknock_agent::firewall::{Desired, Repairs};

use crate::lab::{
    CLIENT, CLIENT6, Lab, OTHER, OTHER6, address, connect, guard, later, opening, serve_tcp, serve_udp, shell,
};

pub(crate) fn passes_loopback_and_management(lab: &Lab) {
    serve_tcp(7000);
    let mut firewall = lab.firewall();
    firewall.set_guard(&guard(&["tcp/7000"], &["10.9.0.3/32", "fd09::3/128", "192.0.2.0/24"])).unwrap();
    lab.open(OTHER, "10.9.0.1:7000");
    lab.open(OTHER6, "[fd09::1]:7000");
    lab.closed(CLIENT, "10.9.0.1:7000");
    lab.closed(CLIENT6, "[fd09::1]:7000");
    for (from, to) in [("127.0.0.1", "127.0.0.1:7000"), ("10.9.0.1", "10.9.0.1:7000"), ("::1", "[::1]:7000")]
    {
        assert!(connect(from, address(to), Duration::from_secs(1)).is_some(), "{to}");
    }
    // Networks are management no longer, or overlap, or are everything.
    firewall.set_guard(&guard(&["tcp/7000"], &["fd09::/64", "10.9.0.2/31", "10.9.0.0/24"])).unwrap();
    lab.open(CLIENT, "10.9.0.1:7000");
    lab.open(CLIENT6, "[fd09::1]:7000");
    firewall.set_guard(&guard(&["tcp/7000"], &[])).unwrap();
    lab.closed(OTHER, "10.9.0.1:7000");
    firewall.set_guard(&guard(&["tcp/7000"], &["0.0.0.0/0"])).unwrap();
    lab.open(OTHER, "10.9.0.1:7000");
    lab.closed(OTHER6, "[fd09::1]:7000");
    // Nothing to mend: it is read as it was written.
    let desired = Desired { guard: guard(&["tcp/7000"], &["0.0.0.0/0"]), ..Desired::default() };
    assert_eq!(firewall.reconcile(&desired).unwrap(), Repairs::default());
}

pub(crate) fn covers_broadcast_and_multicast(lab: &Lab) {
    serve_udp(7000);
    // All nodes of the link, and the routers' anycast address of the network (RFC 4291 section 2.6.1).
    let index = lab.in_client(|| shell("ip", "-o link show dev veth-c"));
    let all_nodes = format!("[ff02::1%{}]:7000", index.split(":").next().unwrap_or_default());
    lab.udp_open(CLIENT, "10.9.0.255:7000");
    lab.udp_open(CLIENT6, &all_nodes);
    lab.udp_open(CLIENT6, "[fd09::]:7000");
    lab.udp_open(CLIENT, "239.1.2.3:7000");
    let _firewall = lab.guarding(&["udp/7000"]);
    lab.udp_closed(CLIENT6, "[fd09::1]:7000");
    lab.udp_closed(CLIENT6, &all_nodes);
    lab.udp_closed(CLIENT6, "[fd09::]:7000");
    lab.udp_closed(CLIENT, "10.9.0.255:7000");
    lab.udp_closed(CLIENT, "239.1.2.3:7000");
    lab.udp_closed(CLIENT, "10.9.0.1:7000");
}

/// Ports that a container engine or a node publishes: translated to an address behind this host.
pub(crate) fn covers_published_ports(lab: &Lab) {
    lab.in_behind(|| serve_tcp(80));
    shell("nft", "add table ip published");
    shell("nft", "add chain ip published pre { type nat hook prerouting priority -100 ; }");
    shell("nft", "add rule ip published pre ip daddr 10.9.0.1 tcp dport 8080 dnat to 10.8.0.2:80");
    lab.open(CLIENT, "10.9.0.1:8080");
    let mut firewall = lab.guarding(&["tcp/8080"]);
    lab.closed(CLIENT, "10.9.0.1:8080");
    firewall.open(&[opening(CLIENT, "tcp/8080", 60)]).unwrap();
    lab.open(CLIENT, "10.9.0.1:8080");
    lab.closed(OTHER, "10.9.0.1:8080");
    let mut stream = lab.connect(CLIENT, address("10.9.0.1:8080"), Duration::from_secs(1)).unwrap();
    let (element, _) = opening(CLIENT, "tcp/8080", 60);
    firewall.close(&[element]).unwrap();
    assert!(firewall.cut(&[element]).unwrap() >= 1);
    assert!(!crate::lab::echoes(&mut stream));
}

pub(crate) fn leaves_transit_alone(lab: &Lab) {
    lab.in_behind(|| serve_tcp(7000));
    let mut firewall = lab.guarding(&["tcp/7000", "udp/7000"]);
    lab.open(CLIENT, "10.8.0.2:7000");
    lab.open(CLIENT6, "[fd08::2]:7000");
    // Nor does a ban touch it.
    firewall.ban(&[(CLIENT.parse().unwrap(), Duration::from_secs(60))]).unwrap();
    lab.open(CLIENT, "10.8.0.2:7000");
}

pub(crate) fn never_opens_kept_ports_while_it_changes(lab: &Lab) {
    serve_tcp(7000);
    serve_tcp(7001);
    let mut firewall = lab.guarding(&["tcp/7000", "tcp/7001"]);
    firewall.open(&[opening(OTHER, "tcp/7001", 60)]).unwrap();
    let (stop, tried, came_in) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            lab.in_client(|| {
                while !stop.load(Ordering::Relaxed) {
                    tried.fetch_add(1, Ordering::Relaxed);
                    if connect(CLIENT, address("10.9.0.1:7000"), Duration::from_millis(2)).is_some() {
                        came_in.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        });
        for round in 0..100 {
            let extra = format!("tcp/{}", 8000 + round);
            let networks: &[&str] =
                if round % 2 == 0 { &["192.0.2.0/24", "2001:db8::/32"] } else { &["198.51.100.0/24"] };
            let ports = if round % 3 == 0 {
                vec!["tcp/7000", "udp/53"]
            } else {
                vec!["tcp/7000", "tcp/7001", &extra]
            };
            firewall.set_guard(&guard(&ports, networks)).unwrap();
            if round % 20 == 0 {
                // Rules that have to be made again.
                let meddle = if lab.driver.is_nftables() {
                    "nft add rule inet fleetknock gate counter".to_owned()
                } else {
                    format!("{} -t mangle -A FLEETKNOCK -j RETURN", lab.driver.iptables())
                };
                let (program, arguments) = meddle.split_once(' ').unwrap();
                shell(program, arguments);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(tried.load(Ordering::Relaxed) > 20);
    assert_eq!(came_in.load(Ordering::Relaxed), 0);
    // Openings stay.
    assert_eq!(lab.driver.count("open4"), 1);
    lab.closed(CLIENT, "10.9.0.1:7000");
}

pub(crate) fn is_adopted_by_another_driver(lab: &Lab) {
    serve_tcp(7000);
    let wanted = guard(&["tcp/7000"], &["192.0.2.0/24"]);
    let mut first = lab.firewall();
    first.set_guard(&wanted).unwrap();
    let start = Instant::now();
    first.open(&[opening(CLIENT, "tcp/7000", 60)]).unwrap();
    first.ban(&[(OTHER.parse().unwrap(), Duration::from_secs(60))]).unwrap();
    let handles = || {
        if lab.driver.is_nftables() {
            shell("nft", "-a list chain inet fleetknock gate")
        } else {
            String::new()
        }
    };
    let before = handles();
    drop(first);
    let mut second = lab.firewall();
    second.set_guard(&wanted).unwrap();
    assert_eq!(handles(), before);
    lab.open(CLIENT, "10.9.0.1:7000");
    let mut desired = Desired { guard: wanted, ..Desired::default() };
    desired.openings.extend([opening(CLIENT, "tcp/7000", 60)]);
    desired.bans.insert(OTHER.parse().unwrap(), Duration::from_secs(60));
    assert_eq!(second.reconcile(&later(&desired, start)).unwrap(), Repairs::default());
}

pub(crate) fn is_gone_after_remove(lab: &Lab) {
    serve_tcp(7000);
    let mut firewall = lab.firewall();
    // Nothing there yet is fine.
    firewall.remove().unwrap();
    firewall.set_guard(&guard(&["tcp/7000"], &["192.0.2.0/24"])).unwrap();
    firewall.open(&[opening(CLIENT, "tcp/7000", 60)]).unwrap();
    assert!(!lab.driver.everything().is_empty());
    firewall.remove().unwrap();
    assert_eq!(lab.driver.everything(), "");
    lab.open(OTHER, "10.9.0.1:7000");
    firewall.set_guard(&guard(&["tcp/7000"], &[])).unwrap();
    lab.closed(OTHER, "10.9.0.1:7000");
}

pub(crate) fn is_lifted_without_any_settings(lab: &Lab) {
    serve_tcp(7000);
    // Whoever lifts may not know which driver there was.
    let mut firewall = lab.guarding(&["tcp/7000"]);
    firewall.open(&[opening(CLIENT, "tcp/7000", 60)]).unwrap();
    drop(firewall);
    lab.closed(OTHER, "10.9.0.1:7000");

    let program = env!("CARGO_BIN_EXE_fleetknock-agent");
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("picture.json"), "{}").unwrap();
    std::fs::write(state.join("tls.key"), "kept").unwrap();
    let config = folder.path().join("agent.yaml");
    // The package's own script, whose name begins as the program's, is no agent that runs.
    let script = folder.path().join("fleetknock-agent.prerm");
    std::fs::write(&script, "#!/bin/sh\n\"$@\"\nexit $?\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let lift = |settings: &str| {
        std::fs::write(&config, settings).unwrap();
        shell(script.to_str().unwrap(), &format!("{program} lift --config {}", config.display()))
    };
    let said = lift("no-such-setting: 1\n");
    assert!(said.contains("note: the settings cannot be used") && said.contains("no-such-setting"), "{said}");
    assert!(said.contains("\nremoved ") && said.contains("the guard is lifted"), "{said}");
    assert_eq!(lab.driver.everything(), "");
    lab.open(OTHER, "10.9.0.1:7000");

    // A second time there is nothing, and what is remembered goes when the settings name it.
    let settings = format!(
        "host: edge-1\ncontroller: http://127.0.0.1:7600\ninsecure: true\nstate: {}\n",
        state.display()
    );
    let said = lift(&settings);
    assert!(said.contains("there was no guard on this host"), "{said}");
    assert!(said.contains("removed ") && !state.join("picture.json").exists(), "{said}");
    assert!(state.join("tls.key").exists(), "its identity stays the host's");
}

pub(crate) fn leaves_the_rules_of_others_alone(lab: &Lab) {
    let (iptables, ip6tables) = (lab.driver.iptables(), lab.driver.ip6tables());
    for command in [
        "nft add table inet theirs",
        "nft add set inet theirs open4 { type ipv4_addr ; flags timeout ; }",
        "nft add chain inet theirs gate",
        "nft add chain inet theirs pre { type filter hook prerouting priority -150 ; }",
        "nft add rule inet theirs pre tcp dport 9999 jump gate",
        "nft add table ip fleetknock",
        "nft add chain ip fleetknock gate",
        "nft add element inet theirs open4 { 192.0.2.9 }",
        "ipset create theirs hash:ip,port",
        "ipset add theirs 192.0.2.9,tcp:22",
        &format!("{iptables} -A INPUT -s 192.0.2.9 -j DROP"),
        &format!("{iptables} -t mangle -A PREROUTING -s 192.0.2.9 -j MARK --set-xmark 0x1/0x1"),
        &format!("{ip6tables} -t mangle -A PREROUTING -s 2001:db8::9 -j ACCEPT"),
    ] {
        let (program, arguments) = command.split_once(' ').unwrap();
        shell(program, arguments);
    }
    let theirs = || {
        let mangle = [iptables, ip6tables].map(|program| shell(program, "-t mangle -S"));
        let mangle: Vec<&str> =
            mangle.iter().flat_map(|text| text.lines()).filter(|line| !line.contains("FLEETKNOCK")).collect();
        [
            shell("nft", "-a list table inet theirs"),
            shell("nft", "-a list table ip fleetknock"),
            shell("ipset", "save theirs"),
            shell(iptables, "-S"),
            shell(iptables, "-t mangle -S PREROUTING")
                .lines()
                .filter(|line| !line.contains("FLEETKNOCK"))
                .collect(),
            mangle.join("\n"),
        ]
    };
    let before = theirs();
    let mut firewall = lab.guarding(&["tcp/7000"]);
    let (element, time) = opening(CLIENT, "tcp/7000", 60);
    firewall.open(&[(element, time)]).unwrap();
    firewall.ban(&[(CLIENT.parse().unwrap(), time)]).unwrap();
    firewall.close(&[element]).unwrap();
    firewall.cut(&[element]).unwrap();
    assert_eq!(theirs(), before);
    for driver_specific in lab.driver.intrusions() {
        let (program, arguments) = driver_specific.split_once(' ').unwrap();
        shell(program, arguments);
    }
    firewall
        .reconcile(&Desired { guard: guard(&["tcp/7001"], &["192.0.2.0/24"]), ..Desired::default() })
        .unwrap();
    assert_eq!(theirs(), before);
    firewall.remove().unwrap();
    assert_eq!(theirs(), before);
}
