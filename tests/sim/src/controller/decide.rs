//! Carries decisions out: mirrors `controller::decide` around the real grants.

use std::time::Duration;

use fleetknock_controller::{
    audit::{self, Stamp},
    decide::CLOSE_MAX,
    grant::{self, Knocked, Refusal, Request},
    record::{BanRecord, By, HostRecord, Key, Withdrawn},
    store::{Change, Revision, StoreError, Transaction},
};
use fleetknock_core::{host::HostName, source::Source, time::Timestamp};
use fleetknock_proto::v1::EventKind;

use super::{Asked, Process, Standing};
use crate::{
    Sabotage,
    core::{Core, Timer},
    etcd::{Answer, Ask},
    network::StreamId,
    oracle::Origin,
    users::Operation,
};

const TRY_AGAIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 10;
const LOST_RACE: Duration = Duration::from_millis(200);

/// What is decided again and again until it is written, or refused.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Ban {
        source: Source,
        duration: Duration,
        by: By,
    },
    Close {
        source: Source,
        how: Withdrawn,
    },
    /// `ahead`: how far this controller's fleet time was ahead of true time when the knock was judged.
    Open {
        request: Request,
        fresh_id: String,
        ahead: i64,
    },
    Register {
        stream: StreamId,
        record: HostRecord,
        picture: Revision,
    },
    /// What a host's coming shows of the store.
    Identify {
        host: HostName,
        picture: Revision,
    },
    Unban {
        source: Source,
    },
}

/// Why nothing is written.
#[derive(Debug)]
enum Refused {
    Because(String),
    Suspended,
}

impl Refused {
    fn said(&self) -> &str {
        match self {
            Self::Because(why) => why,
            Self::Suspended => "it holds no lease",
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Because(refusal.to_string())
    }
}

impl Process {
    /// Whether a knock is tried again while the store or the lease is away. Grants refuse it once it is late.
    fn may_wait(&self, core: &Core, work: &Work) -> bool {
        let by_knock = matches!(work, Work::Open { request: Request { by: By::Knock, .. }, .. });
        by_knock && self.standing != Standing::Leaving && !Self::is_sabotaged(core, Sabotage::GiveUp)
    }

    fn park(&mut self, core: &mut Core, work: Work) {
        self.next_id += 1;
        self.parked.insert(self.next_id, work);
        core.wake(self.node(), TRY_AGAIN, Timer::Contend(self.next_id));
    }

    pub(super) fn decide(&mut self, core: &mut Core, work: Work, tries: u32) {
        let from = self.fleet.revision();
        match self.transaction(core, &work) {
            Err(Refused::Suspended) if self.may_wait(core, &work) => self.park(core, work),
            Err(why) => {
                core.say(|| format!("{}: refused: {}: {work:?}", self.name, why.said()));
                self.done(core, work, None);
            }
            Ok((transaction, _)) if transaction.changes.is_empty() => self.done(core, work, Some(from)),
            Ok((transaction, origin)) => {
                self.ask(
                    core,
                    Ask::Commit(transaction, origin),
                    Asked::Work { work: Box::new(work), tries, from },
                );
            }
        }
    }

    pub(super) fn work_answered(
        &mut self,
        core: &mut Core,
        work: Work,
        tries: u32,
        from: Revision,
        answer: Answer,
    ) {
        match answer {
            Answer::Committed(Ok(revision)) => self.done(core, work, Some(revision)),
            Answer::Committed(Err(StoreError::Conflict)) if tries < TRIES => {
                if self.fleet.revision() > from {
                    return self.decide(core, work, tries + 1);
                }
                self.next_id += 1;
                let id = self.next_id;
                self.waiting.insert(id, (work, tries + 1, from));
                core.wake(self.node(), LOST_RACE, Timer::Contend(id));
            }
            answer => {
                core.say(|| format!("{}: not written: {answer:?}: {work:?}", self.name));
                if self.may_wait(core, &work) {
                    self.park(core, work);
                } else {
                    self.done(core, work, None);
                }
            }
        }
    }

