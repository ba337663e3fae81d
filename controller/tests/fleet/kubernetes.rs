//! Hosts that enrol by the word of their cluster.

use std::{sync::Arc, time::Duration};

use fleetknock_controller::{
    enrolment::cluster::TOKEN_MAX,
    operator::enroll::Reviewer,
    store::{Store, memory::MemoryStore},
};
use fleetknock_proto::v1 as pb;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::{
    api_server::{ApiServer, Fault},
    enrolling::{admin, ask, event, first, kept, request, stranger, token, watch},
    support::{Agent, Controller},
    trust::{Office, dial},
};

const HOUR: Duration = Duration::from_secs(3600);
const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJub2RlLTEifQ.c2lnbmF0dXJl";

#[tokio::test]
async fn a_pod_of_the_named_account_gets_the_certificate_of_its_node() {
    let (api, blue) = (ApiServer::start().await, Office::issuing("blue", HOUR));
    let controller = controller(&blue, &api).await;
    api.kept().tokens.insert(TOKEN.to_owned(), vouched("node-1.example"));
    let mut admin = admin(&blue, &controller).await;
    let mut events = watch(&mut admin).await;
    let key = fleetknock_runtime::tls::authority::PrivateKey::generate().unwrap();
    let mut stranger = stranger(&blue, &controller).await;
    let issued = stranger.enrol(ask(TOKEN, &key.request().unwrap())).await.unwrap().into_inner();
    assert_eq!(first(&issued).uris, ["fleetknock://blue/host/node-1.example"]);
    assert_eq!(api.kept().reviews, [json!({"audiences": ["fleetknock"], "token": TOKEN})]);

    // It is what the fleet takes, and of this host.
    let channel = dial(&blue.connector_with(kept(&blue, &issued, &key)), controller.address).await.unwrap();
    let _agent = Agent::over(channel.clone(), "node-1.example", "edge", false).await.unwrap();
    let other = Agent::over(channel, "node-2.example", "edge", false).await.err().unwrap();
    assert_eq!(other.code(), Code::PermissionDenied);

    let told = event(&mut events, pb::EventKind::HostEnrolled).await;
    assert_eq!(told.host, "node-1.example");
    let by = told.actor.clone().unwrap().by;
    assert_eq!(by, "kubernetes serviceaccount fleetknock/fleetknock-agent pod fleetknock-agent-x7k2p");
    assert!(!format!("{told:?}").contains(TOKEN), "the token is told to nobody");
}

#[tokio::test]
async fn a_host_enrols_again_but_not_all_the_time() {
    let (api, blue) = (ApiServer::start().await, Office::issuing("blue", Duration::from_secs(100)));
    let controller = controller(&blue, &api).await;
    api.kept().tokens.insert(TOKEN.to_owned(), vouched("node-1"));
    let mut stranger = stranger(&blue, &controller).await;
    // It begins with one that spoils nothing: the request is looked at before the cluster is asked.
    let broken = stranger.enrol(ask(TOKEN, "nonsense")).await.unwrap_err();
    assert_eq!(broken.code(), Code::InvalidArgument);
    assert!(api.kept().reviews.is_empty());
    stranger.enrol(ask(TOKEN, &request())).await.unwrap();
    let hasty = stranger.enrol(ask(TOKEN, &request())).await.unwrap_err();
    assert_eq!(hasty.code(), Code::Unavailable);
    assert!(hasty.message().contains("a moment ago"), "{hasty:?}");
    // A fiftieth of the life of its certificate later.
    let begun = Instant::now();
    while let Err(status) = stranger.enrol(ask(TOKEN, &request())).await {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{status:?}");
        sleep(Duration::from_millis(100)).await;
    }
    // Another host does not wait for it.
    api.kept().tokens.insert(TOKEN.to_owned(), vouched("node-2"));
    stranger.enrol(ask(TOKEN, &request())).await.unwrap();
}

