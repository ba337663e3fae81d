//! What a seed stands for: how large the fleet is, how its clocks go, what breaks when, who knocks where.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use fleetknock_core::{
    door::{Door, DoorParts, Knock, Opens, Sequence, Step},
    host::{HostName, HostSelector, Labels},
    port::{Port, Protocol},
    source::Source,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    faults::{self, Fault},
    time::{Clock, Micros, SECOND},
    users::{self, Attempt, Operation, Packet},
};

/// How long a run lasts in virtual time.
pub(crate) const LENGTH: Micros = 60 * SECOND;
/// Until when things break; then all is healed.
pub(crate) const BREAKING: Micros = 40 * SECOND;
/// Until when users knock.
pub(crate) const KNOCKING: Micros = 43 * SECOND;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) controllers: Vec<(HostName, Clock)>,
    pub(crate) hosts: Vec<(HostName, Clock)>,
    pub(crate) doors: Vec<Door>,
    pub(crate) sources: Vec<Source>,
    /// Sources below this number knock honestly.
    pub(crate) honest: usize,
    pub(crate) lease: Duration,
    /// How far any machine's clock is off at the most, microseconds.
    pub(crate) skew: u64,
    /// A packet usually takes less than this.
    pub(crate) delay: Micros,
    /// And never more than this, on a path that is not cut.
    pub(crate) spike: Micros,
    pub(crate) faults: Vec<(Micros, Fault, Micros)>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) packets: Vec<(Micros, Packet)>,
    pub(crate) operations: Vec<(Micros, Operation)>,
}

impl Scenario {
    pub(crate) fn draw(seed: u64) -> anyhow::Result<Self> {
        let mut dice = StdRng::seed_from_u64(seed);
        let controllers = [1, 2, 3, 3, 3, 3, 4][dice.random_range(0..7)];
        let hosts = dice.random_range(2..=4);
        let skew = [0, 50_000, 2_000_000][dice.random_range(0..3)];
        let clock = |dice: &mut StdRng, skew: u64| {
            let skew = i64::try_from(skew).unwrap_or(0);
            Clock { offset: dice.random_range(-skew..=skew), ppm: dice.random_range(-100..=100) }
        };
        let mut scenario = Self {
            seed,
            controllers: (0..controllers)
                .map(|number| Ok((format!("controller-{number}").parse()?, clock(&mut dice, skew))))
                .collect::<anyhow::Result<_>>()?,
            hosts: (0..hosts)
                .map(|number| Ok((format!("host-{number}").parse()?, clock(&mut dice, skew * 5 / 2))))
                .collect::<anyhow::Result<_>>()?,
            doors: Vec::new(),
            sources: (1..=5)
                .map(|number| format!("203.0.113.{number}").parse().context("a source"))
                .collect::<anyhow::Result<_>>()?,
            honest: 4,
            lease: Duration::from_secs(dice.random_range(2..=6)),
            skew,
            delay: [500, 2_000, 10_000, 30_000][dice.random_range(0..4)],
            spike: [20_000, 100_000, 300_000][dice.random_range(0..3)].max(40_000),
            faults: Vec::new(),
            attempts: Vec::new(),
            packets: Vec::new(),
            operations: Vec::new(),
        };
        for number in 0..2 {
            let door = scenario.door(number, &mut dice)?;
            scenario.doors.push(door);
        }
        scenario.faults = faults::draw(&scenario, &mut dice);
        users::draw(&mut scenario, &mut dice);
        Ok(scenario)
    }

    fn door(&self, number: u16, dice: &mut StdRng) -> anyhow::Result<Door> {
        let named = |host: usize| HostSelector {
            names: BTreeSet::from([self.hosts[host].0.clone()]),
            ..HostSelector::default()
        };
        let mut steps = Vec::new();
        for step in 0..dice.random_range(2..=4_u16) {
            let host = dice.random_range(0..=self.hosts.len());
            let hosts = if host < self.hosts.len() { named(host) } else { HostSelector::default() };
            let protocol = if dice.random_bool(0.5) { Protocol::Tcp } else { Protocol::Udp };
            steps.push(Step { hosts, port: Port::new(protocol, 7_000 + 1_000 * number + 10 * step)? });
        }
        let opens = if dice.random_bool(0.5) {
            HostSelector::default()
        } else {
            named(dice.random_range(0..self.hosts.len()))
        };
        Ok(Door::new(DoorParts {
            name: format!("door-{number}").parse()?,
            labels: Labels::default(),
            knock: Knock::Sequence(Sequence {
                steps,
                within: Duration::from_secs(dice.random_range(5..=10)),
            }),
            sources: Vec::new(),
            opens: Opens {
                hosts: opens,
                ports: BTreeSet::from([Port::new(Protocol::Tcp, 22 + number)?]),
                duration: Duration::from_secs(dice.random_range(3..=20)),
            },
            mode: Default::default(),
        })?)
    }
}
