//! The strength of knocks, and what makes them weak.

use super::*;
use crate::door::yaml;

#[test]
fn ports_hosts_and_length_add_up() {
    let port = 65_535_f64.log2();
    for (steps, hosts, wanted) in [
        ("- port: tcp/5000", 8, port),
        ("- {port: tcp/5000, hosts: {names: [a]}}", 8, port + 3.0),
        ("- {port: tcp/5000, hosts: {names: [a, b]}}", 8, port + 2.0),
        ("- {port: tcp/5000, hosts: {names: [a, b]}}", 1, port),
        ("- {port: tcp/5000, hosts: {matchLabels: {role: edge}}}", 8, port),
        ("- {port: tcp/5000, hosts: {matchLabels: {role: edge}, names: [a]}}", 8, port + 3.0),
        ("- port: icmp/500", 8, 1_473_f64.log2()),
        ("- port: tcp/5000\n    - port: udp/70\n    - port: tcp/9", 8, 3.0 * port),
        ("- port: tcp/5000\n    - port: tcp/70\n    - port: tcp/5000", 8, 2.0 * port),
        ("- port: tcp/5000", 0, port),
    ] {
        let found = bits(door(steps, "{}").knock(), hosts, Space::ALL);
        assert!((found - wanted).abs() < 1e-9, "{steps}: {found} instead of {wanted}");
    }
}

#[test]
fn labels_count_when_their_hosts_are_known() {
    let door = door("- {port: tcp/5000, hosts: {matchLabels: {role: edge}}}", "{}");
    let found = bits_counted(door.knock(), 8, Space::ALL, |_| 2);
    assert!((found - 65_535_f64.log2() - 2.0).abs() < 1e-9, "{found}");
    // A selector that chooses nothing yet, or more than there is, changes nothing for the worse.
    assert!(bits_counted(door.knock(), 8, Space::ALL, |_| 0).is_finite());
    assert!(bits_counted(door.knock(), 8, Space::ALL, |_| 800) >= 15.9);
}

#[test]
fn a_narrowed_space_counts_each_port_once() {
    let ranges = ["tcp/1000-1999", "tcp/1500-2499", "udp/7", "icmp/0-65000", "tcp/1200-1300"];
    let ranges: Vec<PortRange> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    assert_eq!(Space::of(&ranges), Space { tcp: 1_500, udp: 1, icmp: 1_473 });
    assert_eq!(Space::of(&[]), Space { tcp: 0, udp: 0, icmp: 0 });
    assert_eq!(bits(door("- port: tcp/5000", "{}").knock(), 1, Space::of(&[])), 0.0);
}

#[test]
fn scan_orders_are_found() {
    for (ports, monotonic) in [
        ("tcp/7000 tcp/8000 tcp/9000", true),
        ("tcp/9000 tcp/8000 tcp/7000", true),
        ("tcp/7000 tcp/9000 tcp/8000", false),
        ("tcp/7000 tcp/8000", true),
        ("tcp/7000", false),
        ("tcp/7000 tcp/7000 tcp/8000", true),
        ("tcp/7000 tcp/8000 udp/500", true),
        ("tcp/7000 udp/500 udp/600 icmp/5", true),
        // The documented example: a scanner does not go back and forth between protocols.
        ("tcp/7412 udp/23981 tcp/51003", false),
    ] {
        let steps: Vec<_> = ports.split(' ').map(|port| format!("- port: {port}")).collect();
        let door = door(&steps.join("\n    - ").replace("- - ", "- "), "{}");
        let found = weaknesses(door.knock(), 99.0);
        assert_eq!(found.contains(&Weakness::Monotonic), monotonic, "{ports}: {found:?}");
    }
}

#[test]
fn repeats_and_few_bits_are_problems() {
    let weak = check(&door("- port: tcp/5000", "{names: [a]}"), None);
    assert!(matches!(weak.problems.as_slice(), [Weakness::TooFewBits { .. }]), "{weak:?}");
    assert_eq!(
        weak.problems[0].to_string(),
        "the knock has 16.0 bits, less than 32; add a step, or name the host of a step"
    );
    assert_eq!(weak.warnings, [] as [&str; 0]);
    // Two ports of 65,535 are almost enough, and are not said to be as much as is asked for.
    let almost = Weakness::TooFewBits { bits: 2.0 * 65_535_f64.log2() }.to_string();
    assert!(almost.starts_with("the knock has 31.99 bits, less than 32;"), "{almost}");

    let repeated =
        check(&door("- port: tcp/5000\n    - port: tcp/70\n    - port: tcp/5000", "{names: [a]}"), None);
    assert!(repeated.problems.contains(&Weakness::RepeatedPort), "{repeated:?}");

    let good =
        check(&door("- port: tcp/5000\n    - port: tcp/9000\n    - port: tcp/70", "{names: [a]}"), None);
    assert_eq!(good.problems, []);
    assert!(good.bits > 47.0);
}

#[test]
fn a_door_on_every_host_is_warned_about() {
    let report = check(&door("- port: tcp/5000", "{}"), Some(3));
    assert_eq!(
        report.warnings,
        [
            "this door keeps tcp/22 closed on every host of the fleet; choose hosts in spec.opens.hosts unless that is meant"
        ]
    );
}

#[test]
fn half_of_the_internet_is_warned_about() {
    for (sources, wanted) in [
        ("[0.0.0.0/0]", 1),
        ("[\"::/0\"]", 1),
        ("[0.0.0.0/0, \"::/0\"]", 0),
        ("[0.0.0.0/0, \"2001:db8::/32\"]", 0),
        ("[10.0.0.0/8]", 0),
    ] {
        let text = text("- port: tcp/5000", "{names: [a]}")
            .replace("  opens:", &format!("  sources: {sources}\n  opens:"));
        let door = yaml::parse(&text).unwrap().remove(0).door;
        assert_eq!(warnings(&door).len(), wanted, "{sources}");
    }
}

#[test]
fn messages_spell_out_no_step() {
    let report = check(&door("- port: tcp/5000\n    - port: tcp/5000", "{}"), None);
    assert_eq!(report.problems.len(), 3);
    assert!(!report.problems.iter().any(|problem| problem.to_string().contains("5000")));
}

fn door(steps: &str, open_hosts: &str) -> Door {
    yaml::parse(&text(steps, open_hosts)).unwrap().remove(0).door
}

fn text(steps: &str, open_hosts: &str) -> String {
    format!(
        "apiVersion: fleetknock.io/v1
kind: Door
metadata: {{name: d}}
spec:
  knock:
    sequence:
    {steps}
    within: 10s
  opens:
    hosts: {open_hosts}
    ports: [tcp/22]
    for: 30s
"
    )
}
