//! Cuts hold for what is established too, in the directions asked for only, and end.

use super::*;
use crate::{Lab, Reach, wait_until};

#[test]
fn a_cut_stops_new_and_established_connections_until_it_is_healed() {
    let lab = Lab::new("cut").unwrap();
    let [one, other, third] = ["one", "other", "third"].map(|name| lab.host(name).unwrap());
    for host in [&one, &other] {
        host.serve(&[22], &[]).unwrap();
    }
    let mut held = one.hold(None, other.at(22)).unwrap();
    let cut = Cut::between(&one, &other).unwrap();
    assert!(held.echoes().is_err());
    for (from, to) in [(&one, other.at(22)), (&one, other.at6(22)), (&other, one.at(22))] {
        assert_eq!(from.reach(to).unwrap(), Reach::Filtered);
    }
    assert_eq!(third.reach(other.at(22)).unwrap(), Reach::Open);
    cut.heal().unwrap();
    assert_eq!(one.reach(other.at(22)).unwrap(), Reach::Open);
    // The kernel sends the lost line again by itself.
    wait_until("the held connection to go on", std::time::Duration::from_secs(10), || {
        Ok(held.echoes().is_ok())
    })
    .unwrap();
}

#[test]
fn one_direction_is_cut_and_connections_are_refused() {
    let lab = Lab::new("one-way").unwrap();
    let [one, other] = ["one", "other"].map(|name| lab.host(name).unwrap());
    for host in [&one, &other] {
        host.serve(&[22], &[4000]).unwrap();
    }
    let cut = Cut::one_way(&one, &other).unwrap();
    // Nothing that needs an answer works; what needs none passes in the other direction.
    assert_eq!(one.reach(other.at(22)).unwrap(), Reach::Filtered);
    assert_eq!(other.reach(one.at(22)).unwrap(), Reach::Filtered);
    let received = || one.ok(&["nstat", "-az", "UdpInDatagrams"]).unwrap();
    let before = received();
    assert!(!other.udp_answers(None, one.at(4000)).unwrap());
    assert_ne!(before, received());
    drop(cut);
    let cut = Cut::refused(&one, [&other]).unwrap();
    assert_eq!(one.reach(other.at(22)).unwrap(), Reach::Refused);
    assert_eq!(one.reach(other.at6(22)).unwrap(), Reach::Refused);
    assert_eq!(other.reach(one.at(22)).unwrap(), Reach::Open);
    drop(cut);
    assert_eq!(one.reach(other.at(22)).unwrap(), Reach::Open);
    let left = one.ok(&["nft", "list", "ruleset"]).unwrap() + &other.ok(&["nft", "list", "ruleset"]).unwrap();
    assert!(!left.contains("cut"), "{left}");
}
