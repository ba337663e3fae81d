//! The programs are called with a deadline, and their errors are understood.

use super::*;

#[test]
fn a_call_that_hangs_is_left_behind() {
    let programs = Programs { variant: Variant::System, deadline: Duration::from_millis(20) };
    let (release, held) = mpsc::channel::<()>();
    let result = programs.run(true, "wait", move |_| {
        // Until the test is over: the sender is gone then.
        let _ = held.recv();
        Ok(())
    });
    let error = result.unwrap_err();
    assert!(matches!(&error, FirewallError::Program { program: "ip6tables", .. }), "{error}");
    assert!(error.to_string().contains("no answer within"), "{error}");
    drop(release);
}

#[test]
fn failures_are_told_apart() {
    let programs = Programs::new(Variant::System);
    let missing = programs
        .run(false, "fail", |_| -> Result<(), _> { Err(std::io::Error::from(ErrorKind::NotFound).into()) });
    assert!(matches!(missing, Err(FirewallError::Missing { .. })), "{missing:?}");
    let refused = programs
        .run(false, "fail", |_| -> Result<(), _> { Err("Permission denied (you must be root)".into()) });
    assert!(matches!(refused, Err(FirewallError::Permission)), "{refused:?}");
    let failed = programs.run(false, "fail", |_| -> Result<(), _> { Err("code: 2, msg: bad".into()) });
    assert!(matches!(failed, Err(FirewallError::Program { .. })), "{failed:?}");
}
