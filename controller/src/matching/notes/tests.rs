//! Every verdict is counted under its own name, and published once.

use std::{sync::Arc, time::Duration};

use fleetknock_core::{host::HostId, knock::ObservationId, matcher::Ignored};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

#[test]
fn every_verdict_is_counted_and_published_once() {
    let (mut notes, metrics) = (Notes::new(NOW), Metrics::default());
    let door: DoorName = "ssh".parse().unwrap();
    let advanced = Verdict::Advanced { door: Arc::new(door.clone()), step: 1, of: 3 };
    let verdicts = [
        advanced,
        Verdict::Completed,
        Verdict::Repeat,
        Verdict::Waiting,
        Verdict::Miss,
        Verdict::Ignored(Ignored::TooLate),
    ];
    for (times, verdict) in (1..).zip(verdicts) {
        for _ in 0..times {
            notes.judged(&knock(), NOW, verdict.clone());
        }
    }
    notes.completed(&knock(), NOW, &complete(door));
    notes.banned(&knock(), NOW);
    let counted = |verdict| metrics.knocks.get(&VerdictLabels { verdict }).map(|counter| counter.get());
    assert!(VERDICTS.into_iter().all(|verdict| counted(verdict).is_none()));
    let counts = Counts { steps: 3, completed: 2, misses: 5, banned: 1, others: 13 };
    assert_eq!(notes.publish(&metrics), counts);
    assert_eq!(notes.publish(&metrics), Counts::default());
    let names = ["advanced", "completed", "repeat", "waiting", "miss", "ignored", "banned"];
    assert_eq!(names.map(counted), [1, 2, 3, 4, 5, 6, 1].map(Some));
    assert_eq!(metrics.knocks_judged(), 22);
    // Completions are remembered with their door, and not a second time without.
    assert_eq!(notes.memory().of(knock().source, Timestamp::ZERO).entries.len(), 22 - 2 + 1);
}

#[test]
fn names_of_doors_are_shared_and_those_kept_are_bounded() {
    let mut notes = Notes::new(NOW);
    let door: DoorName = "ssh".parse().unwrap();
    assert!(Arc::ptr_eq(&notes.shared(&door), &notes.shared(&door)));
    for number in 0..3 * DOORS_MAX {
        notes.completed(&knock(), NOW, &complete(format!("door-{number}").parse().unwrap()));
        assert!(notes.doors.len() <= DOORS_MAX);
    }
    let last = notes.memory().of(knock().source, Timestamp::ZERO).entries.pop().unwrap();
    assert!(last.door.is_some());
}

fn complete(door: DoorName) -> Completion {
    let Observation { id, source, time, .. } = knock();
    Completion { door, source, first: time, last: time, end: id, knocks: vec![id] }
}

fn knock() -> Observation {
    Observation {
        id: ObservationId { host: HostId(1), boot: 1, counter: 1 },
        source: "203.0.113.5".parse().unwrap(),
        port: "tcp/7412".parse().unwrap(),
        time: NOW,
        uncertainty: Duration::from_millis(2),
        fingerprint: 7,
    }
}
