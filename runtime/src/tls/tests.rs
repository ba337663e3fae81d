//! Both sides of a handshake in one process, over loopback, with an authority made for each test.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tonic::transport::{Endpoint, Server};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;
use lab::{DAY, Lab, Stand, only, talk};

mod collector;
pub(crate) mod lab;
mod rotation;

#[tokio::test]
async fn the_right_certificate_passes_and_is_seen() {
    let lab = Lab::new();
    let stand = lab.stand(Clients::Required(only("/host/")));
    let host = lab.connector(lab.leaf("db-1", "x://blue/host/db-1"));
    assert_eq!(talk(&host, stand.address).await, Ok("x://blue/host/db-1".to_owned()));
    let server = host.connect(&stand.uri()).await.unwrap().server().unwrap();
    assert_eq!(server.uris, ["x://blue/controller/c-1"]);
    assert!(stand.refusals().is_empty());
    stand.counted("done", 2).await;
}

#[tokio::test]
async fn clients_that_are_not_right_are_refused_in_plain_words() {
    let lab = Lab::new();
    let (stranger, namesake) = (Lab::named("another CA"), Lab::new());
    let stand = lab.stand(Clients::Required(only("x://blue/host/")));
    let trusting = |files: Option<OwnFiles>| Files { own: files, authorities: vec![lab.path("ca.crt")] };
    let expired = lab.leaf_at("old", "x://blue/host/old", |order| order.valid_for = DAY, lab.now - 9 * DAY);
    let early = lab.leaf_at("early", "x://blue/host/early", |_| {}, lab.now + 9 * DAY);
    let server_only =
        lab.leaf_at("s", "x://blue/host/s", |order| (order.client, order.server) = (false, true), lab.now);
    for (files, at, on_the_server, at_the_client) in [
        (
            trusting(Some(stranger.leaf("db-1", "x://blue/host/db-1"))),
            lab.now,
            "its certificate is from an authority (CA) that is not trusted here",
            "does not trust the authority (CA) of this side's certificate",
        ),
        (
            trusting(Some(namesake.leaf("db-1", "x://blue/host/db-1"))),
            lab.now,
            "that is not trusted here, but has the name of one that is",
            "does not trust the authority (CA) of this side's certificate, only another one of that name",
        ),
        (
            trusting(Some(expired)),
            lab.now - 9 * DAY,
            "its certificate expired at ",
            "says that this side's certificate is out of its time",
        ),
        (
            trusting(Some(early)),
            lab.now + 9 * DAY,
            "its certificate is valid only from ",
            "says that this side's certificate is out of its time",
        ),
        (
            trusting(Some(lab.leaf("red", "x://red/host/db-1"))),
            lab.now,
            "its certificate (x://red/host/db-1) is not taken: it is not of x://blue/host/",
            "does not take this side's certificate: not this name, role or fleet",
        ),
        (
            trusting(Some(lab.leaf("c-2", "x://blue/controller/c-2"))),
            lab.now,
            "its certificate (x://blue/controller/c-2) is not taken: it is not of x://blue/host/",
            "does not take this side's certificate: not this name, role or fleet",
        ),
        (
            trusting(Some(server_only)),
            lab.now,
            "its certificate is not meant for this side of a connection",
            "certificate is not meant for this side",
        ),
        (
            trusting(None),
            lab.now,
            "it shows no certificate, and needs one here",
            "wants a certificate, and this side has none to show",
        ),
    ] {
        let credentials = Credentials::load_at(files, at).unwrap();
        let connector = Connector::new(credentials, Expected::Uri(only("/controller/")));
        // When it connects, not in the middle of what it wants to say.
        let error = connector.connect(&stand.uri()).await.unwrap_err();
        assert!(matches!(error, ConnectError::TurnedAway { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains(at_the_client), "{said} is not {at_the_client}");
        let refusal = stand.refused().await;
        assert!(refusal.reason.contains(on_the_server), "{refusal:?} is not {on_the_server}");
        assert!(refusal.address.ip().is_loopback());
    }
    assert!(stand.peers.lock().unwrap().is_empty(), "nobody came through");
}

#[tokio::test]
async fn servers_that_are_not_right_are_refused_in_plain_words() {
    let lab = Lab::new();
    let stranger = Lab::named("another CA");
    let host = lab.connector(lab.leaf("db-1", "x://blue/host/db-1"));
    let expired =
        lab.leaf_at("old", "x://blue/controller/old", |order| order.valid_for = DAY, lab.now - 9 * DAY);
    let client_only = lab.leaf_at("k", "x://blue/controller/k", |order| order.server = false, lab.now);
    for (files, at, said) in [
        (
            stranger.files(stranger.leaf("c-1", "x://blue/controller/c-1")),
            lab.now,
            "its certificate is from an authority (CA) that is not trusted here",
        ),
        (lab.files(expired), lab.now - 9 * DAY, "its certificate expired at "),
        (
            lab.files(lab.leaf("red", "x://red/controller/c-1")),
            lab.now,
            "its certificate (x://red/controller/c-1) is not the one expected: it is not of x://blue/controller/",
        ),
        (
            lab.files(lab.leaf_at("db-2", "x://blue/host/db-2", |order| order.server = true, lab.now)),
            lab.now,
            "its certificate (x://blue/host/db-2) is not the one expected: it is not of x://blue/controller/",
        ),
        (lab.files(client_only), lab.now, "its certificate is not meant for this side of a connection"),
    ] {
        let credentials = Credentials::load_at(files, at).unwrap();
        let stand = Stand::new(credentials, Clients::Required(UriRule::anybody()), Limits::default());
        let error = host.connect(&stand.uri()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
        let expected = format!("did not talk to {}: {said}", stand.address);
        assert!(error.to_string().starts_with(&expected), "{error} is not {expected}");
    }
}

#[tokio::test]
async fn a_client_may_come_without_a_certificate_where_none_is_needed() {
    let lab = Lab::new();
    let stand = lab.stand(Clients::Optional(only("/user/")));
    let trusting = || Files { own: None, authorities: vec![lab.path("ca.crt")] };
    let expected = || Expected::Uri(only("/controller/"));
    let nobody = Connector::new(Credentials::load(trusting()).unwrap(), expected());
    assert_eq!(talk(&nobody, stand.address).await, Ok(String::new()));
    let user = lab.connector(lab.leaf("alice", "x://blue/user/alice"));
    assert_eq!(talk(&user, stand.address).await, Ok("x://blue/user/alice".to_owned()));
    // One that is shown counts all the same.
    let host = lab.connector(lab.leaf("db-1", "x://blue/host/db-1"));
    assert!(talk(&host, stand.address).await.is_err());
    assert!(stand.refused().await.reason.contains("is not taken"));
    assert!(Acceptor::new(Credentials::load(trusting()).unwrap(), Clients::Optional(only(""))).is_err());
}

#[tokio::test]
async fn a_name_or_an_address_can_be_what_is_checked() {
    let lab = Lab::new();
    let named = |order: &mut authority::Order| {
        order.dns_names = vec!["api.example".to_owned()];
        order.addresses = vec!["127.0.0.1".parse().unwrap()];
    };
    let server = lab.files(lab.leaf_at("c-1", "x://blue/controller/c-1", named, lab.now));
    let clients = || Clients::Required(UriRule::anybody());
    let stand = Stand::new(Credentials::load(server).unwrap(), clients(), Limits::default());
    let client = || Credentials::load(lab.files(lab.leaf("db-1", "x://blue/host/db-1"))).unwrap();
    let by_name = || Connector::new(client(), Expected::Name);
    assert!(talk(&by_name(), stand.address).await.is_ok());
    assert!(talk(&by_name().named("api.example").unwrap(), stand.address).await.is_ok());
    let wrong = talk(&by_name().named("db.example").unwrap(), stand.address).await.unwrap_err();
    assert!(wrong.contains("its certificate is for "), "{wrong}");
    assert!(wrong.contains("not for db.example"), "{wrong}");
    assert!(by_name().named("not a name").is_err());
}

#[tokio::test]
async fn what_is_no_tls_is_told_as_such() {
    let lab = Lab::new();
    let stand = lab.stand(Clients::Required(UriRule::anybody()));
    let mut plain = TcpStream::connect(stand.address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = vec![];
    plain.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert record (RFC 8446 section 5.1)");
    stand.counted("broken", 1).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        stream.read_to_end(&mut vec![]).await.unwrap();
    });
    let host = lab.connector(lab.leaf("db-1", "x://blue/host/db-1"));
    let error = talk(&host, address).await.unwrap_err();
    assert!(error.contains("does not speak TLS"), "{error}");

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = host.connect(&format!("http://{nobody}").parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { address, .. } if address == nobody), "{error:?}");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
    let hasty = host.within(Duration::from_millis(50));
    assert!(matches!(hasty.connect(&uri).await.unwrap_err(), ConnectError::Slow { .. }));
}

#[tokio::test]
async fn a_client_that_never_finishes_is_cut_off() {
    let lab = Lab::new();
    let limits = Limits { handshake_time: Duration::from_millis(200), ..Limits::default() };
    let stand = lab.stand_within(limits);
    let mut idle = TcpStream::connect(stand.address).await.unwrap();
    // The beginning of a handshake record, and no more.
    idle.write_all(&[22, 3, 1, 0, 200, 1]).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(5), idle.read(&mut [0; 16])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    stand.counted("slow", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_do_not_hold_up_a_good_one() {
    let lab = Lab::new();
    let host = lab.connector(lab.leaf("db-1", "x://blue/host/db-1"));
    // They fit, and they do not by far; none of them is given up while the good one comes. One process has both ends,
    // and usually room for 1024 files.
    for (half_open, handshakes) in [(200_u64, 256_usize), (500, 32)] {
        let stand = lab.stand_within(Limits { handshakes, ..Limits::default() });
        let mut idle = vec![];
        for _ in 0..half_open {
            idle.push(TcpStream::connect(stand.address).await.unwrap());
        }
        for _ in 0..3 {
            assert!(talk(&host, stand.address).await.is_ok());
        }
        let crowded = half_open.saturating_sub(handshakes as u64);
        if crowded > 0 {
            stand.counted_at_least("crowded", crowded).await;
        }
        drop(idle);
    }
}

#[tokio::test]
async fn one_holder_has_no_more_than_a_few_connections() {
    let lab = Lab::new();
    let files = lab.files(lab.leaf("c-1", "x://blue/controller/c-1"));
    let limits = Limits { of_one: 2, ..Limits::default() };
    let clients = Clients::Optional(UriRule::anybody());
    let stand = Stand::new(Credentials::load(files).unwrap(), clients, limits);
    let trusting = Files { own: None, authorities: vec![lab.path("ca.crt")] };
    let nobody = Connector::new(Credentials::load(trusting).unwrap(), Expected::Uri(only("/controller/")));
    let host = lab.connector(lab.leaf("db-1", "x://blue/host/db-1"));
    let other = lab.connector(lab.leaf("db-2", "x://blue/host/db-2"));
    let mut kept = other.connect(&stand.uri()).await.unwrap();
    kept.read_exact(&mut [0; 19]).await.unwrap();
    for connector in [host, nobody] {
        let mut first = connector.connect(&stand.uri()).await.unwrap();
        for _ in 0..3 {
            assert!(talk(&connector, stand.address).await.is_ok());
        }
        let second = connector.connect(&stand.uri()).await.unwrap();
        let third = connector.connect(&stand.uri()).await.unwrap();
        let mut said = vec![];
        let end = tokio::time::timeout(Duration::from_secs(5), first.read_to_end(&mut said)).await;
        assert!(end.is_ok(), "the oldest made room");
        drop((second, third));
    }
    let still = tokio::time::timeout(Duration::from_millis(100), kept.read(&mut [0])).await;
    assert!(still.is_err(), "{still:?}");
}

#[tokio::test]
async fn tonic_serves_and_asks_over_it() {
    let lab = Lab::new();
    let files = lab.files(lab.leaf("c-1", "x://blue/controller/c-1"));
    let acceptor =
        Acceptor::new(Credentials::load(files).unwrap(), Clients::Required(only("/host/"))).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(std::sync::Mutex::new(vec![]));
    let seen_by_layer = seen.clone();
    let layer = tonic::service::InterceptorLayer::new(move |request: tonic::Request<()>| {
        let peer = request.extensions().get::<Peer>().cloned();
        seen_by_layer.lock().unwrap().push(peer);
        Ok(request)
    });
    let (_, health) = tonic_health::server::health_reporter();
    let serving = Server::builder().layer(layer).add_service(health);
    let served =
        tokio::spawn(serving.serve_with_incoming(Incoming::tls(listener, acceptor, Limits::default())));

    let ask = async |connector: Connector| {
        let channel = Endpoint::from_shared(format!("http://{address}/"))
            .unwrap()
            .origin(format!("https://{address}").parse().unwrap())
            .connect_with_connector(connector)
            .await
            .map_err(|error| chain(&error))?;
        let asked = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        asked.map_err(|status| chain(&status))
    };
    let host = lab.connector(lab.leaf("db-1", "x://blue/host/db-1"));
    assert_eq!(ask(host).await.unwrap().into_inner().status, 1);
    let peer = seen.lock().unwrap().pop().flatten().unwrap();
    assert_eq!(peer.uris(), ["x://blue/host/db-1"]);
    assert!(peer.is_private && peer.address.ip().is_loopback());

    // What the other side said reaches whoever asked.
    let other = lab.connector(lab.leaf("alice", "x://blue/user/alice"));
    let refused = ask(other).await.unwrap_err();
    assert!(refused.contains("does not take this side's certificate"), "{refused}");
    let stranger = Lab::named("another CA");
    let stranger = stranger.connector(stranger.leaf("db-1", "x://blue/host/db-1"));
    let refused = ask(stranger).await.unwrap_err();
    assert!(refused.contains("its certificate is from an authority (CA) that is not trusted"), "{refused}");
    assert!(seen.lock().unwrap().is_empty());
    served.abort();
}

#[tokio::test]
async fn plain_text_comes_the_same_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stand = Stand::of(Incoming::plain(listener, Limits::default()), address);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "\n");
    let peers = stand.peers.lock().unwrap();
    assert!(!peers[0].is_private && peers[0].certificate.is_none());
    assert_eq!(stand.open.load(Ordering::SeqCst), 0);
}

/// An error and all beneath it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut beneath = error.source();
    while let Some(error) = beneath {
        text = format!("{text}: {error}");
        beneath = error.source();
    }
    text
}
