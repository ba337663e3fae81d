//! Who may call what, and that no method was forgotten.

use fleetknock_core::time::Timestamp;
use tonic::Code;

use super::*;
use crate::{
    record::Holder,
    trust::token::{Kind, Secret},
};

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
            ["Explain", "Get", "List", "Overview", "Watch"].iter().any(|begin| method.starts_with(begin))
                && method != "ListTokens";
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
            let other: &'static str = uri.replace("blue", "red").leak();
            let status = ask(path, &[other]).unwrap_err();
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

#[test]
fn every_call_is_for_those_whom_the_table_names_whatever_they_show() {
    for (service, method) in calls() {
        for (name, shown) in everybody() {
            let path = format!("/fleetknock.v1.{service}/{method}");
            let result = show(&path, &shown);
            let least = least_role(&method);
            // Whom the names say, in the order of the roles; nobody else is a user.
            let role = Role::ALL.into_iter().find(|role| name == format!("{role} by {}", shown.by()));
            let may = match service.as_str() {
                "AgentService" => name == "host",
                "PeerService" => name == "controller",
                "ControlService" => role.is_some_and(|role| least.is_some_and(|least| role >= least)),
                "EnrolmentService" => method == "Enrol" || name == "host",
                _ => panic!("a service that this table does not know: {service}"),
            };
            // A certificate of a user is nothing at other services, and a token is not even looked at there.
            assert_eq!(result.is_ok(), may, "{name} at {path}: {result:?}");
            let code = result.as_ref().map_err(|refusal| refusal.status.code());
            if shown.uris.is_empty() && role.is_none() && !may {
                assert_eq!(code, Err(Code::Unauthenticated), "{name} at {path}");
            }
            if let (Ok(caller), "ControlService") = (result, service.as_str()) {
                let by_token = shown.token.is_some();
                assert_eq!(caller.shown == Shown::Certificate, !by_token, "{name}");
            }
        }
    }
}

#[test]
fn health_is_for_everybody() {
    for (name, shown) in everybody() {
        assert!(show("/grpc.health.v1.Health/Check", &shown).is_ok(), "{name}");
    }
}

#[test]
fn a_call_that_shows_both_is_refused_whosever_the_certificate_is() {
    let path = "/fleetknock.v1.ControlService/ListDoors";
    let (_, token) = token_of(Role::Admin);
    for uri in [HOST, CONTROLLER, VIEWER, OPERATOR, ADMIN] {
        let refusal = show(path, &Showing { uris: vec![uri], token: Some(token.clone()) }).unwrap_err();
        assert_eq!(refusal.status.code(), Code::PermissionDenied, "{uri}");
        assert!(refusal.status.message().contains("show one of them"), "{refusal:?}");
    }
    // Nor does a broken token beside a certificate let its holder in by the certificate.
    let broken = Showing { uris: vec![ADMIN], token: Some("fkt_".to_owned()) };
    assert_eq!(show(path, &broken).unwrap_err().status.code(), Code::PermissionDenied);
    // The certificate's own service does not look at tokens.
    let beside = Showing { uris: vec![HOST], token: Some(token) };
    let caller = show("/fleetknock.v1.AgentService/Attach", &beside).unwrap();
    assert_eq!(caller.shown, Shown::Certificate);
}

#[test]
fn a_refusal_is_noted_as_what_it_is_and_holds_no_secret() {
    let path = "/fleetknock.v1.ControlService/ListDoors";
    for (name, why) in [
        ("nobody", "nothing"),
        ("ended", "token_expired"),
        ("a host's token", "token_other_kind"),
        ("revoked", "token_unknown"),
        ("another fleet's", "token_unknown"),
        ("a wrong secret", "token_wrong"),
        ("the stored hash", "token_wrong"),
        ("the hash as it is stored", "token_malformed"),
        ("nonsense", "token_malformed"),
    ] {
        let (_, shown) = everybody().into_iter().find(|(each, _)| each == name).unwrap();
        let refusal = show(path, &shown).unwrap_err();
        assert_eq!(refusal.reason, Reason::Unknown { why }, "{name}");
        let secret = shown.token.as_ref().and_then(|token| token.rsplit('_').next().map(str::to_owned));
        if let Some(secret) = secret.filter(|secret| secret.len() > 16) {
            assert!(!format!("{refusal:?}").contains(&secret), "{refusal:?}");
        }
    }
    let may_not = show("/fleetknock.v1.ControlService/Open", &Showing { uris: vec![VIEWER], token: None });
    let Reason::Denied { actor } = may_not.unwrap_err().reason else { panic!("it is known who asks") };
    assert_eq!((actor.who.as_str(), actor.by.as_str()), ("user v", "certificate"));
}

#[test]
fn one_token_is_shown_as_a_bearer_and_never_goes_on() {
    let (_, token) = token_of(Role::Viewer);
    let headers = |values: &[String]| {
        let mut headers = http::HeaderMap::new();
        for value in values {
            headers.append(http::header::AUTHORIZATION, value.parse().unwrap());
        }
        let taken = bearer::take(&mut headers);
        assert!(headers.is_empty());
        taken
    };
    assert_eq!(headers(&[]), Ok(None));
    for scheme in ["Bearer", "bearer", "BEARER"] {
        assert!(matches!(headers(&[format!("{scheme} {token}")]), Ok(Some(_))), "{scheme}");
    }
    let wrong = [
        vec![String::new()],
        vec!["Bearer".to_owned()],
        vec![token.clone()],
        vec![format!("Basic {token}")],
        vec![format!("Bearer  {token}")],
        vec![format!("Bearer {token}"), format!("Bearer {token}")],
    ];
    for values in wrong {
        assert_eq!(headers(&values), Err(TokenError::Malformed), "{values:?}");
    }
}

