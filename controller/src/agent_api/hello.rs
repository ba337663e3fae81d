//! What an agent says of itself: parsed, bounded, and written to the store when it is news.

use std::collections::BTreeSet;

use fleetknock_core::{
    host::{HostId, HostName, Labels},
    port::PortRange,
    time::Timestamp,
};
use fleetknock_proto::{limits, status as refuse, v1 as pb};
use ipnet::IpNet;
use tonic::Status;

use crate::{
    decide::{DecideError, contend},
    grant,
    record::Boot,
    record::{HostRecord, Key},
    shared::Shared,
    store::{Revision, Transaction},
};

/// Hosts in a fleet. Beyond it a new host is refused.
pub const HOSTS_MAX: usize = 50_000;
/// Ports of one guard.
const GUARD_COUNTS_MAX: usize = 4_096;
/// Characters of a free text that an agent may say.
const TEXT_MAX: usize = 300;

/// What an agent is told whose picture is not of this store ([`Fleet::is_of_another_store`](crate::fleet::Fleet)).
const ANOTHER_STORE: &str = "this store was set up anew and does not know it, and its agent keeps guard for an earlier store; \
    that guard stays as it is until somebody restores the fleet's backup (fleetknock restore FILE) or says that the fleet \
    begins anew (fleetknock restore --begin-anew)";

/// A Hello, parsed.
#[derive(Debug)]
pub struct Greeting {
    /// Who speaks, by its own word.
    pub host: HostName,
    /// Which run of its agent.
    pub boot: Boot,
    /// Every other controller has refused it.
    pub last_resort: bool,
    /// The revision of the picture that it holds; 0: it holds none.
    pub picture: Revision,
    /// What is written down of it; when it was first seen is not known here.
    pub record: HostRecord,
}

/// A host as this controller knows it from now on.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) host: HostName,
    pub(super) id: HostId,
    pub(super) boot: u32,
    pub(super) boot_id: Boot,
}

/// Reads a Hello.
///
/// # Errors
/// INVALID_ARGUMENT that names the field which has no such form, or of which there is too much.
pub fn parse(hello: pb::Hello) -> Result<Greeting, Status> {
    let host: HostName = hello
        .host
        .parse()
        .map_err(|e: fleetknock_core::host::NameError| refuse::invalid("hello.host", e.to_string()))?;
    let labels = Labels::new(hello.labels).map_err(|e| refuse::invalid("hello.labels", e.to_string()))?;
    let boot = Boot::try_from(hello.boot.as_slice())
        .map_err(|error| refuse::invalid("hello.boot", error.to_string()))?;
    let mut management = BTreeSet::new();
    for network in hello.management.iter().take(limits::ADDRESSES_MAX + 1) {
        let network: IpNet = network.parse().map_err(|_| {
            refuse::invalid("hello.management", "not a network; write it like 192.0.2.0/24 or 2001:db8::/48")
        })?;
        management.insert(network.trunc());
    }
    if management.len() > limits::ADDRESSES_MAX {
        let reason = format!("at most {} networks", limits::ADDRESSES_MAX);
        return Err(refuse::invalid("hello.management", reason));
    }
    let record = HostRecord {
        name: host.clone(),
        labels,
        addresses: addresses(hello.addresses)?,
        management,
        version: text(hello.version),
        firewall: text(hello.firewall),
        created: Timestamp::ZERO,
    };
    Ok(Greeting { host, boot, last_resort: hello.last_resort, picture: hello.revision, record })
}

/// A host's report with its texts and lists cut to their bounds.
///
/// # Errors
/// INVALID_ARGUMENT when an address or a range of ports in it is none, or there are too many addresses.
pub fn bounded(report: pb::HostReport) -> Result<pb::HostReport, Status> {
    Ok(pb::HostReport {
        last_repair: text(report.last_repair),
        warnings: report.warnings.into_iter().take(16).map(text).collect(),
        addresses: addresses(report.addresses)?,
        guard_counts: report.guard_counts.into_iter().take(GUARD_COUNTS_MAX).collect(),
        in_use: in_use(report.in_use)?,
        ..report
    })
}

