//! Certificates for hosts: by a token once, and by the one before.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fleetknock_controller::{
    enrolment::REQUEST_MAX,
    grant,
    record::{Holder, Key, TokenId, TokenRecord},
    shared::local_now,
    store::{Store, Transaction, memory::MemoryStore},
    trust::token::{Kind, Secret},
};
use fleetknock_proto::v1::{
    self as pb, control_service_client::ControlServiceClient, create_token_request::Holder as For,
    enrolment_service_client::EnrolmentServiceClient,
};
use fleetknock_runtime::tls::{
    Certificate, Credentials, Files, OwnFiles, UriRule,
    authority::{Access, PrivateKey, write_new},
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    support::{Agent, Controller},
    trust::{Office, dial},
};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_token_is_good_for_one_certificate_of_its_host() {
    let blue = Office::issuing("blue", HOUR);
    let controller = blue.controller("ctl-1").await;
    let mut admin = admin(&blue, &controller).await;
    let token = token(&mut admin, "edge-1").await;
    let mut events = watch(&mut admin).await;
    let mut stranger = stranger(&blue, &controller).await;
    let key = PrivateKey::generate().unwrap();
    let issued = stranger.enrol(ask(&token, &key.request().unwrap())).await.unwrap().into_inner();

    let certificate = first(&issued);
    assert_eq!(certificate.uris, ["fleetknock://blue/host/edge-1"]);
    assert_eq!(certificate.purposes, ["client"]);
    assert_eq!(Duration::from_millis(issued.not_after_ms), since_1970(certificate.not_after));
    // It is what the fleet takes, and of this host.
    let channel = dial(&blue.connector_with(kept(&blue, &issued, &key)), controller.address).await.unwrap();
    let _agent = Agent::over(channel.clone(), "edge-1", "edge", false).await.unwrap();
    let other = Agent::over(channel, "edge-2", "edge", false).await.err().unwrap();
    assert_eq!(other.code(), Code::PermissionDenied);

    let again = stranger.enrol(ask(&token, &request())).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated);
    let tokens = admin.list_tokens(pb::ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert!(tokens.is_empty(), "{tokens:?}");
    let event = event(&mut events, pb::EventKind::HostEnrolled).await;
    assert_eq!(event.host, "edge-1");
    assert!(event.message.starts_with("host edge-1 got its first certificate, until "), "{event:?}");
    assert!(!format!("{event:?}").contains(&token), "the token is told to nobody");
}

#[tokio::test]
async fn of_two_that_show_one_token_at_the_same_time_one_wins() {
    let blue = Office::issuing("blue", HOUR);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let controllers = [
        blue.controller_over("ctl-1", "ctl-1", store.clone()).await,
        blue.controller_over("ctl-2", "ctl-2", store).await,
    ];
    let mut admin = admin(&blue, &controllers[0]).await;
    for _ in 0..5 {
        let token = token(&mut admin, "edge-1").await;
        let mut tries = tokio::task::JoinSet::new();
        for number in 0..8 {
            let mut stranger = stranger(&blue, &controllers[number % 2]).await;
            let ask = ask(&token, &request());
            tries.spawn(async move { stranger.enrol(ask).await.map(|_| ()).map_err(|status| status.code()) });
        }
        let ends = tries.join_all().await;
        let won = ends.iter().filter(|end| end.is_ok()).count();
        // The other controller may not have heard of the token yet.
        assert!(
            won <= 1 && ends.iter().all(|end| matches!(end, Ok(()) | Err(Code::Unauthenticated))),
            "{ends:?}"
        );
        assert_eq!(won, 1, "the controller that made it knows it");
    }
}