#[tokio::test]
async fn whom_the_cluster_does_not_vouch_for_is_refused_and_counted() {
    let (api, blue) = (ApiServer::start().await, Office::issuing("blue", HOUR));
    let controller = controller(&blue, &api).await;
    let mut stranger = stranger(&blue, &controller).await;
    let mut other = vouched("node-1");
    other["user"]["username"] = json!("system:serviceaccount:default:mallory");
    let mut elsewhere = vouched("node-1");
    elsewhere["audiences"] = json!(["https://kubernetes.default.svc"]);
    let echoes = json!({"authenticated": false, "error": format!("the token {TOKEN} is over")});
    for (status, said) in [
        (None, "invalid bearer token"),
        (
            Some(other),
            "of system:serviceaccount:default:mallory; pods of the service account fleetknock/fleetknock-agent",
        ),
        (Some(elsewhere), "not for the audience fleetknock"),
        (Some(echoes), "the token (the token) is over"),
    ] {
        if let Some(status) = status {
            api.kept().tokens.insert(TOKEN.to_owned(), status);
        }
        let refused = stranger.enrol(ask(TOKEN, &request())).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(refused.message().contains(said) && !refused.message().contains(TOKEN), "{refused:?}");
    }
    let reviews = api.kept().reviews.len();
    let long = format!("{TOKEN}{}", "x".repeat(TOKEN_MAX));
    let refused = stranger.enrol(ask(&long, &request())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(api.kept().reviews.len(), reviews, "it is not even asked about");
    let metrics = controller.metrics_text();
    assert!(metrics.contains("authentication_failures_total{reason=\"token_enrol\"} 5"), "{metrics}");
}

#[tokio::test]
async fn while_the_api_server_is_away_a_host_is_told_to_try_again() {
    let (api, blue) = (ApiServer::start().await, Office::issuing("blue", HOUR));
    let controller = controller(&blue, &api).await;
    api.kept().tokens.insert(TOKEN.to_owned(), vouched("node-1"));
    let mut stranger = stranger(&blue, &controller).await;
    for fault in [Fault::Code(500), Fault::Code(403), Fault::Nonsense, Fault::Silence] {
        api.spoil("POST", fault);
        let away = stranger.enrol(ask(TOKEN, &request())).await.unwrap_err();
        assert_eq!(away.code(), Code::Unavailable, "{fault:?}: {away:?}");
        assert!(away.message().contains("try again"), "{away:?}");
    }
    // Nothing of it held the host up.
    stranger.enrol(ask(TOKEN, &request())).await.unwrap();
}

#[tokio::test]
async fn tokens_of_admins_go_on_and_a_cluster_that_is_not_asked_counts_for_nothing() {
    let (api, blue) = (ApiServer::start().await, Office::issuing("blue", HOUR));
    let asking = controller(&blue, &api).await;
    let ours = token(&mut admin(&blue, &asking).await, "edge-1").await;
    stranger(&blue, &asking).await.enrol(ask(&ours, &request())).await.unwrap();
    assert!(api.kept().reviews.is_empty(), "our tokens are shown to nobody");

    let alone = blue.controller("ctl-2").await;
    let refused = stranger(&blue, &alone).await.enrol(ask(TOKEN, &request())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("--kubernetes-enroll"), "{refused:?}");
}

/// A controller that asks this API server.
async fn controller(office: &Office, api: &ApiServer) -> Controller {
    let reviewer = Reviewer::new(api.client(), "fleetknock/fleetknock-agent".parse().unwrap());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    office.controller_asking("ctl-1", store, Arc::new(reviewer)).await
}

fn vouched(node: &str) -> Value {
    json!({
        "authenticated": true,
        "audiences": ["fleetknock"],
        "user": {
            "username": "system:serviceaccount:fleetknock:fleetknock-agent",
            "uid": "0b6b1c5e-0000-4000-8000-000000000001",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/credential-id": ["JTI=0b6b1c5e-0000-4000-8000-000000000002"],
                "authentication.kubernetes.io/node-name": [node],
                "authentication.kubernetes.io/node-uid": ["0b6b1c5e-0000-4000-8000-000000000003"],
                "authentication.kubernetes.io/pod-name": ["fleetknock-agent-x7k2p"],
                "authentication.kubernetes.io/pod-uid": ["0b6b1c5e-0000-4000-8000-000000000004"],
            },
        },
    })
}
