//! How hard a knock is to guess.
//!
//! The guesser knows everything but the knock: the hosts of the fleet, the knock space, and that a sequence is wanted.
//! One guess of one step is one packet: a port of the step's protocol, at one host. So a step is worth
//!
//! ```text
//! log2( ports of its protocol in the knock space  x  hosts of the fleet / hosts at which this step counts )
//! ```
//!
//! and a sequence is worth the sum over its steps, because a wrong knock fails the attempt and says nothing about how
//! far it had come. A step that counts on any host adds nothing for hosts: whichever host the guesser picks is right.
//! A step on one host of eight adds three bits.
//!
//! What is left out, always to the guesser's advantage: which protocol each step uses, how many steps there are, and
//! what a label selector hides when it is not known how many hosts carry the label. A step that repeats an earlier one
//! is worth nothing. An ICMP step is worth less than a port: echo payloads beyond what an Ethernet frame carries are
//! conspicuous, and are not counted.
//!
//! These bits are against guessing. Somebody on the path who sees a knock can repeat it.

use std::fmt;

use super::{Door, Knock, Sequence, Step};
use crate::{
    host::HostSelector,
    port::{PortRange, Protocol},
};

#[cfg(test)]
mod tests;

/// A knock below this is refused unless the operator insists. The default ban policy leaves a source about one wrong
/// knock a minute; against 32 bits a thousand sources then need four years for an even chance.
pub const STRENGTH_MIN_BITS: f64 = 32.0;

/// How many ports a guesser has to choose from, per protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// TCP ports.
    pub tcp: u32,
    /// UDP ports.
    pub udp: u32,
    /// Lengths of an echo payload.
    pub icmp: u32,
}

impl Space {
    /// Echo payloads of 0 to 1,472 bytes: with 28 bytes of headers they fill an Ethernet frame of 1,500.
    const ICMP_LENGTHS: u32 = 1_473;

    /// Every port, as agents listen unless told otherwise. That a few of them belong to a host's own services changes
    /// the result by less than a hundredth of a bit.
    pub const ALL: Self = Self { tcp: 65_535, udp: 65_535, icmp: Self::ICMP_LENGTHS };

    /// A narrowed knock space. Ranges that overlap are counted once.
    pub fn of(ranges: &[PortRange]) -> Self {
        let count = |protocol: Protocol, most: u32| {
            let mut ranges: Vec<_> = ranges.iter().filter(|range| range.protocol() == protocol).collect();
            ranges.sort();
            let mut next = 0;
            let mut count = 0;
            for range in ranges {
                let first = u32::from(range.first()).max(next);
                let end = (u32::from(range.last()) + 1).min(most);
                count += end.saturating_sub(first);
                next = next.max(end);
            }
            count
        };
        Self {
            tcp: count(Protocol::Tcp, u32::MAX),
            udp: count(Protocol::Udp, u32::MAX),
            icmp: count(Protocol::Icmp, Self::ICMP_LENGTHS),
        }
    }

    fn ports(self, protocol: Protocol) -> u32 {
        match protocol {
            Protocol::Tcp => self.tcp,
            Protocol::Udp => self.udp,
            Protocol::Icmp => self.icmp,
        }
    }
}

/// What makes a knock weaker than it should be. `Display` says so without spelling out any step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Weakness {
    /// The ports only rise or only fall, in the order in which scanners try them.
    Monotonic,
    /// A port is knocked at more than once.
    RepeatedPort,
    /// Fewer than [`STRENGTH_MIN_BITS`].
    TooFewBits {
        /// What it has.
        bits: f64,
    },
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Monotonic => f.write_str(
                "the ports of the sequence only rise or only fall, as in a port scan; put them in a mixed order",
            ),
            Self::RepeatedPort => f.write_str("a port comes more than once in the sequence; use a different one"),
            Self::TooFewBits { bits } => {
                // What lacks a hundredth is not said to be as much as is needed.
                let shown = if *bits > STRENGTH_MIN_BITS - 0.05 {
                    format!("{:.2}", (bits * 100.0).floor() / 100.0)
                } else {
                    format!("{bits:.1}")
                };
                write!(
                    f,
                    "the knock has {shown} bits, less than {STRENGTH_MIN_BITS:.0}; add a step, or name the host of a step"
                )
            }
        }
    }
}

