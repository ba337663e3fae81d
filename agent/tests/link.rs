//! What an agent and a controller owe each other on their stream, with a scripted controller on loopback and a firewall
//! in memory.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers fail as tests do; clippy only knows the functions marked as tests"
)]

mod link {
    pub(crate) mod controller;
    pub(crate) mod host;
    mod logs;
    mod moving;
    mod resending;
    mod trust;
}

use std::{net::IpAddr, time::Duration};

use fleetknock_agent::{config::OnExit, driver::state::StateFile};
use fleetknock_proto::v1::{self, HostOpeningState, agent_message::Kind as Said, controller_message::Kind};

use link::{
    controller::{Controller, guard, opening, snapshot, withdrawal},
    host::{Host, eventually, within},
};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hello_comes_first_and_a_probe_is_answered_before_welcome() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    host.see("203.0.113.5", "tcp/7001");
    let mut stream = controller.stream().await;
    let Said::Hello(hello) = stream.hear().await else { panic!("the first message is not Hello") };
    assert_eq!((hello.host.as_str(), hello.boot.len(), hello.firewall.as_str()), ("edge-1", 16, "fake"));
    assert_eq!(hello.labels.get("role").map(String::as_str), Some("edge"));
    assert_eq!(hello.management, ["10.0.0.0/8"]);

    stream.say(Kind::Probe(v1::Probe { id: 7, sent_us: 11 }));
    let Said::ProbeReply(reply) = stream.hear().await else { panic!("observations came before Welcome") };
    assert_eq!((reply.id, reply.probe_sent_us), (7, 11));
    assert!(reply.received_us <= reply.sent_us && reply.received_us > 1_700_000_000_000_000);

    stream.welcome(LONG);
    let batch = stream.observations().await;
    assert_eq!(batch.observations.len(), 1);
    assert_eq!((batch.observations[0].counter, batch.observations[0].port), (1, 7001));
    assert!(!batch.resent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observed_ports_are_no_knocks_and_what_was_counted_is_reported() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    host.firewall.count("tcp/22", 5, 0);
    host.firewall.count("tcp/80", 0, 3);
    host.firewall.count("tcp/443", 9, 9);
    let mut stream = controller.attach(LONG).await;
    let observed = vec![v1::Port { protocol: v1::Protocol::Tcp.into(), port: 80 }];
    let snapshot = v1::Snapshot {
        guard: Some(v1::Guard { observed, ..guard(&["tcp/22"]) }),
        ..snapshot(1, &[], Vec::new())
    };
    stream.say(Kind::Snapshot(snapshot));
    eventually("the guard", || host.firewall.guarded() == ["tcp/22"]).await;
    eventually("the knock space", || host.spaced_ports() == ["tcp/22", "tcp/80"]).await;
    let counted = stream.report_where(|report| !report.guard_counts.is_empty());
    let report = within("a report with counts", counted).await;
    let said = report
        .guard_counts
        .iter()
        .map(|count| (count.port.as_ref().map(|port| port.port), count.dropped, count.observed));
    let said: Vec<_> = said.collect();
    assert_eq!(
        said,
        [(Some(22), 5, 0), (Some(80), 0, 3)],
        "of ports that are not the guard's nothing is said"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_applied_and_a_delta_opens_withdraws_and_bans() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    let mut stream = controller.attach(LONG).await;

    let mut first = snapshot(1, &["tcp/22"], vec![opening("a", "203.0.113.5", "tcp/22", 1)]);
    first.more = true;
    stream.say(Kind::Snapshot(first));
    let last = v1::Snapshot {
        revision: 1,
        bans: vec![v1::HostBan { source: "203.0.113.66".into(), remaining_ms: 60_000 }],
        ..v1::Snapshot::default()
    };
    stream.say(Kind::Snapshot(last));
    let result = stream.result().await;
    assert_eq!((result.id.as_str(), result.state()), ("a", HostOpeningState::Applied));
    assert_eq!(host.firewall.openings(), ["203.0.113.5 tcp/22"]);
    eventually("guard, ban and reconcile", || {
        host.firewall.guarded() == ["tcp/22"]
            && host.firewall.bans() == ["203.0.113.66"]
            && host.firewall.reconciles() > 0
    })
    .await;
    eventually("the capture to know the guarded port", || host.spaced_ports() == ["tcp/22"]).await;

    stream.say(Kind::Delta(v1::Delta {
        revision: 2,
        openings: vec![opening("b", "2001:db8::5", "tcp/22", 4)],
        withdrawn: vec![withdrawal("a", true)],
        unbanned: vec!["203.0.113.66".into()],
        ..v1::Delta::default()
    }));
    let result = stream.result().await;
    assert_eq!((result.id.as_str(), result.generation), ("b", 4));
    assert_eq!(host.firewall.openings(), ["2001:db8::5 tcp/22"]);
    assert!(host.firewall.bans().is_empty());
    assert_eq!(host.firewall.cuts(), ["203.0.113.5 tcp/22"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_firewall_refuses_is_reported_and_made_good_by_the_next_reconcile() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    let mut stream = controller.attach(LONG).await;
    stream.say(Kind::Snapshot(snapshot(1, &["tcp/22"], vec![])));
    eventually("the guard", || host.firewall.reconciles() > 0).await;

    host.firewall.refuse_openings(true);
    let mut bad = opening("bad", "nobody", "tcp/22", 1);
    bad.generation = 3;
    stream.say(Kind::Delta(v1::Delta {
        openings: vec![opening("o", "203.0.113.5", "tcp/22", 2), bad],
        ..v1::Delta::default()
    }));
    let (one, other) = (stream.result().await, stream.result().await);
    assert_eq!((one.id.as_str(), one.generation, one.state()), ("bad", 3, HostOpeningState::Failed));
    assert!(one.reason.starts_with("opening.source: 'nobody' is not an IP address"), "{}", one.reason);
    assert_eq!((other.id.as_str(), other.state()), ("o", HostOpeningState::Failed));
    assert!(other.reason.contains("refused to add an opening"), "{}", other.reason);

    host.firewall.refuse_openings(false);
    let result = stream.result().await;
    assert_eq!((result.id.as_str(), result.state()), ("o", HostOpeningState::Applied));
    assert_eq!(host.firewall.openings(), ["203.0.113.5 tcp/22"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_was_changed_by_hand_is_repaired_and_said() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    let mut stream = controller.attach(LONG).await;
    stream.say(Kind::Snapshot(snapshot(1, &["tcp/22"], vec![])));
    eventually("the guard", || host.firewall.reconciles() > 0).await;
    host.firewall.flush();
    let report = stream.report_where(|report| report.repairs == 1).await;
    assert_eq!(report.last_repair, "the guard was missing");
    assert_eq!(host.firewall.guarded(), ["tcp/22"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_lost_stream_the_window_is_sent_again_in_order() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    let mut stream = controller.attach(LONG).await;
    for port in ["tcp/7001", "udp/7002"] {
        host.see("203.0.113.5", port);
    }
    let mut seen = 0;
    while seen < 2 {
        seen += stream.observations().await.observations.len();
    }
    stream.say(Kind::Acknowledge(v1::Acknowledge { counter: 2 }));
    stream.say(Kind::Snapshot(snapshot(1, &["tcp/22"], vec![opening("a", "203.0.113.5", "tcp/22", 1)])));
    stream.result().await;
    drop(stream);

    // Seen while cut off: the old stream is gone for sure when the new one says Hello.
    let mut stream = controller.stream().await;
    assert!(matches!(stream.hear().await, Said::Hello(_)));
    host.see("2001:db8::5", "tcp/7003");
    stream.welcome(LONG);
    assert_eq!(host.firewall.openings(), ["203.0.113.5 tcp/22"], "nothing is closed while cut off");
    let mut again = Vec::new();
    while again.len() < 3 {
        let batch = stream.observations().await;
        again.extend(
            batch
                .observations
                .iter()
                .map(|observation| (observation.counter, observation.port, batch.resent)),
        );
    }
    assert_eq!(again, [(1, 7001, true), (2, 7002, true), (3, 7003, false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_sent_in_batches_within_their_limit_and_nothing_is_lost() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    let mut stream = controller.attach(LONG).await;
    for _ in 0..10_000 {
        host.see("203.0.113.5", "tcp/7001");
    }
    let (mut counters, mut batches) = (Vec::new(), 0);
    while counters.len() < 10_000 {
        let batch = stream.observations().await;
        assert!(batch.observations.len() <= 4_096);
        counters.extend(batch.observations.iter().map(|observation| observation.counter));
        batches += 1;
    }
    assert!(counters.into_iter().eq(1..=10_000));
    assert!(batches < 5_000, "no batching: {batches} batches");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goodbye_moves_the_agent_to_another_controller() {
    let (one, other) = (Controller::start().await, Controller::start().await);
    let _host = Host::start(&[&one, &other]);
    let (mut stream, first) = tokio::select! {
        stream = one.attach(LONG) => (stream, true),
        stream = other.attach(LONG) => (stream, false),
    };
    stream.say(Kind::Goodbye(v1::Goodbye { reason: "leaving".into(), move_now: true }));
    if first {
        other.attach(LONG).await
    } else {
        one.attach(LONG).await
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_controllers_the_one_that_lives_is_found() {
    let (one, other) = (Controller::start().await, Controller::start().await);
    let host = Host::start(&[&one, &other]);
    let first = tokio::select! {
        _ = one.attach(LONG) => true,
        _ = other.attach(LONG) => false,
    };
    let (dead, alive) = if first { (one, other) } else { (other, one) };
    dead.stop().await;
    let mut stream = alive.attach(LONG).await;
    host.see("203.0.113.5", "tcp/7001");
    assert_eq!(stream.observations().await.observations[0].port, 7001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_controller_is_left() {
    let controller = Controller::start().await;
    let _host = Host::start(&[&controller]);
    let silent = controller.attach(Duration::from_millis(100)).await;
    // The old stream is held open and says nothing; the agent comes back all the same.
    controller.attach(LONG).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_talks_nonsense_is_left_and_changes_nothing() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    let mut stream = controller.attach(LONG).await;
    stream.say(Kind::Snapshot(snapshot(1, &["tcp/22"], vec![])));
    eventually("the guard", || host.firewall.guarded() == ["tcp/22"]).await;
    let nonsense = v1::Guard { management: vec!["everybody".into()], ..guard(&[]) };
    stream.say(Kind::Delta(v1::Delta { guard: Some(nonsense), ..v1::Delta::default() }));
    controller.attach(LONG).await;
    assert_eq!(host.firewall.guarded(), ["tcp/22"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_remembered_is_kept_up_before_any_controller_and_nothing_is_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let controller = Controller::start().await;
    let host = Host::start_with(&[&controller], |parts| {
        parts.state = Some(StateFile::open(directory.path()).unwrap())
    });
    let mut stream = controller.attach(LONG).await;
    stream.say(Kind::Snapshot(snapshot(9, &["tcp/22"], vec![opening("a", "203.0.113.5", "tcp/22", 1)])));
    stream.result().await;
    host.stop().await.unwrap();
    drop(stream);

    let saved = StateFile::open(directory.path()).unwrap().load().unwrap().expect("a saved picture");
    let host = Host::start_with(&[&controller], |parts| {
        parts
            .picture
            .take_delta(saved.into_delta(fleetknock_runtime::clock::now_micros()), std::time::Instant::now());
        parts.remembered = true;
    });
    host.firewall.put("192.0.2.1 tcp/22");
    eventually("the remembered guard and opening", || {
        host.firewall.guarded() == ["tcp/22"]
            && host.firewall.openings() == ["192.0.2.1 tcp/22", "203.0.113.5 tcp/22"]
    })
    .await;
    host.firewall.flush();
    eventually("the guard again", || host.firewall.guarded() == ["tcp/22"]).await;
    assert_eq!(host.firewall.reconciles(), 0, "a reconcile takes away what is not remembered");

    let mut stream = controller.stream().await;
    let Said::Hello(hello) = stream.hear().await else { panic!("no Hello") };
    assert_eq!(hello.revision, 9);
    host.firewall.put("192.0.2.1 tcp/22");
    stream.welcome(LONG);
    stream.say(Kind::Snapshot(snapshot(9, &["tcp/22"], vec![])));
    eventually("the first snapshot to clear up", || host.firewall.openings().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_keeps_the_guard_unless_told_to_open() {
    for (on_exit, left) in [(OnExit::Keep, &["tcp/22"][..]), (OnExit::Open, &[])] {
        let controller = Controller::start().await;
        let host = Host::start_with(&[&controller], |parts| parts.on_exit = on_exit);
        let mut stream = controller.attach(LONG).await;
        stream.say(Kind::Snapshot(snapshot(1, &["tcp/22"], vec![])));
        eventually("the guard", || host.firewall.guarded() == ["tcp/22"]).await;
        let firewall = host.firewall.clone();
        within("the stop", host.stop()).await.unwrap();
        assert_eq!(firewall.guarded(), left);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_capture_ends_the_agent() {
    let controller = Controller::start().await;
    let mut host = Host::start(&[&controller]);
    host.deafen();
    let error = within("the driver's end", host.ended()).await.unwrap_err();
    assert!(error.to_string().starts_with("the capture ended"), "{error}");
}

/// Used by the helpers.
fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
