//! Changes what controllers and agents log, for a while. Neither needs the store: it may be what is looked into.

use std::{ops::RangeInclusive, time::Duration};

use fleetknock_core::host::HostName;
use fleetknock_proto::{
    status as refuse,
    v1::{self as pb, set_log_request::Whose},
};
use fleetknock_runtime::log;
use tokio::time::timeout;
use tonic::Status;

use crate::{
    audit,
    peers::{Peers, ask::ANSWER_MAX},
    shared::Shared,
    trust::Caller,
};

/// How long unless said otherwise, and what may be said.
const FOR: Duration = Duration::from_secs(600);
const FOR_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
/// Characters of a filter.
const FILTER_MAX: usize = 500;

/// What is to be logged, by whom.
struct Order {
    whose: Of,
    /// Empty: as at the start.
    filter: String,
    within: Duration,
}

enum Of {
    /// Whoever is asked.
    Asked,
    Controller(HostName),
    Host(HostName),
}

impl Order {
    fn parse(request: &pb::SetLogRequest) -> Result<Self, Status> {
        let name = |field: &str, text: &str| {
            text.parse::<HostName>().map_err(|error| refuse::invalid(field, error.to_string()))
        };
        let whose = match &request.whose {
            None => Of::Asked,
            Some(Whose::Controller(text)) if text.is_empty() => Of::Asked,
            Some(Whose::Controller(text)) => Of::Controller(name("controller", text)?),
            Some(Whose::Host(text)) => Of::Host(name("host", text)?),
        };
        let filter = request.filter.clone();
        if filter.chars().count() > FILTER_MAX || filter.chars().any(char::is_control) {
            let reason = format!("at most {FILTER_MAX} characters, none of them control characters");
            return Err(refuse::invalid("filter", reason));
        }
        log::check(&filter).map_err(|error| refuse::invalid("filter", error.to_string()))?;
        let within = if request.for_ms == 0 { FOR } else { Duration::from_millis(request.for_ms) };
        if !FOR_RANGE.contains(&within) {
            return Err(refuse::invalid("for_ms", "from 1 s to 24 h; 0 for 10 min"));
        }
        Ok(Self { whose, filter, within })
    }

    /// By the fleet's time; 0 when it is as at the start.
    fn answer(&self, shared: &Shared) -> pb::SetLogResponse {
        let until_ms = if self.filter.is_empty() { 0 } else { (shared.now() + self.within).as_millis() };
        pb::SetLogResponse { until_ms }
    }

    /// Carried out by this controller, for itself.
    fn here(&self, shared: &Shared) -> Result<pb::SetLogResponse, Status> {
        let turned = shared.log_dial.order(&self.filter, self.within);
        turned.map_err(|error| Status::internal(error.to_string()))?;
        Ok(self.answer(shared))
    }

    /// Told to a host's agent; nothing when it is not connected here.
    fn to_agent(&self, shared: &Shared, host: &HostName) -> Option<pb::SetLogResponse> {
        let for_ms = fleetknock_proto::convert::millis(self.within);
        let order = pb::LogOrder { filter: self.filter.clone(), for_ms };
        shared.state().sessions.order_log(host, order).then(|| self.answer(shared))
    }
}

pub(super) async fn set(
    shared: &Shared,
    peers: &Peers,
    caller: &Caller,
    request: &pb::SetLogRequest,
) -> Result<pb::SetLogResponse, Status> {
    let order = Order::parse(request)?;
    let answer = match &order.whose {
        Of::Asked => order.here(shared)?,
        Of::Controller(name) if *name == shared.name => order.here(shared)?,
        Of::Controller(name) => at_peer(peers, name, request).await?,
        Of::Host(host) => at_host(shared, peers, &order, host, request).await?,
    };
    let what = match &order.filter[..] {
        "" => "logs as it was started".to_owned(),
        filter => format!("logs '{filter}' for {}", humantime::format_duration(order.within)),
    };
    let who = match &order.whose {
        Of::Asked => format!("controller {}", shared.name),
        Of::Controller(name) => format!("controller {name}"),
        Of::Host(host) => format!("host {host}"),
    };
    let actor = caller.actor();
    audit::tell(shared, |at| {
        let stamp = shared.stamp(at, Some(&actor));
        let event = audit::entry(pb::EventKind::LogChanged, stamp, format!("{who} {what}"));
        if let Of::Host(host) = &order.whose { event.about_host(host) } else { event }
    })
    .await;
    Ok(answer)
}

/// A peer's order for this controller or an agent of it.
pub(crate) fn own(shared: &Shared, request: &pb::SetLogRequest) -> Result<pb::SetLogResponse, Status> {
    let order = Order::parse(request)?;
    match &order.whose {
        Of::Host(host) => order.to_agent(shared, host).ok_or_else(|| not_connected(host, "")),
        Of::Asked => order.here(shared),
        Of::Controller(name) if *name == shared.name => order.here(shared),
        Of::Controller(name) => Err(refuse::not_found("controller", name.as_str())),
    }
}

async fn at_peer(
    peers: &Peers,
    name: &HostName,
    request: &pb::SetLogRequest,
) -> Result<pb::SetLogResponse, Status> {
    let Some(client) = peers.clients().remove(name) else {
        return Err(refuse::not_found("controller", name.as_str()));
    };
    let away = |why: String| refuse::unavailable(format!("controller {name} does not answer: {why}"));
    let Some(mut client) = client else {
        let reason = peers.statuses().remove(name).map(|status| status.reason).unwrap_or_default();
        return Err(away(reason));
    };
    match timeout(ANSWER_MAX, client.set_own_log(request.clone())).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(away(format!("within {ANSWER_MAX:?}"))),
    }
}

/// Whoever has its agent tells it.
async fn at_host(
    shared: &Shared,
    peers: &Peers,
    order: &Order,
    host: &HostName,
    request: &pb::SetLogRequest,
) -> Result<pb::SetLogResponse, Status> {
    if !shared.state().fleet.hosts().contains_key(host) {
        return Err(refuse::not_found("host", host.as_str()));
    }
    if let Some(answer) = order.to_agent(shared, host) {
        return Ok(answer);
    }
    let asked = peers.ask(|mut client| {
        let request = request.clone();
        async move {
            match client.set_own_log(request).await {
                Ok(answer) => Ok(tonic::Response::new(Some(answer.into_inner()))),
                Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                    Ok(tonic::Response::new(None))
                }
                Err(status) => Err(status),
            }
        }
    });
    let mut asked = asked.await;
    let found = asked.answers.values_mut().find_map(Option::take);
    found.ok_or_else(|| {
        let silent = asked.unanswered();
        let more = if silent.is_empty() {
            String::new()
        } else {
            format!("; or it is connected to a controller that does not answer: {}", silent.join(", "))
        };
        not_connected(host, &more)
    })
}

fn not_connected(host: &HostName, more: &str) -> Status {
    let reason = format!("it is not connected, so that nobody can tell its agent{more}");
    refuse::precondition("host", host.as_str(), reason)
}
