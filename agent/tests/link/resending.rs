//! What an agent does when a controller asks for its window again, and how long it keeps one.

use std::time::{Duration, Instant};

use fleetknock_agent::window::RESEND_EVERY;
use fleetknock_proto::v1::{self, controller_message::Kind};

use super::{
    controller::{AgentStream, Controller, guard, opening, snapshot},
    host::{Host, eventually},
};
use crate::LONG;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resend_brings_everything_that_is_kept_again_and_in_order() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    let mut stream = controller.attach(LONG).await;
    for port in ["tcp/7001", "udp/7002", "tcp/7003"] {
        host.see("203.0.113.5", port);
    }
    assert_eq!(take(&mut stream, 3).await, [(1, false), (2, false), (3, false)]);
    stream.say(Kind::Acknowledge(v1::Acknowledge { counter: 3 }));
    stream.say(Kind::Resend(v1::Resend {}));
    assert_eq!(take(&mut stream, 3).await, [(1, true), (2, true), (3, true)]);
    host.see("203.0.113.5", "tcp/7004");
    assert_eq!(take(&mut stream, 1).await, [(4, false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_resends_starve_neither_new_knocks_nor_results_and_come_to_an_end() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    let mut stream = controller.attach(LONG).await;
    stream.say(Kind::Snapshot(snapshot(1, &["tcp/22"], vec![])));
    eventually("the guard", || host.firewall.guarded() == ["tcp/22"]).await;
    for _ in 0..5_000 {
        host.see("203.0.113.5", "tcp/7001");
    }
    take(&mut stream, 5_000).await;

    let begun = Instant::now();
    let (mut new, mut resent) = (Vec::new(), 0);
    for round in 0..20_u64 {
        (0..100).for_each(|_| stream.say(Kind::Resend(v1::Resend {})));
        host.see("203.0.113.6", "tcp/7002");
        let ordered = opening(&format!("o{round}"), "203.0.113.5", "tcp/22", 1);
        stream.say(Kind::Delta(v1::Delta { openings: vec![ordered], ..v1::Delta::default() }));
        (0..100).for_each(|_| stream.say(Kind::Resend(v1::Resend {})));
        while new.len() as u64 <= round {
            for (counter, again) in take(&mut stream, 1).await {
                if again { resent += 1 } else { new.push(counter) }
            }
        }
        assert_eq!(stream.result().await.id, format!("o{round}"));
    }
    assert!(new.into_iter().eq(5_001..=5_020));
    let passes = begun.elapsed().as_millis() / RESEND_EVERY.as_millis() + 1;
    assert!(resent <= passes * 5_020, "{resent} in {passes} passes");

    // The last pass ends with what was new; then there is peace.
    stream.say(Kind::Resend(v1::Resend {}));
    while !take(&mut stream, 1).await.contains(&(5_020, true)) {}
    tokio::time::sleep(RESEND_EVERY * 3).await;
    host.see("203.0.113.6", "tcp/7003");
    while take(&mut stream, 1).await != [(5_021, false)] {}
    tokio::time::sleep(RESEND_EVERY * 3).await;
    host.see("203.0.113.6", "tcp/7004");
    assert_eq!(take(&mut stream, 1).await, [(5_022, false)], "nobody asked any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_says_how_long_observations_are_kept_and_its_word_outlives_the_stream() {
    let controller = Controller::start().await;
    let host = Host::start(&[&controller]);
    let mut stream = controller.attach(LONG).await;
    let keep = |milliseconds| {
        Kind::Delta(v1::Delta {
            guard: Some(v1::Guard { keep_window_ms: milliseconds, ..guard(&["tcp/22"]) }),
            ..v1::Delta::default()
        })
    };
    stream.say(keep(1));
    host.see("203.0.113.5", "tcp/7001");
    take(&mut stream, 1).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    stream.say(Kind::Resend(v1::Resend {}));
    // A message of its own, so that the knock is seen after the window was sent again.
    tokio::time::sleep(Duration::from_millis(10)).await;
    host.see("203.0.113.5", "tcp/7002");
    assert_eq!(take(&mut stream, 1).await, [(2, false)], "the first one is too old");

    stream.say(keep(60_000));
    // A delta without a guard changes nothing of that.
    let ordered = vec![opening("o", "203.0.113.5", "tcp/22", 1)];
    stream.say(Kind::Delta(v1::Delta { openings: ordered, ..v1::Delta::default() }));
    stream.result().await;
    host.see("203.0.113.5", "tcp/7003");
    while !take(&mut stream, 1).await.contains(&(3, false)) {}
    drop(stream);

    // Welcome says less than the guard in force, whose next word comes later.
    let mut stream = controller.stream().await;
    stream.hear().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    stream.welcome_with(LONG, 1);
    assert!(take(&mut stream, 1).await.contains(&(3, true)));

    // No word: as Welcome said.
    stream.say(keep(0));
    tokio::time::sleep(Duration::from_millis(10)).await;
    stream.say(Kind::Resend(v1::Resend {}));
    tokio::time::sleep(Duration::from_millis(10)).await;
    host.see("203.0.113.5", "tcp/7004");
    assert_eq!(take(&mut stream, 1).await, [(4, false)]);
}

/// At least so many observations: counters, and whether they came again.
async fn take(stream: &mut AgentStream, at_least: usize) -> Vec<(u64, bool)> {
    let mut taken = Vec::new();
    while taken.len() < at_least {
        let batch = stream.observations().await;
        taken.extend(batch.observations.iter().map(|observation| (observation.counter, batch.resent)));
    }
    taken
}
