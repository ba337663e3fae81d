//! The bounds of the memory, and what gives way first.

use super::*;

#[test]
fn a_flood_of_misses_pushes_out_no_progress() {
    let mut memory = Recollection::new(at(0));
    memory.add(step(1, 1, 2));
    memory.add(step(2, 2, 2));
    for number in 0..NOISE_MAX as u64 {
        memory.add(Entry::new(&knock(9, number), at(10 + number), Outcome::Miss));
    }
    let kept = memory.of(source(1), Timestamp::ZERO);
    assert_eq!(kept.entries.len(), 1, "the first step is noise, and gone");
    assert_eq!((kept.entries[0].step, kept.entries[0].of), (2, 2));
    assert_eq!(kept.complete_from, at(10), "the oldest that is left");
}

#[test]
fn the_oldest_gives_way_and_it_is_said_since_when_all_is_there() {
    let mut memory = Recollection::new(at(5));
    assert_eq!(memory.of(source(1), Timestamp::ZERO).complete_from, at(5));
    for number in 0..NOISE_MAX as u64 + 10 {
        memory.add(Entry::new(&knock(1, number), at(100 + number), Outcome::Miss));
    }
    let kept = memory.of(source(1), Timestamp::ZERO);
    assert_eq!(kept.entries.len(), ANSWER_MAX);
    assert!(kept.entries.is_sorted_by_key(|entry| entry.judged));
    let last = NOISE_MAX as u64 + 109;
    assert_eq!(kept.entries.last().unwrap().judged, at(last));
    assert_eq!(kept.complete_from, kept.entries[0].judged, "what the answer left out is said as well");
    assert_eq!(memory.of(source(2), Timestamp::ZERO).complete_from, at(110));
    assert_eq!(memory.of(source(1), at(last)).entries.len(), 1);
}

#[test]
fn a_step_reported_last_is_not_called_the_last_step() {
    let complete = Completion {
        door: "bastion".parse().unwrap(),
        source: source(1),
        first: at(0),
        last: at(1),
        end: knock(1, 3).id,
        knocks: vec![knock(1, 2).id, knock(1, 3).id],
    };
    let step = |counter| {
        Entry::completed(&knock(1, counter), at(5), &complete, Arc::new(complete.door.clone())).step
    };
    assert_eq!((step(3), step(2)), (2, 0));
}

#[test]
fn an_entry_tells_what_was_seen_and_debug_tells_no_port() {
    let seen = knock(1, 7);
    let entry = Entry::new(&seen, at(20), Outcome::Miss);
    assert_eq!(entry.observation(), seen);
    let text = format!("{entry:?}");
    assert!(!text.contains("7412"), "{text}");
    assert!(size_of::<Entry>() <= 72, "{} bytes", size_of::<Entry>());
}

#[test]
fn a_refused_knock_is_remembered_until_it_is_answered_and_they_are_bounded() {
    let mut refused = Refused::default();
    let unanswered = |counter, waits| Unanswered {
        source: source(1),
        door: "bastion".parse().unwrap(),
        end: Packet { host: "edge-1".parse().unwrap(), boot: crate::record::Boot([1; 16]), counter },
        reason: "x".repeat(1_000),
        waits,
    };
    refused.add(unanswered(1, true));
    refused.add(unanswered(1, false));
    let held: Vec<_> = refused.of(source(1)).collect();
    assert!(matches!(held[..], [Unanswered { waits: false, .. }]), "what was said last counts: {held:?}");
    assert_eq!(held[0].reason.len(), 200);
    assert_eq!(refused.of(source(2)).count(), 0);
    let first = unanswered(1, false);
    refused.remove(first.source, &first.door, &first.end);
    assert_eq!(refused.of(source(1)).count(), 0);
    for counter in 0..UNANSWERED_MAX as u64 + 5 {
        refused.add(unanswered(counter, false));
    }
    assert_eq!(refused.of(source(1)).count(), UNANSWERED_MAX);
    assert_eq!(refused.of(source(1)).next().unwrap().end.counter, 5);
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn source(last: u8) -> Source {
    Source::new([192, 0, 2, last].into()).unwrap()
}

fn knock(from: u8, counter: u64) -> Observation {
    Observation {
        id: ObservationId { host: HostId(3), boot: 2, counter },
        source: source(from),
        port: "tcp/7412".parse().unwrap(),
        time: at(1),
        uncertainty: Duration::from_micros(150),
        fingerprint: 77,
    }
}

fn step(counter: u64, step: usize, of: usize) -> Entry {
    let door = Arc::new("bastion".parse().unwrap());
    let verdict = Verdict::Advanced { door, step, of };
    Entry::judged(&knock(1, counter), at(counter), verdict).unwrap()
}
