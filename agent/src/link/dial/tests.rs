//! What a refusal means, and how long is waited for one.

use super::*;

#[test]
fn only_a_controller_that_answers_is_unavailable() {
    assert!(LinkError::Refused(Box::new(Status::unavailable("no lease"))).is_unavailable());
    assert!(!LinkError::Refused(Box::new(Status::permission_denied("no"))).is_unavailable());
    assert!(!LinkError::Slow { most: ALONE_MAX }.is_unavailable());
    // What a connection that breaks after it was made becomes on this side.
    let mut broken = Status::unavailable("connection reset");
    broken.set_source(std::sync::Arc::new(std::io::Error::other("connection reset")));
    let broken = LinkError::Refused(Box::new(broken));
    assert!(!broken.is_unavailable());
    assert_eq!(broken.to_string(), "refused: the connection broke: connection reset");
}

#[test]
fn a_silent_candidate_costs_less_when_there_are_others() {
    assert!(time_for_one_of(2) * 5 <= time_for_one_of(1));
    assert_eq!(time_for_one_of(64), time_for_one_of(2));
}
