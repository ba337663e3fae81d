//! An etcd as its clients see it: linearizable, with watches and leases, out of reach at times, its answers lost at times.

use std::{collections::BTreeMap, time::Duration};

use fleetknock_controller::{
    grant,
    record::{IdentityRecord, Key},
    store::{
        Change, Changes, Entry, Lease, LeaseId, Listing, Revision, StoreError, Transaction, ledger::Ledger,
    },
};

use crate::{
    core::{Core, Event, Input},
    network::Node,
    oracle::Origin,
    time::{Micros, SECOND, store_instant},
};

/// After this a client gives a call up (`store::etcd::DEADLINE`).
pub(crate) const DEADLINE: Micros = 3 * SECOND;
/// After this it asks anew what is harmless to repeat.
const ATTEMPT: (Micros, Micros) = (1_200_000, 1_300_000);

/// What a controller asks.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Commit(Transaction, Origin),
    Get(String),
    Grant(Duration),
    KeepAlive(LeaseId),
    List,
    Revoke(LeaseId),
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) controller: usize,
    pub(crate) life: u32,
    pub(crate) id: u64,
    pub(crate) ask: Ask,
}

#[derive(Debug)]
pub(crate) enum Answer {
    Committed(Result<Revision, StoreError>),
    Entry(Option<Entry>),
    Kept(Option<Duration>),
    Leased(Result<Lease, StoreError>),
    Listed(Listing),
    Revoked,
    /// No answer came in time.
    Unavailable,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Etcd {
    ledger: Ledger,
    log: Vec<Changes>,
    watches: BTreeMap<usize, Watch>,
    next_watch: u64,
    /// It has no majority.
    pub(crate) down: bool,
    /// The share of answers that get lost.
    pub(crate) losing: f64,
    leases_at: Micros,
    /// What it held when it was lost.
    backup: Option<Listing>,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    id: u64,
    life: u32,
    after: Revision,
    /// Its history was compacted.
    broken: bool,
}

impl Etcd {
    pub(crate) fn listing(&self) -> Listing {
        self.ledger.list()
    }

    pub(crate) fn entry(&self, key: &str) -> Option<Entry> {
        self.ledger.entry(key)
    }

    /// Forgets its history: watches that are behind have to begin anew.
    pub(crate) fn compact(&mut self) {
        for watch in self.watches.values_mut() {
            watch.broken = true;
        }
    }
}

/// Who the fleet is, in a store that was set up anew or is known to be the fleet's.
pub(crate) fn identity(new: bool) -> Option<Change> {
    let record = IdentityRecord { id: "simulated".to_owned(), new, missed: false };
    grant::put(&Key::Identity, &record).ok()
}

impl Core {
    /// Writes something before the run begins.
    pub(crate) fn plant(&mut self, change: Change) -> Result<(), StoreError> {
        let transaction = Transaction { changes: vec![change], ..Transaction::default() };
        self.etcd.ledger.commit(transaction, store_instant(self.now))?;
        self.told();
        Ok(())
    }

    /// The store is another one, that holds nothing. A backup was made just before.
    pub(crate) fn lose_store(&mut self) {
        let backup = self.etcd.listing();
        let next_watch = self.etcd.next_watch;
        self.etcd = Etcd { backup: Some(backup), next_watch, ..Etcd::default() };
        self.oracle.store_lost();
    }

    pub(crate) fn is_store_lost(&self) -> bool {
        self.etcd.backup.is_some()
    }

    /// Mirrors `controller::backup::restore`: door by door, then hosts and bans, and last that the store is the fleet's.
    pub(crate) fn restore(&mut self) {
        let Some(Listing { entries, .. }) = self.etcd.backup.take() else { return };
        let is_in = |entry: &&Entry, kinds: &[&str]| kinds.iter().any(|kind| entry.key.starts_with(kind));
        let mut changes = Vec::new();
        for kinds in [&["doors/"][..], &["hosts/", "bans/"]] {
            for entry in entries.iter().filter(|entry| is_in(entry, kinds)) {
                if self.etcd.entry(&entry.key).is_none() {
                    changes.push(Change::Put { key: entry.key.clone(), value: entry.value.clone() });
                }
            }
        }
        changes.extend(identity(false));
        for change in changes {
            if let Err(error) = self.plant(change) {
                self.fail(format!("a backup cannot be restored: {error}"));
            }
        }
    }

    /// Sends a question on its way. It is answered once, if only to say that no answer came.
    pub(crate) fn ask(&mut self, request: Request) {
        let give_up = self.now + DEADLINE;
        let Request { controller, life, id, .. } = request;
        let node = Node::Controller(controller);
        let input = Box::new(Input::Answer(id, Answer::Unavailable));
        self.at(give_up, Event::Give { node, life, input });
        let arrives = self.now + self.delay(node, Node::Etcd);
        self.at(arrives, Event::Asked { request, give_up });
    }

    /// A question arrives, as long as somebody waits for the answer.
    pub(crate) fn asked(&mut self, request: Request, give_up: Micros) {
        let node = Node::Controller(request.controller);
        if self.now >= give_up {
            return;
        }
        if self.etcd.down || self.net.is_cut(node, Node::Etcd) {
            let retry = self.now + self.between(50_000, 300_000);
            return self.at(retry, Event::Asked { request, give_up });
        }
        let answer = self.carry_out(&request);
        let losing = self.etcd.losing;
        if self.chance(losing) {
            self.say(|| format!("etcd's answer to controller {} got lost", request.controller));
            // What a commit in doubt did is seen by the next attempt, or never; all else is asked again.
            if self.chance(0.5) {
                let late = self.now + self.between(ATTEMPT.0, ATTEMPT.1);
                self.at(late, Event::Answered { request, answer, give_up });
            }
            return;
        }
        let back = self.now + self.delay(Node::Etcd, node);
        self.at(back, Event::Answered { request, answer, give_up });
    }

