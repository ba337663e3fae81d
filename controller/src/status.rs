//! What became of each opening on each host, as the hosts' agents reported it.
//!
//! Pure. This is kept in memory: an agent says it again whenever it takes in a snapshot, so nothing of it is worth a
//! write to the store.

use std::collections::{BTreeMap, HashMap};

use fleetknock_core::{host::HostName, time::Timestamp};

use crate::record::OpeningRecord;

/// What is known of one opening on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// In the host's kernel.
    Applied,
    /// Its time was up; the kernel closed it.
    Expired,
    /// The host could not do it.
    Failed {
        /// Why, in the host's words.
        reason: String,
    },
    /// Not yet confirmed by the host.
    Pending,
    /// Taken back before its time.
    Withdrawn,
}

/// A host's word on one opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// To which refresh of the opening it belongs.
    pub generation: u64,
    /// The host's answer: applied or failed.
    pub state: State,
    /// When it arrived.
    pub at: Timestamp,
    /// From receiving the order to the kernel's answer, microseconds.
    pub took_us: u32,
}

/// One row of an opening's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHost {
    /// Where.
    pub host: HostName,
    /// How it stands now.
    pub state: State,
    /// Since when.
    pub changed: Timestamp,
    /// Microseconds it took the host, 0 when it said nothing.
    pub took_us: u32,
}

/// What the hosts said of one opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports(BTreeMap<HostName, Report>);

/// All reports, by opening and host. Bounded by the openings whose records are kept: reports on others are not taken.
#[derive(Debug, Default)]
pub struct Statuses {
    reports: HashMap<String, Reports>,
}

impl Reports {
    /// Takes in what was said to another controller. Of each host the last word on the latest refresh counts: an agent
    /// that moved says it again where it is now.
    pub fn merge(&mut self, host: HostName, report: Report) {
        match self.0.get(&host) {
            Some(held) if (held.generation, held.at) >= (report.generation, report.at) => {}
            _ => {
                self.0.insert(host, report);
            }
        }
    }

    /// All of them, by host.
    pub fn iter(&self) -> impl Iterator<Item = (&HostName, &Report)> {
        self.0.iter()
    }

    /// How an opening stands on each of its hosts.
    pub fn of(&self, opening: &OpeningRecord, now: Timestamp) -> Vec<OnHost> {
        let of_host = |host: &HostName| {
            let report = self.0.get(host).filter(|report| report.generation == opening.generation);
            let (state, changed) = match (report, &opening.withdrawn) {
                (_, Some(how)) => (State::Withdrawn, how.at),
                (Some(Report { state: State::Failed { reason }, at, .. }), None) => {
                    (State::Failed { reason: reason.clone() }, *at)
                }
                (_, None) if opening.expires <= now => (State::Expired, opening.expires),
                (Some(report), None) => (report.state.clone(), report.at),
                (None, None) => (State::Pending, opening.refreshed),
            };
            let took_us = report.map_or(0, |report| report.took_us);
            OnHost { host: host.clone(), state, changed, took_us }
        };
        opening.hosts.iter().map(of_host).collect()
    }
}

impl Statuses {
    /// Takes in a host's word on an opening. Says whether it is news.
    pub fn add(&mut self, opening: &OpeningRecord, host: &HostName, report: Report) -> bool {
        if !opening.hosts.contains(host) || report.generation > opening.generation {
            return false;
        }
        let reports = &mut self.reports.entry(opening.id.clone()).or_default().0;
        let news = match reports.get(host) {
            Some(old) if old.generation > report.generation => return false,
            Some(old) => old.generation < report.generation || old.state != report.state,
            None => true,
        };
        reports.insert(host.clone(), report);
        news
    }

    /// Forgets an opening.
    pub fn forget(&mut self, id: &str) {
        self.reports.remove(id);
    }

    /// What was said here of an opening, if anything was.
    pub fn reports(&self, id: &str) -> Option<&Reports> {
        self.reports.get(id)
    }
}

#[cfg(test)]
mod tests;
