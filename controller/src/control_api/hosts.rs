//! Hosts: get, list, forget. What the store says of a host is known here; what its agent says is known to the
//! controller that it is connected to.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use fleetknock_core::{
    host::{HostName, Labels},
    port::Port,
    time::Timestamp,
};
use fleetknock_proto::{status as refuse, v1 as pb};
use tonic::Status;

use super::{decided, page::Page};
use crate::{
    agent_api::skew,
    audit, decide,
    peers::{
        Peers,
        ask::{Answers, Silence},
        known,
    },
    record::{HostRecord, Key},
    shared::{Shared, State},
    trust::Caller,
};

/// An agent answers a probe every five seconds. One that has been silent for longer than this may be connected elsewhere
/// by now.
const SILENT_AFTER: Duration = Duration::from_secs(7);

fn host_name(text: &str) -> Result<HostName, Status> {
    text.parse().map_err(|e: fleetknock_core::host::NameError| refuse::invalid("name", e.to_string()))
}

/// What the agents of some hosts said of themselves, wherever they are connected.
pub(crate) struct Told {
    pub(crate) hosts: HashMap<String, pb::Host>,
    pub(super) unanswered: std::collections::BTreeMap<HostName, Silence>,
}

impl Told {
    /// A host whose agent is connected to no controller that answers was connected last to the one that heard it last.
    pub(crate) async fn of(shared: &Shared, peers: &Peers, names: &[HostName]) -> Self {
        let here = known::hosts(shared, names);
        let mut hosts: HashMap<_, _> = here.into_iter().map(|host| (host.name.clone(), host)).collect();
        let now = shared.now();
        let certain = |name: &HostName| {
            hosts.get(name.as_str()).is_some_and(|host| {
                host.connected && now.since(Timestamp::from_millis(host.last_seen_ms)) < SILENT_AFTER
            })
        };
        let asked: Vec<_> = names.iter().filter(|name| !certain(name)).map(ToString::to_string).collect();
        let Answers { answers, unanswered } = ask(peers, asked).await;
        for (controller, answer) in answers {
            for host in answer.hosts {
                let host = pb::Host { controller: controller.to_string(), ..host };
                let order = |host: &pb::Host| (host.connected, host.connected_since_ms, host.last_seen_ms);
                match hosts.get(&host.name) {
                    Some(held) if order(held) >= order(&host) => {}
                    _ => {
                        hosts.insert(host.name.clone(), host);
                    }
                }
            }
        }
        Self { hosts, unanswered }
    }

    fn describe(&mut self, shared: &Shared, state: &State, host: &HostRecord) -> pb::Host {
        let mut told = self.hosts.remove(host.name.as_str()).unwrap_or_default();
        told.warnings.extend(skew::remark(&host.version, env!("CARGO_PKG_VERSION")));
        pb::Host {
            name: host.name.to_string(),
            labels: host.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            addresses: host.addresses.clone(),
            version: host.version.clone(),
            firewall: host.firewall.clone(),
            guarded: state.fleet.guarded(host).into_iter().map(|port: Port| port.into()).collect(),
            observed: state.fleet.observed(host).into_iter().map(Into::into).collect(),
            doors: state.fleet.doors_on(host).map(|door| door.name().to_string()).collect(),
            management: management(shared, host),
            ..told
        }
    }
}

/// The networks that pass a host's guard: its own and the fleet's.
fn management(shared: &Shared, host: &HostRecord) -> Vec<String> {
    let networks: BTreeSet<_> = host.management.iter().chain(&shared.management).collect();
    networks.into_iter().map(ToString::to_string).collect()
}

async fn ask(peers: &Peers, names: Vec<String>) -> Answers<pb::ConnectedHostsResponse> {
    if names.is_empty() {
        return Answers::none();
    }
    let question = pb::ConnectedHostsRequest { names };
    let answers = peers.ask(|mut client| {
        let question = question.clone();
        async move { client.connected_hosts(question).await }
    });
    answers.await
}

