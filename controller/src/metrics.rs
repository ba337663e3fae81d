//! What the controller counts. Each instrument is named, described and registered here, once.

use std::time::Duration;

use fleetknock_core::{
    matcher::{Attempts, FailReason},
    time::Timestamp,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use self::{doors::Doors, fleet::View, pushes::Answer, store::StoreMetrics};

pub mod doors;
mod fleet;
pub mod pushes;
pub mod store;

/// From a commit seen to the answer of an agent nearby (a millisecond), or of one far away that is busy.
const PUSH_SECONDS: [f64; 11] = [1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 5.0, 20.0];

/// What may become of a knock.
pub(crate) const VERDICTS: [&str; 7] =
    ["advanced", "banned", "completed", "ignored", "miss", "repeat", "waiting"];

/// Why a complete knock may open nothing; `full` concerns bans.
const KNOCKS_REFUSED: [&str; 7] = ["banned", "late", "no_door", "queue", "record", "store", "suspended"];

/// Why a call may not be let in.
const DENIED: [&str; 3] = ["denied", "impostor", "unknown"];

/// Why nobody may know who somebody is.
const FAILED: [&str; 8] = [
    "certificate",
    "nothing",
    "token_enrol",
    "token_expired",
    "token_malformed",
    "token_other_kind",
    "token_unknown",
    "token_wrong",
];

/// What may end a call or a stream.
const LIMITED: [&str; 5] = ["deadline", "rate", "slow_agent", "slow_watcher", "watchers"];

/// What became of a knock; a small fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabels {
    /// `advanced`, `completed`, `repeat`, `waiting`, `miss`, `ignored`, `banned`.
    pub verdict: &'static str,
}

/// Why something was not carried out; a small fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// `banned`, `full`, `late`, `no_door`, `queue`, `record`, `store`, `suspended`.
    pub reason: &'static str,
}

/// Why a call was not let in; a small fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeniedLabels {
    /// `denied`: the caller is known and may not; `unknown`: it is not known; `impostor`: it spoke in another's
    /// name.
    pub reason: &'static str,
}

/// Why nobody knew who somebody was; a small fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailedLabels {
    /// `certificate`: it was refused; `nothing`: neither certificate nor token was shown; `token_enrol`: a host's
    /// token was not good; `token_expired`, `token_malformed`, `token_other_kind`, `token_unknown`, `token_wrong`: a user's
    /// was not.
    pub reason: &'static str,
}

/// Why a call or a stream was not served, or no longer; a small fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitedLabels {
    /// `deadline`: an answer took too long; `rate`: a caller changes too much; `slow_agent`, `slow_watcher`: its stream is
    /// not read; `watchers`: there are too many.
    pub reason: &'static str,
}

/// Why an attempt failed; a small fixed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    /// One of the names of [`FailReason::ALL`].
    pub reason: &'static str,
}

