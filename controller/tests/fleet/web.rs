//! The dashboard's files and the control API as JSON, over real sockets.

use serde_json::json;

use crate::{
    support::{Controller, door},
    web::browser::Browser,
};

mod browser;
mod sessions;
mod trusted;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_as_json_is_what_is_asked_over_grpc() {
    let controller = Controller::start().await;
    let _bastion = controller.agent("bastion-1", "bastion").await;
    let mut operator = controller.operator().await;
    operator.apply_door(crate::support::apply(door())).await.unwrap();

    let browser = Browser::plain(controller.http);
    let opened = browser.call("Open", &json!({"door": "bastion-ssh", "source": "203.0.113.7"})).await;
    assert_eq!((opened.status, opened.json()["state"].as_str()), (200, Some("OPENING_STATE_ACTIVE")));
    assert_eq!(opened.json()["generation"], "1");
    let openings = operator.list_openings(fleetknock_proto::v1::ListOpeningsRequest::default()).await;
    assert_eq!(openings.unwrap().into_inner().openings[0].source, "203.0.113.7");

    let hosts = browser.call("ListHosts", &json!({})).await.json();
    let host = &hosts["hosts"][0];
    assert_eq!((&host["name"], &host["connected"]), (&json!("bastion-1"), &json!(true)));
    // Defaults are written, so that a page need not know them.
    assert_eq!((&host["repairs"], &hosts["unanswered"]), (&json!("0"), &json!([])));
    let doors = browser.call("ListDoors", &json!({})).await.json();
    assert_eq!(doors["doors"][0]["spec"]["sequence"]["steps"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_says_which_field_is_wrong() {
    let controller = Controller::start().await;
    let browser = Browser::plain(controller.http);
    let refused = browser.call("Open", &json!({"door": "Not A Name", "source": "203.0.113.7"})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("INVALID_ARGUMENT")));
    assert_eq!(refused.json()["details"][0]["field"], "door");
    let missing = browser.call("GetDoor", &json!({"name": "nowhere"})).await;
    assert_eq!((missing.status, &missing.json()["code"]), (404, &json!("NOT_FOUND")));
    assert_eq!(browser.call("Opne", &json!({})).await.status, 404);
    assert_eq!(browser.call("Attach", &json!({})).await.status, 404);
    assert_eq!(browser.call("a/b", &json!({})).await.status, 404);
    let unknown = browser.call("Open", &json!({"dor": "bastion-ssh"})).await;
    assert!(unknown.status == 400 && unknown.body.contains("unrecognized field name 'dor'"), "{unknown:?}");
    let large = json!({"door": "x".repeat(fleetknock_controller::limits::REQUEST_MAX)});
    let large = browser.call("Open", &large).await;
    assert_eq!((large.status, &large.json()["code"]), (400, &json!("OUT_OF_RANGE")));
    let form = browser
        .send(
            "POST",
            "/api/v1/ListBans",
            &[("content-type", "text/plain"), ("fleetknock-request", "1")],
            "{}",
        )
        .await;
    assert_eq!((form.status, &form.json()["details"][0]["field"]), (400, &json!("content-type")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_may_load_nothing_from_elsewhere_and_be_framed_by_nobody() {
    let controller = Controller::start().await;
    let browser = Browser::plain(controller.http);
    for asset in fleetknock_controller::web::assets::ASSETS {
        let file = browser.send("GET", asset.path, &[], "").await;
        assert_eq!((file.status, file.header("content-type")), (200, Some(asset.kind)), "{}", asset.path);
        assert_eq!(file.body.as_bytes(), asset.bytes, "{}", asset.path);
        let policy = file.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'self';") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(file.header("referrer-policy"), Some("no-referrer"));
        let tag = file.header("etag").unwrap();
        let again = browser.send("GET", asset.path, &[("if-none-match", tag)], "").await;
        assert_eq!((again.status, again.body.as_str()), (304, ""));
        let other = browser.send("GET", asset.path, &[("if-none-match", "\"00\"")], "").await;
        assert_eq!(other.status, 200);
        if asset.kind.starts_with("text/html") {
            let page = String::from_utf8(asset.bytes.to_vec()).unwrap();
            for inline in [" style=", "<style", " onclick=", "javascript:"] {
                assert!(!page.contains(inline), "{} has {inline}, which its policy forbids", asset.path);
            }
        }
    }
    assert_eq!(browser.send("GET", "/etc/passwd", &[], "").await.status, 404);
    let answer = browser.call("ListBans", &json!({})).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("content-security-policy").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_as_they_happen_and_end_when_the_controller_leaves() {
    let controller = Controller::start().await;
    let browser = Browser::plain(controller.http);
    let mut all = browser.watch("/api/v1/WatchEvents").await;
    let mut one = browser.watch("/api/v1/WatchEvents?source=2001%3Adb8%3A%3A7").await;
    for source in ["203.0.113.9", "2001:db8::7"] {
        let banned = browser.call("BanSource", &json!({"source": source, "reason": "test"})).await;
        assert_eq!(banned.status, 200);
    }
    let first = all.event().await.unwrap();
    assert_eq!(first["kind"], "EVENT_KIND_SOURCE_BANNED");
    assert_eq!((&first["source"], &first["actor"]["who"]), (&json!("203.0.113.9"), &json!("anybody")));
    assert_eq!(one.event().await.unwrap()["source"], "2001:db8::7");
    let wrong = browser.send("GET", "/api/v1/WatchEvents?host=db-1", &[], "").await;
    assert_eq!(wrong.status, 400);
    drop(controller);
    while all.event().await.is_some() {}
    while one.event().await.is_some() {}
}