    pub(super) fn contend_again(&mut self, core: &mut Core, id: u64) {
        if let Some((work, tries, _)) = self.waiting.remove(&id) {
            self.decide(core, work, tries);
        }
        if let Some(mut work) = self.parked.remove(&id) {
            if let Work::Open { fresh_id: id, .. } = &mut work {
                *id = fresh_id(core);
            }
            self.decide(core, work, 0);
        }
    }

    /// The copy has moved on: races that were lost to what it shows now are run again.
    pub(super) fn contend_moved(&mut self, core: &mut Core) {
        let now = self.fleet.revision();
        let moved: Vec<_> =
            self.waiting.iter().filter(|(_, (_, _, from))| now > *from).map(|(id, _)| *id).collect();
        for id in moved {
            self.contend_again(core, id);
        }
    }

    fn transaction(&self, core: &Core, work: &Work) -> Result<(Transaction, Origin), Refused> {
        let at = self.now(core);
        match work {
            Work::Open { request, fresh_id, ahead } => self.opening(core, request, fresh_id, *ahead, at),
            Work::Ban { source, duration, by } => {
                let (since, expires) = (at, at + *duration);
                let record = BanRecord {
                    source: *source,
                    since,
                    expires,
                    reason: "simulated".to_owned(),
                    by: by.clone(),
                };
                let mut transaction = grant::ban(&self.fleet, &record)?;
                if *by == By::Policy {
                    transaction.expect.push(self.fence(core).ok_or(Refused::Suspended)?);
                } else {
                    audit::append(&mut transaction, &self.fleet, [audit::ban(&record, self.stamp(at))])?;
                }
                Ok((transaction, Origin::Ban { source: *source, by: by.clone() }))
            }
            Work::Close { source, how } => {
                let openings = self.fleet.openings().values();
                let openings = openings.filter(|h| h.record.source == *source && h.record.is_active(at));
                let openings: Vec<_> = openings.take(CLOSE_MAX).collect();
                let withdrawn = grant::withdraw(&openings, how, at)?;
                let (records, mut transaction) = withdrawn.unwrap_or_default();
                let stamp = self.stamp(at);
                let events =
                    records.iter().enumerate().map(|(number, o)| audit::opening(o, stamp.nth(number)));
                audit::append(&mut transaction, &self.fleet, events)?;
                Ok((transaction, Origin::Close { ahead: self.ahead(core) }))
            }
            Work::Register { record, .. } => {
                let held = self.fleet.hosts().get(&record.name);
                let created = held.map_or(at, |held| held.record.created);
                let record = HostRecord { created, ..record.clone() };
                let mut transaction = Transaction::default();
                if held.is_none_or(|held| held.record != record) {
                    let key = Key::Host(record.name.clone());
                    transaction.expect.push(grant::expect(&key, held.map(|held| held.revision)));
                    transaction.changes.push(grant::put(&key, &record)?);
                }
                Ok((transaction, Origin::Other))
            }
            // As `hello::identify`: without a lease it is left to whoever comes next.
            Work::Identify { host, picture } => {
                let mut transaction = Transaction::default();
                let record = self.fleet.identity_after(host, *picture, at);
                if let Some(record) = record.filter(|_| matches!(self.standing, Standing::Serving { .. })) {
                    let held = self.fleet.identity_record().map(|held| held.revision);
                    transaction.expect.push(grant::expect(&Key::Identity, held));
                    transaction.changes.push(grant::put(&Key::Identity, &record)?);
                }
                Ok((transaction, Origin::Other))
            }
            Work::Unban { source } => {
                let key = Key::Ban(*source);
                let Some(revision) = self.fleet.revision_of(&key) else {
                    return Ok((Transaction::default(), Origin::Other));
                };
                let expect = vec![grant::expect(&key, Some(revision))];
                let changes = vec![Change::Delete { key: key.to_string() }];
                let mut transaction = Transaction { expect, changes, lease: None };
                let event = audit::entry(EventKind::SourceUnbanned, self.stamp(at), "no longer banned");
                audit::append(&mut transaction, &self.fleet, [event.about_source(*source)])?;
                Ok((transaction, Origin::Other))
            }
        }
    }

