//! Who knocks and who operates.

use std::time::Duration;

use fleetknock_core::{
    door::Knock,
    port::{Port, Protocol},
};
use rand::{Rng as _, rngs::StdRng};

use crate::{
    scenario::{BREAKING, KNOCKING, Scenario},
    time::{Micros, SECOND},
};

/// Between one source's attempts: more than the uncertainty of any clock.
const PAUSE: Micros = 3 * SECOND;

/// One packet on its way to a host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) source: usize,
    pub(crate) host: usize,
    pub(crate) port: Port,
    pub(crate) fingerprint: u32,
    /// Of which attempt it is which step; nothing for a packet that is wrong, or repeats one.
    pub(crate) step: Option<(usize, usize)>,
}

/// Somebody tries one whole right sequence.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) source: usize,
    pub(crate) door: usize,
    pub(crate) steps: usize,
}

/// What operators do.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Ban { source: usize, duration: Duration },
    Close { source: usize },
    Open { source: usize, door: usize, duration: Option<Duration> },
    Unban { source: usize },
}

/// Draws what everybody does.
pub(crate) fn draw(scenario: &mut Scenario, dice: &mut StdRng) {
    for source in 0..scenario.sources.len() {
        let mut at = dice.random_range(2 * SECOND..12 * SECOND);
        // Eight misses of one source never lead to a ban.
        let mut misses = 0;
        while at < KNOCKING {
            let kind = dice.random_range(0..100);
            let door = dice.random_range(0..scenario.doors.len());
            at = if source >= scenario.honest {
                scan(scenario, source, at, dice)
            } else if kind < 15 && misses < 6 {
                misses += 3;
                wrong(scenario, source, door, at, dice)
            } else {
                right(scenario, source, door, at, dice)
            };
            at += PAUSE + dice.random_range(0..10 * SECOND);
        }
    }
    for _ in 0..dice.random_range(0..4) {
        let source = dice.random_range(0..scenario.sources.len());
        let at = dice.random_range(3 * SECOND..BREAKING);
        let seconds = Duration::from_secs(dice.random_range(2..20));
        let operation = match dice.random_range(0..10) {
            0..4 => Operation::Close { source },
            4..7 => Operation::Open {
                source,
                door: dice.random_range(0..scenario.doors.len()),
                duration: dice.random_bool(0.5).then_some(seconds),
            },
            _ => {
                let lifted = at + dice.random_range(SECOND..10 * SECOND);
                if dice.random_bool(0.5) {
                    scenario.operations.push((lifted, Operation::Unban { source }));
                }
                Operation::Ban { source, duration: seconds }
            }
        };
        scenario.operations.push((at, operation));
    }
}

/// The steps of a door: on which host, at which port.
fn steps(scenario: &Scenario, door: usize, dice: &mut StdRng) -> Vec<(usize, Port)> {
    let Knock::Sequence(sequence) = scenario.doors[door].knock();
    let mut steps = Vec::new();
    for step in &sequence.steps {
        let named = scenario.hosts.iter().position(|(name, _)| step.hosts.names.contains(name));
        steps.push((named.unwrap_or_else(|| dice.random_range(0..scenario.hosts.len())), step.port));
    }
    steps
}

fn right(scenario: &mut Scenario, source: usize, door: usize, at: Micros, dice: &mut StdRng) -> Micros {
    let steps = steps(scenario, door, dice);
    let attempt = scenario.attempts.len();
    scenario.attempts.push(Attempt { source, door, steps: steps.len() });
    let mut at = at;
    let quick = dice.random_bool(0.5);
    for (step, (host, port)) in steps.into_iter().enumerate() {
        let tcp = port.protocol() == Protocol::Tcp;
        let fingerprint = if tcp { dice.random_range(1..u32::MAX) } else { 0 };
        let packet = Packet { source, host, port, fingerprint, step: Some((attempt, step)) };
        scenario.packets.push((at, packet));
        if tcp && dice.random_bool(0.2) {
            // Its SYN is sent again.
            scenario.packets.push((at + SECOND, Packet { step: None, ..packet }));
        }
        at += if quick { dice.random_range(20_000..200_000) } else { dice.random_range(200_000..1_500_000) };
    }
    at
}

/// A knock that opens nothing: a part of it, out of order, or with a wrong port.
fn wrong(scenario: &mut Scenario, source: usize, door: usize, at: Micros, dice: &mut StdRng) -> Micros {
    let mut steps = steps(scenario, door, dice);
    match dice.random_range(0..3) {
        0 => steps.truncate(steps.len() - 1),
        1 => steps.reverse(),
        _ => {
            let place = dice.random_range(0..steps.len());
            if let Ok(port) = Port::new(Protocol::Tcp, dice.random_range(20_000..30_000)) {
                steps[place].1 = port;
            }
        }
    }
    steps.truncate(3);
    let mut at = at;
    for (host, port) in steps {
        scenario.packets.push((at, Packet { source, host, port, fingerprint: 0, step: None }));
        at += dice.random_range(1_200_000..2_000_000);
    }
    at
}

/// Ports by the dozen.
fn scan(scenario: &mut Scenario, source: usize, at: Micros, dice: &mut StdRng) -> Micros {
    let mut at = at;
    for _ in 0..dice.random_range(3..12) {
        let host = dice.random_range(0..scenario.hosts.len());
        if let Ok(port) = Port::new(Protocol::Tcp, dice.random_range(6_990..9_100)) {
            scenario.packets.push((at, Packet { source, host, port, fingerprint: 0, step: None }));
        }
        at += dice.random_range(1_000..300_000);
    }
    at
}
