//! A host gets its certificate with a token and renews it, with a scripted controller on loopback that signs.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers fail as tests do; clippy only knows the functions marked as tests"
)]

mod certificate {
    pub(crate) mod office;
    pub(crate) mod volume;
}

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, SystemTime},
};

use fleetknock_agent::certificate::{enrol, renew::Warden};
use fleetknock_runtime::{exit, tls::Credentials};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use certificate::office::{Host, Manner, Office, TOKEN};

/// Longer than anything takes on a busy machine; nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_all_that_has_to_be_brought_to_a_host() {
    let office = Office::open().await;
    let host = office.host(&[]);
    enrol::when_needed(&host.settings, &host.files(), enrol::read_token(&host.settings)).await.unwrap();

    let material = host.files().load(SystemTime::now()).unwrap();
    assert_eq!(material.own.as_ref().unwrap().certificate.uris, ["fleetknock://blue/host/edge-1"]);
    assert_eq!(material.authorities_pem(), office.authorities());
    let mode = fs::metadata(host.path("tls.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(office.seen().tokens, [TOKEN]);
    let left: Vec<_> = fs::read_dir(host.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".next")), "{left:?}");

    // With it in place the token is not shown again, nor read.
    fs::remove_file(host.path("token")).unwrap();
    enrol::when_needed(&host.settings, &host.files(), enrol::read_token(&host.settings)).await.unwrap();
    assert_eq!(office.seen().tokens.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_waits_for_its_controllers_and_asks_whichever_is_there() {
    let (away, office) = (Office::closed().await, Office::open().await);
    let host = office.host(&[&away]);
    office.become_one(Manner::Away);
    let (settings, files) = (host.settings.clone(), host.files());
    let enrolling =
        tokio::spawn(
            async move { enrol::when_needed(&settings, &files, enrol::read_token(&settings)).await },
        );
    eventually("two rounds", || office.seen().tokens.len() >= 2).await;
    assert!(!enrolling.is_finished());
    office.become_one(Manner::Sign);
    tokio::time::timeout(PATIENCE, enrolling).await.unwrap().unwrap().unwrap();
    host.files().load(SystemTime::now()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_is_an_error_that_says_what_to_do() {
    let office = Office::open().await;
    let host = office.host(&[]);
    office.become_one(Manner::Refuse);
    let error = enrol::when_needed(&host.settings, &host.files(), enrol::read_token(&host.settings))
        .await
        .unwrap_err();
    assert_eq!(exit::code_of(&error), exit::NO_PERMISSION);
    let text = exit::error_line("agent", &error);
    for said in ["not enrolled", "the token is not known", "good once", "enroll-token --host edge-1"] {
        assert!(text.contains(said), "{text}");
    }
    assert!(!text.contains(TOKEN), "{text}");
    assert!(!host.path("tls.crt").exists() && !host.path("tls.key").exists());

    // Another one does, after that.
    office.become_one(Manner::Sign);
    enrol::when_needed(&host.settings, &host.files(), enrol::read_token(&host.settings)).await.unwrap();
    host.files().load(SystemTime::now()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clusters_token_is_read_for_each_try_and_a_refused_one_ends_nothing() {
    let office = Office::open().await;
    let token = |number: u32| format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", "A".repeat(1000 + number as usize));
    let (host, volume, _ca) = office.node(&token(1));
    office.become_one(Manner::Refuse);
    let (settings, files) = (host.settings.clone(), host.files());
    let enrolling =
        tokio::spawn(
            async move { enrol::when_needed(&settings, &files, enrol::read_token(&settings)).await },
        );
    eventually("the first token to be shown", || office.seen().tokens.contains(&token(1))).await;
    volume.swap("token", &token(2));
    eventually("the next token to be shown", || office.seen().tokens.contains(&token(2))).await;
    // What cannot be read for a moment is no loss.
    fs::remove_file(host.path("run/token")).unwrap();
    let shown = office.seen().tokens.len();
    eventually("the last one that was read to be shown again", || office.seen().tokens.len() > shown).await;
    assert!(!enrolling.is_finished());
    office.become_one(Manner::Sign);
    tokio::time::timeout(PATIENCE, enrolling).await.unwrap().unwrap().unwrap();
    host.files().load(SystemTime::now()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_that_the_cluster_keeps_are_used_and_never_written() {
    let office = Office::open().await;
    let (host, _token, ca) = office.node("eyJhbGciOiJSUzI1NiJ9.e30.c2ln");
    let before = office.authorities();
    office.trust_another();
    office.sign_as_of(Duration::from_secs(700));
    enrol::when_needed(&host.settings, &host.files(), enrol::read_token(&host.settings)).await.unwrap();
    let watched = host.watch();
    eventually("two renewals", || office.seen().renewals.len() >= 2).await;
    assert_eq!(fs::read_to_string(host.path("ca/ca.crt")).unwrap(), before);
    let real = fs::canonicalize(host.path("ca/ca.crt")).unwrap();
    assert_eq!(fs::read_dir(real.parent().unwrap()).unwrap().count(), 1, "nothing lies beside it");
    // The cluster brings them.
    ca.swap("ca.crt", &office.authorities());
    eventually("two authorities", || watched.credentials.current().authorities.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_another_host_does_not_make_this_one_that() {
    let office = Office::open().await;
    let host = office.host(&[]);
    office.become_one(Manner::SignForAnother);
    let error = enrol::when_needed(&host.settings, &host.files(), enrol::read_token(&host.settings))
        .await
        .unwrap_err();
    let text = exit::error_line("agent", &error);
    assert!(text.contains("that of host edge-2, and host edge-1 is expected"), "{text}");
    assert!(text.contains("the token is spent"), "{text}");
    assert!(!host.path("tls.crt").exists() && !host.path("tls.key").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_shown_the_token_whom_the_authorities_do_not_vouch_for() {
    let (office, impostor) = (Office::open().await, Office::open().await);
    // The authorities are those of the one, and the address is that of the other.
    let host = impostor.host(&[]);
    fs::write(host.path("token"), format!("{TOKEN}\n{}", office.authorities())).unwrap();
    let (settings, files) = (host.settings.clone(), host.files());
    let enrolling =
        tokio::spawn(
            async move { enrol::when_needed(&settings, &files, enrol::read_token(&settings)).await },
        );
    eventually("two tries", || impostor.turned_away() >= 2).await;
    assert!(!enrolling.is_finished());
    assert!(impostor.seen().tokens.is_empty());
    enrolling.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_before_its_end_without_a_restart() {
    let office = Office::open().await;
    let host = office.host(&[]);
    // Seven tenths of their lives are over: each is renewed at once.
    office.sign_as_of(Duration::from_secs(700));
    enrol::when_needed(&host.settings, &host.files(), enrol::read_token(&host.settings)).await.unwrap();
    let first_key = fs::read(host.path("tls.key")).unwrap();
    let watched = host.watch();
    eventually("three renewals", || office.seen().renewals.len() >= 3).await;
    office.sign_as_of(Duration::ZERO);
    eventually("one that lasts", || {
        let own = watched.credentials.current().own.clone().unwrap();
        own.certificate.remaining(SystemTime::now()) > Duration::from_secs(900)
    })
    .await;
    assert!(office.seen().renewals.iter().all(|uris| *uris == ["fleetknock://blue/host/edge-1"]));
    assert_ne!(fs::read(host.path("tls.key")).unwrap(), first_key, "each has a key of its own");
    let mode = fs::metadata(host.path("tls.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // What is in use is what lies in the files.
    let on_disk = host.files().load(SystemTime::now()).unwrap().own.unwrap().certificate;
    assert_eq!(watched.credentials.current().own.clone().unwrap().certificate, on_disk);
    assert_eq!(watched.credentials.failure(), None);
    let metrics = watched.metrics();
    assert!(metrics.contains("certificate_renewal_failures_total 0"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_told_when_it_does_not_come_and_it_is_tried_on() {
    let office = Office::open().await;
    let host = office.host(&[]);
    // A tenth of its life is left.
    office.sign_as_of(Duration::from_secs(900));
    enrol::when_needed(&host.settings, &host.files(), enrol::read_token(&host.settings)).await.unwrap();
    office.become_one(Manner::Away);
    let watched = host.watch();
    let said = || watched.notice.borrow().clone().unwrap_or_default();
    eventually("a word to operators", || said().contains("cannot be renewed: ")).await;
    assert!(said().contains("not now"), "{}", said());
    eventually("a failure that is counted", || {
        !watched.metrics().contains("certificate_renewal_failures_total 0")
    })
    .await;
    office.sign_as_of(Duration::ZERO);
    office.become_one(Manner::Sign);
    eventually("silence again", || watched.notice.borrow().is_none()).await;
    assert!(watched.metrics().contains("certificate_renewals_total 1"), "{}", watched.metrics());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_authorities_come_with_the_next_certificate() {
    let office = Office::open().await;
    let host = office.host(&[]);
    office.sign_as_of(Duration::from_secs(700));
    enrol::when_needed(&host.settings, &host.files(), enrol::read_token(&host.settings)).await.unwrap();
    office.trust_another();
    let watched = host.watch();
    eventually("two authorities", || watched.credentials.current().authorities.len() == 2).await;
    assert_eq!(fs::read_to_string(host.path("ca.crt")).unwrap(), office.authorities());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_something_else_renews_are_left_alone() {
    let office = Office::open().await;
    let mut host = office.host(&[]);
    office.sign_as_of(Duration::from_secs(700));
    enrol::when_needed(&host.settings, &host.files(), enrol::read_token(&host.settings)).await.unwrap();
    host.settings.enroll_token = None;
    let before = fs::read(host.path("tls.crt")).unwrap();
    let watched = host.watch();
    // Whoever renews: the warden looks after what lies there now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(office.seen().renewals.is_empty());
    assert_eq!(fs::read(host.path("tls.crt")).unwrap(), before);
    drop(watched);
}

/// A warden at work, as in an agent that runs.
struct Watched {
    credentials: Credentials,
    notice: watch::Receiver<Option<String>>,
    registry: prometheus_client::registry::Registry,
    stop: CancellationToken,
}

impl Watched {
    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Host {
    fn watch(&self) -> Watched {
        let credentials = Credentials::load(self.files()).unwrap();
        let (said, notice) = watch::channel(None);
        let warden = Warden::new(&self.settings, credentials.clone(), self.files(), said);
        let mut registry = prometheus_client::registry::Registry::default();
        warden.metrics().register(&mut registry);
        let stop = CancellationToken::new();
        tokio::spawn(credentials.clone().follow(Duration::from_millis(20), stop.clone()));
        tokio::spawn(warden.run(stop.clone()));
        Watched { credentials, notice, registry, stop }
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}
