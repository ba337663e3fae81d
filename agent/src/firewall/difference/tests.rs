//! What differs between a kernel and a picture, case by case.

use super::*;

#[test]
fn equal_pictures_need_nothing() {
    let (held, desired) = pictures(&[("192.0.2.1", Some(30))], &[("192.0.2.1", 31)]);
    assert_eq!(compare(&held, &desired), Difference::default());
}

#[test]
fn each_difference_is_mended_and_said() {
    let (held, desired) = pictures(
        &[("192.0.2.1", Some(30)), ("192.0.2.2", Some(30)), ("192.0.2.3", None), ("192.0.2.9", Some(5))],
        &[("192.0.2.1", 30), ("192.0.2.2", 40), ("192.0.2.3", 10), ("192.0.2.4", 10)],
    );
    let found = compare(&held, &desired);
    assert_eq!(found.open, [element("192.0.2.2", 40), element("192.0.2.3", 10), element("192.0.2.4", 10)]);
    assert_eq!(found.close, [element("192.0.2.9", 0).0]);
    assert_eq!(
        found.said,
        [
            "1 opening was missing and has been put back",
            "2 openings had a wrong time left, which is mended",
            "1 surplus opening removed"
        ]
    );
}

#[test]
fn nothing_left_is_not_wanted() {
    let (held, desired) = pictures(&[("192.0.2.1", Some(1))], &[("192.0.2.1", 0)]);
    assert_eq!(compare(&held, &desired).close.len(), 1);
    let (held, desired) = pictures(&[], &[("192.0.2.1", 0)]);
    assert_eq!(compare(&held, &desired), Difference::default());
}

#[test]
fn times_are_rounded_up_and_bounded_and_never_become_for_ever() {
    assert_eq!(milliseconds(Duration::ZERO), None);
    assert_eq!(milliseconds(Duration::from_nanos(1)), Some(1));
    assert_eq!(milliseconds(Duration::from_micros(1_001)), Some(2));
    assert_eq!(milliseconds(Duration::MAX), Some(2_147_483_000));
    assert_eq!(seconds(Duration::ZERO), None);
    assert_eq!(seconds(Duration::from_millis(1)), Some(1));
    assert_eq!(seconds(Duration::from_millis(2_001)), Some(3));
    assert_eq!(seconds(Duration::MAX), Some(2_147_483));
}

fn pictures(held: &[(&str, Option<u64>)], desired: &[(&str, u64)]) -> (Held, Desired) {
    let openings =
        held.iter().map(|(source, left)| (element(source, 0).0, left.map(Duration::from_secs))).collect();
    let held = Held { openings, bans: BTreeMap::new() };
    let openings = desired.iter().map(|(source, left)| element(source, *left)).collect();
    (held, Desired { openings, ..Desired::default() })
}

fn element(source: &str, left: u64) -> (Element, Duration) {
    (Element { source: source.parse().unwrap(), port: "tcp/22".parse().unwrap() }, Duration::from_secs(left))
}
