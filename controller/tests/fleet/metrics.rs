//! What is counted of a fleet at work, and that no source can make it grow.

use std::time::Duration;

use fleetknock_proto::v1::{self as pb, agent_message::Kind as Say, controller_message::Kind as Told};
use fleetknock_runtime::metrics::{
    lint::complaints,
    text::{Family, parse},
};

use crate::support::{Agent, Controller, apply, door};

const CLIENT: [u8; 4] = [203, 0, 113, 5];

#[tokio::test]
async fn an_opening_is_counted_and_timed_from_the_knock_to_the_kernels() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut edge = controller.agent("edge-1", "edge").await;
    let mut db = controller.agent("db-1", "db").await;
    let mut first = controller.agent("bastion-1", "bastion").await;
    let mut second = controller.agent("bastion-2", "bastion").await;
    operator.apply_door(apply(door())).await.unwrap();
    edge.knock(CLIENT, 7412).await;
    db.knock(CLIENT, 23981).await;
    first.knock(CLIENT, 5103).await;

    let opening = first.opening().await;
    second.opening().await;
    assert_eq!(controller.metric("openings_active", Some(("door", "bastion-ssh"))), 1.0);
    assert_eq!(controller.metric("openings_total", Some(("kind", "granted"))), 1.0);
    assert_eq!(controller.metric("openings_pushed_total", None), 2.0);
    answer(&first, &opening, pb::HostOpeningState::Applied).await;
    controller.wait_metric("openings_applied_total", 1.0).await;
    assert_eq!(controller.metric("opening_push_seconds_count", None), 1.0);
    assert_eq!(controller.metric("knock_to_open_host_seconds_count", None), 1.0);
    assert_eq!(
        controller.metric("knock_to_open_seconds_count", None),
        0.0,
        "a host has not said anything yet"
    );
    answer(&second, &opening, pb::HostOpeningState::Applied).await;
    controller.wait_metric("openings_applied_total", 2.0).await;
    assert_eq!(controller.metric("knock_to_open_seconds_count", None), 1.0);
    // What is said again is neither counted nor timed again.
    answer(&second, &opening, pb::HostOpeningState::Applied).await;
    answer(&second, &opening, pb::HostOpeningState::Failed).await;
    controller.wait_metric("openings_failed_total", 1.0).await;
    assert_eq!(controller.metric("openings_applied_total", None), 2.0);
    assert_eq!(controller.metric("opening_push_seconds_count", None), 2.0);

    let close = pb::CloseRequest { door: "bastion-ssh".to_owned(), ..pb::CloseRequest::default() };
    operator.close(close).await.unwrap();
    controller.wait_metric("openings_withdrawn_total", 1.0).await;
    assert_eq!(controller.metric("openings_active", Some(("door", "bastion-ssh"))), 0.0);
    let gone = pb::DeleteDoorRequest { name: "bastion-ssh".to_owned(), ..pb::DeleteDoorRequest::default() };
    operator.delete_door(gone).await.unwrap();
    let none = || {
        controller
            .families()
            .iter()
            .all(|family| family.samples.iter().all(|sample| sample.label("door").is_none()))
    };
    while !none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn each_connected_host_has_a_clock_and_one_that_left_has_none() {
    let controller = Controller::start().await;
    let edge = controller.agent("edge-1", "edge").await;
    let _db = controller.agent("db-1", "db").await;
    let clock = "agent_clock_uncertainty_seconds";
    controller.wait_metric("agents_connected", 2.0).await;
    assert!(controller.metric(clock, Some(("host", "edge-1"))) > 0.0);
    assert!(controller.metric(clock, Some(("host", "db-1"))) > 0.0);
    drop(edge);
    controller.wait_metric("agents_connected", 1.0).await;
    assert_eq!(controller.metric("hosts", None), 2.0);
    assert_eq!(controller.metric(clock, Some(("host", "edge-1"))), 0.0, "no series is left");
}

#[tokio::test]
async fn a_scan_from_many_sources_leaves_no_address_in_any_label() {
    let controller = Controller::start().await;
    let mut operator = controller.operator().await;
    let mut edge = controller.agent("edge-1", "edge").await;
    let mut db = controller.agent("db-1", "db").await;
    operator.apply_door(apply(door())).await.unwrap();
    let before = controller.families();
    for net in 0..8 {
        let misses = (0..4_000_u32).map(|number| {
            let source = [203, 0, net, u8::try_from(number % 200).unwrap()];
            (source, if number < 200 { 7412 } else { 2_000 + number })
        });
        edge.knock_many(&misses.collect::<Vec<_>>()).await;
    }
    let ban = db.until(|told| match told {
        Told::Delta(delta) => delta.bans.first().cloned(),
        _ => None,
    });
    ban.await;
    while controller.sum("knocks_total") < 32_000.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    controller.wait_metric("bans_total", 1_600.0).await;
    let after = controller.families();
    assert_eq!(complaints(&after), Vec::<String>::new());
    let series = |families: &[Family]| families.iter().map(|family| family.samples.len()).sum::<usize>();
    // Verdicts and operations that had not happened before.
    assert!(series(&after) < series(&before) + 40, "{} after {}", series(&after), series(&before));
}

async fn answer(agent: &Agent, opening: &pb::HostOpening, state: pb::HostOpeningState) {
    let result = pb::OpeningResult {
        id: opening.id.clone(),
        generation: opening.generation,
        state: state.into(),
        reason: String::new(),
        took_us: 20,
    };
    agent.tell(Say::Results(pb::ResultBatch { results: vec![result] })).await;
}

impl Controller {
    fn families(&self) -> Vec<Family> {
        parse(&self.metrics_text()).unwrap()
    }

    /// The one value of a series; 0 when there is none.
    fn metric(&self, name: &str, label: Option<(&str, &str)>) -> f64 {
        let name = format!("fleetknock_controller_{name}");
        let families = self.families();
        let samples = families.iter().flat_map(|family| &family.samples);
        let wanted = samples
            .filter(|sample| sample.name == name)
            .find(|sample| label.is_none_or(|(key, value)| sample.label(key) == Some(value)));
        wanted.map_or(0.0, |sample| sample.value.as_f64())
    }

    /// The sum of all series of that name.
    fn sum(&self, name: &str) -> f64 {
        let name = format!("fleetknock_controller_{name}");
        let families = self.families();
        let samples = families.iter().flat_map(|family| &family.samples);
        samples.filter(|sample| sample.name == name).map(|sample| sample.value.as_f64()).sum()
    }

    async fn wait_metric(&self, name: &str, value: f64) {
        let reached = async {
            while self.metric(name, None) != value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(reached.is_ok(), "{name} is {}, not {value}", self.metric(name, None));
    }
}
