//! Openings and bans.

use std::{thread::sleep, time::Duration};

use crate::lab::{
    CLIENT, CLIENT6, HOST, Lab, OTHER, OTHER6, address, echoes, element, eventually, opening, serve_tcp,
    serve_udp,
};

pub(crate) fn only_that_source_port_and_protocol(lab: &Lab) {
    for port in [7000, 7001, 7002] {
        serve_tcp(port);
    }
    let mut firewall = lab.guarding(&["tcp/7000", "tcp/7001"]);
    lab.closed(CLIENT, "10.9.0.1:7000");
    lab.closed(CLIENT6, "[fd09::1]:7000");
    lab.open(CLIENT, "10.9.0.1:7002");
    lab.open(CLIENT6, "[fd09::1]:7002");

    firewall.open(&[opening(CLIENT, "tcp/7000", 60), opening(CLIENT6, "tcp/7001", 60)]).unwrap();
    lab.open(CLIENT, "10.9.0.1:7000");
    lab.open(CLIENT, "10.8.0.1:7000");
    lab.open(CLIENT6, "[fd09::1]:7001");
    lab.closed(CLIENT, "10.9.0.1:7001");
    lab.closed(CLIENT6, "[fd09::1]:7000");
    lab.closed(OTHER, "10.9.0.1:7000");
    lab.closed(OTHER6, "[fd09::1]:7001");

    firewall.open(&[opening(OTHER, "udp/7000", 60)]).unwrap();
    lab.closed(OTHER, "10.9.0.1:7000");
}

pub(crate) fn end_in_the_kernel_with_the_driver_gone(lab: &Lab) {
    serve_tcp(7000);
    let mut firewall = lab.guarding(&["tcp/7000"]);
    firewall.open(&[opening(CLIENT, "tcp/7000", 2), opening(CLIENT6, "tcp/7000", 2)]).unwrap();
    drop(firewall);
    lab.open(CLIENT, "10.9.0.1:7000");
    lab.open(CLIENT6, "[fd09::1]:7000");
    sleep(Duration::from_millis(3_200));
    lab.closed(CLIENT, "10.9.0.1:7000");
    lab.closed(CLIENT6, "[fd09::1]:7000");
    assert_eq!((lab.driver.count("open4"), lab.driver.count("open6")), (0, 0));
}

pub(crate) fn are_refreshed_longer_and_shorter_as_one_element(lab: &Lab) {
    serve_tcp(7000);
    serve_tcp(7001);
    let mut firewall = lab.guarding(&["tcp/7000", "tcp/7001"]);
    firewall.open(&[opening(CLIENT, "tcp/7000", 2), opening(CLIENT, "tcp/7001", 60)]).unwrap();
    firewall.open(&[opening(CLIENT, "tcp/7001", 2)]).unwrap();
    // The same twice in one call: the time given last counts.
    firewall.open(&[opening(CLIENT, "tcp/7000", 1), opening(CLIENT, "tcp/7000", 60)]).unwrap();
    assert_eq!(lab.driver.count("open4"), 2);
    sleep(Duration::from_millis(3_200));
    lab.open(CLIENT, "10.9.0.1:7000");
    lab.closed(CLIENT, "10.9.0.1:7001");
}

pub(crate) fn are_closed_while_connections_live_on(lab: &Lab) {
    serve_tcp(7000);
    let mut firewall = lab.guarding(&["tcp/7000"]);
    firewall.open(&[opening(CLIENT, "tcp/7000", 60), opening(OTHER, "tcp/7000", 2)]).unwrap();
    let connect = |from| lab.connect(from, address("10.9.0.1:7000"), Duration::from_secs(1)).unwrap();
    let (mut closed, mut expired) = (connect(CLIENT), connect(OTHER));
    firewall.close(&[element(CLIENT, "tcp/7000")]).unwrap();
    // What does not exist is fine, alone or among others.
    firewall
        .close(&[element(CLIENT, "tcp/7000"), element("192.0.2.1", "tcp/1"), element(CLIENT6, "udp/1")])
        .unwrap();
    lab.closed(CLIENT, "10.9.0.1:7000");
    assert!(echoes(&mut closed));
    sleep(Duration::from_millis(3_200));
    lab.closed(OTHER, "10.9.0.1:7000");
    assert!(echoes(&mut expired));
}

