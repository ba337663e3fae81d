//! What each failure says, and which of them let another controller be asked.

use super::*;

const URL: &str = "http://c:7600";

#[test]
fn statuses_become_lines_and_codes() {
    for (status, code, line) in [
        (status::not_found("door", "x"), 1, "there is no door 'x'"),
        (status::invalid("door.name", "is missing"), 65, "door.name: is missing"),
        (
            status::unavailable("suspended: no lease"),
            75,
            "the controller at http://c:7600 cannot do this now: suspended: no lease; try again or ask another one \
             (--controller)",
        ),
        (
            status::unavailable("no store; try again"),
            75,
            "the controller at http://c:7600 cannot do this now: no store; try again; or ask another one (--controller)",
        ),
        (Status::permission_denied("no"), 77, "no; ask an admin of the fleet for a role that may do this"),
        (Status::aborted("changed; try again"), 75, "changed; try again"),
    ] {
        let error = Failure::of(&status).error(URL, Purpose::Read);
        assert_eq!((exit::code_of(&error), error.to_string().as_str()), (code, line));
    }
}

#[test]
fn a_change_is_sent_again_only_when_it_was_never_sent() {
    let unreachable = Failure::Unreachable("refused".into());
    assert!(unreachable.passes_on(Purpose::Read) && unreachable.passes_on(Purpose::Write));
    for unsure in [
        Failure::Broken("reset".into()),
        Failure::Silent(Duration::from_secs(1)),
        Failure::Unavailable("suspended".into()),
    ] {
        assert!(unsure.passes_on(Purpose::Read), "{unsure:?}");
        assert!(!unsure.passes_on(Purpose::Write), "{unsure:?}");
    }
    let refused = Failure::of(&status::not_found("door", "x"));
    assert!(!refused.passes_on(Purpose::Read) && !refused.passes_on(Purpose::Write));
}

#[test]
fn what_may_have_been_done_is_said() {
    for unsure in [Failure::Broken("reset".into()), Failure::Silent(Duration::from_secs(1))] {
        let said = |purpose| unsure.error(URL, purpose).to_string();
        assert!(said(Purpose::Write).contains("whether it was done is not known; try again"));
        assert!(!said(Purpose::Read).contains("not known"));
    }
}

#[test]
fn when_all_fail_each_is_named() {
    let failures = [
        ("http://a", Failure::Unreachable("refused".into())),
        ("http://b", Failure::Unavailable("suspended: no lease".into())),
    ];
    let error = all_failed(failures.iter().map(|(url, failure)| (*url, failure)));
    assert_eq!(exit::code_of(&error), exit::TEMPORARY);
    let line = error.to_string();
    assert!(line.contains("none of 2 controllers"), "{line}");
    assert!(line.contains("http://a: cannot be reached: refused; http://b: suspended: no lease;"), "{line}");
    let error = all_failed(failures[..1].iter().map(|(url, failure)| (*url, failure)));
    assert_eq!(exit::code_of(&error), exit::UNAVAILABLE);
}
