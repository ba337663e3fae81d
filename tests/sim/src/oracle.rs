//! Knows what really happened, in true time, and says when the fleet did something that it must not do.
//!
//! The invariants that are checked whenever something is written or let in:
//!
//! 1. An opening by a knock answers one complete right knock that agents captured, each knock once, and never one that
//!    was sent before the opening was taken back.
//! 2. No host lets a source in for longer than [`Core::overstay`] after the end of the last opening that says so.
//! 3. A knock is answered within [`ANSWER_MAX`] of its last packet, or not at all.
//! 5. Whoever writes an opening or a ban for a knock is a member at that moment.
//! 6. Nobody is banned for misses who sent fewer than the policy allows.
//! 7. No guard is taken off while the doors stay, whatever becomes of the store.
//!
//! What must happen, as against what must not, is in [`crate::judge`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetknock_controller::{
    grant::ANSWER_WITHIN,
    record::{AuditRecord, Boot, By, Key, OpeningRecord, Packet, decode},
    store::{Change, Revision, Transaction},
};
use fleetknock_core::{door::DoorName, port::Port, source::Source, time::Timestamp};

use fleetknock_agent::firewall::Element;

use crate::{
    Sabotage,
    core::{Core, Event},
    etcd,
    faults::Fault,
    judge::Seen,
    time::{Micros, SECOND, micros, perfect},
    users,
};

mod answers;

/// A commit takes place within the store's deadline of being decided.
const ANSWER_MAX: Micros = 15 * SECOND + etcd::DEADLINE;
/// A stream on which nothing comes through is given up after a ping's interval and its patience; until then what was
/// said may yet arrive.
const IN_FLIGHT_MAX: Micros = 4 * SECOND + SECOND / 2;
/// Time stamps of knocks are told apart from true time by no more than this, uncertainty aside.
const STAMP: Micros = 60_000;

/// Why a transaction was made.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    Ban {
        source: Source,
        by: By,
    },
    Close {
        ahead: i64,
    },
    /// `ahead`: how far the fleet's time of whoever decided was ahead of true time.
    Knock {
        at: Timestamp,
        end: Option<Packet>,
        knocked_ahead: i64,
        ahead: i64,
    },
    Operator {
        ahead: i64,
    },
    Other,
}

/// A packet that an agent saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Captured {
    pub(crate) at: Micros,
    pub(crate) source: usize,
    pub(crate) host: usize,
    pub(crate) port: Port,
    /// As the agent numbered it.
    boot: Boot,
    counter: u64,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) failure: Option<String>,
    /// The largest uncertainty of a source's knocks so far.
    pub(crate) uncertain: BTreeMap<Source, Duration>,
    captured: Vec<Captured>,
    pub(crate) attempts: BTreeMap<usize, Seen>,
    pub(crate) faults: Vec<(Micros, Fault)>,
    /// The knocks that were answered, by door and the captured packet for the last step.
    answers: BTreeSet<(DoorName, usize)>,
    ends: BTreeMap<(Source, Port), Micros>,
    withdrawn: BTreeMap<(DoorName, Source), Micros>,
    /// In which life and at which revision each controller joined last.
    epochs: BTreeMap<usize, (u32, Revision)>,
    pub(crate) banned: Vec<Source>,
    /// The controllers that hold their lease, as they know.
    pub(crate) serving: BTreeSet<usize>,
    pub(crate) stats: crate::Stats,
}

impl Oracle {
    /// What the store was to remember is gone with it: which knocks were answered, what was taken back, who takes part.
    pub(crate) fn store_lost(&mut self) {
        self.answers.clear();
        self.withdrawn.clear();
        self.epochs.clear();
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    pub(crate) fn uncertain(&mut self, source: Source, uncertainty: Duration) {
        let worst = self.uncertain.entry(source).or_default();
        *worst = uncertainty.max(*worst);
    }

    /// Within what the fleet's stamp of a source's knock is certain, microseconds.
    pub(crate) fn uncertainty(&self, source: Source) -> Micros {
        self.uncertain.get(&source).map_or(0, |uncertainty| micros(*uncertainty))
    }
}

impl Core {
    pub(crate) fn fail(&mut self, what: String) {
        self.say(|| format!("BROKEN: {what}"));
        self.oracle.failure.get_or_insert(format!("after {:.6} s: {what}", self.now as f64 / 1e6));
    }

    pub(crate) fn note_fault(&mut self, fault: &Fault) {
        self.oracle.faults.push((self.now, fault.clone()));
    }

    /// A packet was seen, or nobody was there to see it.
    pub(crate) fn captured(&mut self, packet: &users::Packet, heard: Option<([u8; 16], u64)>) {
        let users::Packet { source, host, port, step, .. } = *packet;
        let seen = heard.is_some();
        self.say(|| format!("source {source} knocks host {host} at {port}, step {step:?}, seen: {seen}"));
        if let Some((boot, counter)) = heard {
            let captured = Captured { at: self.now, source, host, port, boot: Boot(boot), counter };
            self.oracle.captured.push(captured);
        }
        if let Some((attempt, _)) = step {
            self.attempted(attempt, host, seen);
        }
    }

