//! Totals never fall, and nothing is counted twice.

use proptest::prelude::*;

use super::*;

#[test]
fn counts_that_begin_anew_are_added() {
    let mut tally = Tally::default();
    for (dropped, observed, totals) in [
        (3, 0, (3, 0)),
        (3, 2, (3, 2)),
        (5, 2, (5, 2)),
        // Flushed, and counted again since.
        (1, 4, (6, 4)),
        (1, 0, (6, 4)),
        (2, 1, (7, 5)),
    ] {
        tally.take(Counts::from([(port(), Count { dropped, observed })]));
        let total = tally.totals()[&port()];
        assert_eq!((total.dropped, total.observed), totals);
        assert_eq!(tally.sum(), total);
    }
}

#[test]
fn a_port_that_vanishes_keeps_its_total_and_begins_anew() {
    let mut tally = Tally::default();
    let counts = || Counts::from([(port(), Count { dropped: 4, observed: 0 })]);
    tally.take(counts());
    tally.take(Counts::new());
    assert_eq!(tally.sum().dropped, 4);
    tally.take(counts());
    assert_eq!(tally.sum().dropped, 8);
}

#[test]
fn both_kinds_of_one_port_are_joined() {
    let udp: Port = "udp/53".parse().unwrap();
    let counts = joined(vec![(port(), 1), (udp, 2)], vec![(port(), 3)]);
    assert_eq!(counts[&port()], Count { dropped: 1, observed: 3 });
    assert_eq!(counts[&udp], Count { dropped: 2, observed: 0 });
}

proptest! {
    /// Whatever a kernel says in whatever order: no total falls, and none overflows.
    #[test]
    fn totals_never_fall(said in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..20)) {
        let (mut tally, mut before) = (Tally::default(), Count::default());
        for (dropped, observed) in said {
            tally.take(Counts::from([(port(), Count { dropped, observed })]));
            let total = tally.sum();
            prop_assert!(total.dropped >= before.dropped && total.observed >= before.observed);
            before = total;
        }
    }
}

fn port() -> Port {
    "tcp/22".parse().unwrap()
}
