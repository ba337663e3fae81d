//! Which doors shut which sessions out.

use fleetknock_core::door::yaml;

use super::*;

const DOOR: &str = "
apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: ssh}
spec:
  mode: enforce
  knock: {sequence: [{port: tcp/7412}], within: 15s}
  opens: {hosts: {matchLabels: {role: bastion}}, ports: [tcp/22], for: 30s}
";

#[test]
fn a_sessions_port_is_the_last_word() {
    let port = |connection: &str| Session::parse(connection).map(|session| session.port.to_string());
    assert_eq!(port("203.0.113.5 50123 192.0.2.1 22").as_deref(), Some("tcp/22"));
    assert_eq!(port("2001:db8::5 50123 2001:db8::1 2222").as_deref(), Some("tcp/2222"));
    assert_eq!(port("UNKNOWN 65535 UNKNOWN 22").as_deref(), Some("tcp/22"));
    for wrong in ["", "a b c", "a b c d", "a b c 0", "a b c 22 e"] {
        assert_eq!(port(wrong), None, "{wrong}");
    }
}

#[test]
fn addresses_are_read_as_sshd_writes_them() {
    let session = Session::parse("::ffff:203.0.113.5 1 fe80::1%eth0 22").unwrap();
    assert_eq!(session.client, "203.0.113.5".parse().ok());
    assert_eq!(session.server, "fe80::1".parse().ok());
}

#[test]
fn a_door_that_guards_the_sessions_port_is_warned_of_unless_that_is_harmless() {
    let door = door(DOOR);
    let host = |name: &str, role: &str, address: &str, management: &[&str]| v1::Host {
        name: name.to_owned(),
        labels: [("role".to_owned(), role.to_owned())].into(),
        addresses: vec![address.to_owned()],
        management: management.iter().map(|network| (*network).to_owned()).collect(),
        ..v1::Host::default()
    };
    let office = ["203.0.113.0/24"];
    let bastion = host("bastion-1", "bastion", "192.0.2.1", &[]);
    let managed = host("bastion-2", "bastion", "192.0.2.2", &office);
    let edge = host("edge-1", "edge", "192.0.2.9", &[]);
    let table = [
        ("a fleet that is not known", "192.0.2.1", None, true),
        ("a fleet without hosts", "192.0.2.1", Some(vec![]), true),
        ("this host", "192.0.2.1", Some(vec![bastion.clone(), managed.clone()]), true),
        ("from a management network", "192.0.2.2", Some(vec![bastion.clone(), managed.clone()]), false),
        (
            "from another network",
            "192.0.2.2",
            Some(vec![host("b", "bastion", "192.0.2.2", &["10.0.0.0/8"])]),
            true,
        ),
        ("a host that the door does not open", "192.0.2.9", Some(vec![bastion.clone(), edge.clone()]), false),
        ("an unknown host", "198.51.100.1", Some(vec![bastion.clone(), managed.clone()]), true),
        ("an unknown host, all managed", "198.51.100.1", Some(vec![managed, edge.clone()]), false),
        ("an unknown host, none opened", "198.51.100.1", Some(vec![edge]), true),
    ];
    for (case, server, hosts, warned) in table {
        let session = Session::parse(&format!("203.0.113.5 50123 {server} 22")).unwrap();
        assert_eq!(session.lockout(&door, hosts.as_deref()).is_some(), warned, "{case}");
    }
    let nobody = Session::parse("UNKNOWN 65535 UNKNOWN 22").unwrap();
    assert!(nobody.lockout(&door, Some(&[bastion])).is_some());
}

#[test]
fn a_door_that_guards_another_port_or_only_observes_shuts_nobody_out() {
    let session = Session::parse("203.0.113.5 50123 192.0.2.1 22").unwrap();
    assert!(session.lockout(&door(DOOR), None).unwrap().contains("guards tcp/22"));
    assert_eq!(session.lockout(&door(&DOOR.replace("tcp/22", "tcp/2222, udp/22")), None), None);
    assert_eq!(session.lockout(&door(&DOOR.replace("enforce", "observe")), None), None);
}

fn door(text: &str) -> Door {
    yaml::parse(text).unwrap().remove(0).door
}
