//! Doors of three steps and the knocks that open them: at one host, or across three.

use std::net::SocketAddr;

use fleetknock_lab::{Host, Shot};

/// Far apart.
const AT_ONE: [u16; 3] = [51_003, 7_412, 23_981];
/// The ports of the steps across `edge-1` (TCP), `db-1` (UDP) and `bastion-1` (TCP): below the ephemeral ones, so that no
/// connection has one of them by chance, and of five digits, which hardly any count or time shows alone.
pub const ACROSS: [u16; 3] = [23_981, 27_653, 31_259];
/// Where no step is: knocked at to fail an attempt.
pub const WRONG: u16 = 29_867;

/// A door with its steps, all TCP, at one host. `opens` says for whom, what and how long: the inside of a mapping in YAML.
pub fn at_one(name: &str, host: &str, opens: &str) -> String {
    door(name, &AT_ONE.map(|port| (host, format!("tcp/{port}"))), "15s", opens)
}

/// The knock of [`at_one`], at an address of its host.
pub fn knock_at_one(at: impl Fn(u16) -> SocketAddr) -> [Shot; 3] {
    AT_ONE.map(|port| Shot::Tcp(at(port)))
}

/// A door with its steps across three hosts; `opens` as in [`at_one`].
pub fn across(name: &str, within: &str, opens: &str) -> String {
    let [edge, db, bastion] = ACROSS;
    let steps = [
        ("edge-1", format!("tcp/{edge}")),
        ("db-1", format!("udp/{db}")),
        ("bastion-1", format!("tcp/{bastion}")),
    ];
    door(name, &steps, within, opens)
}

/// The knock of [`across`].
pub fn knock_across([edge, db, bastion]: [&Host; 3]) -> [Shot; 3] {
    let [first, second, third] = ACROSS;
    [Shot::Tcp(edge.at(first)), Shot::Udp(db.at(second)), Shot::Tcp(bastion.at(third))]
}

fn door(name: &str, steps: &[(&str, String)], within: &str, opens: &str) -> String {
    let step =
        |(host, port): &(&str, String)| format!("      - {{hosts: {{names: [{host}]}}, port: {port}}}\n");
    let steps: String = steps.iter().map(step).collect();
    format!(
        "apiVersion: fleetknock.io/v1
kind: Door
metadata: {{name: {name}}}
spec:
  knock:
    sequence:
{steps}    within: {within}
  opens: {{{opens}}}
"
    )
}