/// The controller's instruments. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Knocks judged, by verdict.
    pub knocks: Family<VerdictLabels, Counter>,
    /// What happened to the openings of each door.
    pub doors: Doors,
    /// From a commit seen here to the answer of each agent.
    pub push_seconds: Histogram,
    /// From a knock's last packet to the answer of each agent.
    pub knock_to_open_host_seconds: Histogram,
    /// From a knock's last packet to the answer of the last agent.
    pub knock_to_open_seconds: Histogram,
    /// Attempts that reached the second step of a door, or its last.
    pub attempts_started: Counter,
    /// Those of them that opened a door.
    pub attempts_completed: Counter,
    /// Those of them that failed, by reason.
    pub attempts_failed: Family<AttemptLabels, Counter>,
    /// Decisions that could not be carried out, by reason.
    pub refused: Family<RefusedLabels, Counter>,
    /// Calls that were not let in, by reason.
    pub denied: Family<DeniedLabels, Counter>,
    /// Events written to the audit log.
    pub audit_lines: Counter,
    /// Events that the audit log lacks.
    pub audit_lines_lost: Counter,
    /// Callers and clients that could not show who they are, by reason.
    pub authentication_failures: Family<FailedLabels, Counter>,
    /// Calls and streams that a limit ended, by limit.
    pub limited: Family<LimitedLabels, Counter>,
    /// Knocks forwarded to the peers that follow their sources.
    pub forwarded: Counter,
    /// Knocks that could not be forwarded.
    pub forward_dropped: Counter,
    /// Times the agents were asked for their windows.
    pub resends: Counter,
    /// Agents asked to move to controllers that have fewer.
    pub agents_moved: Counter,
    /// Bans written.
    pub bans: Counter,
    /// Times that the lease was prolonged.
    pub lease_renewals: Counter,
    /// Sources that the matcher follows now.
    pub sources: Gauge,
    /// How many it can follow.
    pub sources_limit: Gauge,
    /// Times the whole store was read anew.
    pub resyncs: Counter,
    /// Transactions that lost a race and were decided again.
    pub conflicts: Counter,
    /// Records of the store that could not be read, each time they were.
    pub records_broken: Counter,
    /// How the store answers.
    pub store: StoreMetrics,
    /// What is read off the fleet's copy.
    pub view: View,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            attempts_started: Counter::default(),
            attempts_completed: Counter::default(),
            attempts_failed: Family::default(),
            knocks: Family::default(),
            doors: Doors::default(),
            push_seconds: Histogram::new(PUSH_SECONDS),
            knock_to_open_host_seconds: Histogram::new(PUSH_SECONDS),
            knock_to_open_seconds: Histogram::new(PUSH_SECONDS),
            refused: Family::default(),
            denied: Family::default(),
            audit_lines: Counter::default(),
            audit_lines_lost: Counter::default(),
            authentication_failures: Family::default(),
            limited: Family::default(),
            forwarded: Counter::default(),
            forward_dropped: Counter::default(),
            resends: Counter::default(),
            agents_moved: Counter::default(),
            bans: Counter::default(),
            lease_renewals: Counter::default(),
            sources: Gauge::default(),
            sources_limit: Gauge::default(),
            resyncs: Counter::default(),
            conflicts: Counter::default(),
            records_broken: Counter::default(),
            store: StoreMetrics::default(),
            view: View::default(),
        }
    }
}

impl Metrics {
    /// Knocks judged, whatever became of them.
    pub fn knocks_judged(&self) -> u64 {
        let count = |verdict| self.knocks.get(&VerdictLabels { verdict }).map_or(0, |counter| counter.get());
        VERDICTS.into_iter().map(count).sum()
    }

    /// Decisions of complete knocks, and few others, that could not be carried out.
    pub fn knocks_refused(&self) -> u64 {
        let count = |reason| self.refused.get(&RefusedLabels { reason }).map_or(0, |counter| counter.get());
        KNOCKS_REFUSED.into_iter().map(count).sum()
    }

    /// Measures an agent's answer, heard at that time of the fleet.
    pub fn answered(&self, answer: &Answer, at: Timestamp) {
        self.push_seconds.observe(answer.took.as_secs_f64());
        let Some(knocked) = answer.knocked else { return };
        let took = Duration::from_micros(at.as_micros().saturating_sub(knocked.as_micros())).as_secs_f64();
        self.knock_to_open_host_seconds.observe(took);
        if answer.complete {
            self.knock_to_open_seconds.observe(took);
        }
    }

    /// Adds what the matcher has counted between two looks at it.
    pub fn count_attempts(&self, before: &Attempts, now: &Attempts) {
        self.attempts_started.inc_by(now.started - before.started);
        self.attempts_completed.inc_by(now.completed - before.completed);
        for reason in FailReason::ALL {
            let failed = now.failed(reason) - before.failed(reason);
            if failed > 0 {
                let labels = AttemptLabels { reason: reason.name() };
                self.attempts_failed.get_or_create(&labels).inc_by(failed);
            }
        }
    }

