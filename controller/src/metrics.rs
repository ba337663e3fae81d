//! What the controller counts. Each instrument is named, described and registered here, once.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What may become of a knock.
const VERDICTS: [&str; 7] = ["advanced", "banned", "completed", "ignored", "miss", "repeat", "waiting"];

/// Why a complete knock may open nothing; `full` concerns bans.
const KNOCKS_REFUSED: [&str; 7] = ["banned", "late", "no_door", "queue", "record", "store", "suspended"];

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

/// The controller's instruments. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Knocks judged, by verdict.
    pub knocks: Family<VerdictLabels, Counter>,
    /// Openings granted or refreshed.
    pub openings: Counter,
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
    /// 1 while the lease holds.
    pub lease_held: Gauge,
    /// Controllers whose leases hold.
    pub members: Gauge,
    /// Openings active now.
    pub openings_active: Gauge,
    /// Bans written.
    pub bans: Counter,
    /// Agents connected now.
    pub agents: Gauge,
    /// Sources that the matcher follows now.
    pub sources: Gauge,
    /// Times the whole store was read anew.
    pub resyncs: Counter,
    /// Transactions that lost a race and were decided again.
    pub conflicts: Counter,
    /// Records of the store that could not be read, each time they were.
    pub records_broken: Counter,
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

    /// Registers every instrument under `fleetknock_controller_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("fleetknock_controller");
        registry.register("knocks", "Knocks judged, by verdict", self.knocks.clone());
        registry.register("openings", "Openings granted or refreshed", self.openings.clone());
        let refused = "Decisions that could not be carried out, by reason";
        registry.register("refused", refused, self.refused.clone());
        let denied = "Calls that their callers may not make, by reason";
        registry.register("calls_denied", denied, self.denied.clone());
        let failed = "Callers and clients that could not show who they are, by reason";
        registry.register("authentication_failures", failed, self.authentication_failures.clone());
        let limited = "Calls and streams that a limit ended, by limit";
        registry.register("calls_limited", limited, self.limited.clone());
        let forwarded = "Knocks forwarded to the controllers that follow their sources";
        registry.register("audit_lines", "Events written to the audit log", self.audit_lines.clone());
        let lost = "Events that the audit log lacks: they came faster than they could be written";
        registry.register("audit_lines_lost", lost, self.audit_lines_lost.clone());
        registry.register("knocks_forwarded", forwarded, self.forwarded.clone());
        let dropped = "Knocks that could not be forwarded; agents send them again when they can";
        registry.register("knocks_forward_dropped", dropped, self.forward_dropped.clone());
        registry.register("resends", "Times the agents were asked for their windows", self.resends.clone());
        registry.register("lease_held", "1 while this controller's lease holds", self.lease_held.clone());
        registry.register("members", "Controllers whose leases hold", self.members.clone());
        registry.register("openings_active", "Openings active now", self.openings_active.clone());
        registry.register("bans", "Bans written", self.bans.clone());
        registry.register("agents_connected", "Agents connected now", self.agents.clone());
        registry.register("sources_in_flight", "Sources that the matcher follows now", self.sources.clone());
        registry.register("store_resyncs", "Times the whole store was read anew", self.resyncs.clone());
        let broken = "Records of the store that could not be read, such as sealed ones without their key";
        registry.register("store_records_broken", broken, self.records_broken.clone());
        registry.register("store_conflicts", "Transactions that lost a race", self.conflicts.clone());
    }
}
