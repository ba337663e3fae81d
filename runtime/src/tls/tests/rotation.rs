//! Files are replaced while a server runs.

use std::{fs, sync::atomic::Ordering, time::Duration};

use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use super::{
    super::{Clients, Credentials, Limits, UriRule},
    lab::{DAY, Lab, Stand, eventually, only, talk},
};

const EVERY: Duration = Duration::from_millis(20);

#[tokio::test]
async fn new_connections_get_the_new_certificate() {
    let lab = Lab::new();
    let (server, stand) = followed(&lab);
    let host = lab.connector(lab.leaf("db-1", "x://blue/host/db-1"));
    let serial = async || host.connect(&stand.uri()).await.unwrap().server().unwrap().serial;
    let before = serial().await;
    lab.leaf("c-1", "x://blue/controller/c-1");
    eventually(|| (server.current().own.as_ref().unwrap().certificate.serial != before).then_some(())).await;
    assert_ne!(serial().await, before);

    // A broken file changes nothing, and is known.
    let good = serial().await;
    fs::write(lab.path("c-1.crt"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    let failure = eventually(|| server.failure()).await;
    assert!(failure.contains("c-1.crt: no certificate can be read"), "{failure}");
    assert_eq!(serial().await, good);
    assert!(talk(&host, stand.address).await.is_ok());
    lab.leaf("c-1", "x://blue/controller/c-1");
    eventually(|| server.failure().is_none().then_some(())).await;
    assert_ne!(serial().await, good);
}

#[tokio::test]
async fn authorities_overlap_while_they_change_and_then_the_old_one_is_out() {
    let (old, new) = (Lab::new(), Lab::new());
    let (server, stand) = followed(&old);
    let trusting_both = |lab: &Lab, other: &Lab| {
        let mut files = lab.files(lab.leaf("db-1", "x://blue/host/db-1"));
        files.authorities.push(other.path("ca.crt"));
        let expected = super::super::Expected::Uri(only("/controller/"));
        super::super::Connector::new(Credentials::load(files).unwrap(), expected)
    };
    let (before, after) = (trusting_both(&old, &new), trusting_both(&new, &old));
    assert!(talk(&before, stand.address).await.is_ok());
    assert!(talk(&after, stand.address).await.is_err());

    let both = [old.authority.pem(), new.authority.pem()].concat();
    fs::write(old.path("ca.crt"), both).unwrap();
    eventually(|| (server.current().authorities.len() == 2).then_some(())).await;
    assert!(talk(&before, stand.address).await.is_ok());
    assert!(talk(&after, stand.address).await.is_ok());
    let mut long = before.connect(&stand.uri()).await.unwrap();
    let mut kept = after.connect(&stand.uri()).await.unwrap();
    let mut line = [0; 19];
    long.read_exact(&mut line).await.unwrap();
    kept.read_exact(&mut line).await.unwrap();

    // Explicitly this time: only the new one counts, and who came with the old one goes.
    fs::write(old.path("ca.crt"), new.authority.pem()).unwrap();
    server.reload().unwrap();
    let end = tokio::time::timeout(Duration::from_secs(5), long.read(&mut line)).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert!(talk(&before, stand.address).await.is_err());
    assert!(talk(&after, stand.address).await.is_ok());
    let still = tokio::time::timeout(Duration::from_millis(100), kept.read(&mut line)).await;
    assert!(still.is_err(), "{still:?}");
    eventually(|| stand.metrics().contains("tls_sessions_ended_total 1\n").then_some(())).await;
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let lab = Lab::new();
    let (_server, stand) = followed(&lab);
    let short = |order: &mut super::super::authority::Order| order.valid_for = DAY + Duration::from_secs(3);
    let host = lab.connector(lab.leaf_at("db-1", "x://blue/host/db-1", short, lab.now - DAY));
    let mut stream = host.connect(&stand.uri()).await.unwrap();
    let mut said = vec![];
    let end = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut said)).await.unwrap();
    assert!(end.is_ok() || !said.is_empty(), "{end:?}");
    assert_eq!(said, b"x://blue/host/db-1\n");
    eventually(|| (stand.open.load(Ordering::SeqCst) == 0).then_some(())).await;
    assert!(stand.metrics().contains("tls_sessions_ended_total 1\n"), "{}", stand.metrics());
}

/// A server whose files are looked at all the time.
fn followed(lab: &Lab) -> (Credentials, Stand) {
    let files = lab.files(lab.leaf("c-1", "x://blue/controller/c-1"));
    let credentials = Credentials::load(files).unwrap();
    tokio::spawn(credentials.clone().follow(EVERY, CancellationToken::new()));
    let clients = Clients::Required(UriRule::anybody());
    (credentials.clone(), Stand::new(credentials, clients, Limits::default()))
}