    /// Registers every instrument under `fleetknock_controller_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("fleetknock_controller");
        self.register_labelled(registry);
        for (name, help, counter) in [
            ("audit_lines", "Events written to the audit log", &self.audit_lines),
            (
                "audit_lines_lost",
                "Events that the audit log lacks: they came faster than they could be written",
                &self.audit_lines_lost,
            ),
            (
                "knocks_forwarded",
                "Knocks forwarded to the controllers that follow their sources",
                &self.forwarded,
            ),
            (
                "knocks_forward_dropped",
                "Knocks that could not be forwarded; agents send them again when they can",
                &self.forward_dropped,
            ),
            ("resends", "Times the agents were asked for their windows", &self.resends),
            ("agents_moved", "Agents asked to move to controllers that have fewer", &self.agents_moved),
            ("bans", "Bans written", &self.bans),
            ("lease_renewals", "Times that this controller's lease was prolonged", &self.lease_renewals),
            ("store_resyncs", "Times the whole store was read anew", &self.resyncs),
            (
                "store_records_broken",
                "Records of the store that could not be read, such as sealed ones without their key",
                &self.records_broken,
            ),
            ("store_conflicts", "Transactions that lost a race", &self.conflicts),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, gauge) in [
            ("sources_in_flight", "Sources that the matcher follows now", &self.sources),
            ("sources_limit", "Sources that the matcher can follow", &self.sources_limit),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, histogram) in [
            (
                "opening_push",
                "From a commit seen here to the answer of each agent that has the opening in its kernel",
                &self.push_seconds,
            ),
            (
                "knock_to_open_host",
                "From the capture of a knock's last packet to the answer of each agent that has the opening",
                &self.knock_to_open_host_seconds,
            ),
            (
                "knock_to_open",
                "From the capture of a knock's last packet to the answer of the last agent connected here",
                &self.knock_to_open_seconds,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        self.store.register(registry);
        registry.register_collector(Box::new(self.view.clone()));
    }

    fn register_labelled(&self, registry: &mut Registry) {
        self.begin();
        registry.register("knocks", "Knocks judged, by verdict", self.knocks.clone());
        let started = "Attempts that reached the second step of a door, or its last";
        registry.register("attempts_started", started, self.attempts_started.clone());
        let completed = "Attempts that knocked all steps of a door";
        registry.register("attempts_completed", completed, self.attempts_completed.clone());
        let failed = "Attempts that had reached a second step and failed, by reason";
        registry.register("attempts_failed", failed, self.attempts_failed.clone());
        let refused = "Decisions that could not be carried out, by reason";
        registry.register("refused", refused, self.refused.clone());
        let denied = "Calls that their callers may not make, by reason";
        registry.register("calls_denied", denied, self.denied.clone());
        let failed = "Callers and clients that could not show who they are, by reason";
        registry.register("authentication_failures", failed, self.authentication_failures.clone());
        let limited = "Calls and streams that a limit ended, by limit";
        registry.register("calls_limited", limited, self.limited.clone());
    }

    /// What has not happened yet is shown as zero: a series that begins with a one has no rate.
    fn begin(&self) {
        for verdict in VERDICTS {
            drop(self.knocks.get_or_create(&VerdictLabels { verdict }));
        }
        for reason in FailReason::ALL {
            drop(self.attempts_failed.get_or_create(&AttemptLabels { reason: reason.name() }));
        }
        for reason in KNOCKS_REFUSED.into_iter().chain(["full"]) {
            drop(self.refused.get_or_create(&RefusedLabels { reason }));
        }
        for reason in DENIED {
            drop(self.denied.get_or_create(&DeniedLabels { reason }));
        }
        for reason in FAILED {
            drop(self.authentication_failures.get_or_create(&FailedLabels { reason }));
        }
        for reason in LIMITED {
            drop(self.limited.get_or_create(&LimitedLabels { reason }));
        }
    }
}
