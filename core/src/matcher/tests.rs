//! The promises of matching, one by one. `h1:tcp/7` is a knock at TCP port 7 of host h1; `*` is any host and
//! `role=edge` any host with that label. Times are milliseconds after an arbitrary beginning.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use super::*;
use crate::{
    door::{DoorParts, Opens, Sequence, Step},
    host::HostSelector,
    knock::ObservationId,
};

mod bounds;
mod promises;
pub(crate) mod properties;

/// When the tests begin.
pub(crate) const BEGIN: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) fn at(ms: u64) -> Timestamp {
    BEGIN + Duration::from_millis(ms)
}

pub(crate) fn source(number: u32) -> Source {
    Source::new(Ipv4Addr::from(0x0a00_0000 + number).into()).unwrap()
}

/// `door("a", "h1:tcp/7 role=edge:udp/8 *:tcp/9", 5_000)`
pub(crate) fn door(name: &str, steps: &str, within_ms: u64) -> Door {
    let steps = steps.split_whitespace().map(|step| {
        let (hosts, port) = step.split_once(':').unwrap();
        let hosts = match hosts.split_once('=') {
            _ if hosts == "*" => HostSelector::default(),
            Some((key, value)) => HostSelector {
                match_labels: Labels::new([(key.to_owned(), value.to_owned())]).unwrap(),
                ..HostSelector::default()
            },
            None => HostSelector {
                names: hosts.split(',').map(|name| name.parse().unwrap()).collect(),
                ..HostSelector::default()
            },
        };
        Step { hosts, port: port.parse().unwrap() }
    });
    Door::new(DoorParts {
        name: name.parse().unwrap(),
        labels: Labels::default(),
        knock: crate::door::Knock::Sequence(Sequence {
            steps: steps.collect(),
            within: Duration::from_millis(within_ms),
        }),
        sources: Vec::new(),
        opens: Opens {
            hosts: HostSelector::default(),
            ports: ["tcp/65535".parse().unwrap()].into(),
            duration: Duration::from_secs(30),
        },
        mode: Default::default(),
    })
    .unwrap()
}

/// Hosts h1 to h4, of which h1 and h2 are `role=edge`.
pub(crate) fn hosts() -> BTreeMap<u32, (HostName, Labels)> {
    (1..=4)
        .map(|number| {
            let role = if number <= 2 { "edge" } else { "db" };
            let labels = Labels::new([("role".to_owned(), role.to_owned())]).unwrap();
            (number, (format!("h{number}").parse().unwrap(), labels))
        })
        .collect()
}

pub(crate) fn matcher(config: Config, doors: &[Door]) -> Matcher {
    let mut matcher = Matcher::new(config, 7);
    let hosts = hosts();
    matcher.set_hosts(hosts.iter().map(|(id, (name, labels))| (HostId(*id), name, labels)));
    matcher.set_doors(doors);
    matcher
}

/// Makes knocks as agents would: a host's counter rises with each.
#[derive(Default)]
pub(crate) struct Knocks {
    counters: BTreeMap<u32, u64>,
}

impl Knocks {
    /// `knock("h1:tcp/7", 100)`: from source 1, 5 ms uncertain, no fingerprint.
    pub(crate) fn knock(&mut self, what: &str, ms: u64) -> Observation {
        let (host, port) = what.split_once(':').unwrap();
        let host = host.trim_start_matches('h').parse().unwrap();
        let counter = self.counters.entry(host).or_insert(0);
        *counter += 1;
        Observation {
            id: ObservationId { host: HostId(host), boot: 1, counter: *counter },
            source: source(1),
            port: port.parse().unwrap(),
            time: at(ms),
            uncertainty: Duration::from_millis(5),
            fingerprint: 0,
        }
    }

    /// `knocks("h1:tcp/7@0 h2:udp/8@100")`
    pub(crate) fn knocks(&mut self, all: &str) -> Vec<Observation> {
        all.split_whitespace()
            .map(|one| {
                let (what, ms) = one.split_once('@').unwrap();
                self.knock(what, ms.parse().unwrap())
            })
            .collect()
    }
}

/// Delivers reports at their own time, or at the time of the latest before them.
fn deliver(matcher: &mut Matcher, reports: &[Observation]) -> (Vec<Verdict>, Vec<Decision>) {
    let mut decisions = Vec::new();
    let mut now = Timestamp::ZERO;
    let verdicts = reports.iter().map(|report| {
        now = now.max(report.time);
        matcher.observe(report, now, &mut decisions)
    });
    (verdicts.collect(), decisions)
}

/// The names of the doors that were completed, in order.
fn opened(decisions: &[Decision]) -> Vec<&str> {
    let completed = decisions.iter().filter_map(|decision| match decision {
        Decision::Complete(completion) => Some(completion.door.as_str()),
        Decision::Ban { .. } | Decision::Failed(_) => None,
    });
    completed.collect()
}
