//! Ports of doors that only observe: nothing is dropped, and what guard would drop is counted.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use fleetknock_agent::firewall::{Count, Desired, Firewall, Repairs};

use crate::lab::{
    CLIENT, CLIENT6, Lab, OTHER, OTHER6, address, connect, echoes, guard, observing, opening, serve_tcp,
    serve_udp, shell,
};

pub(crate) fn passes_and_counts_each_attempt(lab: &Lab) {
    serve_tcp(7000);
    serve_udp(7000);
    let mut firewall = lab.firewall();
    firewall.set_guard(&observing(&["tcp/7000", "udp/7000"], guard(&["tcp/7001"], &[]))).unwrap();
    assert!(firewall.counts().unwrap().is_empty());
    lab.open(OTHER, "10.9.0.1:7000");
    assert_eq!(count(&mut *firewall, "tcp/7000"), (0, 1));
    lab.open(OTHER6, "[fd09::1]:7000");
    lab.udp_open(OTHER, "10.9.0.1:7000");
    assert_eq!(count(&mut *firewall, "udp/7000"), (0, 1));
    lab.udp_open(OTHER6, "[fd09::1]:7000");
    // What an established connection says is not counted.
    let mut stream = lab.connect(CLIENT, address("10.9.0.1:7000"), Duration::from_secs(1)).unwrap();
    assert!(echoes(&mut stream) && echoes(&mut stream));
    // Nor is what comes from this host itself, or goes to another.
    assert!(connect("127.0.0.1", address("127.0.0.1:7000"), Duration::from_secs(1)).is_some());
    lab.in_behind(|| serve_tcp(7000));
    lab.open(OTHER, "10.8.0.2:7000");
    assert_eq!(count(&mut *firewall, "tcp/7000"), (0, 3));
    assert_eq!(count(&mut *firewall, "udp/7000"), (0, 2));
    assert_eq!(firewall.counts().unwrap().len(), 2);
}

pub(crate) fn what_is_dropped_is_counted_by_port(lab: &Lab) {
    serve_tcp(7000);
    serve_udp(7001);
    let mut firewall = lab.guarding(&["tcp/7000", "udp/7001"]);
    lab.closed(OTHER, "10.9.0.1:7000");
    lab.closed(OTHER6, "[fd09::1]:7000");
    lab.udp_closed(OTHER, "10.9.0.1:7001");
    lab.udp_closed(OTHER6, "[fd09::1]:7001");
    lab.udp_closed(OTHER6, "[fd09::1]:7001");
    assert_eq!(count(&mut *firewall, "tcp/7000"), (2, 0));
    assert_eq!(count(&mut *firewall, "udp/7001"), (3, 0));
    firewall.open(&[opening(CLIENT, "tcp/7000", 60)]).unwrap();
    lab.open(CLIENT, "10.9.0.1:7000");
    assert_eq!(count(&mut *firewall, "tcp/7000"), (2, 0));
    // A ban closes, and what it closes is counted like all else.
    firewall.ban(&[(CLIENT.parse().unwrap(), Duration::from_secs(60))]).unwrap();
    lab.closed(CLIENT, "10.9.0.1:7000");
    assert_eq!(count(&mut *firewall, "tcp/7000"), (3, 0));
    // Neither a driver that starts anew nor a guard that changes loses what was counted.
    drop(firewall);
    let mut firewall = lab.firewall();
    firewall.set_guard(&guard(&["udp/7001"], &["192.0.2.0/24"])).unwrap();
    firewall.reconcile(&Desired { guard: guard(&["udp/7001"], &[]), ..Desired::default() }).unwrap();
    assert_eq!(count(&mut *firewall, "tcp/7000"), (3, 0));
    assert_eq!(count(&mut *firewall, "udp/7001"), (3, 0));
}

pub(crate) fn does_not_count_who_may_come_in(lab: &Lab) {
    serve_tcp(7000);
    let mut firewall = lab.firewall();
    firewall.set_guard(&observing(&["tcp/7000"], guard(&[], &["10.9.0.3/32"]))).unwrap();
    firewall.open(&[opening(CLIENT, "tcp/7000", 60), opening(CLIENT6, "tcp/7000", 60)]).unwrap();
    lab.open(OTHER, "10.9.0.1:7000");
    lab.open(CLIENT, "10.9.0.1:7000");
    lab.open(CLIENT6, "[fd09::1]:7000");
    assert!(firewall.counts().unwrap().is_empty());
    // A banned source would be dropped; here it is counted and passes.
    let four = CLIENT.parse().unwrap();
    firewall.ban(&[(four, Duration::from_secs(60))]).unwrap();
    lab.open(CLIENT, "10.9.0.1:7000");
    assert_eq!(count(&mut *firewall, "tcp/7000"), (0, 1));
    firewall.unban(&[four]).unwrap();
    firewall.close(&[opening(CLIENT6, "tcp/7000", 60).0]).unwrap();
    lab.open(CLIENT, "10.9.0.1:7000");
    lab.open(CLIENT6, "[fd09::1]:7000");
    assert_eq!(count(&mut *firewall, "tcp/7000"), (0, 2));
}

