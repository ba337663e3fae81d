//! What the driver tells the controller and Prometheus.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use fleetknock_proto::{
    limits,
    v1::{self, AgentMessage, HostOpeningState, agent_message::Kind as Said},
};

use super::{BATCH_MAX, Driver, RESULTS_MAX, Session};
use crate::link::{OUTBOUND_URGENT, wire};

/// A report is sent at least this often.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// Characters of a reason or a repair.
const TEXT_MAX: usize = 300;

impl Driver {
    /// Whether something waits for room on the link.
    pub(super) fn has_unsaid(&self) -> bool {
        self.is_welcomed() && (self.window.has_unsent() || !self.results.is_empty())
    }

    /// Whether a controller listens to more than answers to probes.
    pub(super) fn is_welcomed(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.welcomed)
    }

    /// Sends what there is to send, as far as there is room: results first, they are waited for.
    pub(super) fn say(&mut self) {
        let Some(Session { outbound, welcomed: true, .. }) = &self.session else { return };
        if self.window.begin_due_pass(Instant::now()) {
            tracing::debug!(observations = self.window.len(), "the window is sent again");
        }
        while !self.results.is_empty() && outbound.capacity() > 0 {
            let count = self.results.len().min(limits::OPENINGS_MAX);
            let results = self.results.drain(..count).collect();
            let _ = outbound.try_send(message(Said::Results(v1::ResultBatch { results })));
        }
        while self.window.has_unsent() && outbound.capacity() > OUTBOUND_URGENT {
            let (kept, resent) = self.window.next_batch(BATCH_MAX);
            let observations: Vec<_> = kept.map(wire::observation).collect();
            self.metrics.reported.inc_by(observations.len() as u64);
            if !resent {
                self.trail.sent(&observations);
            }
            if resent {
                self.metrics.reports_resent.inc_by(observations.len() as u64);
            }
            let drops = Some(drops(&*self.ears, self.window.lost()));
            let batch = v1::ObservationBatch { observations, drops, resent };
            let _ = outbound.try_send(message(Said::Observations(batch)));
        }
        let due = self.last_report.as_ref().is_none_or(|(at, _)| at.elapsed() >= REPORT_EVERY);
        if due || self.reports_change() {
            self.report();
        }
    }

    fn reports_change(&self) -> bool {
        let Some((_, last)) = &self.last_report else { return true };
        last.repairs != self.repairs
            || last.warnings != self.warnings()
            || last.addresses != self.addresses
            || last.in_use != self.in_use
    }

    fn report(&mut self) {
        let report = v1::HostReport {
            drops: Some(drops(&*self.ears, self.window.lost())),
            repairs: self.repairs,
            last_repair: self.last_repair.chars().take(TEXT_MAX).collect(),
            warnings: self.warnings(),
            addresses: self.addresses.clone(),
            revision: self.picture.revision(),
            guard_counts: self.guard_counts(),
            in_use: self.in_use.clone(),
        };
        let Some(session) = &self.session else { return };
        if session.outbound.try_send(message(Said::Report(report.clone()))).is_ok() {
            self.last_report = Some((Instant::now(), report));
        }
    }

    fn guard_counts(&self) -> Vec<v1::GuardCount> {
        let guard = self.picture.fleet_guard();
        wire::guard_counts(guard.ports.iter().chain(&guard.observed).copied(), self.tally.totals())
    }

    /// That something came without an opening is said at once; how much of it, with every report.
    pub(super) fn tell_first_counts(&mut self) {
        let none_told = self.last_report.as_ref().is_some_and(|(_, last)| last.guard_counts.is_empty());
        if none_told && !self.guard_counts().is_empty() {
            self.report();
        }
    }

    fn warnings(&self) -> Vec<String> {
        let certificate = self.certificate.borrow();
        let all = certificate.iter().chain(self.troubles.values()).chain(&self.inspected);
        all.take(16).map(|warning| warning.chars().take(TEXT_MAX).collect()).collect()
    }

    /// Queues what became of an opening.
    pub(super) fn add_result(&mut self, mut result: v1::OpeningResult) {
        self.trail.answered(&result);
        if result.state() == HostOpeningState::Applied {
            self.metrics.openings_applied.inc();
            self.metrics.apply_seconds.observe(f64::from(result.took_us) / 1e6);
            self.failed.remove(result.id.as_str());
        } else if let Some((id, held)) = self.picture.entry(&result.id)
            && held.generation == result.generation
        {
            self.metrics.firewall_failures.inc();
            self.metrics.openings_failed.inc();
            self.failed.insert(id.clone(), result.generation);
            self.reconcile_due = true;
        }
        if self.session.is_none() {
            return;
        }
        result.reason = result.reason.chars().take(TEXT_MAX).collect();
        if self.results.len() >= RESULTS_MAX {
            self.results.pop_front();
        }
        self.results.push_back(result);
    }

    /// A reconcile succeeded: what the kernel did not take before, it has now.
    pub(super) fn make_good(&mut self) {
        let failed: Vec<_> = self.failed.drain().collect();
        for (id, generation) in failed {
            if let Some(held) = self.picture.opening(&id).filter(|held| held.generation == generation)
                && held.deadline > Instant::now()
            {
                self.add_result(v1::OpeningResult {
                    id: id.to_string(),
                    generation,
                    state: HostOpeningState::Applied.into(),
                    reason: String::new(),
                    took_us: 0,
                });
            }
        }
    }

    /// Looks for the addresses that this host has now, and for ports that its services have.
    pub(super) fn look_around(&mut self) {
        self.addresses = addresses();
        self.in_use = self.ears.in_use(limits::IN_USE_MAX).into_iter().map(Into::into).collect();
        self.link.hello_mut().addresses.clone_from(&self.addresses);
        self.say();
    }

    /// Brings instruments and reported totals up to date.
    pub(super) fn show(&mut self) {
        let metrics = &self.metrics;
        metrics.set_capture(&self.ears.totals(), self.window.lost());
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.openings_active.set(gauge(self.picture.openings().count()));
        metrics.bans_active.set(gauge(self.picture.bans().count()));
        metrics.guarded_ports.set(gauge(self.picture.fleet_guard().ports.len()));
        metrics.observed_ports.set(gauge(self.picture.fleet_guard().observed.len()));
        metrics.set_guard_packets(self.tally.sum());
        metrics.window.set(gauge(self.window.len()));
        metrics.warnings.set(gauge(self.warnings().len()));
        // A change in drops is reported within a second, a flood of them once a second.
        let drops = drops(&*self.ears, self.window.lost());
        if self.last_report.as_ref().is_some_and(|(_, last)| last.drops != Some(drops)) {
            self.report();
        }
    }
}

fn message(kind: Said) -> AgentMessage {
    AgentMessage { kind: Some(kind) }
}

fn drops(ears: &dyn super::Ears, lost: u64) -> v1::DropCounters {
    let totals = ears.totals();
    v1::DropCounters {
        kernel: totals.kernel,
        queue: totals.queue + lost,
        malformed: totals.malformed,
        source_limit: totals.source_limit,
    }
}

/// The addresses at which others can reach this host: neither loopback nor of one link only.
pub(super) fn addresses() -> Vec<String> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let found: BTreeSet<IpAddr> = interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        })
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .collect();
    found.into_iter().take(limits::ADDRESSES_MAX).map(|address| address.to_string()).collect()
}