pub(crate) fn are_not_added_when_no_time_is_left(lab: &Lab) {
    let mut firewall = lab.guarding(&["tcp/7000"]);
    firewall.open(&[(element(CLIENT, "tcp/7000"), Duration::ZERO)]).unwrap();
    firewall.ban(&[(CLIENT.parse().unwrap(), Duration::ZERO)]).unwrap();
    assert_eq!((lab.driver.count("open4"), lab.driver.count("ban4")), (0, 0));
    firewall.open(&[(element(CLIENT, "tcp/7000"), Duration::from_nanos(1))]).unwrap();
    firewall.open(&[(element(OTHER, "tcp/7000"), Duration::MAX)]).unwrap();
    eventually(Duration::from_secs(3), "the shortest opening ends", || lab.driver.count("open4") == 1);
}

pub(crate) fn of_udp(lab: &Lab) {
    serve_udp(7000);
    serve_tcp(7000);
    let mut firewall = lab.guarding(&["udp/7000"]);
    lab.udp_closed(CLIENT, "10.9.0.1:7000");
    lab.open(CLIENT, "10.9.0.1:7000");
    firewall.open(&[opening(CLIENT, "tcp/7000", 60)]).unwrap();
    lab.udp_closed(CLIENT, "10.9.0.1:7000");
    firewall.open(&[opening(CLIENT, "udp/7000", 60)]).unwrap();
    lab.udp_open(CLIENT, "10.9.0.1:7000");
    lab.udp_closed(OTHER, "10.9.0.1:7000");
}

pub(crate) fn three_hundred_at_once_end_in_time(lab: &Lab) {
    let mut firewall = lab.guarding(&["tcp/7000"]);
    let openings: Vec<_> = (0..300)
        .map(|number| opening(&format!("10.1.{}.{}", number / 200, 1 + number % 200), "tcp/7000", 2))
        .chain((0..300).map(|number| opening(&format!("fd01::{:x}", number + 1), "tcp/7000", 2)))
        .collect();
    firewall.open(&openings).unwrap();
    assert_eq!((lab.driver.count("open4"), lab.driver.count("open6")), (300, 300));
    sleep(Duration::from_millis(1_000));
    assert_eq!((lab.driver.count("open4"), lab.driver.count("open6")), (300, 300));
    sleep(Duration::from_millis(2_200));
    assert_eq!((lab.driver.count("open4"), lab.driver.count("open6")), (0, 0));
}

pub(crate) fn bans_close_an_open_source(lab: &Lab) {
    serve_tcp(7000);
    serve_tcp(7002);
    let mut firewall = lab.guarding(&["tcp/7000"]);
    firewall.open(&[opening(CLIENT, "tcp/7000", 60), opening(CLIENT6, "tcp/7000", 60)]).unwrap();
    let mut established =
        lab.connect(CLIENT, address(&format!("{HOST}:7000")), Duration::from_secs(1)).unwrap();
    let (four, six) = (CLIENT.parse().unwrap(), CLIENT6.parse().unwrap());
    firewall.ban(&[(four, Duration::from_secs(60)), (six, Duration::from_secs(2))]).unwrap();
    lab.closed(CLIENT, "10.9.0.1:7000");
    lab.closed(CLIENT6, "[fd09::1]:7000");
    // A ban stops openings, not other traffic.
    lab.open(CLIENT, "10.9.0.1:7002");
    assert!(echoes(&mut established));
    firewall.unban(&[four, OTHER.parse().unwrap()]).unwrap();
    lab.open(CLIENT, "10.9.0.1:7000");
    sleep(Duration::from_millis(3_000));
    lab.open(CLIENT6, "[fd09::1]:7000");
}