/// Writes the host's record if it says anything new, and gives the host and its boot their numbers.
pub(super) async fn register(shared: &Shared, greeting: Greeting) -> Result<Registered, Status> {
    let Greeting { host, boot, record, picture, .. } = greeting;
    if shared.state().fleet.is_of_another_store(&host, picture) {
        identify(shared, &host, picture).await;
        tracing::warn!(%host, "{ANOTHER_STORE}");
        return Err(refuse::unavailable(format!("host '{host}': {ANOTHER_STORE}")));
    }
    let ((), revision) = contend(shared, |at| {
        let state = shared.state();
        let held = state.fleet.hosts().get(&host);
        if held.is_none() && state.fleet.hosts().len() >= HOSTS_MAX {
            return Err(DecideError::Full { what: "hosts", limit: HOSTS_MAX });
        }
        let created = held.map_or(at, |held| held.record.created);
        let record = HostRecord { created, ..record.clone() };
        let mut transaction = Transaction::default();
        if held.is_none_or(|held| held.record != record) {
            let key = Key::Host(host.clone());
            transaction.expect.push(grant::expect(&key, held.map(|held| held.revision)));
            transaction.changes.push(grant::put(&key, &record)?);
        }
        Ok(((), transaction))
    })
    .await
    .map_err(|error| refuse::unavailable(format!("the host '{host}' cannot be recorded: {error}")))?;
    shared.caught_up(revision).await;
    identify(shared, &host, picture).await;
    let id = shared.state().fleet.host_id(&host);
    let id = id.ok_or_else(|| refuse::unavailable("this controller is behind its store; try again"))?;
    let number = shared.boot(&host, boot);
    Ok(Registered { host, id, boot: number, boot_id: boot })
}

/// Writes down what a host's coming shows of a store that was set up anew ([`Fleet::identity_after`](crate::fleet::Fleet)).
/// A store that is away keeps no host out for that: whoever comes next shows it again.
async fn identify(shared: &Shared, host: &HostName, picture: Revision) {
    let told = |at| shared.state().fleet.identity_after(host, picture, at);
    if told(shared.now()).is_none() || shared.fence().is_none() {
        return;
    }
    let written = contend(shared, |at| {
        let mut transaction = Transaction::default();
        if let Some(record) = told(at) {
            let held = shared.state().fleet.identity_record().map(|held| held.revision);
            transaction.expect.push(grant::expect(&Key::Identity, held));
            transaction.changes.push(grant::put(&Key::Identity, &record)?);
        }
        Ok(((), transaction))
    });
    match written.await {
        Ok(((), revision)) => shared.caught_up(revision).await,
        Err(error) => tracing::debug!(%host, %error, "whose store this is cannot be written down yet"),
    }
}

fn addresses(texts: Vec<String>) -> Result<Vec<String>, Status> {
    if texts.len() > limits::ADDRESSES_MAX {
        return Err(refuse::invalid("addresses", format!("at most {} addresses", limits::ADDRESSES_MAX)));
    }
    let parsed: Result<Vec<std::net::IpAddr>, _> = texts.iter().map(|text| text.parse()).collect();
    let parsed = parsed.map_err(|_| refuse::invalid("addresses", "not an IP address"))?;
    Ok(parsed.into_iter().map(|address| address.to_string()).collect())
}

fn in_use(ranges: Vec<pb::PortRange>) -> Result<Vec<pb::PortRange>, Status> {
    let parsed = ranges.into_iter().take(limits::IN_USE_MAX).map(PortRange::try_from);
    parsed.map(|range| Ok(range?.into())).collect()
}

/// Texts of an agent go to logs and terminals: no control characters, not too long.
fn text(text: String) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests;