/// What somebody shows.
#[derive(Clone, Debug)]
struct Showing {
    uris: Vec<&'static str>,
    token: Option<String>,
}

impl Showing {
    fn by(&self) -> &'static str {
        if self.token.is_some() { "token" } else { "certificate" }
    }
}

const NOW: u64 = 1_795_361_411_000;

/// Everybody who may come, by name.
fn everybody() -> Vec<(String, Showing)> {
    let mut all = vec![("nobody".to_owned(), Showing { uris: vec![], token: None })];
    for (name, uri) in [
        ("host", HOST),
        ("controller", CONTROLLER),
        ("viewer by certificate", VIEWER),
        ("operator by certificate", OPERATOR),
        ("admin by certificate", ADMIN),
    ] {
        all.push((name.to_owned(), Showing { uris: vec![uri], token: None }));
    }
    let mut token = |name: &str, token: String| {
        all.push((name.to_owned(), Showing { uris: vec![], token: Some(token) }));
    };
    for role in Role::ALL {
        token(&format!("{role} by token"), token_of(role).1);
    }
    let (admin, _) = token_of(Role::Admin);
    let hash: [u8; 32] = data_encoding::HEXLOWER.decode(admin.hash.as_bytes()).unwrap().try_into().unwrap();
    let minted = |kind, number, random: &[u8; 32]| {
        Secret::mint(kind, &TokenId::new(number), random).0.reveal().to_owned()
    };
    token("ended", minted(Kind::User, 4, &[4; 32]));
    token("a host's token", minted(Kind::Host, 5, &[5; 32]));
    token("revoked", minted(Kind::User, 6, &[6; 32]));
    token("another fleet's", minted(Kind::User, 7, &[3; 32]));
    token("a wrong secret", minted(Kind::User, 3, &[9; 32]));
    token("the stored hash", minted(Kind::User, 3, &hash));
    token("the hash as it is stored", format!("fkt_{}_{}", admin.id, admin.hash));
    token("nonsense", "nonsense".to_owned());
    all
}

/// The tokens 1 to 3 are of users by role, 4 is an admin's that ended, 5 a host's; others are not known.
fn held(id: &TokenId) -> Option<TokenRecord> {
    let ended = TokenId::new(4);
    let host = TokenId::new(5);
    if *id == ended {
        let (_, hash) = Secret::mint(Kind::User, &ended, &[4; 32]);
        let holder = Holder::User { name: "a".parse().unwrap(), role: Role::Admin };
        return Some(record(ended, holder, hash, NOW));
    }
    if *id == host {
        let (_, hash) = Secret::mint(Kind::Host, &host, &[5; 32]);
        return Some(record(host, Holder::Host("db-1".parse().unwrap()), hash, NOW + 1));
    }
    Role::ALL.into_iter().map(|role| token_of(role).0).find(|record| record.id == *id)
}

fn token_of(role: Role) -> (TokenRecord, String) {
    let number = role as u8 + 1;
    let id = TokenId::new(number.into());
    let (secret, hash) = Secret::mint(Kind::User, &id, &[number; 32]);
    let holder = Holder::User { name: "u".parse().unwrap(), role };
    (record(id, holder, hash, NOW + 1), secret.reveal().to_owned())
}

fn record(id: TokenId, holder: Holder, hash: String, expires: u64) -> TokenRecord {
    let expires = Timestamp::from_millis(expires);
    TokenRecord { id, holder, hash, created: Timestamp::ZERO, expires, created_by: "user a".to_owned() }
}

/// Every service and method of the contract.
fn calls() -> Vec<(String, String)> {
    let contract = [
        include_str!("../../../../proto/fleetknock/v1/agent.proto"),
        include_str!("../../../../proto/fleetknock/v1/control.proto"),
        include_str!("../../../../proto/fleetknock/v1/enrolment.proto"),
        include_str!("../../../../proto/fleetknock/v1/peer.proto"),
    ];
    let mut service = String::new();
    let mut calls = Vec::new();
    for line in contract.iter().flat_map(|file| file.lines()) {
        if let Some(rest) = line.strip_prefix("service ") {
            service = rest.split(' ').next().unwrap().to_owned();
        }
        if let Some(rest) = line.trim().strip_prefix("rpc ") {
            calls.push((service.clone(), rest.split('(').next().unwrap().to_owned()));
        }
    }
    assert!(calls.len() > ROLES.len());
    calls
}

fn show(path: &str, shown: &Showing) -> Result<Caller, Refusal> {
    let uris: Vec<_> = shown.uris.iter().map(|uri| (*uri).to_owned()).collect();
    let mut headers = http::HeaderMap::new();
    if let Some(token) = &shown.token {
        headers.insert(http::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    }
    let token = bearer::take(&mut headers);
    let asked = Asked { path, uris: &uris, token, address: None };
    judge(&"blue".parse().unwrap(), &asked, held, Timestamp::from_millis(NOW))
}

fn ask(path: &str, uris: &[&'static str]) -> Result<Caller, Status> {
    show(path, &Showing { uris: uris.to_vec(), token: None }).map_err(|refusal| refusal.status)
}