pub(crate) fn covers_published_ports_too(lab: &Lab) {
    lab.in_behind(|| serve_tcp(80));
    shell("nft", "add table ip published");
    shell("nft", "add chain ip published pre { type nat hook prerouting priority -100 ; }");
    shell("nft", "add rule ip published pre ip daddr 10.9.0.1 tcp dport 8080 dnat to 10.8.0.2:80");
    let mut firewall = lab.firewall();
    firewall.set_guard(&observing(&["tcp/8080"], guard(&[], &[]))).unwrap();
    lab.open(CLIENT, "10.9.0.1:8080");
    assert_eq!(count(&mut *firewall, "tcp/8080"), (0, 1));
    firewall.set_guard(&guard(&["tcp/8080"], &[])).unwrap();
    lab.closed(CLIENT, "10.9.0.1:8080");
    assert_eq!(count(&mut *firewall, "tcp/8080"), (1, 1));
}

pub(crate) fn changes_to_enforcing_and_back_disturb_no_other_door(lab: &Lab) {
    for port in [7000, 7001, 7002] {
        serve_tcp(port);
    }
    let observed = observing(&["tcp/7000", "tcp/7002"], guard(&["tcp/7001"], &[]));
    let enforced = observing(&["tcp/7002"], guard(&["tcp/7000", "tcp/7001"], &[]));
    let mut firewall = lab.firewall();
    firewall.set_guard(&observed).unwrap();
    let (stop, came_in, shut_out) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let tried = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            lab.in_client(|| {
                while !stop.load(Ordering::Relaxed) {
                    tried.fetch_add(1, Ordering::Relaxed);
                    if connect(CLIENT, address("10.9.0.1:7001"), Duration::from_millis(2)).is_some() {
                        came_in.fetch_add(1, Ordering::Relaxed);
                    }
                    if connect(CLIENT, address("10.9.0.1:7002"), Duration::from_millis(900)).is_none() {
                        shut_out.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        });
        for round in 0..50 {
            firewall.set_guard(&enforced).unwrap();
            if round % 10 == 0 {
                lab.closed(OTHER, "10.9.0.1:7000");
            }
            firewall.set_guard(&observed).unwrap();
            if round % 10 == 0 {
                lab.open(OTHER, "10.9.0.1:7000");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(tried.load(Ordering::Relaxed) > 20);
    assert_eq!((came_in.load(Ordering::Relaxed), shut_out.load(Ordering::Relaxed)), (0, 0));
    assert_eq!(count(&mut *firewall, "tcp/7000"), (5, 5));
    let desired = Desired { guard: observed, ..Desired::default() };
    assert_eq!(firewall.reconcile(&desired).unwrap(), Repairs::default());
}

pub(crate) fn comes_back_when_it_was_flushed(lab: &Lab) {
    serve_tcp(7000);
    serve_tcp(7001);
    let guard = observing(&["tcp/7000"], guard(&["tcp/7001"], &[]));
    let desired = Desired { guard, ..Desired::default() };
    let mut firewall = lab.firewall();
    firewall.reconcile(&desired).unwrap();
    for command in lab.driver.forgets_observed() {
        let (program, arguments) = command.split_once(' ').unwrap();
        shell(program, arguments);
        // Whatever is taken away: nothing is dropped on the port that is only observed.
        lab.open(OTHER, "10.9.0.1:7000");
        let repairs = firewall.reconcile(&desired).unwrap();
        assert!(!repairs.said.is_empty(), "{command}");
        let before = settled(&mut *firewall, "tcp/7000");
        lab.open(OTHER, "10.9.0.1:7000");
        lab.open(OTHER6, "[fd09::1]:7000");
        assert_eq!(count(&mut *firewall, "tcp/7000").1, before + 2, "{command}");
        lab.closed(OTHER, "10.9.0.1:7001");
    }
}

pub(crate) fn counts_as_many_ports_as_a_guard_has(lab: &Lab) {
    let ports: Vec<String> = (0..4_096).map(|number| format!("udp/{}", 10_000 + number)).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let mut firewall = lab.firewall();
    firewall.set_guard(&observing(&ports[2_048..], guard(&ports[..2_048], &[]))).unwrap();
    lab.in_client(|| {
        let socket = std::net::UdpSocket::bind((CLIENT, 0)).unwrap();
        for port in 10_000..14_096_u16 {
            // The refusal of an earlier port may be reported here instead.
            while socket.send_to(b"x", ("10.9.0.1", port)).is_err() {}
        }
    });
    let counts = firewall.counts().unwrap();
    let sum = counts.values().fold(Count::default(), |sum, count| sum.plus(*count));
    assert_eq!((counts.len(), sum.dropped, sum.observed), (4_096, 2_048, 2_048));
}

/// Observed, once nothing more comes: a connection made while there were no rules is tracked from its last packets on, and
/// those may come late.
fn settled(firewall: &mut dyn Firewall, port: &str) -> u64 {
    let mut last = count(firewall, port).1;
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = count(firewall, port).1;
        if now == last {
            return now;
        }
        last = now;
    }
}

/// Dropped and observed.
#[track_caller]
fn count(firewall: &mut dyn Firewall, port: &str) -> (u64, u64) {
    let counts = firewall.counts().unwrap();
    let count = counts.get(&port.parse().unwrap()).copied().unwrap_or_default();
    (count.dropped, count.observed)
}
