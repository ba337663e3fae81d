//! What a controller or an agent logs.

use fleetknock_proto::{status, v1};
use tonic::Status;

use super::stand_in::StandIn;

#[test]
fn log_says_whose_what_and_for_how_long() {
    let fleet = StandIn::start();
    for (args, order, line) in [
        (&["log", "host", "db-1", "debug"][..], "host db-1: 'debug' for 0 ms", "host/db-1 logs debug, "),
        (
            &["log", "host", "db-1", "info,fleetknock_agent=debug", "--for", "5m"],
            "host db-1: 'info,fleetknock_agent=debug' for 300000 ms",
            "host/db-1 logs info,fleetknock_agent=debug, ",
        ),
        (&["log", "controller", "debug"], "controller : 'debug' for 0 ms", "controller logs debug, "),
        (
            &["log", "controller", "ctl-2", "debug", "--for", "1m"],
            "controller ctl-2: 'debug' for 60000 ms",
            "controller/ctl-2 logs debug, ",
        ),
        (&["log", "host", "db-1", "--reset"], "host db-1: '' for 0 ms", "host/db-1 logs as it was started"),
        (&["log", "controller", "--reset"], "controller : '' for 0 ms", "controller logs as it was started"),
        (
            &["log", "controller", "ctl-2", "--reset"],
            "controller ctl-2: '' for 0 ms",
            "controller/ctl-2 logs as it was started",
        ),
    ] {
        let ran = fleet.run(args, "");
        assert!(ran.code == 0 && ran.lines[0].starts_with(line), "{args:?}: {ran:?}");
        assert_eq!(fleet.log_orders().last().unwrap(), order);
    }
}

#[test]
fn a_host_that_is_gone_and_a_missing_filter_are_told() {
    let fleet = StandIn::start();
    let gone = fleet.run(&["log", "host", "gone", "debug"], "");
    assert!(gone.code == 1 && gone.errors[0].contains("it is not connected"), "{gone:?}");
    for wrong in
        [&["log", "host", "db-1"][..], &["log", "controller"], &["log", "host", "db-1", "debug", "--reset"]]
    {
        assert_eq!(fleet.run(wrong, "").code, 64, "{wrong:?}");
    }
    assert!(fleet.log_orders().is_empty());
}

/// What the stand-in was ordered.
pub(crate) fn order(request: &v1::SetLogRequest) -> Result<String, Status> {
    let whose = match &request.whose {
        Some(v1::set_log_request::Whose::Host(host)) if host == "gone" => {
            return Err(status::precondition("host", host, "it is not connected"));
        }
        Some(v1::set_log_request::Whose::Host(host)) => format!("host {host}"),
        Some(v1::set_log_request::Whose::Controller(name)) => format!("controller {name}"),
        None => "nobody".to_owned(),
    };
    Ok(format!("{whose}: '{}' for {} ms", request.filter, request.for_ms))
}
