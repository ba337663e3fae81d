//! A fleet with something to look at, as a controller describes it at a given time.

use fleetknock_proto::v1;

/// Who asks there.
pub(crate) fn overview(now_ms: u64) -> v1::OverviewResponse {
    let second = |back: u64| v1::KnockCounts {
        from_ms: (now_ms / 1_000 - back) * 1_000,
        steps: 3 + (back % 4) as u32,
        completed: u32::from(back.is_multiple_of(30)),
        misses: (back % 50) as u32 / 10,
        ..v1::KnockCounts::default()
    };
    v1::OverviewResponse {
        now_ms,
        fleet: "blue".to_owned(),
        controller: "ctl-1".to_owned(),
        version: "0.1.0".to_owned(),
        caller: Some(v1::Actor {
            who: "user alice".to_owned(),
            role: "operator".to_owned(),
            ..v1::Actor::default()
        }),
        knocks: (0..120).rev().map(second).collect(),
        doors: 4,
        hosts: 4,
        hosts_connected: 3,
        hosts_drifting: 1,
        openings: 3,
        bans: 2,
        controllers: 3,
        sources_in_flight: 34,
        sources_limit: 1_000_000,
        unanswered: Vec::new(),
    }
}

/// One cut off, one drifting, two well.
pub(crate) fn hosts(now_ms: u64) -> Vec<v1::Host> {
    let host = |name: &str| v1::Host {
        name: name.to_owned(),
        connected: true,
        last_seen_ms: now_ms,
        clock_offset_us: 1_200,
        clock_uncertainty_us: 400,
        ..v1::Host::default()
    };
    vec![
        host("bastion-1"),
        v1::Host { connected: false, last_seen_ms: now_ms - 135_000, ..host("db-1") },
        v1::Host { clock_offset_us: -2_310_000, ..host("edge-1") },
        host("edge-2"),
    ]
}

pub(crate) fn attempts(now_ms: u64) -> Vec<v1::Attempt> {
    let attempt = |source: &str, done, left_ms| v1::Attempt {
        door: "bastion-ssh".to_owned(),
        source: source.to_owned(),
        steps_done: done,
        steps_total: 3,
        started_ms: now_ms - 4_000,
        deadline_ms: now_ms + left_ms,
        last_host: "edge-2".to_owned(),
    };
    vec![attempt("198.51.100.23", 1, 11_000), attempt("2001:db8::17", 2, 4_000)]
}

/// The first ends last; one failed on a host.
pub(crate) fn openings(now_ms: u64) -> Vec<v1::Opening> {
    let on = |host: &str, state: v1::HostOpeningState| v1::OpeningOnHost {
        host: host.to_owned(),
        state: state.into(),
        ..v1::OpeningOnHost::default()
    };
    let opening = |id: &str, source: &str, left_ms, hosts| v1::Opening {
        id: id.to_owned(),
        door: "bastion-ssh".to_owned(),
        source: source.to_owned(),
        state: v1::OpeningState::Active.into(),
        opened_ms: now_ms - 2_000,
        expires_ms: now_ms + left_ms,
        generation: 1,
        hosts,
        ..v1::Opening::default()
    };
    use v1::HostOpeningState::{Applied, Failed, Pending};
    vec![
        opening("o1", "203.0.113.5", 900_000, vec![on("bastion-1", Applied)]),
        opening("o2", "203.0.113.9", 871_000, vec![on("bastion-1", Applied), on("db-1", Pending)]),
        opening("o3", "2001:db8::5", 860_000, vec![on("bastion-1", Failed)]),
    ]
}

pub(crate) fn bans(now_ms: u64) -> Vec<v1::Ban> {
    let ban = |source: &str, left_ms, reason: &str| v1::Ban {
        source: source.to_owned(),
        since_ms: now_ms - 1_000,
        expires_ms: now_ms + left_ms,
        reason: reason.to_owned(),
        by: "policy".to_owned(),
    };
    vec![ban("192.0.2.66", 598_000, "10 misses in 60 s"), ban("192.0.2.7", 3_600_000, "scans us")]
}

/// What was kept a moment ago.
pub(crate) fn events(now_ms: u64) -> Vec<v1::Event> {
    let event = v1::Event {
        kind: v1::EventKind::DoorApplied.into(),
        time_ms: now_ms - 60_000,
        door: "bastion-ssh".to_owned(),
        message: "door changed".to_owned(),
        id: "e1".to_owned(),
        ..v1::Event::default()
    };
    vec![event]
}

pub(crate) fn explained(source: &str, now_ms: u64) -> v1::ExplainResponse {
    let knock = |host: &str, back_ms: u64, message: &str| v1::KnockSeen {
        host: host.to_owned(),
        time_us: (now_ms - back_ms) * 1_000,
        hidden: true,
        message: message.to_owned(),
        ..v1::KnockSeen::default()
    };
    v1::ExplainResponse {
        source: source.to_owned(),
        knocks: vec![
            knock("edge-2", 3_000, "step 1 of 3 of door bastion-ssh"),
            knock("db-1", 2_000, "a miss: it ended the attempt"),
        ],
        doors: vec![v1::DoorExplained {
            door: "bastion-ssh".to_owned(),
            code: v1::ExplainCode::WrongKnock.into(),
            message: "A wrong knock lay between the steps.".to_owned(),
            remedy: "Knock again, with nothing in between.".to_owned(),
            ..v1::DoorExplained::default()
        }],
        caveats: vec!["host db-1 is not connected".to_owned()],
        now_ms,
        ..v1::ExplainResponse::default()
    }
}
