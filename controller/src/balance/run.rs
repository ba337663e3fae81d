//! Asks the other controllers how many agents they have, and the surplus here to move.

use std::{sync::Arc, time::Duration};

use fleetknock_proto::v1 as pb;
use tokio::time::{MissedTickBehavior, interval};

use super::{Agent, Balance, SETTLED};
use crate::{
    peers::Peers,
    shared::{Shared, Standing},
};

/// How often it is looked, and after how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks.
    pub every: Duration,
    /// As [`SETTLED`].
    pub settled: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { every: Duration::from_secs(10), settled: SETTLED }
    }
}

/// Lets go of surplus agents, until the process ends.
pub async fn run(shared: Arc<Shared>, peers: Arc<Peers>, pace: Pace) {
    let mut looks = interval(pace.every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut balance = Balance::new(pace.settled);
    loop {
        looks.tick().await;
        look(&shared, &peers, &mut balance).await;
    }
}

async fn look(shared: &Shared, peers: &Peers, balance: &mut Balance) {
    if !matches!(shared.standing(), Standing::Serving { .. }) {
        return;
    }
    let generation = shared.members_generation();
    let Some(others) = others(shared, peers).await else { return };
    let mut state = shared.state();
    let sessions = &mut state.sessions;
    let here = sessions.hosts().filter_map(|host| Some((host, sessions.of(host)?)));
    let here = here.map(|(host, session)| Agent { host: host.clone(), since: session.info.since }).collect();
    let leaving = balance.leaving(shared.now(), generation, here, &others, &mut rand::rng());
    if leaving.is_empty() {
        return;
    }
    sessions.let_go(&leaving, "the other controllers have fewer agents");
    let left = sessions.len() - leaving.len();
    drop(state);
    shared.metrics.agents_moved.inc_by(leaving.len() as u64);
    tracing::info!(
        agents = leaving.len(),
        left,
        ?others,
        "agents were asked to move to the other controllers"
    );
}

/// How many agents each of the other controllers has. `None` unless all of them say so and serve: whoever does not
/// would be taken for empty, or its agents are about to come here.
async fn others(shared: &Shared, peers: &Peers) -> Option<Vec<usize>> {
    let asked = peers.describe_all().await;
    let members = shared.state().fleet.members().keys().filter(|name| **name != shared.name).count();
    if members == 0 || !asked.unanswered.is_empty() || asked.answers.len() != members {
        return None;
    }
    let agents = asked.answers.values().map(|told| {
        let serving = told.state() == pb::ControllerState::Serving;
        serving.then(|| usize::try_from(told.agents).unwrap_or(usize::MAX))
    });
    agents.collect()
}
