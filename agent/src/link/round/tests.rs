//! The order of candidates: complete, bounded, spread, and the lost one last.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

proptest! {
    /// Every candidate is dialled once, the lost one after all others.
    #[test]
    fn a_round_dials_every_candidate_once_and_the_lost_one_last(
        count in 0..=CANDIDATES_MAX, lost in 0..2 * CANDIDATES_MAX, seed: u64,
    ) {
        let candidates: Vec<usize> = (0..count).collect();
        let mut round = Round::new(candidates.clone(), Some(&lost), false, &mut StdRng::seed_from_u64(seed));
        prop_assert_eq!(round.size(), count);
        let mut dialled: Vec<usize> = std::iter::from_fn(|| round.next_candidate()).collect();
        if lost < count {
            prop_assert_eq!(dialled.last(), Some(&lost));
        }
        dialled.sort_unstable();
        prop_assert_eq!(dialled, candidates);
    }

    /// However many addresses there are, a round ends, and the lost one has its place in it.
    #[test]
    fn a_round_is_bounded(count in CANDIDATES_MAX..1_000, seed: u64) {
        let mut round = Round::new((0..count).collect(), Some(&0), false, &mut StdRng::seed_from_u64(seed));
        let dialled: Vec<usize> = std::iter::from_fn(|| round.next_candidate()).collect();
        prop_assert_eq!(dialled.len(), CANDIDATES_MAX);
        prop_assert_eq!(dialled.last(), Some(&0));
    }

    /// Only a round in which nobody took the agent and somebody could have is followed by a last resort.
    #[test]
    fn a_last_resort_follows_only_refusals_of_which_one_says_unavailable(
        said in proptest::collection::vec(0_u8..3, 0..20), last_resort: bool, seed: u64,
    ) {
        let mut round = Round::new((0..said.len()).collect(), None, last_resort, &mut StdRng::seed_from_u64(seed));
        for said in &said {
            match said {
                0 => round.refused(false),
                1 => round.refused(true),
                _ => round.welcomed(),
            }
        }
        let welcomed = said.contains(&2);
        prop_assert_eq!(round.next_is_last_resort(), said.contains(&1) && !welcomed);
        prop_assert_eq!(round.is_last_resort(), last_resort && !welcomed);
    }
}

#[test]
fn the_agents_of_a_dead_controller_spread_over_the_others() {
    let mut firsts = BTreeMap::new();
    let mut orders = BTreeMap::new();
    for agent in 0..3_000 {
        let mut round = Round::new(vec![0, 1, 2, 3], Some(&0), false, &mut StdRng::seed_from_u64(agent));
        let order: Vec<i32> = std::iter::from_fn(|| round.next_candidate()).collect();
        *firsts.entry(order[0]).or_insert(0) += 1;
        *orders.entry(order).or_insert(0) += 1;
    }
    assert!(firsts.keys().eq(&[1, 2, 3]), "{firsts:?}");
    assert!(firsts.values().all(|count| (900..1_100).contains(count)), "{firsts:?}");
    assert_eq!(orders.len(), 6, "all orders of the other three occur: {orders:?}");
}
