//! Connections that are cut.

use std::{io::Write, net::TcpListener, thread::sleep, time::Duration};

use crate::lab::{CLIENT, CLIENT6, Lab, OTHER, address, connect, echoes, element, opening, serve_tcp};

const SOON: Duration = Duration::from_secs(1);

pub(crate) fn end_established_connections(lab: &Lab) {
    serve_tcp(7000);
    let listener = TcpListener::bind("0.0.0.0:7001").unwrap();
    let mut firewall = lab.guarding(&["tcp/7000", "tcp/7001"]);
    let openings =
        [opening(CLIENT, "tcp/7000", 60), opening(CLIENT, "tcp/7001", 60), opening(CLIENT6, "tcp/7000", 60)];
    firewall.open(&openings).unwrap();
    let mut four = lab.connect(CLIENT, address("10.9.0.1:7000"), SOON).unwrap();
    let mut six = lab.connect(CLIENT6, address("[fd09::1]:7000"), SOON).unwrap();
    let mut talked_to = lab.connect(CLIENT, address("10.9.0.1:7001"), SOON).unwrap();
    let mut talking = listener.accept().unwrap().0;
    assert!(echoes(&mut four) && echoes(&mut six));

    let elements = openings.map(|(element, _)| element);
    firewall.close(&elements).unwrap();
    assert!(echoes(&mut four) && echoes(&mut six));
    assert_eq!(firewall.cut(&elements).unwrap(), 3);
    assert!(!echoes(&mut four) && !echoes(&mut six));

    // The server's own packets must not bring the connection back: connection tracking would pick it up from them.
    talking.write_all(b"are you there?").unwrap();
    sleep(Duration::from_millis(300));
    talked_to.write_all(b"yes").unwrap();
    talking.set_read_timeout(Some(SOON)).unwrap();
    assert!(std::io::Read::read(&mut talking, &mut [0; 8]).is_err());
    assert_eq!(firewall.cut(&[element("192.0.2.1", "tcp/7000")]).unwrap(), 0);

    // A new opening is for new connections.
    firewall.open(&openings).unwrap();
    lab.open(CLIENT, "10.9.0.1:7000");
}

pub(crate) fn leave_others_and_transit_alone(lab: &Lab) {
    serve_tcp(7000);
    serve_tcp(7001);
    lab.in_behind(|| serve_tcp(7000));
    let mut firewall = lab.guarding(&["tcp/7000", "tcp/7001"]);
    let openings =
        [opening(CLIENT, "tcp/7000", 60), opening(CLIENT, "tcp/7001", 60), opening(OTHER, "tcp/7000", 60)];
    firewall.open(&openings).unwrap();
    let mut other_port = lab.connect(CLIENT, address("10.9.0.1:7001"), SOON).unwrap();
    let mut other_source = lab.connect(OTHER, address("10.9.0.1:7000"), SOON).unwrap();
    let mut transit = lab.in_client(|| connect(CLIENT, address("10.8.0.2:7000"), SOON)).unwrap();
    assert_eq!(firewall.cut(&[element(CLIENT, "tcp/7000")]).unwrap(), 0);
    assert!(echoes(&mut other_port));
    assert!(echoes(&mut other_source));
    assert!(echoes(&mut transit));
}
