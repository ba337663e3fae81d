//! Agents spread over the controllers again, and those that stay hear nothing of it.

use std::time::Duration;

use fleetknock_controller::balance::run::{Pace, run};
use fleetknock_proto::v1::{self as pb, controller_message::Kind as Told};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    several::{Fleet, until},
    support::Agent,
};

/// So that nothing has to be waited for half a minute.
const PACE: Pace = Pace { every: Duration::from_millis(300), settled: Duration::from_millis(100) };

#[tokio::test]
async fn agents_move_to_a_controller_that_has_none() {
    let fleet = Fleet::of(&["ctl-1", "ctl-2"]).await;
    let [full, empty] = &fleet.controllers[..] else { panic!("two controllers") };
    let moved_to = empty.address;
    let mut agents = JoinSet::new();
    for number in 0..12 {
        let name = format!("edge-{number}");
        let mut agent = full.agent(&name, "edge").await;
        agents.spawn(async move {
            let goodbye = goodbye(&mut agent).await;
            let again = Agent::connect(moved_to, &name, "edge", false).await;
            (goodbye, agent, again)
        });
    }
    for controller in &fleet.controllers {
        tokio::spawn(run(controller.shared.clone(), controller.running.peers.clone(), PACE));
    }
    let mut moved = Vec::new();
    while moved.len() < 3 {
        moved.push(agents.join_next().await.unwrap().unwrap());
    }
    let (goodbye, ..) = &moved[0];
    assert!(goodbye.move_now, "an agent that waits before it goes elsewhere hears of no opening meanwhile");
    assert_eq!(goodbye.reason, "the other controllers have fewer agents");

    let mut operator = full.operator().await;
    // 6 each would be fair; 7 are fair enough.
    let spread = until(async || {
        while let Some(more) = agents.try_join_next() {
            moved.push(more.unwrap());
        }
        let listed = operator.list_controllers(pb::ListControllersRequest::default()).await.unwrap();
        let counts: Vec<_> =
            listed.into_inner().controllers.iter().map(|controller| controller.agents).collect();
        (counts.len() == 2 && counts.iter().sum::<u32>() == 12 && counts[0] <= 7).then_some(counts)
    });
    let spread = spread.await;
    assert!(spread[1] >= 5, "{spread:?}");
    sleep(PACE.every * 4).await;
    assert!(agents.try_join_next().is_none(), "nobody moves when it is fair enough");
    let text = full.metrics_text();
    let count = format!("fleetknock_controller_agents_moved_total {}", moved.len());
    assert!(text.lines().any(|line| line == count), "not '{count}': {text}");
}

async fn goodbye(agent: &mut Agent) -> pb::Goodbye {
    agent
        .until(|told| match told {
            Told::Goodbye(goodbye) => Some(goodbye.clone()),
            _ => None,
        })
        .await
}
