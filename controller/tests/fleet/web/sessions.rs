//! Browsers without a certificate: a cookie holds a token.

use serde_json::json;

use super::browser::{Answer, Browser};
use crate::{support::Controller, trust::Office};

const HEADERS: [(&str, &str); 2] = [("content-type", "application/json"), ("fleetknock-request", "1")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_its_tokens_holder_and_no_script_and_no_other_site_gets_at_it() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let secret = token(&blue, &controller, "ROLE_VIEWER").await;
    let browser = Browser::tls(controller.http, None);
    assert_eq!(who(&browser).await.status, 401);

    let begun = begin(&browser, &secret).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    assert_eq!(begun.json()["who"], "user wall");
    assert!(!begun.body.contains(&secret));
    let cookie = begun.header("set-cookie").unwrap().to_owned();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Strict");
    assert_eq!(pair, format!("__Host-fleetknock={secret}"));

    let browser = browser.always("cookie", pair);
    let asked = who(&browser).await.json();
    assert_eq!((&asked["who"], &asked["role"]), (&json!("user wall"), &json!("viewer")));
    assert!(asked["by"].as_str().unwrap().starts_with("token "));
    assert_eq!(browser.call("ListHosts", &json!({})).await.status, 200);
    let refused = browser.call("Open", &json!({"door": "bastion-ssh", "source": "203.0.113.5"})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("PERMISSION_DENIED")));

    // A cookie comes with whatever another page has the browser ask.
    let forged = browser.send("POST", "/api/v1/ListHosts", &HEADERS[..1], "{}").await;
    assert_eq!(forged.status, 403);
    let forged = browser.send("DELETE", "/api/v1/session", &[], "").await;
    assert_eq!(forged.status, 403);

    let ended = browser.send("DELETE", "/api/v1/session", &HEADERS, "").await;
    let cleared = ended.header("set-cookie").unwrap();
    assert!(
        ended.status == 200
            && cleared.starts_with("__Host-fleetknock=; ")
            && cleared.ends_with("; Max-Age=0")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_a_header_needs_no_session_and_a_cookie_counts_beside_nothing_else() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let viewer = token(&blue, &controller, "ROLE_VIEWER").await;
    let bearer = format!("Bearer {viewer}");
    let curl = Browser::tls(controller.http, None);
    let json = ("content-type", "application/json");
    let asked = curl.send("POST", "/api/v1/ListBans", &[json, ("authorization", &bearer)], "{}").await;
    assert_eq!(asked.status, 200);

    let cookie = format!("__Host-fleetknock={viewer}");
    let admin =
        Browser::tls(controller.http, Some(blue.own("user/alice?role=admin"))).always("cookie", &cookie);
    assert_eq!(
        who(&admin).await.json()["who"],
        "user alice",
        "the certificate counts, and it is not clear otherwise"
    );
    let both = admin.send("POST", "/api/v1/ListBans", &[json, ("authorization", &bearer)], "{}").await;
    assert_eq!(both.status, 403);
    let twice = Browser::tls(controller.http, None).always("cookie", &cookie).always("cookie", &cookie);
    assert_eq!(who(&twice).await.status, 401, "two tokens are none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_good_token_begins_no_session_and_is_not_repeated() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let browser = Browser::tls(controller.http, None);
    for (body, status) in [
        (r#"{"token": "secret-but-wrong"}"#, 401),
        (r#"{"token": "secret\nbut wrong"}"#, 400),
        (r#"{"token": 7, "secret": 1}"#, 400),
        ("secret", 400),
        ("", 400),
    ] {
        let refused = browser.send("POST", "/api/v1/session", &HEADERS, body).await;
        assert_eq!((refused.status, refused.header("set-cookie")), (status, None), "{body}");
        assert!(!refused.body.contains("secret"), "{refused:?}");
    }
    let plain = Controller::start().await;
    let open = Browser::plain(plain.http);
    assert_eq!(who(&open).await.json(), json!({"who": "anybody", "role": "", "by": "nothing"}));
    let refused = begin(&open, "fkt_x").await;
    assert!(refused.status == 400 && refused.header("set-cookie").is_none(), "{refused:?}");
    assert!(refused.body.contains("anybody on the way could read them"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_token_that_it_was_begun_with() {
    let blue = Office::new("blue");
    let controller = blue.controller("ctl-1").await;
    let secret = token(&blue, &controller, "ROLE_VIEWER").await;
    let browser =
        Browser::tls(controller.http, None).always("cookie", &format!("__Host-fleetknock={secret}"));
    let mut events = browser.watch("/api/v1/WatchEvents").await;
    let admin = Browser::tls(controller.http, Some(blue.own("user/alice?role=admin")));
    let id = secret.split('_').nth(1).unwrap();
    assert_eq!(admin.call("RevokeToken", &json!({"id": id})).await.status, 200);
    let mut last = json!(null);
    while let Some(event) = events.event().await {
        last = event;
    }
    assert_eq!(last["code"], "UNAUTHENTICATED", "{last}");
    assert_eq!(who(&browser).await.status, 401);
}

/// A new token for the user `wall`.
async fn token(office: &Office, controller: &Controller, role: &str) -> String {
    let admin = Browser::tls(controller.http, Some(office.own("user/alice?role=admin")));
    let made = admin.call("CreateToken", &json!({"user": {"name": "wall", "role": role}})).await;
    made.json()["secret"].as_str().unwrap().to_owned()
}

async fn begin(browser: &Browser, token: &str) -> Answer {
    let body = json!({"token": token}).to_string();
    browser.send("POST", "/api/v1/session", &HEADERS, &body).await
}

async fn who(browser: &Browser) -> Answer {
    browser.send("GET", "/api/v1/session", &[], "").await
}
