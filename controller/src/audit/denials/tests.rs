//! Floods of refusals are told in few words.

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn stranger(address: &str) -> Denied {
    let message = "a call was refused".to_owned();
    Denied::unknown(pb::EventKind::AuthenticationFailed, "nothing", address.to_owned(), message)
}

fn named(who: &str, address: &str) -> Denied {
    let actor =
        Actor { who: who.to_owned(), role: None, by: "certificate".to_owned(), address: address.to_owned() };
    Denied { kind: pb::EventKind::CallDenied, actor, host: None, message: "Open needs a role".to_owned() }
}

#[test]
fn the_first_is_told_at_once_and_repetitions_once_a_minute_with_their_count() {
    let mut repeats = Repeats::default();
    let mallory = || named("user mallory", "192.0.2.1:1");
    assert_eq!(repeats.take(mallory(), at(0)), Some(mallory()));
    for second in 1..60 {
        assert_eq!(repeats.take(named("user mallory", &format!("192.0.2.1:{second}")), at(second)), None);
        assert_eq!(repeats.due(at(second)), []);
    }
    let due = repeats.due(at(60));
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].message, "Open needs a role (59 times more within a minute)");
    assert_eq!(due[0].actor.address, "192.0.2.1:59", "the last one's");
    assert_eq!(repeats.take(mallory(), at(61)), None, "that was this minute's");
    assert_eq!(repeats.due(at(120)).len(), 1);
    assert_eq!(repeats.due(at(180)), [], "nothing more happened");
    assert_eq!(repeats.take(mallory(), at(181)), Some(mallory()), "it is news again");
}

#[test]
fn a_network_of_ipv6_is_one_and_a_name_is_one_wherever_it_comes_from() {
    let mut repeats = Repeats::default();
    assert!(repeats.take(stranger("[2001:db8:0:1::1]:1"), at(0)).is_some());
    assert!(repeats.take(stranger("[2001:db8:0:1:ffff::2]:2"), at(0)).is_none());
    assert!(repeats.take(stranger("[2001:db8:0:2::1]:1"), at(0)).is_some());
    assert!(repeats.take(stranger("192.0.2.1:1"), at(0)).is_some());
    assert!(repeats.take(stranger("[::ffff:192.0.2.1]:2"), at(0)).is_none());
    assert!(repeats.take(named("user a", "192.0.2.1:1"), at(0)).is_some());
    assert!(repeats.take(named("user a", "192.0.2.2:1"), at(0)).is_none());
}

#[test]
fn strangers_never_hide_somebody_who_is_known() {
    let mut repeats = Repeats::default();
    for number in 0..10_000 {
        repeats.take(stranger(&format!("10.0.{}.{}:1", number / 250, number % 250)), at(0));
    }
    assert!(repeats.take(named("host edge-1", "192.0.2.1:1"), at(0)).is_some());
    let due = repeats.due(at(60));
    assert_eq!(due.len(), 1, "{due:?}");
    assert!(due[0].message.starts_with("9970 more were refused within a minute"), "{due:?}");
}

proptest! {
    /// However many are refused, however often, from wherever: events in a minute and memory are bounded.
    #[test]
    fn a_flood_is_few_events(flood in proptest::collection::vec((0u64..600, 0u8..=255, 0u8..=255, any::<bool>()), 1..2_000)) {
        let mut flood = flood;
        flood.sort_unstable();
        let mut repeats = Repeats::default();
        let mut told: Vec<Timestamp> = Vec::new();
        let mut clock = 0;
        for (second, a, b, known) in flood {
            while clock < second {
                clock += 1;
                told.extend(repeats.due(at(clock)).iter().map(|_| at(clock)));
            }
            let denied = if known { named(&format!("user u{a}"), "192.0.2.1:1") } else { stranger(&format!("10.0.{a}.{b}:1")) };
            told.extend(repeats.take(denied, at(second)).iter().map(|_| at(second)));
            prop_assert!(repeats.windows.len() <= 2 * APART_MAX);
        }
        for start in 0..600 {
            let within = told.iter().filter(|time| (at(start)..at(start + 60)).contains(time)).count();
            // Within any minute a window may end and a newcomer take its place.
            prop_assert!(within <= 2 * (2 * APART_MAX) + 1, "{within} in the minute from {start} s");
        }
    }
}
