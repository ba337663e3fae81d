//! The API as JSON with mutual TLS: who may do what is what it is over gRPC.

use std::{net::SocketAddr, time::Duration};

use fleetknock_controller::trust::gate;
use fleetknock_proto::v1 as pb;
use serde_json::{Value, json};
use tonic::{
    Code, Request,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use super::browser::Browser;
use crate::{
    support::{apply, door},
    trust::Office,
};

/// What has another form in JSON, or none.
const STREAMS: [&str; 3] = ["Backup", "Restore", "WatchEvents"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_may_by_json_what_it_may_by_grpc() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    for who in ["user/u?role=viewer", "user/u?role=operator", "user/u?role=admin", "host/edge-1"] {
        let channel = blue.dial(&controller, who).await;
        let browser = Browser::tls(controller.http, Some(blue.own(who)));
        for (method, _) in gate::methods().filter(|(method, _)| !STREAMS.contains(method)) {
            let by_grpc = bare(channel.clone(), method).await;
            let by_json = browser.call(method, &json!({})).await;
            let by_json = if by_json.status == 200 { Code::Ok } else { code(&by_json.json()) };
            assert_eq!(by_json, by_grpc, "{who} {method}");
        }
    }
    let nobody = Browser::tls(controller.http, None);
    let methods = || gate::methods().map(|(method, _)| method).filter(|method| !STREAMS.contains(method));
    let nothing = json!({});
    let refused = futures::future::join_all(methods().map(|method| nobody.call(method, &nothing))).await;
    for (method, refused) in methods().zip(refused) {
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{method}");
    }
    let refused = nobody.send("GET", "/api/v1/WatchEvents", &[], "").await;
    assert_eq!(refused.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_trail_names_who_called_and_from_where() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let admin = Browser::tls(controller.http, Some(blue.own("user/alice?role=admin")));
    let viewer = Browser::tls(controller.http, Some(blue.own("user/bob?role=viewer")));
    let banned = admin.call("BanSource", &json!({"source": "203.0.113.9"})).await;
    assert_eq!((banned.status, &banned.json()["by"]), (200, &json!("user alice")));
    let refused = viewer.call("BanSource", &json!({"source": "203.0.113.9"})).await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.json()["message"],
        "BanSource needs the role operator, and user bob has the role viewer"
    );
    // What was refused is written a moment later.
    let denied = async {
        loop {
            let events = admin.call("ListEvents", &json!({})).await.json();
            let events = events["events"].as_array().unwrap().clone();
            if let Some(denied) = events.iter().find(|event| event["kind"] == "EVENT_KIND_CALL_DENIED") {
                return (events[0].clone(), denied.clone());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (first, denied) = tokio::time::timeout(Duration::from_secs(20), denied).await.unwrap();
    for (event, who) in [(&first, "user alice"), (&denied, "user bob")] {
        let actor = &event["actor"];
        assert_eq!((&actor["who"], &actor["by"]), (&json!(who), &json!("certificate")), "{event}");
        let address: SocketAddr = actor["address"].as_str().unwrap().parse().unwrap();
        assert!(address.ip().is_loopback());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_somebody_else_cannot_use_the_certificate_of_a_browser() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let admin = Browser::tls(controller.http, Some(blue.own("user/alice?role=admin")));
    let ban = json!({"source": "203.0.113.9"}).to_string();
    let (json, own) = (("content-type", "application/json"), ("fleetknock-request", "1"));
    for headers in [
        &[json][..],
        &[own, ("content-type", "text/plain")],
        &[json, own, ("sec-fetch-site", "cross-site")],
        &[json, own, ("sec-fetch-site", "same-site")],
    ] {
        let refused = admin.send("POST", "/api/v1/BanSource", headers, &ban).await;
        assert!(matches!(refused.status, 400 | 403), "{headers:?}: {refused:?}");
    }
    for (verb, path) in [("GET", "/api/v1/WatchEvents"), ("GET", "/api/v1/session")] {
        assert_eq!(admin.send(verb, path, &[("sec-fetch-site", "cross-site")], "").await.status, 403);
    }
    assert_eq!(admin.call("ListBans", &json!({})).await.json()["bans"], json!([]));
    assert_eq!(admin.send("POST", "/api/v1/BanSource", &[json, own], &ban).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_fleet_is_refused_and_plain_text_is_too() {
    let (blue, red) = (Office::new("blue"), Office::new("red"));
    let controller = blue.controller("ctl-1").await;
    let mut admin = pb::control_service_client::ControlServiceClient::new(
        blue.dial(&controller, "user/a?role=admin").await,
    );
    admin.apply_door(apply(door())).await.unwrap();
    let stranger = Browser::tls(controller.http, Some(red.own("user/alice?role=admin")));
    assert_eq!(stranger.try_get("/").await, None);
    assert_eq!(Browser::plain(controller.http).try_get("/").await, None);
    assert_eq!(Browser::tls(controller.http, None).try_get("/").await, Some(200));
}

/// The code that the empty request of a method is answered with over gRPC.
async fn bare(channel: Channel, method: &str) -> Code {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = format!("/fleetknock.v1.ControlService/{method}").parse().unwrap();
    grpc.unary(Request::new(()), path, Nothing).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn code(refused: &Value) -> Code {
    let name = refused["code"].as_str().unwrap();
    let mut codes = (0..17).map(Code::from_i32);
    codes.find(|code| fleetknock_controller::web::answer::name(*code) == name).unwrap()
}

/// Sends the empty message, and does not read what is answered.
struct Nothing;

impl Codec for Nothing {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Nothing {
    type Item = ();
    type Error = tonic::Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        Ok(())
    }
}

impl Decoder for Nothing {
    type Item = ();
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, tonic::Status> {
        bytes::Buf::advance(buffer, bytes::Buf::remaining(buffer));
        Ok(Some(()))
    }
}
