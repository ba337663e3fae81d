//! Rendezvous hashing moves only what it must, and whoever a knock comes in at, it ends at the same place.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> HostName {
    text.parse().unwrap()
}

fn source(number: u32) -> Source {
    std::net::Ipv4Addr::from(0x0a00_0000 | (number & 0x00ff_ffff)).to_string().parse().unwrap()
}

/// The view of one of these members, all others up.
fn view(me: &str, members: &[&str]) -> Router {
    let mut router = Router::new(name(me));
    router.set_members(members.iter().map(|member| (name(member), 1)));
    for member in members.iter().filter(|member| **member != me) {
        router.set_link(&name(member), 1, Link::Up);
    }
    router
}

/// Where a knock that comes in at `at` ends.
fn follow(views: &[Router], at: &str, source: Source) -> HostName {
    let mut at = name(at);
    for hops in 0.. {
        let view = views.iter().find(|view| view.me == at).unwrap();
        match view.route(source, hops) {
            Route::Here => break,
            Route::To(next) => at = next.clone(),
        }
    }
    at
}

#[test]
fn owners_are_the_same_in_every_version() {
    // These are written down: a version that computed others could not share a fleet with this one.
    let router = view("a", &["a", "b", "c"]);
    let owners: String =
        (0..24).filter_map(|number| router.owner(source(number * 7919)).map(HostName::as_str)).collect();
    assert_eq!(owners, "bbbacbabccbbbaccaacaabbb");
}

#[test]
fn a_member_that_leaves_moves_only_its_own_sources() {
    let (before, after) = (view("a", &["a", "b", "c"]), view("a", &["a", "c"]));
    let mut moved = 0;
    for number in 0..3_000 {
        let source = source(number);
        if before.owner(source) == Some(&name("b")) {
            moved += 1;
        } else {
            assert_eq!(before.owner(source), after.owner(source));
        }
    }
    assert!((800..1_200).contains(&moved), "{moved} of 3000");
}

#[test]
fn alone_everything_is_judged_here() {
    let router = view("a", &["a"]);
    assert_eq!(router.route(source(1), 0), Route::Here);
    assert_eq!(Router::new(name("a")).route(source(1), 0), Route::Here);
    assert!(router.is_here(source(1)));
}

#[test]
fn a_member_that_joined_anew_is_dialled_anew() {
    let mut router = view("a", &["a", "b"]);
    assert!(!router.set_members([(name("a"), 1), (name("b"), 1)]));
    assert_eq!(router.link(&name("b")), Some(Link::Up));
    assert!(router.set_members([(name("a"), 1), (name("b"), 2)]));
    assert_eq!(router.link(&name("b")), Some(Link::Connecting));
    assert!(!router.set_link(&name("b"), 1, Link::Up), "word of its former life");
    assert!(router.set_link(&name("b"), 2, Link::Up));
}

#[test]
fn being_dialled_in_vain_moves_nothing() {
    let mut router = Router::new(name("a"));
    router.set_members([(name("a"), 1), (name("b"), 1)]);
    assert!(!router.set_link(&name("b"), 1, Link::Cut));
    assert!(router.set_link(&name("b"), 1, Link::Dead));
}

#[test]
fn the_sources_of_a_dead_member_are_followed_at_once_by_the_next_in_their_order() {
    let names = ["a", "b", "c", "d"];
    let mut views: Vec<_> = names.iter().map(|me| view(me, &names)).collect();
    for view in &mut views {
        view.set_link(&name("c"), 1, Link::Dead);
    }
    let without = view("a", &["a", "b", "d"]);
    for number in 0..500 {
        let source = source(number);
        for at in ["a", "b", "d"] {
            assert_eq!(follow(&views, at, source), *without.owner(source).unwrap());
        }
    }
}

#[test]
fn a_member_that_is_cut_off_from_one_other_is_reached_through_a_third() {
    let names = ["a", "b", "c"];
    let mut views: Vec<_> = names.iter().map(|me| view(me, &names)).collect();
    views[0].set_link(&name("b"), 1, Link::Cut);
    views[1].set_link(&name("a"), 1, Link::Cut);
    for number in 0..500 {
        let source = source(number);
        let owner = views[0].owner(source).unwrap().clone();
        for at in names {
            assert_eq!(follow(&views, at, source), owner);
        }
    }
}

#[test]
fn a_member_that_nobody_reaches_is_replaced_by_the_same_one_everywhere() {
    let names = ["a", "b", "c", "d"];
    let mut views: Vec<_> = names.iter().map(|me| view(me, &names)).collect();
    for view in &mut views {
        view.set_link(&name("d"), 1, Link::Cut);
    }
    for number in 0..500 {
        let source = source(number);
        let ends: std::collections::BTreeSet<_> =
            ["a", "b", "c"].iter().map(|at| follow(&views, at, source)).collect();
        assert_eq!(ends.len(), 1, "{source}: {ends:?}");
        assert!(!ends.contains(&name("d")));
    }
}

proptest! {
    #[test]
    fn however_links_stand_a_knock_ends_after_two_hops_and_never_at_a_peer_that_is_not_up(
        links in proptest::collection::vec(0_u8..4, 16), number: u32, at in 0_usize..4,
    ) {
        let names = ["a", "b", "c", "d"];
        let mut views: Vec<_> = names.iter().map(|me| view(me, &names)).collect();
        for (position, link) in links.iter().enumerate() {
            let link = [Link::Connecting, Link::Cut, Link::Dead, Link::Up][usize::from(*link)];
            views[position / 4].set_link(&name(names[position % 4]), 1, link);
        }
        let mut at = at;
        for hops in 0..=HOPS_MAX {
            match views[at].route(source(number), hops) {
                Route::Here => return Ok(()),
                Route::To(next) => {
                    prop_assert!(hops < HOPS_MAX);
                    prop_assert_eq!(views[at].link(next), Some(Link::Up));
                    at = names.iter().position(|known| *known == next.as_str()).unwrap();
                }
            }
        }
    }
}