/// The strength of a knock in bits, in a fleet of that many hosts. How many hosts carry a label is not known here, so
/// a selector by labels alone adds nothing.
pub fn bits(knock: &Knock, hosts: usize, space: Space) -> f64 {
    bits_counted(knock, hosts, space, |selector| match selector.names.len() {
        0 => hosts,
        names => names,
    })
}

/// The strength of a knock in bits, in a fleet of that many hosts, where `chosen` counts the hosts of a selector.
pub fn bits_counted(
    knock: &Knock,
    hosts: usize,
    space: Space,
    chosen: impl Fn(&HostSelector) -> usize,
) -> f64 {
    let Knock::Sequence(Sequence { steps, .. }) = knock;
    let mut bits = 0.0;
    for (index, step) in steps.iter().enumerate() {
        if steps[..index].contains(step) {
            continue;
        }
        bits += f64::from(space.ports(step.port.protocol()).max(1)).log2();
        let chosen = chosen(&step.hosts).clamp(1, hosts.max(1));
        bits += count(hosts.max(1)).log2() - count(chosen).log2();
    }
    bits
}

fn count(hosts: usize) -> f64 {
    f64::from(u32::try_from(hosts).unwrap_or(u32::MAX))
}

/// What makes this knock of that many bits weak.
pub fn weaknesses(knock: &Knock, bits: f64) -> Vec<Weakness> {
    let Knock::Sequence(Sequence { steps, .. }) = knock;
    let mut found = Vec::new();
    if is_monotonic(steps) {
        found.push(Weakness::Monotonic);
    }
    let repeated = |index: usize, step: &Step| steps[..index].iter().any(|earlier| earlier.port == step.port);
    if steps.iter().enumerate().any(|(index, step)| repeated(index, step)) {
        found.push(Weakness::RepeatedPort);
    }
    if bits < STRENGTH_MIN_BITS {
        found.push(Weakness::TooFewBits { bits });
    }
    found
}

/// Whether a scanner that takes the ports in order, one protocol after the other, comes by the steps in their order.
/// A sequence that goes back to a protocol it had left is none. One that two steps make always is.
fn is_monotonic(steps: &[Step]) -> bool {
    let one_way = |wanted: fn(&u16, &u16) -> bool| {
        steps.windows(2).all(|pair| {
            let [before, after] = [pair[0].port, pair[1].port];
            before.protocol() != after.protocol() || wanted(&before.number(), &after.number())
        })
    };
    let changes = steps.windows(2).filter(|pair| pair[0].port.protocol() != pair[1].port.protocol()).count();
    let protocols: std::collections::BTreeSet<_> = steps.iter().map(|step| step.port.protocol()).collect();
    steps.len() >= 2 && changes < protocols.len() && (one_way(u16::le) || one_way(u16::ge))
}

/// What is to be said about a door before it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The strength of its knock.
    pub bits: f64,
    /// Reasons to refuse it, unless the operator accepts a weak knock.
    pub problems: Vec<Weakness>,
    /// For people: things that are allowed and rarely meant.
    pub warnings: Vec<String>,
}

/// Judges a door for a fleet of that many hosts. Without their number a step's hosts add nothing.
pub fn check(door: &Door, fleet_hosts: Option<usize>) -> Report {
    let bits = bits(door.knock(), fleet_hosts.unwrap_or(1), Space::ALL);
    Report { bits, problems: weaknesses(door.knock(), bits), warnings: warnings(door) }
}

/// What is allowed and rarely meant.
pub fn warnings(door: &Door) -> Vec<String> {
    let mut warnings = Vec::new();
    let opens = door.opens();
    if opens.hosts.is_any() {
        let ports: Vec<_> = opens.ports.iter().map(ToString::to_string).collect();
        warnings.push(format!(
            "this door keeps {} closed on every host of the fleet; choose hosts in spec.opens.hosts unless that is meant",
            ports.join(", ")
        ));
    }
    if door.sources().iter().any(|network| network.prefix_len() == 0) {
        let both = [true, false].map(|v4| {
            door.sources().iter().any(|network| network.prefix_len() == 0 && network.addr().is_ipv4() == v4)
        });
        if both != [true, true] {
            let (open, closed) = if both[0] { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            let rest = door.sources().iter().any(|network| network.addr().is_ipv4() != both[0]);
            if !rest {
                warnings.push(format!(
                    "spec.sources admits every {open} source and no {closed} source; leave it out to admit everybody"
                ));
            }
        }
    }
    warnings
}
