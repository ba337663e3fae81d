//! Agents spread, nobody is moved for nothing, and nobody who has nowhere else to go is moved twice.

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::*;

/// How far looks lie apart here.
const LOOK: Duration = Duration::from_secs(10);
const LONG_AGO: Timestamp = Timestamp::from_millis(1_000);
const NOW: Timestamp = Timestamp::from_millis(10_000_000);

fn agent(number: usize, since: Timestamp) -> Agent {
    Agent { host: format!("host-{number}").parse().unwrap(), since }
}

fn agents(count: usize) -> Vec<Agent> {
    (0..count).map(|number| agent(number, LONG_AGO)).collect()
}

fn random() -> StdRng {
    StdRng::seed_from_u64(1)
}

/// One that has seen the same controllers for long enough.
fn settled() -> Balance {
    let mut balance = Balance::new(SETTLED);
    assert!(
        balance.leaving(NOW.before(SETTLED), 7, agents(90), &[0], &mut random()).is_empty(),
        "not at once"
    );
    balance
}

#[test]
fn half_of_the_surplus_over_the_fair_share_is_let_go() {
    for (own, others, expected, why) in [
        (90, &[0, 0][..], 30, "60 too many"),
        (45, &[45, 0], 7, "15 too many"),
        (30, &[30, 30], 0, "fair"),
        (31, &[30, 29], 0, "as fair as one may expect"),
        (36, &[30, 30], 0, "4 too many are less than a fifth"),
        (0, &[45, 45], 0, "it is the others' turn"),
        (2, &[0, 0], 0, "1 too many is not worth it"),
        (3, &[0, 0], 1, "2 too many"),
        (5, &[4, 0], 1, "2 too many"),
        (10, &[10, 0], 1, "3 too many"),
        (90, &[], 0, "nobody else is there"),
        (9_000, &[0], 100, "not more at once"),
        (usize::MAX, &[usize::MAX, 0], 100, "no count is too large"),
        (10, &[usize::MAX], 0, "nor is another's"),
    ] {
        assert_eq!(moves(own, others), expected, "{own} here, {others:?} elsewhere: {why}");
    }
}

#[test]
fn nobody_moves_while_controllers_come_and_go() {
    let mut balance = settled();
    assert_eq!(balance.leaving(NOW, 7, agents(90), &[0], &mut random()).len(), 22);
    // One joins: from then on it is waited anew.
    let later = NOW + LOOK;
    assert_eq!(balance.leaving(later, 8, agents(90), &[0, 0], &mut random()), []);
    assert_eq!(balance.leaving(later + SETTLED.mul_f64(0.9), 8, agents(90), &[0, 0], &mut random()), []);
    assert_eq!(balance.leaving(later + SETTLED, 8, agents(90), &[0, 0], &mut random()).len(), 30);
}

#[test]
fn an_agent_that_has_just_come_is_not_moved() {
    let here = (0..90).map(|n| agent(n, if n < 5 { LONG_AGO } else { NOW.before(LOOK) })).collect();
    let mut leaving = settled().leaving(NOW, 7, here, &[0, 0], &mut random());
    leaving.sort();
    assert_eq!(leaving, agents(5).into_iter().map(|agent| agent.host).collect::<Vec<_>>());
}

#[test]
fn an_agent_that_comes_straight_back_is_left_alone_for_an_hour() {
    let mut balance = settled();
    // All 90 know this controller only, so in some looks each of them was asked once, and came back.
    let (mut here, mut asked, mut at) = (agents(90), Vec::new(), NOW);
    for _ in 0..60 {
        let leaving = balance.leaving(at, 7, here.clone(), &[0], &mut random());
        for agent in &mut here {
            if leaving.contains(&agent.host) {
                agent.since = at + Duration::from_secs(1);
            }
        }
        asked.extend(leaving);
        at = at + LOOK;
    }
    asked.sort();
    let times = asked.len();
    asked.dedup();
    assert_eq!((asked.len(), times), (90, 90), "each is asked once");
    assert_eq!(balance.leaving(NOW + STAYS.mul_f64(0.9), 7, here.clone(), &[0], &mut random()), []);
    assert_eq!(balance.leaving(at + STAYS, 7, here, &[0], &mut random()).len(), 22);
}

#[test]
fn an_agent_that_comes_back_after_a_while_may_move_again() {
    let mut balance = settled();
    let here = agents(6);
    let moved = balance.leaving(NOW, 7, here.clone(), &[0], &mut random()).remove(0);
    let back = NOW + CAME_BACK;
    let only: Vec<_> = here
        .into_iter()
        .map(|agent| Agent { since: if agent.host == moved { back } else { back + SETTLED }, ..agent })
        .collect();
    assert_eq!(balance.leaving(back + SETTLED, 7, only, &[0], &mut random()), [moved]);
}

proptest! {
    /// However the agents lie at first: after some looks nobody has much more than its share, and nobody moves any more.
    #[test]
    fn agents_end_up_spread_and_stay(
        mut counts in prop::collection::vec(0_usize..400, 2..6),
        seed in any::<u64>(),
    ) {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut number, mut at) = (0, NOW);
        let mut fleet: Vec<Vec<Agent>> = Vec::new();
        for count in &counts {
            fleet.push((number..number + count).map(|n| agent(n, LONG_AGO)).collect());
            number += count;
        }
        let mut balances: Vec<_> = counts.iter().map(|_| Balance::new(SETTLED)).collect();
        let mut quiet = 0;
        for _ in 0..1_000 {
            counts = fleet.iter().map(Vec::len).collect();
            let mut moving = Vec::new();
            for (own, balance) in balances.iter_mut().enumerate() {
                let others: Vec<_> =
                    counts.iter().enumerate().filter(|(other, _)| *other != own).map(|(_, count)| *count).collect();
                let leaving = balance.leaving(at, 1, fleet[own].clone(), &others, &mut random);
                fleet[own].retain(|agent| !leaving.contains(&agent.host));
                moving.extend(leaving.into_iter().map(|host| (own, host)));
            }
            quiet = if moving.is_empty() { quiet + 1 } else { 0 };
            let all: Vec<_> = (0..fleet.len()).collect();
            for (from, host) in moving {
                let elsewhere: Vec<_> = all.iter().copied().filter(|to| *to != from).collect();
                let to = *elsewhere.choose(&mut random).unwrap();
                fleet[to].push(Agent { host, since: at });
            }
            // As long as one has to wait for the last moved to count as settled, and for those that came back.
            if quiet > 10 {
                break;
            }
            at = at + LOOK;
        }
        prop_assert!(quiet > 10, "they never rest: {counts:?}");
        let fair = number.div_ceil(counts.len());
        for count in &counts {
            let surplus = count.saturating_sub(fair);
            prop_assert!(surplus < SURPLUS_LEAST || surplus * SURPLUS_PART < fair, "{counts:?}");
        }
    }
}
