//! What counts as another history.

use super::*;

#[test]
fn revisions_that_rise_or_stay_are_the_same_history() {
    let history = History::default();
    for revision in [1, 5, 5, 9] {
        assert!(history.take_in_parts(history.seen(), 7, revision));
    }
    // Asked before the last answer came, and answered after it: nothing went back.
    let before = history.seen();
    assert!(history.take_in_parts(before, 7, 12));
    assert!(history.take_in_parts(before, 7, 10));
    assert_eq!(history.seen(), Seen { generation: 0, cluster: 7, revision: 12 });
}

#[test]
fn a_lower_revision_or_another_cluster_is_another_history() {
    for (cluster, revision) in [(7, 8), (8, 9), (8, 100)] {
        let history = History::default();
        assert!(history.take_in_parts(history.seen(), 7, 9));
        let mut generations = history.generations();
        let late = history.seen();

        assert!(!history.take_in_parts(history.seen(), cluster, revision));
        assert_eq!(history.seen(), Seen { generation: 1, cluster, revision });
        assert!(generations.has_changed().unwrap());
        generations.mark_unchanged();

        // Found once, however many find it, and what the old one still had to say is forgotten.
        assert!(!history.take_in_parts(late, cluster, revision));
        assert!(history.take_in_parts(late, 7, 200));
        assert_eq!(history.seen(), Seen { generation: 1, cluster, revision });
        assert!(!generations.has_changed().unwrap());
    }
}

#[test]
fn a_number_that_is_left_out_says_nothing() {
    let history = History::default();
    assert!(history.take_in_parts(history.seen(), 0, 3));
    assert!(history.take_in_parts(history.seen(), 7, 3));
    assert!(history.take_in_parts(history.seen(), 0, 4));
    assert_eq!(history.seen(), Seen { generation: 0, cluster: 7, revision: 4 });
}
