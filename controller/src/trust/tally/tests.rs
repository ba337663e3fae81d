//! What is told when, and that a flood stays small.

use super::*;

#[test]
fn the_first_time_is_told_at_once_and_the_next_ones_together() {
    let start = Instant::now();
    let mut tally = Tally::new(start);
    let first = tally.note("a", 1, start);
    assert_eq!(first.tell, Some(Telling { what: 1, times: 1, others: 1 }));
    for second in 1..=9 {
        assert_eq!(tally.note("a", 2, start + seconds(second)).tell, None);
    }
    assert_eq!(tally.due(start + seconds(59)), []);
    assert_eq!(tally.due(start + seconds(60)), [Telling { what: 2, times: 9, others: 1 }]);
    assert_eq!(tally.due(start + seconds(200)), []);
    assert!(tally.keys.is_empty(), "nothing is left to know");
}

#[test]
fn what_happens_often_is_known_and_forgotten_with_time() {
    let start = Instant::now();
    let mut tally = Tally::new(start);
    let mut often = |key, second| tally.note(key, (), start + seconds(second)).often;
    for _ in 0..FEW {
        assert!(!often("a", 0));
    }
    assert!(often("a", 0));
    assert!(!often("b", 0), "another one is not concerned");
    assert!(often("a", 12), "one was forgotten, and one came");
    assert!(!often("a", 12 + 24));
    // Once in twelve seconds never becomes often.
    for number in 0..1_000 {
        assert!(!often("c", 12 * number));
    }
}

#[test]
fn a_great_flood_is_forgotten_as_soon_as_a_small_one() {
    let start = Instant::now();
    let mut tally = Tally::new(start);
    for _ in 0..1_000_000 {
        tally.note("a", (), start);
    }
    assert!(tally.note("a", (), start + seconds(59)).often);
    tally.due(start + seconds(60));
    assert!(!tally.note("a", (), start + seconds(59 + 72)).often);
}

#[test]
fn a_flood_from_everywhere_is_bounded_in_memory_and_in_words() {
    let start = Instant::now();
    let mut tally = Tally::new(start);
    let mut told = 0;
    let mut times = 0;
    for number in 0..100_000_u32 {
        let noted = tally.note(number, number, start);
        told += usize::from(noted.tell.is_some());
        times += noted.tell.map_or(0, |telling| telling.times);
        assert_eq!(noted.often, number as usize >= KEYS_MAX);
    }
    assert_eq!(tally.keys.len(), KEYS_MAX);
    assert_eq!(told, BURST as usize);
    assert_eq!(tally.due(start + seconds(5)), [], "there is no room for more");
    let later = tally.due(start + seconds(60));
    assert!(later.len() <= 10, "one every six seconds");
    let rest = later.last().unwrap();
    assert_eq!(rest.others, KEYS_MAX + 1 - BURST as usize - (later.len() - 1), "the rest is told as one");
    times += later.iter().map(|telling| telling.times).sum::<u64>();
    assert_eq!(times, 100_000, "none is lost");
    assert_eq!(tally.due(start + seconds(120)), []);
    assert!(tally.keys.is_empty() && tally.others.is_none());
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}
