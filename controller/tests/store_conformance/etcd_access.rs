//! The store in an etcd that it shares: with other fleets, as a user with rights on its own keys only, and over TLS.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use fleetknock_controller::config::Settings;
use fleetknock_controller::store::{Changes, EtcdOptions, StoreError, StoreSpec};
use tempfile::TempDir;
use tokio::{task, time};

use crate::certificates::Authority;
use crate::etcd::{Fixture, open};
use crate::etcd_server::Cluster;
use crate::support::*;

#[tokio::test]
async fn fleets_do_not_see_each_other() {
    let fixture = Fixture::new().await;
    let fleet =
        |name: &str| open(EtcdOptions { fleet: name.to_owned(), ..EtcdOptions::new(fixture.cluster.urls()) });
    let (one, other) = (fleet("a"), fleet("a-b"));
    let mut watch = one.watch("", 0).await.unwrap();
    set(&other, [put("x", "other")]).await;
    let mine = set(&one, [put("x", "one")]).await;
    assert_eq!(value(&one, "x").await.unwrap(), "one");
    assert_eq!(keys(&other, "").await, ["x"]);
    assert_eq!(next(&mut watch).await.unwrap(), Changes { revision: mine, changes: vec![put("x", "one")] });
}

#[tokio::test]
async fn what_others_wrote_under_the_prefix_is_named() {
    let mut fixture = Fixture::new().await;
    let store = fixture.store().clone();
    let mut watch = store.watch("", revision(&store).await).await.unwrap();
    // Base64 of /fleetknock/default/doors/x and of "by hand".
    fixture
        .server()
        .call("/v3/kv/put", r#"{"key":"L2ZsZWV0a25vY2svZGVmYXVsdC9kb29ycy94","value":"YnkgaGFuZA=="}"#);
    let errors = [store.get("doors/x").await.err(), store.list("").await.err(), next(&mut watch).await.err()];
    for error in errors {
        assert!(matches!(&error, Some(StoreError::Broken(why)) if why.contains("doors/x")), "{error:?}");
    }
}

#[tokio::test]
async fn a_user_logs_in_and_stays_in() {
    let mut fixture = Fixture::new().await;
    fixture.server().turn_authentication_on("/fleetknock/default/");
    let user = |password: &str| Some(("knock".to_owned(), password.to_owned()));
    let options = EtcdOptions::new(fixture.cluster.urls());

    let wrong = open(EtcdOptions { user: user("wrong"), ..options.clone() }).probe().await.unwrap_err();
    assert!(matches!(&wrong, StoreError::Unavailable(why) if why.contains("user and password")), "{wrong}");
    let nobody = open(options.clone()).probe().await.unwrap_err();
    assert!(matches!(nobody, StoreError::Unavailable(_)), "{nobody}");
    let elsewhere = EtcdOptions { user: user("right"), fleet: "other".to_owned(), ..options.clone() };
    let elsewhere = open(elsewhere).probe().await.unwrap_err();
    assert!(matches!(&elsewhere, StoreError::Unavailable(why) if why.contains("grant")), "{elsewhere}");

    let store = open(EtcdOptions { user: user("right"), ..options });
    let first = set(&store, [put("a", "1")]).await;
    // The token lives for 2 s.
    time::sleep(Duration::from_millis(3500)).await;
    let mut watch = store.watch("", first).await.unwrap();
    let second = set(&store, [put("a", "2")]).await;
    assert_eq!(next(&mut watch).await.unwrap().revision, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_reaches_etcd_over_tls_as_a_user_of_its_own_prefix_only() {
    let files = Files::new();
    let directory = files.0.path().to_owned();
    let mut cluster = task::spawn_blocking(move || Cluster::start_secure(&directory)).await.unwrap();
    let server = &mut cluster.members[0];
    server.turn_authentication_on("/ops/knock/blue/");
    let url = server.secure_url();
    let tls = ["--etcd-ca=DIR/ca.pem", "--etcd-cert=DIR/client.pem", "--etcd-key=DIR/client.key"];
    let user = ["--etcd-user=knock", "--etcd-password-file=DIR/password"];
    let place = ["--etcd-prefix=/ops/knock/", "--fleet=blue"];

    let store = files.open(&url, &[&tls[..], &user, &place].concat());
    store.probe().await.unwrap();
    let start = store.list("").await.unwrap().revision;
    let mut watch = store.watch("", start).await.unwrap();
    let lease = store.lease(Duration::from_secs(600)).await.unwrap().id;
    let bound = bind(&store, lease, [expect("member/a", 0)], [put("member/a", "1")]).await.unwrap();
    assert_eq!(
        next(&mut watch).await.unwrap(),
        Changes { revision: bound, changes: vec![put("member/a", "1")] }
    );
    assert!(store.keep_alive(lease).await.unwrap().is_some());
    commit(&store, [expect("member/a", bound)], [put("a", "1")]).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(keys(&store, "").await, ["a"]);

    let missing_certificate = [&tls[..1], &user, &place].concat();
    let foreign_authority = [&["--etcd-ca=DIR/foreign.pem"], &tls[1..], &user, &place].concat();
    let foreign_certificate =
        [&tls[..1], &["--etcd-cert=DIR/foreign.pem", "--etcd-key=DIR/foreign.key"], &user, &place].concat();
    let elsewhere = [&tls[..], &user, &["--fleet=blue"]].concat();
    let nobody = [&tls[..], &place].concat();
    for (flags, about) in [
        (missing_certificate, "--etcd-cert"),
        (foreign_authority, "UnknownIssuer"),
        (foreign_certificate, "--etcd-cert"),
        (elsewhere, "grant"),
        (nobody, "user"),
    ] {
        let refused = files.open(&url, &flags).probe().await.unwrap_err();
        assert!(
            matches!(&refused, StoreError::Unavailable(why) if why.contains(&url) && why.contains(about)),
            "{flags:?}: {refused}"
        );
    }
}

/// What an operator would put into files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
        ours.write(directory.path(), "ca");
        ours.issue(directory.path(), "server");
        ours.issue(directory.path(), "client");
        foreign.write(directory.path(), "foreign");
        write_secret(&directory.path().join("password"), "right\n");
        Self(directory)
    }

    fn open(&self, url: &str, flags: &[&str]) -> Shared {
        let directory = self.0.path().to_str().unwrap();
        let flags = flags.iter().map(|flag| flag.replace("DIR", directory));
        let first = ["fleetknock-controller".to_owned(), format!("--store=etcd:{url}")];
        match Settings::parse_from(first.into_iter().chain(flags)).store_of_fleet().unwrap() {
            StoreSpec::Etcd(options) => open(options),
            other => panic!("{other}"),
        }
    }
}

pub(crate) fn write_secret(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}
