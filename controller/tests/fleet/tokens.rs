//! Bearer tokens over TLS: what one opens, when it ends, and what it does not open.

use std::{sync::Arc, time::Duration};

use fleetknock_controller::{
    keeper,
    record::{Holder, TokenId},
    store::{Store, memory::MemoryStore},
    trust::{
        refusals::{ANSWER_AFTER, FEW},
        token::{Kind, Secret},
    },
};
use fleetknock_proto::v1::{
    self as pb, control_service_client::ControlServiceClient, create_token_request::Holder as For,
};
use fleetknock_runtime::tls::{Credentials, Files};
use tokio::time::{Instant, timeout};
use tonic::{
    Code, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{
    support::{Controller, apply, door},
    trust::{Office, dial},
};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);
const DAY_MS: u64 = 24 * 3600 * 1_000;

#[tokio::test]
async fn a_token_opens_as_its_holder_and_what_the_store_holds_does_not() {
    let blue = Office::new("blue");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let controller = blue.controller_over("ctl-1", "ctl-1", store.clone()).await;
    let mut admin = ControlServiceClient::new(blue.dial(&controller, "user/a?role=admin").await);
    admin.apply_door(apply(door())).await.unwrap();
    let made = make(&mut admin, user("ci", pb::Role::Operator)).await.unwrap();
    let token = made.token.unwrap();
    assert_eq!(token.created_by, "user a");
    assert_eq!(token.expires_ms - token.created_ms, 30 * DAY_MS);

    let mut holder = with(&blue, &controller, &made.secret).await;
    let open =
        pb::OpenRequest { door: "bastion-ssh".into(), source: "203.0.113.5".into(), ..Default::default() };
    holder.open(open.clone()).await.unwrap();
    let refused = holder.apply_door(apply(door())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.message(), "ApplyDoor needs the role admin, and user ci has the role operator");
    assert_eq!(
        holder.list_tokens(pb::ListTokensRequest::default()).await.unwrap_err().code(),
        Code::PermissionDenied
    );

    // All that the store holds of it.
    let (fleet, _) = keeper::load_patiently(&*store).await.unwrap();
    let record = &fleet.tokens().values().next().unwrap().record;
    let Holder::User { .. } = record.holder else { panic!("{record:?}") };
    let secret = made.secret.rsplit('_').next().unwrap();
    for entry in store.list("").await.unwrap().entries {
        assert!(!String::from_utf8_lossy(&entry.value).contains(secret), "{}", entry.key);
    }
    let hash: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&record.hash[2 * at..][..2], 16).unwrap()).collect();
    let (from_hash, _) = Secret::mint(Kind::User, &record.id, &hash.try_into().unwrap());
    for shown in [from_hash.reveal(), &record.hash, &format!("fkt_{}_{}", record.id, record.hash)] {
        let mut thief = with(&blue, &controller, shown).await;
        assert_eq!(thief.open(open.clone()).await.unwrap_err().code(), Code::Unauthenticated, "{shown}");
    }
}