#[tokio::test]
async fn whoever_asks_for_another_name_gets_that_of_the_token() {
    let blue = Office::issuing("blue", HOUR);
    let controller = blue.controller("ctl-1").await;
    let token = token(&mut admin(&blue, &controller).await, "edge-1").await;
    let mut params = rcgen::CertificateParams::new(vec!["ctl-1.example".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "ctl-1");
    let uri = "fleetknock://blue/user/mallory?role=admin";
    params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let issued = stranger(&blue, &controller).await.enrol(ask(&token, &request)).await.unwrap().into_inner();
    let certificate = first(&issued);
    assert_eq!(certificate.uris, ["fleetknock://blue/host/edge-1"]);
    assert!(certificate.subject.contains("edge-1") && !certificate.is_authority, "{certificate:?}");
    assert!(certificate.dns_names.is_empty() && certificate.purposes == ["client"], "{certificate:?}");
}

#[tokio::test]
async fn tokens_that_are_unknown_revoked_spent_or_over_are_refused_in_the_same_words() {
    let blue = Office::issuing("blue", HOUR);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let over = token_that_is_over(&*store).await;
    let controller = blue.controller_over("ctl-1", "ctl-1", store).await;
    let mut admin = admin(&blue, &controller).await;
    let mut stranger = stranger(&blue, &controller).await;
    let spent = token(&mut admin, "edge-1").await;
    stranger.enrol(ask(&spent, &request())).await.unwrap();
    let revoked = created(&mut admin, For::Host("edge-1".into())).await;
    let id = revoked.token.unwrap().id;
    admin.revoke_token(pb::RevokeTokenRequest { id }).await.unwrap();
    let unknown = Secret::mint(Kind::Host, &TokenId::new(7), &[7; 32]).0;
    let mut words = std::collections::BTreeSet::new();
    for token in [&spent, &revoked.secret, &over, unknown.reveal()] {
        let refused = stranger.enrol(ask(token, &request())).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        words.insert(refused.message().to_owned());
    }
    assert_eq!(words.len(), 1, "{words:?}");
    // These are seen to be wrong by anybody.
    let user = pb::TokenUser { name: "alice".into(), role: pb::Role::Admin.into() };
    let user = created(&mut admin, For::User(user)).await.secret;
    for token in [&user, "", "nonsense"] {
        let refused = stranger.enrol(ask(token, &request())).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_none_spends_nothing() {
    let blue = Office::issuing("blue", HOUR);
    let controller = blue.controller("ctl-1").await;
    let token = token(&mut admin(&blue, &controller).await, "edge-1").await;
    let mut stranger = stranger(&blue, &controller).await;
    let broken = stranger.enrol(ask(&token, "-----BEGIN CERTIFICATE REQUEST-----")).await.unwrap_err();
    assert_eq!(broken.code(), Code::InvalidArgument);
    assert!(broken.message().starts_with("signing_request: "), "{broken:?}");
    let large = stranger.enrol(ask(&token, &"x".repeat(REQUEST_MAX))).await.unwrap_err();
    assert_eq!(large.code(), Code::OutOfRange, "{large:?}");
    stranger.enrol(ask(&token, &request())).await.unwrap();
}

#[tokio::test]
async fn a_host_renews_for_itself_as_long_as_the_fleet_knows_it() {
    let blue = Office::issuing("blue", 10 * Duration::from_secs(60));
    let controller = blue.controller("ctl-1").await;
    let channel = blue.dial(&controller, "host/edge-1").await;
    let mut host = EnrolmentServiceClient::new(channel.clone());
    let renew = || pb::RenewRequest { signing_request: request() };
    let unknown = host.renew(renew()).await.unwrap_err();
    assert_eq!(unknown.code(), Code::FailedPrecondition);
    assert!(unknown.message().contains("its agent attaches first"), "{unknown:?}");

    let agent = Agent::over(channel, "edge-1", "edge", false).await.unwrap();
    let mut admin = admin(&blue, &controller).await;
    let mut events = watch(&mut admin).await;
    let issued = host.renew(renew()).await.unwrap().into_inner();
    assert_eq!(first(&issued).uris, ["fleetknock://blue/host/edge-1"]);
    let told = event(&mut events, pb::EventKind::CertificateRenewed).await;
    assert_eq!(told.host, "edge-1");
    // Each one is an event of the trail: nobody fills it.
    let hasty = host.renew(renew()).await.unwrap_err();
    assert_eq!(hasty.code(), Code::Unavailable);
    assert!(hasty.message().contains("got a certificate a moment ago"), "{hasty:?}");

    drop(agent);
    let deleted = async {
        let request = pb::DeleteHostRequest { name: "edge-1".to_owned() };
        while admin.delete_host(request.clone()).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, deleted).await.unwrap();
    assert_eq!(host.renew(renew()).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn nobody_but_a_host_renews() {
    let blue = Office::issuing("blue", HOUR);
    let controller = blue.controller("ctl-1").await;
    let renew = || pb::RenewRequest { signing_request: request() };
    for who in ["user/a?role=admin", "controller/ctl-1"] {
        let mut client = EnrolmentServiceClient::new(blue.dial(&controller, who).await);
        assert_eq!(client.renew(renew()).await.unwrap_err().code(), Code::PermissionDenied, "{who}");
    }
    let nobody = stranger(&blue, &controller).await.renew(renew()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn without_an_issuer_the_answer_names_the_flags() {
    let blue = Office::new("blue");
    let secure = blue.controller("ctl-1").await;
    let plain = Controller::start().await;
    let url = format!("http://{}", plain.address);
    let mut plain = EnrolmentServiceClient::connect(url).await.unwrap();
    let mut host = EnrolmentServiceClient::new(blue.dial(&secure, "host/edge-1").await);
    let renew = || pb::RenewRequest { signing_request: request() };
    let answers: [Status; 4] = [
        stranger(&blue, &secure).await.enrol(ask("t", "r")).await.unwrap_err(),
        host.renew(renew()).await.unwrap_err(),
        plain.enrol(ask("t", "r")).await.unwrap_err(),
        plain.renew(renew()).await.unwrap_err(),
    ];
    for answer in answers {
        assert_eq!(answer.code(), Code::FailedPrecondition);
        assert!(answer.message().contains("--issuer-cert and --issuer-key"), "{answer:?}");
    }
}

pub(crate) async fn admin(office: &Office, controller: &Controller) -> ControlServiceClient<Channel> {
    ControlServiceClient::new(office.dial(controller, "user/root?role=admin").await)
}

/// Somebody without a certificate.
pub(crate) async fn stranger(office: &Office, controller: &Controller) -> EnrolmentServiceClient<Channel> {
    let files = Files { own: None, authorities: vec![office.path("ca.crt")] };
    let connector = office.connector_of(Credentials::load(files).unwrap());
    EnrolmentServiceClient::new(dial(&connector, controller.address).await.unwrap())
}

async fn created(admin: &mut ControlServiceClient<Channel>, holder: For) -> pb::CreateTokenResponse {
    let request = pb::CreateTokenRequest { holder: Some(holder), valid_for_ms: 0 };
    admin.create_token(request).await.unwrap().into_inner()
}

pub(crate) async fn token(admin: &mut ControlServiceClient<Channel>, host: &str) -> String {
    created(admin, For::Host(host.to_owned())).await.secret
}

async fn token_that_is_over(store: &dyn Store) -> String {
    let id = TokenId::new(9);
    let (secret, hash) = Secret::mint(Kind::Host, &id, &[9; 32]);
    let record = TokenRecord {
        id: id.clone(),
        holder: Holder::Host("edge-1".parse().unwrap()),
        hash,
        created: local_now(),
        expires: local_now(),
        created_by: "user root".to_owned(),
    };
    let changes = vec![grant::put(&Key::Token(id), &record).unwrap()];
    store.commit(Transaction { changes, ..Transaction::default() }).await.unwrap();
    secret.reveal().to_owned()
}

pub(crate) async fn watch(admin: &mut ControlServiceClient<Channel>) -> Streaming<pb::Event> {
    admin.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner()
}

pub(crate) async fn event(events: &mut Streaming<pb::Event>, kind: pb::EventKind) -> pb::Event {
    let found = async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if event.kind() == kind {
                return event;
            }
        }
    };
    timeout(PATIENCE, found).await.unwrap()
}

pub(crate) fn ask(token: &str, request: &str) -> pb::EnrolRequest {
    pb::EnrolRequest { token: token.to_owned(), signing_request: request.to_owned() }
}

pub(crate) fn request() -> String {
    PrivateKey::generate().unwrap().request().unwrap()
}

pub(crate) fn first(issued: &pb::IssuedCertificate) -> Certificate {
    Certificate::from_pem(issued.certificate.as_bytes()).unwrap().remove(0)
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

pub(crate) fn kept(office: &Office, issued: &pb::IssuedCertificate, key: &PrivateKey) -> OwnFiles {
    let own = OwnFiles {
        certificate: office.path("kept.crt"),
        key: office.path("kept.key"),
        rule: UriRule::anybody(),
    };
    write_new(&own.certificate, &issued.certificate, Access::Everybody).unwrap();
    write_new(&own.key, key.pem(), Access::Owner).unwrap();
    own
}
