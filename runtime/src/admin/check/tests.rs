//! Whether a program is ready is told right, and only by a program of ours.

use std::{sync::Arc, time::Instant};

use prometheus_client::registry::Registry;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    admin::{Admin, routes},
    ready::Readiness,
    tls::{
        Acceptor, Clients, Credentials, Expected, Files, UriRule,
        tests::lab::{Lab, only},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_missing_is_named_until_nothing_is() {
    let readiness = Readiness::new();
    let (capture, guard) = (readiness.latch("capture open"), readiness.latch("guard written"));
    let address = serve(readiness, None).await;
    let error = ask(address, None).await.unwrap_err();
    assert_eq!(error.to_string(), "not ready: capture open, guard written");
    capture.release();
    assert_eq!(ask(address, None).await.unwrap_err().to_string(), "not ready: guard written");
    guard.release();
    ask(address, None).await.unwrap();
    // As it was given to the one that listens.
    ask(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn in_tls_only_the_right_one_is_believed() {
    let lab = Lab::new();
    let readiness = Readiness::new();
    let latch = readiness.latch("store read");
    let own = lab.files(lab.leaf("c-1", "x://blue/controller/c-1"));
    let acceptor = Acceptor::new(Credentials::load(own).unwrap(), Clients::Optional(UriRule::anybody()));
    let address = serve(readiness, Some(acceptor.unwrap())).await;
    let asking = |of: &'static str| {
        let files = Files { own: None, authorities: vec![lab.path("ca.crt")] };
        Some(Connector::new(Credentials::load(files).unwrap(), Expected::Uri(only(of))))
    };
    let error = ask(address, asking("/controller/")).await.unwrap_err();
    assert_eq!(error.to_string(), "not ready: store read");
    latch.release();
    let begun = Instant::now();
    ask(address, asking("/controller/")).await.unwrap();
    assert!(begun.elapsed() < ANSWERS_WITHIN);
    let error = ask(address, asking("x://green/")).await.unwrap_err().to_string();
    assert!(error.contains("is not the one expected"), "{error}");
    assert!(matches!(ask(address, None).await, Err(NotReady::Strange | NotReady::Unreachable { .. })));
}

#[tokio::test]
async fn whoever_else_answers_does_not_count() {
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\nready\n",
        "HTTP/1.1 200 OK\r\n\r\n{\"ready\":true,\"missing\":[\"x\"]}",
        "HTTP/1.1 503 No\r\n\r\n{\"ready\":true,\"missing\":[]}",
        "HTTP/1.1 200 OK\r\n\r\n{\"ready\":true,\"missi",
        "SSH-2.0-x\r\n",
        "",
    ] {
        let error = ask(answering(answer).await, None).await.unwrap_err();
        assert!(matches!(error, NotReady::Strange), "{answer}: {error}");
    }
    let error =
        ask(answering("HTTP/1.1 503 No\r\n\r\n{\"ready\":false,\"missing\":[\"a\\u001b[2J\"]}").await, None);
    assert_eq!(error.await.unwrap_err().to_string(), "not ready: a\\u{1b}[2J");
    let nobody = "127.0.0.1:1".parse().unwrap();
    let error = ask(nobody, None).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot ask at 127.0.0.1:1: "), "{error}");
}

#[test]
fn it_ends_with_0_or_1_and_says_why() {
    let error = ready("--http", None, || Ok(None)).unwrap_err();
    assert_eq!(exit::code_of(&error), 1);
    assert!(error.to_string().starts_with("there is no --http: give the address"), "{error}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = runtime.block_on(serve(Readiness::new(), None));
    let said = ready("--http", Some(address), || Ok(None)).unwrap_err();
    assert_eq!((exit::code_of(&said), said.to_string().as_str()), (0, "ready\n"));
}

async fn serve(readiness: Readiness, tls: Option<Acceptor>) -> SocketAddr {
    let mut admin = Admin::bind("--http", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    if let Some(acceptor) = tls {
        admin = admin.with_tls(acceptor);
    }
    let address = admin.address().unwrap();
    tokio::spawn(admin.serve(routes(readiness, Arc::new(Registry::default())), CancellationToken::new()));
    address
}

/// A server that gives this answer to whatever it is asked.
async fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        let _ = stream.read(&mut asked).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    address
}
