//! Who fails often, and for how long that counts.

use std::net::Ipv4Addr;

use super::*;

fn network(number: u32) -> IpAddr {
    Ipv4Addr::from(number).into()
}

#[test]
fn a_few_failures_happen_to_anybody_and_more_are_often() {
    let (mut failures, now) = (Failures::default(), Instant::now());
    for _ in 0..FEW {
        assert!(!failures.note(network(1), now));
    }
    assert!(failures.note(network(1), now));
    assert!(!failures.note(network(2), now), "another network is not meant");
}

#[test]
fn the_greatest_flood_is_forgotten_within_two_minutes() {
    let (mut failures, now) = (Failures::default(), Instant::now());
    for _ in 0..1_000_000 {
        failures.note(network(1), now);
    }
    assert!(failures.note(network(1), now + SPAN / 2));
    assert!(!failures.note(network(1), now + SPAN / 2 + SPAN * 2));
}

#[test]
fn as_many_networks_as_there_are_take_no_more_room_and_the_rest_counts_as_one() {
    let (mut failures, now) = (Failures::default(), Instant::now());
    for number in 0..1_000_000 {
        failures.note(network(number), now);
    }
    assert_eq!(failures.networks.len(), NETWORKS_MAX);
    assert!(failures.note(network(2_000_000), now), "so many others fail");
    assert!(!failures.note(network(1), now), "whoever is known is judged alone");
    assert!(!failures.note(network(2_000_000), now + SPAN), "room is made for those who come later");
}
