//! Wrong files are told with their name, their fault and a remedy; followed files change only when they are good.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::tls::{
    OwnFiles, UriRule,
    authority::{Access, Authority, PrivateKey, Staged},
    tests::lab::{DAY, Lab},
};

#[test]
fn each_fault_of_a_file_is_told() {
    let lab = Lab::new();
    let good = || lab.leaf("a", "x://a");
    let write = |name: &str, text: &str| {
        Staged::new(&lab.path(name), text, Access::Owner).unwrap().commit().unwrap();
    };
    let load = |files: Files| Credentials::load(files).unwrap_err().to_string();
    let told = |error: String, file: &str, words: &str| {
        assert!(error.contains(&lab.path(file).display().to_string()), "{error} does not name {file}");
        assert!(error.contains(words), "{error} does not say {words}");
    };

    let files = lab.files(good());
    fs::remove_file(lab.path("a.key")).unwrap();
    told(load(files), "a.key", "cannot read");
    let files = lab.files(good());
    write("a.crt", "nothing");
    told(load(files), "a.crt", "it holds no certificate (-----BEGIN CERTIFICATE-----)");
    let files = lab.files(good());
    write("a.crt", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    told(load(files), "a.crt", "no certificate can be read");
    let files = lab.files(good());
    write("a.key", "nothing");
    told(load(files), "a.key", "it holds no private key");
    let files = lab.files(good());
    write("a.key", PrivateKey::generate().unwrap().pem());
    told(load(files), "a.key", "does not belong to the certificate in");
    let files = lab.files(good());
    fs::set_permissions(lab.path("a.key"), fs::Permissions::from_mode(0o644)).unwrap();
    told(
        load(files),
        "a.key",
        "everybody on this machine may use this private key (mode 644); chmod it to 600",
    );
    let files = lab.files(good());
    fs::set_permissions(lab.path("a.key"), fs::Permissions::from_mode(0o440)).unwrap();
    assert!(Credentials::load(files).is_ok(), "a group may: Kubernetes gives secrets to one");

    let expired = lab.leaf_at("old", "x://a", |order| order.valid_for = DAY, lab.now - 2 * DAY);
    told(load(lab.files(expired)), "old.crt", "the certificate expired at 20");
    let early = lab.leaf_at("early", "x://a", |_| {}, lab.now + DAY);
    told(load(lab.files(early)), "early.crt", "and this machine's clock says");
    let rule = UriRule::new(|_| Err("this is host b".to_owned()));
    told(load(lab.files(OwnFiles { rule, ..good() })), "a.crt", "of 'x://a' does not fit: this is host b");
    let own_is_authority = OwnFiles { certificate: lab.path("ca.crt"), ..good() };
    told(
        load(lab.files(own_is_authority)),
        "ca.crt",
        "is an authority's; put the program's own certificate first",
    );

    let no_authority = Files { own: Some(good()), authorities: vec![lab.path("a.crt")] };
    told(load(no_authority), "a.crt", "is no authority (CA)");
    let (over, _) = Authority::create("over", "x://ca", DAY, lab.now - 2 * DAY).unwrap();
    write("over.crt", over.pem());
    told(load(Files { own: None, authorities: vec![lab.path("over.crt")] }), "over.crt", "is left out");
    assert!(load(Files { own: None, authorities: vec![] }).contains("there is no authority to trust"));
    write("long", &"x".repeat((1 << 20) + 1));
    told(load(Files { own: None, authorities: vec![lab.path("long")] }), "long", "this is another file");

    // Beside a good one, one that is over is only warned about.
    write("both.crt", &[over.pem(), lab.authority.pem()].concat());
    let both = Credentials::load(Files { own: None, authorities: vec![lab.path("both.crt")] }).unwrap();
    assert_eq!((both.current().authorities.len(), both.current().warnings.len()), (1, 1));
    assert!(both.current().warnings[0].contains("'CN=over' is valid from"), "{:?}", both.current().warnings);
}

#[test]
fn only_what_was_read_twice_counts() {
    let lab = Lab::new();
    let credentials = Credentials::load(lab.files(lab.leaf("a", "x://a"))).unwrap();
    let serial = || credentials.current().own.as_ref().unwrap().certificate.serial.clone();
    let first = serial();
    // The certificate is there already, its key not yet.
    let key = fs::read(lab.path("a.key")).unwrap();
    lab.leaf("a", "x://a");
    let new_key = fs::read(lab.path("a.key")).unwrap();
    fs::write(lab.path("a.key"), key).unwrap();
    credentials.look(lab.now);
    assert_eq!((serial(), credentials.failure()), (first.clone(), None));
    fs::write(lab.path("a.key"), new_key).unwrap();
    credentials.look(lab.now);
    assert_eq!(serial(), first);
    credentials.look(lab.now);
    assert_ne!(serial(), first);
    assert_eq!(credentials.failure(), None);
    assert!(!credentials.reload().unwrap());
}

#[test]
fn a_fault_is_counted_once_and_forgotten_when_it_is_gone() {
    let lab = Lab::new();
    let credentials = Credentials::load(lab.files(lab.leaf("a", "x://a"))).unwrap();
    let mut registry = Registry::default();
    credentials.register(&mut registry);
    let metric = |line: &str| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains(line), "{line} is not in {text}");
    };
    let good = fs::read(lab.path("a.crt")).unwrap();
    fs::remove_file(lab.path("a.crt")).unwrap();
    for _ in 0..4 {
        credentials.look(lab.now);
    }
    assert!(credentials.failure().unwrap().contains("cannot read"));
    metric("tls_reload_failures_total 1\n");
    metric("tls_files_broken 1\n");
    assert!(credentials.reload().is_err());
    fs::write(lab.path("a.crt"), good).unwrap();
    assert!(!credentials.reload().unwrap());
    assert_eq!(credentials.failure(), None);
    metric("tls_files_broken 0\n");
    metric("tls_reloads_total 0\n");
    let end = credentials.current().own.as_ref().unwrap().certificate.not_after;
    let seconds = end.duration_since(UNIX_EPOCH).unwrap().as_secs();
    metric(&format!("tls_certificate_end_timestamp_seconds {seconds}.0\n"));
}

#[test]
fn an_authority_that_ends_meanwhile_is_left_out() {
    let lab = Lab::new();
    let (short, _) = Authority::create("short", "x://ca", DAY, lab.now).unwrap();
    fs::write(lab.path("both.crt"), [short.pem(), lab.authority.pem()].concat()).unwrap();
    let credentials =
        Credentials::load(Files { own: None, authorities: vec![lab.path("both.crt")] }).unwrap();
    assert_eq!(credentials.current().authorities.len(), 2);
    credentials.look(lab.now + DAY / 2);
    assert_eq!(credentials.current().authorities.len(), 2);
    credentials.look(lab.now + 2 * DAY);
    assert_eq!(credentials.current().authorities.len(), 1);
    let mut changes = credentials.subscribe();
    changes.mark_unchanged();
    credentials.look(lab.now + 3 * DAY);
    assert!(!changes.has_changed().unwrap());
}
