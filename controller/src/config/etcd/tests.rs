//! What is taken, and what is said about the rest.

use std::fs::{self, Permissions};

use clap::Parser;
use tempfile::TempDir;

use super::*;

const CERTIFICATE_PEM: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
const KEY_PEM: &str = "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n";
const ETCD: &str = "etcd:http://a:2379";
const ETCD_TLS: &str = "etcd:https://a:2379";

#[derive(Debug, Parser)]
struct Only {
    #[command(flatten)]
    etcd: EtcdSettings,
}

#[test]
fn without_settings_the_store_is_as_it_was_named() {
    let files = Files::new();
    let StoreSpec::Etcd(options) = files.complete(ETCD, &[]).unwrap() else { panic!("not etcd") };
    assert_eq!((options.prefix.as_str(), options.fleet.as_str()), ("/fleetknock/", "blue"));
    assert!(options.user.is_none() && options.tls.is_none());
    assert_eq!(files.complete("embedded:/x", &[]).unwrap(), "embedded:/x".parse().unwrap());
}

#[test]
fn files_are_read_and_the_password_is_its_line() {
    let files = Files::new();
    for (password, read) in [("geheim\n", "geheim"), ("geheim\r\n", "geheim"), (" two words ", " two words ")]
    {
        files.write("password", password, 0o640);
        let flags = [
            "--etcd-ca=DIR/ca",
            "--etcd-cert=DIR/cert",
            "--etcd-key=DIR/key",
            "--etcd-user=knock",
            "--etcd-password-file=DIR/password",
            "--etcd-prefix=/ops/knock/",
        ];
        let StoreSpec::Etcd(options) = files.complete(ETCD_TLS, &flags).unwrap() else { panic!("not etcd") };
        assert_eq!(options.user, Some(("knock".to_owned(), read.to_owned())));
        assert_eq!(options.prefix, "/ops/knock/");
        let tls = options.tls.unwrap();
        assert_eq!(tls.authority_pem, CERTIFICATE_PEM.as_bytes());
        assert_eq!(tls.identity_pem, Some((CERTIFICATE_PEM.into(), KEY_PEM.into())));
    }
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let files = Files::new();
    files.write("two", "one\ntwo\n", 0o600);
    files.write("empty", "\n", 0o600);
    files.write("long", &"x".repeat(5000), 0o600);
    files.write("open", "geheim", 0o644);
    files.write("group", "geheim", 0o660);
    files.write("open-key", KEY_PEM, 0o604);
    let cases: [(&str, &[&str], &[&str]); 19] = [
        ("embedded:/x", &["--etcd-user=knock"], &["--etcd-user", "embedded:/x"]),
        ("embedded:/x", &["--etcd-prefix=/x/"], &["--etcd-prefix", "embedded:/x"]),
        (ETCD, &["--etcd-user=knock"], &["--etcd-user", "without --etcd-password-file"]),
        (ETCD, &["--etcd-password-file=DIR/open"], &["--etcd-password-file", "without --etcd-user"]),
        (ETCD_TLS, &["--etcd-ca=DIR/ca", "--etcd-cert=DIR/cert"], &["--etcd-cert", "without --etcd-key"]),
        (ETCD_TLS, &["--etcd-ca=DIR/ca", "--etcd-key=DIR/key"], &["--etcd-key", "without --etcd-cert"]),
        (ETCD_TLS, &["--etcd-cert=DIR/cert", "--etcd-key=DIR/key"], &["without --etcd-ca"]),
        (ETCD_TLS, &[], &["https://a:2379", "--etcd-ca"]),
        (ETCD, &["--etcd-ca=DIR/ca"], &["http://a:2379", "https"]),
        (ETCD_TLS, &["--etcd-ca=DIR/none"], &["--etcd-ca DIR/none", "No such file"]),
        (ETCD_TLS, &["--etcd-ca=DIR"], &["--etcd-ca DIR", "directory"]),
        (ETCD_TLS, &["--etcd-ca=DIR/key"], &["--etcd-ca DIR/key", "no certificate"]),
        (
            ETCD_TLS,
            &["--etcd-ca=DIR/ca", "--etcd-cert=DIR/cert", "--etcd-key=DIR/ca"],
            &["--etcd-key DIR/ca", "0644"],
        ),
        (
            ETCD_TLS,
            &["--etcd-ca=DIR/ca", "--etcd-cert=DIR/cert", "--etcd-key=DIR/open-key"],
            &["--etcd-key DIR/open-key", "0604", "0640"],
        ),
        (ETCD, &["--etcd-user=k", "--etcd-password-file=DIR/two"], &["DIR/two", "one line"]),
        (ETCD, &["--etcd-user=k", "--etcd-password-file=DIR/empty"], &["DIR/empty", "one line"]),
        (ETCD, &["--etcd-user=k", "--etcd-password-file=DIR/long"], &["DIR/long", "4096"]),
        (ETCD, &["--etcd-user=k", "--etcd-password-file=DIR/open"], &["DIR/open", "0644", "0640"]),
        (ETCD, &["--etcd-user=k", "--etcd-password-file=DIR/group"], &["DIR/group", "0660"]),
    ];
    for (store, flags, parts) in cases {
        let said = files.complete(store, flags).unwrap_err().to_string();
        for part in parts {
            assert!(said.contains(&files.place(part)), "{flags:?}: {said}");
        }
        assert!(!said.contains("geheim"), "{said}");
    }
}

#[test]
fn a_prefix_is_a_path_with_a_slash_at_both_ends() {
    let long = format!("--etcd-prefix=/{}/", "x".repeat(PREFIX_MAX));
    for bad in [
        "--etcd-prefix=",
        "--etcd-prefix=x/",
        "--etcd-prefix=/x",
        "--etcd-prefix=//",
        "--etcd-prefix=/ä/",
        &long,
    ] {
        let said = Only::try_parse_from(["x", bad]).unwrap_err().to_string();
        assert!(said.contains("--etcd-prefix") && said.contains("/fleetknock/"), "{said}");
    }
    for good in ["--etcd-prefix=/", "--etcd-prefix=/a/b/"] {
        Only::try_parse_from(["x", good]).unwrap();
    }
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("ca", CERTIFICATE_PEM, 0o644);
        files.write("cert", CERTIFICATE_PEM, 0o644);
        files.write("key", KEY_PEM, 0o600);
        files
    }

    fn write(&self, name: &str, content: &str, mode: u32) {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn place(&self, text: &str) -> String {
        text.replace("DIR", self.0.path().to_str().unwrap())
    }

    fn complete(&self, store: &str, flags: &[&str]) -> Result<StoreSpec, EtcdSettingsError> {
        let flags = flags.iter().map(|flag| self.place(flag));
        let settings = Only::try_parse_from([String::from("x")].into_iter().chain(flags)).unwrap();
        settings.etcd.complete(store.parse().unwrap(), "blue")
    }
}
