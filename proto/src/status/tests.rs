//! Errors carry their details across the wire and are told in one line.

use proptest::prelude::*;
use tonic::codegen::Bytes;

use super::*;

#[test]
fn statuses_carry_details_and_read_as_one_line() {
    for (status, code, reason, line) in [
        (
            invalid("door.name", "it is empty"),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "door.name: it is empty",
        ),
        (
            invalid("", "say an id, a door or a source"),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "say an id, a door or a source",
        ),
        (
            invalid_fields([("a".to_owned(), "x".to_owned()), ("b".to_owned(), "y".to_owned())]),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "a: x; b: y",
        ),
        (not_found("door", "ssh"), Code::NotFound, "NOT_FOUND", "there is no door 'ssh'"),
        (
            conflict("door", "ssh", "somebody else changed it; read it again"),
            Code::Aborted,
            "CONFLICT",
            "door 'ssh': somebody else changed it; read it again",
        ),
        (
            precondition("host", "a", "it is connected; stop its agent first"),
            Code::FailedPrecondition,
            "PRECONDITION",
            "host 'a': it is connected; stop its agent first",
        ),
        (
            unavailable("the store\ncannot be reached"),
            Code::Unavailable,
            "UNAVAILABLE",
            "the store cannot be reached",
        ),
    ] {
        assert_eq!(status.code(), code);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.domain.as_str(), info.reason.as_str()), (DOMAIN, reason));
        assert_eq!(describe(&status), line);
    }
    assert!(unavailable("x").get_details_retry_info().is_some());
    assert_eq!(not_found("door", "ssh").get_details_resource_info().unwrap().resource_name, "ssh");
}

#[test]
fn details_that_the_message_does_not_repeat_are_added() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("door.name", "it is empty");
    details.add_precondition_failure_violation("X", "y", "not now");
    let status = Status::with_error_details(Code::InvalidArgument, "bad request", details);
    assert_eq!(describe(&status), "bad request; door.name: it is empty; not now");
    assert_eq!(
        describe(&Status::new(Code::DeadlineExceeded, "")),
        "deadline expired before operation could complete"
    );
}

#[test]
fn a_hostile_message_cannot_steer_a_terminal() {
    let status = Status::internal(format!("\u{1b}[2Ja\r\nb{}", "x".repeat(10_000)));
    let line = describe(&status);
    assert!(!line.chars().any(char::is_control));
    assert!(line.chars().count() <= 2_001);
}

proptest! {
    #[test]
    fn any_details_are_described(message in any::<String>(), details in prop::collection::vec(any::<u8>(), 0..200)) {
        let status = Status::with_details(Code::Internal, message, Bytes::from(details));
        prop_assert!(!describe(&status).chars().any(char::is_control));
    }
}