pub(super) async fn one(
    shared: &Shared,
    peers: &Peers,
    request: &pb::GetHostRequest,
) -> Result<pb::Host, Status> {
    let name = host_name(&request.name)?;
    if !shared.state().fleet.hosts().contains_key(&name) {
        return Err(refuse::not_found("host", name.as_str()));
    }
    let mut told = Told::of(shared, peers, std::slice::from_ref(&name)).await;
    let state = shared.state();
    let held = state.fleet.hosts().get(&name).ok_or_else(|| refuse::not_found("host", name.as_str()))?;
    let mut host = told.describe(shared, &state, &held.record);
    if !host.connected {
        for (controller, silence) in &told.unanswered {
            let reason = &silence.reason;
            host.warnings.push(format!(
                "controller {controller} does not answer ({reason}): the host may be connected to it"
            ));
        }
    }
    Ok(host)
}

pub(super) async fn list(
    shared: &Shared,
    peers: &Peers,
    request: pb::ListHostsRequest,
) -> Result<pb::ListHostsResponse, Status> {
    let page = Page::parse(request.page_size, &request.page_token)?;
    let wanted =
        Labels::new(request.match_labels).map_err(|e| refuse::invalid("match_labels", e.to_string()))?;
    let (names, next_page_token) = {
        let state = shared.state();
        let hosts = state.fleet.hosts().iter().filter(|(_, held)| held.record.labels.contain(&wanted));
        page.cut(hosts.map(|(name, _)| (name.to_string(), name.clone())))
    };
    let mut told = Told::of(shared, peers, &names).await;
    let state = shared.state();
    let held = names.iter().filter_map(|name| state.fleet.hosts().get(name));
    let hosts = held.map(|held| told.describe(shared, &state, &held.record)).collect();
    let unanswered = told.unanswered.keys().map(ToString::to_string).collect();
    Ok(pb::ListHostsResponse { hosts, next_page_token, unanswered })
}

pub(super) async fn delete(
    shared: &Shared,
    peers: &Peers,
    caller: &Caller,
    request: &pb::DeleteHostRequest,
) -> Result<pb::DeleteHostResponse, Status> {
    let name = host_name(&request.name)?;
    let connected = |to: &HostName| {
        let reason = format!("the host '{name}' is connected to controller {to}; stop its agent first");
        refuse::precondition("host", name.as_str(), reason)
    };
    {
        let state = shared.state();
        if !state.fleet.hosts().contains_key(&name) {
            return Err(refuse::not_found("host", name.as_str()));
        }
        if state.sessions.of(&name).is_some() {
            return Err(connected(&shared.name));
        }
    }
    let Answers { answers, unanswered } = ask(peers, vec![name.to_string()]).await;
    let holds = |answer: &pb::ConnectedHostsResponse| {
        answer.hosts.iter().any(|host| host.connected && host.name == name.as_str())
    };
    if let Some((controller, _)) = answers.iter().find(|(_, answer)| holds(answer)) {
        return Err(connected(controller));
    }
    // A controller whose process is gone holds nobody.
    if let Some((controller, silence)) = unanswered.iter().find(|(_, silence)| !silence.dead) {
        return Err(refuse::unavailable(format!(
            "the host '{name}' may be connected to controller {controller}, which does not answer: {}; nothing was \
             deleted, try again when it answers or has left the fleet",
            silence.reason
        )));
    }
    let actor = caller.actor();
    let removed = decide::remove(shared, Key::Host(name.clone()), |_, at| {
        let stamp = shared.stamp(at, Some(&actor));
        audit::entry(pb::EventKind::HostDeleted, stamp, "host deleted").about_host(&name)
    });
    let revision = decided(shared, removed.await)?;
    shared.caught_up(revision).await;
    Ok(pb::DeleteHostResponse {})
}
