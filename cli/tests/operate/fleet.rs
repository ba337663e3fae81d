//! The hosts and controllers of a fleet of three controllers, as one of them describes them.

use fleetknock_proto::v1;

const AT: u64 = 1_795_361_400_000;

pub(crate) fn hosts() -> Vec<v1::Host> {
    let edge = v1::Host {
        name: "edge-1".to_owned(),
        connected: true,
        controller: "ctl-2".to_owned(),
        connected_since_ms: AT,
        last_seen_ms: AT + 5_000,
        clock_offset_us: 1_200,
        clock_uncertainty_us: 400,
        drops_queue: 2,
        revision: 77,
        ..v1::Host::default()
    };
    let gone = v1::Host { name: "edge-2".to_owned(), ..v1::Host::default() };
    vec![edge, gone]
}

pub(crate) fn controllers() -> Vec<v1::Controller> {
    let peer = |name: &str, state: v1::PeerState, reason: &str| v1::Peer {
        controller: name.to_owned(),
        state: state.into(),
        since_ms: AT,
        reason: reason.to_owned(),
        forwarded: 120,
        dropped: 5,
    };
    let controller = |name: &str, state: v1::ControllerState, epoch| v1::Controller {
        name: name.to_owned(),
        address: format!("http://{name}.example:7600"),
        version: "0.1.0".to_owned(),
        state: state.into(),
        epoch,
        started_ms: AT,
        ..v1::Controller::default()
    };
    vec![
        v1::Controller {
            agents: 12,
            sources_in_flight: 34,
            sources_limit: 1_000_000,
            revision: 77,
            clock_leader: "ctl-1".to_owned(),
            peers: vec![
                peer("ctl-2", v1::PeerState::Up, ""),
                peer("ctl-3", v1::PeerState::Cut, "no answer for 3s"),
            ],
            knocks: 5_000,
            refused: 1,
            lease_until_ms: AT + 5_000,
            ..controller("ctl-1", v1::ControllerState::Serving, 10)
        },
        v1::Controller {
            agents: 3,
            clock_offset_us: -1_500,
            clock_uncertainty_us: 250,
            clock_leader: "ctl-1".to_owned(),
            ..controller("ctl-2", v1::ControllerState::Suspended, 20)
        },
        controller("ctl-3", v1::ControllerState::Unreachable, 30),
    ]
}

/// Two events on two pages, of which the second is asked for with the token of the first; only those of the actor that
/// is asked for.
pub(crate) fn events(request: &v1::ListEventsRequest) -> v1::ListEventsResponse {
    let event = |number: u64, who: &str, kind: v1::EventKind| v1::Event {
        id: format!("e{number}"),
        kind: kind.into(),
        time_ms: 1_795_361_411_250 + number,
        door: "ssh".to_owned(),
        message: "door changed".to_owned(),
        actor: Some(v1::Actor {
            who: who.to_owned(),
            role: "admin".to_owned(),
            by: "certificate".to_owned(),
            address: "192.0.2.1:4000".to_owned(),
        }),
        changes: vec![v1::FieldChange {
            field: "spec.opens.for".to_owned(),
            before: "30s".to_owned(),
            after: "1m".to_owned(),
        }],
        ..v1::Event::default()
    };
    let all = [
        event(1, "user alice", v1::EventKind::DoorApplied),
        event(2, "user bob", v1::EventKind::DoorApplied),
        event(3, "user alice", v1::EventKind::DoorRevealed),
    ];
    let of = |event: &v1::Event| {
        (request.actor.is_empty() || event.actor.as_ref().unwrap().who == request.actor)
            && (request.kinds.is_empty() || request.kinds.contains(&event.kind))
            && event.time_ms >= request.since_ms
            && event.id > request.page_token
    };
    let mut events: Vec<_> = all.into_iter().filter(of).collect();
    let next_page_token = if events.len() > 1 { events[0].id.clone() } else { String::new() };
    events.truncate(1);
    v1::ListEventsResponse { events, next_page_token }
}

/// A source whose knocks become more with each answer, and complete a door with the third.
pub(crate) fn explained(request: &v1::ExplainRequest, answers: u32) -> v1::ExplainResponse {
    let knock = |step: u32| v1::KnockSeen {
        host: "edge-1".to_owned(),
        time_us: 1_795_361_400_000_000 + u64::from(step) * 1_000,
        uncertainty_us: 250,
        port: request.reveal.then_some(v1::Port { protocol: 1, port: 7_000 + step }),
        hidden: !request.reveal,
        outcome: v1::KnockOutcome::Step.into(),
        door: "bastion-ssh".to_owned(),
        step,
        of: 3,
        message: format!("step {step} of 3 of door bastion-ssh"),
        controller: "ctl-1".to_owned(),
        counter: step.into(),
        ..v1::KnockSeen::default()
    };
    let steps = answers.min(3);
    let (code, remedy) = match steps {
        3 => (v1::ExplainCode::Open, ""),
        _ => (v1::ExplainCode::Incomplete, "knock the next step too"),
    };
    let door = v1::DoorExplained {
        door: "bastion-ssh".to_owned(),
        code: code.into(),
        message: format!("{steps} of 3 steps"),
        remedy: remedy.to_owned(),
        steps_done: steps,
        steps_total: 3,
        opening: String::new(),
    };
    v1::ExplainResponse {
        source: request.source.clone(),
        knocks: (1..=steps).map(knock).collect(),
        doors: vec![door],
        now_ms: 1_795_361_401_000,
        caveats: vec!["not connected now, so that nothing is seen there: db-1".to_owned()],
        ..v1::ExplainResponse::default()
    }
}