#[tokio::test]
async fn a_viewers_token_looks_and_opens_nothing() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let mut admin = ControlServiceClient::new(blue.dial(&controller, "user/a?role=admin").await);
    admin.apply_door(apply(door())).await.unwrap();
    let made = make(&mut admin, user("v", pb::Role::Viewer)).await.unwrap();
    let mut viewer = with(&blue, &controller, &made.secret).await;
    assert_eq!(viewer.list_doors(pb::ListDoorsRequest::default()).await.unwrap().into_inner().doors.len(), 1);
    let open =
        pb::OpenRequest { door: "bastion-ssh".into(), source: "203.0.113.5".into(), ..Default::default() };
    let refused = viewer.open(open).await.unwrap_err();
    assert_eq!(refused.message(), "Open needs the role operator, and user v has the role viewer");
    for holder in [user("x", pb::Role::Viewer), For::Host("edge-1".into())] {
        assert_eq!(make_with(&mut viewer, holder).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let revoke = pb::RevokeTokenRequest { id: made.token.unwrap().id };
    assert_eq!(viewer.revoke_token(revoke).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_revoked_token_is_worth_nothing_on_any_controller_and_ends_what_its_holder_watches() {
    let blue = Office::new("blue");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let first = blue.controller_over("ctl-1", "ctl-1", store.clone()).await;
    let second = blue.controller_over("ctl-2", "ctl-2", store).await;
    let mut admin = ControlServiceClient::new(blue.dial(&first, "user/a?role=admin").await);
    let made = make(&mut admin, user("v", pb::Role::Viewer)).await.unwrap();
    let id = made.token.unwrap().id;
    let mut here = with(&blue, &first, &made.secret).await;
    let mut there = with(&blue, &second, &made.secret).await;
    let heard = async {
        while there.list_doors(pb::ListDoorsRequest::default()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, heard).await.unwrap();
    let mut events = there.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();
    let mut own = admin.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();

    let listed = admin.list_tokens(pb::ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert_eq!(listed.iter().map(|token| &token.id).collect::<Vec<_>>(), [&id]);
    admin.revoke_token(pb::RevokeTokenRequest { id: id.clone() }).await.unwrap();
    let refused = here.list_doors(pb::ListDoorsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("it ended, was revoked or spent"), "{refused}");
    let ended = async {
        loop {
            if let Err(status) = events.message().await {
                return status;
            }
        }
    };
    let ended = timeout(PATIENCE, ended).await.unwrap();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    assert_eq!(
        there.list_doors(pb::ListDoorsRequest::default()).await.unwrap_err().code(),
        Code::Unauthenticated
    );

    let again = admin.revoke_token(pb::RevokeTokenRequest { id }).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    let told = async {
        loop {
            let event = own.message().await.unwrap().unwrap();
            if event.kind() == pb::EventKind::TokenRevoked {
                return event;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("an admin with a certificate watches on, and hears of it");
}

#[tokio::test]
async fn what_is_asked_for_a_token_is_bounded() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let mut admin = ControlServiceClient::new(blue.dial(&controller, "user/a?role=admin").await);
    let host = || For::Host("edge-1".to_owned());
    let alice = || user("alice", pb::Role::Admin);
    for (holder, valid_for_ms, field) in [
        (None, 0, "holder"),
        (Some(user("", pb::Role::Viewer)), 0, "user.name"),
        (Some(user("alice", pb::Role::Unspecified)), 0, "user.role"),
        (Some(For::Host("no host".to_owned())), 0, "host"),
        (Some(alice()), 59_999, "valid_for_ms"),
        (Some(alice()), 365 * DAY_MS + 1, "valid_for_ms"),
        (Some(host()), 7 * DAY_MS + 1, "valid_for_ms"),
        (Some(host()), u64::MAX, "valid_for_ms"),
    ] {
        let request = pb::CreateTokenRequest { holder, valid_for_ms };
        let refused = admin.create_token(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{request:?}");
        assert!(refused.message().starts_with(field), "{refused}");
    }
    let longest = pb::CreateTokenRequest { holder: Some(host()), valid_for_ms: 7 * DAY_MS };
    let made = admin.create_token(longest).await.unwrap().into_inner();
    assert!(made.secret.starts_with("fke_"));
    let mut agent = with(&blue, &controller, &made.secret).await;
    let refused = agent.list_doors(pb::ListDoorsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("of the other kind"), "{refused}");
    let mistaken = admin.revoke_token(pb::RevokeTokenRequest { id: made.secret.clone() }).await.unwrap_err();
    assert_eq!(mistaken.code(), Code::InvalidArgument);
    assert!(!mistaken.message().contains(&made.secret));
}

#[tokio::test]
async fn who_guesses_is_told_of_and_waits_and_who_knows_does_not() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let mut admin = ControlServiceClient::new(blue.dial(&controller, "user/a?role=admin").await);
    let mut events = admin.watch_events(pb::WatchEventsRequest::default()).await.unwrap().into_inner();
    let made = make(&mut admin, user("v", pb::Role::Viewer)).await.unwrap();
    let (guess, _) = Secret::mint(Kind::User, &TokenId::new(1), &[1; 32]);
    let mut guesser = with(&blue, &controller, guess.reveal()).await;
    let guesses = (0..2 * FEW).map(|_| {
        let mut guesser = guesser.clone();
        async move { guesser.list_doors(pb::ListDoorsRequest::default()).await.unwrap_err().code() }
    });
    let codes = futures::future::join_all(guesses).await;
    assert!(codes.iter().all(|code| *code == Code::Unauthenticated), "{codes:?}");
    let begun = Instant::now();
    let refused = guesser.list_doors(pb::ListDoorsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(begun.elapsed() >= ANSWER_AFTER);

    // From the same address, while another guess waits for its answer.
    let waiting = tokio::spawn(async move { guesser.list_doors(pb::ListDoorsRequest::default()).await });
    let mut viewer = with(&blue, &controller, &made.secret).await;
    let begun = Instant::now();
    for _ in 0..50 {
        viewer.list_doors(pb::ListDoorsRequest::default()).await.unwrap();
    }
    assert!(begun.elapsed() < 50 * ANSWER_AFTER, "none of them waited");
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), Code::Unauthenticated);
    let told = async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if event.kind() == pb::EventKind::AuthenticationFailed {
                return event;
            }
        }
    };
    let told = timeout(PATIENCE, told).await.unwrap();
    assert!(told.actor.as_ref().unwrap().address.starts_with("127.0.0.1:"), "{told:?}");
    assert!(told.message.contains("ListDoors was refused: the token is not known"), "{told:?}");
    assert!(!told.message.contains(guess.reveal()));
}

#[tokio::test]
async fn a_certificate_and_a_token_are_too_much() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let mut admin = ControlServiceClient::new(blue.dial(&controller, "user/a?role=admin").await);
    let made = make(&mut admin, user("v", pb::Role::Admin)).await.unwrap();
    for who in ["host/edge-1", "user/a?role=admin"] {
        let channel = blue.dial(&controller, who).await;
        let mut both = ControlServiceClient::with_interceptor(channel, Shows(made.secret.clone()));
        let refused = both.list_doors(pb::ListDoorsRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{who}");
        assert!(refused.message().contains("show one of them"), "{refused}");
    }
}

/// Shows a token with each call.
#[derive(Clone)]
struct Shows(String);

impl Interceptor for Shows {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.0).parse().unwrap());
        Ok(request)
    }
}

type Client = ControlServiceClient<InterceptedService<Channel, Shows>>;

/// Somebody without a certificate.
async fn with(office: &Office, controller: &Controller, token: &str) -> Client {
    let files = Files { own: None, authorities: vec![office.path("ca.crt")] };
    let connector = office.connector_of(Credentials::load(files).unwrap());
    let channel = dial(&connector, controller.address).await.unwrap();
    ControlServiceClient::with_interceptor(channel, Shows(token.to_owned()))
}

fn user(name: &str, role: pb::Role) -> For {
    For::User(pb::TokenUser { name: name.to_owned(), role: role.into() })
}

async fn make(
    client: &mut ControlServiceClient<Channel>,
    holder: For,
) -> Result<pb::CreateTokenResponse, Status> {
    let request = pb::CreateTokenRequest { holder: Some(holder), valid_for_ms: 0 };
    client.create_token(request).await.map(tonic::Response::into_inner)
}

async fn make_with(client: &mut Client, holder: For) -> Result<pb::CreateTokenResponse, Status> {
    let request = pb::CreateTokenRequest { holder: Some(holder), valid_for_ms: 0 };
    client.create_token(request).await.map(tonic::Response::into_inner)
}
