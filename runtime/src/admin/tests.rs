//! What the admin server answers.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio_util::sync::CancellationToken;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn says_what_is_missing_until_nothing_is() {
    let readiness = Readiness::new();
    let latch = readiness.latch("capture open");
    let mut registry = Registry::default();
    let knocks: Counter = Counter::default();
    registry.register("knocks", "Knocks seen", knocks.clone());
    knocks.inc_by(3);

    let admin = Admin::bind("--http", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = admin.address().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(admin.serve(routes(readiness, Arc::new(registry)), stop.clone()));

    assert!(fetch(address, "/live").await.starts_with("HTTP/1.1 200"));
    let ready = fetch(address, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("not ready: capture open\n"), "{ready}");
    let asked = "/ready HTTP/1.1\r\naccept: application/json\r\nx: ";
    let ready = fetch(address, asked).await;
    assert!(ready.ends_with(r#"{"missing":["capture open"],"ready":false}"#), "{ready}");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("content-type: application/json"), "{ready}");
    latch.release();
    assert!(fetch(address, asked).await.ends_with(r#"{"missing":[],"ready":true}"#));
    assert!(fetch(address, "/ready").await.starts_with("HTTP/1.1 200"));
    let metrics = fetch(address, "/metrics").await;
    assert!(metrics.contains("# TYPE knocks_total counter\nknocks_total 3\n"), "{metrics}");
    assert!(fetch(address, "/other").await.starts_with("HTTP/1.1 404"));

    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_busy_port_gives_one_line_with_the_setting_and_the_remedy() {
    let first = Admin::bind("--http", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.address().unwrap();
    let error = Admin::bind("--http", address).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address} (--http): ")), "{error}");
    assert!(error.ends_with("; another process listens there; stop it or choose another port"), "{error}");
    let error = Admin::bind("--http", "192.0.2.1:80".parse().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("no interface of this host has that address"), "{error}");
}

async fn fetch(address: SocketAddr, path: &'static str) -> String {
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_never_ends_a_request_holds_up_nobody() {
    let admin = Admin::bind("--http", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = admin.address().unwrap();
    let stop = CancellationToken::new();
    let serving =
        tokio::spawn(admin.serve(routes(Readiness::new(), Arc::new(Registry::default())), stop.clone()));
    // Three times as many as there are places, each with half a request.
    let mut slow = Vec::new();
    for _ in 0..3 * CONNECTIONS {
        let mut stream = TcpStream::connect(address).unwrap();
        let _reset = stream.write_all(b"GET /live HTTP/1.1\r\nHost:");
        slow.push(stream);
    }
    assert!(fetch(address, "/live").await.starts_with("HTTP/1.1 200"));
    // The first of them had to go.
    let mut first = slow.swap_remove(0);
    let ended = tokio::task::spawn_blocking(move || matches!(first.read(&mut [0; 16]), Ok(0) | Err(_)));
    assert!(ended.await.unwrap());
    drop(slow);
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_silent_connection_is_closed() {
    let listener = listen("--http", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = Incoming::plain(listener, Limits::default());
    let entrance = Entrance::new(incoming, address, Duration::from_millis(100));
    let serving = tokio::spawn(axum::serve(entrance, Router::new()).into_future());
    let mut silent = TcpStream::connect(address).unwrap();
    let ended = tokio::task::spawn_blocking(move || matches!(silent.read(&mut [0; 16]), Ok(0) | Err(_)));
    assert!(ended.await.unwrap());
    serving.abort();
}