    pub(crate) fn answered(&mut self, request: Request, answer: Answer, give_up: Micros) {
        let node = Node::Controller(request.controller);
        if self.net.is_cut(Node::Etcd, node) && self.now < give_up {
            let retry = self.now + self.between(50_000, 300_000);
            return self.at(retry, Event::Answered { request, answer, give_up });
        }
        let input = Box::new(Input::Answer(request.id, answer));
        self.at(self.now, Event::Give { node, life: request.life, input });
    }

    fn carry_out(&mut self, request: &Request) -> Answer {
        let at = store_instant(self.now);
        let ledger = &mut self.etcd.ledger;
        let answer = match &request.ask {
            Ask::Commit(transaction, origin) => {
                ledger.expire(at);
                self.told();
                let result = self.commit((request.controller, request.life), transaction, origin);
                Answer::Committed(result)
            }
            Ask::Get(key) => {
                ledger.expire(at);
                Answer::Entry(ledger.entry(key))
            }
            Ask::Grant(ttl) => Answer::Leased(ledger.lease(*ttl, at)),
            Ask::KeepAlive(lease) => Answer::Kept(ledger.keep_alive(*lease, at)),
            Ask::List => {
                ledger.expire(at);
                Answer::Listed(ledger.list())
            }
            Ask::Revoke(lease) => {
                ledger.revoke(*lease, at);
                Answer::Revoked
            }
        };
        self.told();
        answer
    }

    fn commit(
        &mut self,
        process: (usize, u32),
        transaction: &Transaction,
        origin: &Origin,
    ) -> Result<Revision, StoreError> {
        let before = self.before(process, transaction);
        let result = self.etcd.ledger.commit(transaction.clone(), store_instant(self.now));
        if result.is_ok() {
            self.committed(process, transaction, origin, before);
        }
        result
    }

    /// The watch of a controller; 0 when it has none.
    pub(crate) fn watch_of(&self, controller: usize) -> u64 {
        self.etcd.watches.get(&controller).map_or(0, |watch| watch.id)
    }

    /// Lets watches and the lease clock know of what was committed.
    fn told(&mut self) {
        for changes in self.etcd.ledger.take_commits() {
            self.trace.mix(changes.revision);
            for change in &changes.changes {
                self.trace.mix_text(change.key());
            }
            self.say(|| {
                let said = changes.changes.iter().map(|change| match change {
                    Change::Delete { key } => format!("-{key}"),
                    Change::Put { key, .. } => format!("+{key}"),
                });
                format!("etcd: revision {}: {}", changes.revision, said.collect::<Vec<_>>().join(" "))
            });
            self.etcd.log.push(changes);
            for (controller, watch) in self.etcd.watches.clone() {
                let at = self.now + self.delay(Node::Etcd, Node::Controller(controller));
                self.at(at, Event::Watch { controller, watch: watch.id });
            }
        }
        if let Some(end) = self.etcd.ledger.next_end() {
            let end = u64::try_from(end.duration_since(store_instant(0)).as_micros()).unwrap_or(u64::MAX);
            if self.etcd.leases_at <= self.now || end < self.etcd.leases_at {
                self.etcd.leases_at = end;
                self.at(end, Event::Leases);
            }
        }
    }

    /// A lease may be over.
    pub(crate) fn end_leases(&mut self) {
        if !self.etcd.down {
            self.etcd.ledger.expire(store_instant(self.now));
        }
        self.etcd.leases_at = 0;
        if self.etcd.down {
            return;
        }
        self.told();
    }

    /// The majority is back; the new leader gives every lease its time again.
    pub(crate) fn elect(&mut self) {
        self.etcd.down = false;
        self.etcd.ledger.renew_all(store_instant(self.now));
        self.told();
        for (controller, watch) in self.etcd.watches.clone() {
            self.at(self.now, Event::Watch { controller, watch: watch.id });
        }
    }

    /// Begins a watch in the place of the one that this controller had.
    pub(crate) fn watch(&mut self, controller: usize, after: Revision) -> u64 {
        self.etcd.next_watch += 1;
        let id = self.etcd.next_watch;
        let life = self.life(Node::Controller(controller));
        self.etcd.watches.insert(controller, Watch { id, life, after, broken: false });
        self.at(self.now, Event::Watch { controller, watch: id });
        id
    }

    /// Moves a watch on by one commit.
    pub(crate) fn pump_watch(&mut self, controller: usize, id: u64) {
        let node = Node::Controller(controller);
        let Some(watch) = self.etcd.watches.get(&controller).copied().filter(|watch| watch.id == id) else {
            return;
        };
        if watch.life != self.life(node) {
            self.etcd.watches.remove(&controller);
            return;
        }
        let place = self.etcd.log.partition_point(|changes| changes.revision <= watch.after);
        if place >= self.etcd.log.len() && !watch.broken {
            return;
        }
        if self.etcd.down || self.net.is_cut(Node::Etcd, node) || self.net.is_cut(node, Node::Etcd) {
            let retry = self.now + self.between(50_000, 300_000);
            return self.at(retry, Event::Watch { controller, watch: id });
        }
        let changes = if watch.broken {
            self.etcd.watches.remove(&controller);
            None
        } else {
            let changes = self.etcd.log[place].clone();
            if let Some(watch) = self.etcd.watches.get_mut(&controller) {
                watch.after = changes.revision;
            }
            let next = self.now + self.between(10, 200);
            self.at(next, Event::Watch { controller, watch: id });
            Some(changes)
        };
        let input = Box::new(Input::Watched(id, changes));
        self.at(self.now, Event::Give { node, life: watch.life, input });
    }
}
