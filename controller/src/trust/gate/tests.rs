//! Who may call what, and that no method was forgotten.

use tonic::Code;

use super::*;

const HOST: &str = "fleetknock://blue/host/db-1";
const CONTROLLER: &str = "fleetknock://blue/controller/c-1";
const VIEWER: &str = "fleetknock://blue/user/v?role=viewer";
const OPERATOR: &str = "fleetknock://blue/user/o?role=operator";
const ADMIN: &str = "fleetknock://blue/user/a?role=admin";

#[test]
fn every_method_of_the_control_service_has_a_role() {
    let contract = include_str!("../../../../proto/fleetknock/v1/control.proto");
    let calls = contract.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
    let mut calls: Vec<_> = calls.collect();
    calls.sort_unstable();
    let known: Vec<_> = ROLES.iter().map(|(name, _)| *name).collect();
    assert_eq!(known, calls);
    for method in calls {
        // Who has which token is for those who give them out.
        let reads =
            ["Get", "List", "Watch"].iter().any(|begin| method.starts_with(begin)) && method != "ListTokens";
        assert_eq!(least_role(method) == Some(Role::Viewer), reads, "{method}");
    }
}

#[test]
fn each_service_is_for_those_whom_it_is_for() {
    let all = [HOST, CONTROLLER, VIEWER, OPERATOR, ADMIN];
    for (path, may) in [
        ("/fleetknock.v1.AgentService/Attach", &[HOST][..]),
        ("/fleetknock.v1.PeerService/Forward", &[CONTROLLER]),
        ("/fleetknock.v1.PeerService/Describe", &[CONTROLLER]),
        ("/fleetknock.v1.ControlService/ListDoors", &[VIEWER, OPERATOR, ADMIN]),
        ("/fleetknock.v1.ControlService/WatchEvents", &[VIEWER, OPERATOR, ADMIN]),
        ("/fleetknock.v1.ControlService/Open", &[OPERATOR, ADMIN]),
        ("/fleetknock.v1.ControlService/BanSource", &[OPERATOR, ADMIN]),
        ("/fleetknock.v1.ControlService/ApplyDoor", &[ADMIN]),
        ("/fleetknock.v1.ControlService/DeleteHost", &[ADMIN]),
        ("/fleetknock.v1.ControlService/Reveal", &[]),
        ("/fleetknock.v1.SecretService/Get", &[]),
        ("/grpc.health.v1.Health/Check", &all),
    ] {
        let taken: Vec<_> = all.into_iter().filter(|uri| ask(path, &[uri]).is_ok()).collect();
        assert_eq!(taken, may, "{path}");
    }
}

#[test]
fn nobody_and_others_are_nobody_here() {
    for path in [
        "/fleetknock.v1.AgentService/Attach",
        "/fleetknock.v1.PeerService/Forward",
        "/fleetknock.v1.ControlService/ListDoors",
    ] {
        assert_eq!(ask(path, &[]).unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(ask(path, &["https://example.com"]).unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(ask(path, &[HOST, ADMIN]).unwrap_err().code(), Code::PermissionDenied);
        for uri in [HOST, CONTROLLER, ADMIN] {
            let other = uri.replace("blue", "red");
            let status = ask(path, &[&other]).unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied);
            assert!(status.message().contains("of another fleet"), "{}", status.message());
        }
    }
    for path in
        ["", "/", "fleetknock.v1.ControlService/ListDoors", "//ListDoors", "/fleetknock.v1.ControlService"]
    {
        assert_eq!(ask(path, &[ADMIN]).unwrap_err().code(), Code::Unimplemented, "{path}");
    }
    assert!(ask("/grpc.health.v1.Health/Check", &[]).is_ok());
}

#[test]
fn a_refusal_names_the_role_that_is_needed() {
    let said = |path, uri| ask(path, &[uri]).unwrap_err().message().to_owned();
    assert_eq!(
        said("/fleetknock.v1.ControlService/Open", VIEWER),
        "Open needs the role operator, and user v has the role viewer"
    );
    assert_eq!(
        said("/fleetknock.v1.ControlService/Open", HOST),
        "Open is for users with the role operator; the certificate is that of host db-1"
    );
    assert_eq!(
        said("/fleetknock.v1.PeerService/Forward", HOST),
        "this is for controllers; the certificate is that of host db-1"
    );
}

fn ask(path: &str, uris: &[&str]) -> Result<Caller, Status> {
    let uris: Vec<_> = uris.iter().map(|uri| (*uri).to_owned()).collect();
    judge(&"blue".parse().unwrap(), path, &uris, None)
}