    /// Looks at a transaction of a controller, in one of its lives, before it is judged: what must hold if it is carried
    /// out. What it asked for before it died may be carried out after, while its lease holds.
    pub(crate) fn before(
        &self,
        (controller, life): (usize, u32),
        transaction: &Transaction,
    ) -> Option<String> {
        let name = &self.scenario.controllers[controller].0;
        let key = Key::Controller(name.clone()).to_string();
        let held = self.etcd.entry(&key).map(|entry| entry.revision);
        let member = matches!(
            (held, self.oracle.epochs.get(&controller)),
            (Some(held), Some((of, epoch))) if held == *epoch && life == *of
        );
        (!member).then(|| format!("{name} is no member and writes {}", keys(transaction)))
    }

    /// Takes in what was carried out.
    pub(crate) fn committed(
        &mut self,
        (controller, life): (usize, u32),
        transaction: &Transaction,
        origin: &Origin,
        stranger: Option<String>,
    ) {
        if let Some(stranger) = stranger
            && matches!(origin, Origin::Knock { .. } | Origin::Ban { by: By::Policy, .. })
        {
            return self.fail(stranger);
        }
        if let Origin::Ban { source, by } = origin {
            self.oracle.banned.push(*source);
            let honest = &self.scenario.sources[..self.scenario.honest];
            if *by == By::Policy && honest.contains(source) {
                return self.fail(format!("{source} is banned for misses that it did not send"));
            }
        }
        for change in &transaction.changes {
            let Change::Put { key, value } = change else { continue };
            let Ok(key) = key.parse::<Key>() else { continue };
            match &key {
                Key::Controller(_) => {
                    let revision = self.etcd.entry(&key.to_string()).map_or(0, |entry| entry.revision);
                    self.oracle.epochs.insert(controller, (life, revision));
                }
                Key::Opening(..) => match decode::<OpeningRecord>(&key, value) {
                    Ok(record) => {
                        if !tells_of(transaction, &record) {
                            self.fail(format!("opening {} changes without an event", record.id));
                        }
                        self.opened(&record, origin);
                    }
                    Err(error) => self.fail(error.to_string()),
                },
                _ => {}
            }
        }
    }

    fn opened(&mut self, record: &OpeningRecord, origin: &Origin) {
        let place = (record.door.clone(), record.source);
        if let (Some(how), Origin::Close { ahead }) = (&record.withdrawn, origin) {
            self.oracle.withdrawn.insert(place, true_time(how.at, *ahead));
            return;
        }
        let ahead = match origin {
            Origin::Knock { at, end, knocked_ahead, ahead } => {
                self.answered_knock(record, *at, *knocked_ahead, end.as_ref());
                *ahead
            }
            Origin::Operator { ahead } => *ahead,
            _ => return self.fail(format!("an opening of {} comes from nowhere", record.door)),
        };
        let end = true_time(record.expires, ahead);
        for port in &record.ports {
            let until = self.oracle.ends.entry((record.source, *port)).or_default();
            *until = end.max(*until);
        }
    }

    /// How long a host may let somebody in after an opening's end: what the clocks of the controllers differ, and what
    /// an order may have been on its way. A machine's own clock drifts little in the time of an opening.
    fn overstay(&self) -> Micros {
        2 * self.scenario.skew + IN_FLIGHT_MAX + self.scenario.spike + STAMP
    }

    /// A host's kernel lets somebody in until then.
    pub(crate) fn let_in(&mut self, host: usize, element: Element, until: Micros) {
        self.trace.mix(until);
        let end = self.oracle.ends.get(&(element.source, element.port)).copied().unwrap_or(0);
        if until > end + self.overstay() {
            self.fail(format!(
                "host {host} lets {} in at {} until {until}, not {end}",
                element.source, element.port
            ));
        }
    }

    /// A knock is to be judged later.
    pub(crate) fn judge_at(&mut self, at: Micros, attempt: usize) {
        self.at(at, Event::Judge(attempt));
    }
}

/// The bound within which a complete knock opens, or not at all.
pub(crate) fn bound() -> Micros {
    micros(ANSWER_WITHIN) + SECOND / 2
}

fn true_time(at: Timestamp, ahead: i64) -> Micros {
    at.shifted(-ahead).as_micros().saturating_sub(perfect(0).as_micros())
}

/// Whether the audit trail learns of an opening by the same transaction.
fn tells_of(transaction: &Transaction, opening: &OpeningRecord) -> bool {
    transaction.changes.iter().any(|change| {
        let Change::Put { key, value } = change else { return false };
        let Ok(key @ Key::Audit(_)) = key.parse::<Key>() else { return false };
        decode::<AuditRecord>(&key, value).is_ok_and(|event| event.opening.as_ref() == Some(&opening.id))
    })
}

fn keys(transaction: &Transaction) -> String {
    transaction.changes.iter().map(Change::key).collect::<Vec<_>>().join(", ")
}