    fn opening(
        &self,
        core: &Core,
        request: &Request,
        fresh_id: &str,
        knocked_ahead: i64,
        at: Timestamp,
    ) -> Result<(Transaction, Origin), Refused> {
        let mut asked = request.clone();
        if Self::is_sabotaged(core, Sabotage::ForgetPackets)
            && let Some(knocked) = &mut asked.knocked
        {
            (knocked.end, knocked.packets) = (None, Vec::new());
        }
        let granted = match grant::grant(&self.fleet, &asked, fresh_id, at) {
            Err(Refusal::Late { .. }) if Self::is_sabotaged(core, Sabotage::AnswerLate) => {
                let knocked = request.knocked.clone().map(|knocked| Knocked { at, ..knocked });
                grant::grant(&self.fleet, &Request { knocked, ..request.clone() }, fresh_id, at)
            }
            Err(Refusal::Known) if Self::is_sabotaged(core, Sabotage::AnswerTwice) => {
                grant::grant(&self.fleet, &Request { knocked: None, ..request.clone() }, fresh_id, at)
            }
            granted => granted,
        };
        let mut granted = granted?;
        let event = audit::opening(&granted.opening, self.stamp(at));
        audit::append(&mut granted.transaction, &self.fleet, [event])?;
        let ahead = self.ahead(core);
        let origin = match request.knocked.clone() {
            None => Origin::Operator { ahead },
            Some(Knocked { at, end, .. }) => Origin::Knock { at, end, knocked_ahead, ahead },
        };
        if request.by == By::Knock && !Self::is_sabotaged(core, Sabotage::Unfenced) {
            granted.transaction.expect.push(self.fence(core).ok_or(Refused::Suspended)?);
        }
        Ok((granted.transaction, origin))
    }

    /// As `Shared::stamp`, with numbers of which each belongs to one transaction.
    fn stamp(&self, at: Timestamp) -> Stamp<'_> {
        let number = u32::try_from(self.number).unwrap_or(0) << 28;
        let transaction = u32::try_from(self.next_id & 0xf_ffff).unwrap_or(0) << 8;
        Stamp { at, random: number | transaction, controller: &self.name, actor: None }
    }

    /// It is written, or given up.
    fn done(&mut self, core: &mut Core, work: Work, written: Option<Revision>) {
        match (work, written) {
            (Work::Ban { source, .. }, Some(_)) => {
                let how =
                    Withdrawn { at: self.now(core), reason: "banned".to_owned(), kill_connections: false };
                self.decide(core, Work::Close { source, how }, 0);
            }
            (Work::Register { stream, record, picture }, Some(revision)) => {
                self.decide(core, Work::Identify { host: record.name, picture }, 0);
                self.registered(core, stream, revision);
            }
            (Work::Register { stream, .. }, None) => {
                self.refuse(core, stream, crate::network::Refused::Unavailable)
            }
            _ => {}
        }
    }

    pub(super) fn operate(&mut self, core: &mut Core, operation: Operation) {
        core.say(|| format!("an operator asks {}: {operation:?}", self.name));
        let at = self.now(core);
        let sources = core.scenario.sources.clone();
        let work = match operation {
            Operation::Ban { source, duration } => {
                Work::Ban { source: sources[source], duration, by: By::Operator }
            }
            Operation::Unban { source } => Work::Unban { source: sources[source] },
            Operation::Close { source } => Work::Close {
                source: sources[source],
                how: Withdrawn { at, reason: "closed".to_owned(), kill_connections: false },
            },
            Operation::Open { source, door, duration } => Work::Open {
                request: Request {
                    door: core.scenario.doors[door].name().clone(),
                    source: sources[source],
                    duration,
                    knocked: None,
                    by: By::Operator,
                    reason: String::new(),
                    trace: None,
                },
                fresh_id: fresh_id(core),
                ahead: 0,
            },
        };
        self.decide(core, work, 0);
    }
}

/// Sixteen digits that nobody else draws.
pub(super) fn fresh_id(core: &mut Core) -> String {
    format!("{:016x}", core.number())
}
